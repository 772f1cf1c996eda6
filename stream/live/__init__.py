"""A live picture: its source, its session, and its sinks."""
