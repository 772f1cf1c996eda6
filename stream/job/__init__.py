"""One file or one folder restored, and the Python interface to that."""
