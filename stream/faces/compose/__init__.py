"""From restored crops back to the picture."""
