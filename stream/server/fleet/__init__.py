"""Cameras on the nodes of a cluster: leased by a coordinator, run by one supervisor on each node."""
