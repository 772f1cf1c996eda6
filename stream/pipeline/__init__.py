"""Stages in threads with bounded channels between them, their meters, and the processes of the product."""
