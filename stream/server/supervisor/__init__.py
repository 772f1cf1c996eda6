"""Supervision of many cameras, each in its own process, and of the one process that restores for all."""
