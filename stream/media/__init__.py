"""Video and picture files: read, probed, encoded, and every other stream copied."""
