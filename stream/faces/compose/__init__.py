"""Masks restored crops and adds them to the frame."""
