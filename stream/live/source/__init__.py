"""Sources of live pictures: cameras, streams, devices, and the test pattern."""
