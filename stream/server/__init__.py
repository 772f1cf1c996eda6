"""Many cameras on one machine: supervised, restored by one process, and shown in a browser."""
