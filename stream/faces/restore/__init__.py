"""From a face in the picture to its restored crop."""
