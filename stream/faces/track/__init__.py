"""Follows faces from frame to frame, and between detections by optical flow."""
