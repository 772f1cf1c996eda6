"""Which face is which from frame to frame, and where it is between two detections."""
