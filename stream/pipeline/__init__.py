"""Stages in threads with bounded channels between them; meters, processes and the sharing of CPU cores."""
