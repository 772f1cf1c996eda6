"""One restorer for all cameras: a process that runs the networks, and the engine by which a camera calls it.

Crops and restored pictures lie in memory that both sides map. A Unix socket carries one short line of
JSON in each direction per call. The socket lies in a folder that only this user may enter.
"""
