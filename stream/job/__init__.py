"""Files and folders restored: the runs, and the Python interface to them."""
