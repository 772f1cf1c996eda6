"""One restorer for all cameras: a process of its own that runs the network, and the engine that asks it.

Crops and restored pictures lie in memory that both sides map; over a Unix socket goes one short line
of JSON each way. The socket lies in a folder that only this user may enter.
"""

from stream.shared.client import RemoteEngine
from stream.shared.lines import Place, available
from stream.shared.server import run_restorer

__all__ = ["Place", "RemoteEngine", "available", "run_restorer"]
