"""Where the segments of a plan are restored: in this process, or on a cluster."""
