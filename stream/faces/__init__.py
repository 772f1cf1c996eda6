"""Finds, tracks, restores and composes the faces of a frame."""
