"""Where live pictures come from: cameras, streams, devices, and the test pattern."""
