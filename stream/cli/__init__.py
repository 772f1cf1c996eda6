"""The commands of `gpen-stream`."""
