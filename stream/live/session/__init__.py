"""A live session: what runs between a source and its sinks, and how it keeps up with the source."""
