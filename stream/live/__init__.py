"""Live video: its sources, the session that restores it, and its sinks."""
