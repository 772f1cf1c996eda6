"""The plan of a long video: its segments, and what must not change while they are restored."""
