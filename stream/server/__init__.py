"""Many cameras on one machine: one process for each, one that restores all of them, and a dashboard."""
