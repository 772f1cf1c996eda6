"""Where faces are in one picture."""
