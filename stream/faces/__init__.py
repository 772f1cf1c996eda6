"""Faces from detection to the picture that they are put back into."""
