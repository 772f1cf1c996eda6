"""Comparison of two videos or pictures: figures, a self-contained page, a contact sheet and a video."""
