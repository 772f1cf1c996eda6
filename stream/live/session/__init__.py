"""What runs between a live source and its sinks, and how it keeps up."""
