"""Crops the faces of a frame, and restores the crops."""
