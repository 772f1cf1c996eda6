"""Segments of a plan restored one after the other, and kept on disk until the video is whole."""
