"""One restorer for all cameras: a process of its own that runs the network, and the engine that asks it.

Crops and restored pictures lie in memory that both sides map; over a Unix socket goes one short line
of JSON each way. The socket lies in a folder that only this user may enter.
"""

from stream.server.restorer_service.protocol import RestorerAddress, available
from stream.server.restorer_service.remote_engine import RemoteEngine
from stream.server.restorer_service.service import run_restorer

__all__ = ["RemoteEngine", "RestorerAddress", "available", "run_restorer"]
