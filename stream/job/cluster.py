"""The connection to a Ray cluster. Nobody else connects, so that all work uses the same safe options."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import socket
import threading
from types import TracebackType
from typing import Any, Self

from stream.errors import ClusterError

NAMESPACE = "gpen-stream"
"""Namespace of all actors of this program in a cluster."""
_STORE_BYTES = 100 * 2**20
"""Size of a local cluster's object store. Only paths and small messages go through it, never frames; Ray's
own choice would be 30 % of the memory."""
_REACH_S = 5.0
"""Longest wait for a TCP connection to the given address."""
_ADDRESS = re.compile(r"(?:ray://)?(?P<host>\[[0-9A-Fa-f:]+\]|[^\s:/]+):(?P<port>\d{1,5})")
_BUSY = "Initialization failure from server"
"""Ray's words where the head did not start a client's process in time, as it may happen on a busy machine."""
_ATTEMPTS = 3
"""Number of attempts to connect to a head that is busy."""
_LOCK = threading.Lock()


class ClusterConnection:
    """The connection of a process to a cluster; a context manager."""

    def __init__(self, address: str, started: bool) -> None:
        self.address = address
        self.started = started
        """Whether the cluster was started by this process, and ends with it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the cluster; one that was started by this process ends."""
        import ray

        with _LOCK:
            ray.shutdown()


def connect(address: str, wanted_by: str) -> ClusterConnection:
    """Connect this process to a cluster.

    `address`: `ray://HOST:PORT` of a cluster's client port; `HOST:PORT` or `auto` on a machine of the
    cluster; `local` for a new cluster on this machine that only this machine reaches; `ray` for the
    cluster of this machine or, if there is none, a new one. `wanted_by`: what error messages begin with.

    Ray's own variables of the environment hold, among them RAY_AUTH_MODE and RAY_AUTH_TOKEN. Raises
    ClusterError if Ray is not installed, the cluster cannot be reached, or its versions differ.
    """
    if importlib.util.find_spec("ray") is None:
        raise ClusterError(f"{wanted_by} needs Ray; install it with pip install 'gpen-stream[cluster]'")
    _check_reachable(address, wanted_by)
    with _LOCK:
        if address != "ray":
            return _connect(address, wanted_by)
        try:
            return _connect("auto", wanted_by)
        except ClusterError:
            return _connect("local", wanted_by)


def _check_reachable(address: str, wanted_by: str) -> None:
    """Raise ClusterError if the address is wrong or nobody listens there; Ray would try for half a minute."""
    if address in ("auto", "local", "ray"):
        return
    match = _ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise ClusterError(
            f"{wanted_by} {address}: is no address of a cluster; write ray://HOST:10001, HOST:6379 or auto"
        )
    try:
        socket.create_connection((match["host"].strip("[]"), int(match["port"])), _REACH_S).close()
    except OSError as error:
        reason = (error.strerror or str(error) or type(error).__name__).lower()
        raise ClusterError(
            f"{wanted_by} {address}: cannot be reached ({reason}); does ray start --head run there?"
        ) from None


def _connect(address: str, wanted_by: str) -> ClusterConnection:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    options: dict[str, Any] = {"namespace": NAMESPACE, "log_to_driver": False}
    logging.getLogger("ray").setLevel(logging.ERROR)
    if not address.startswith("ray://"):
        options["logging_level"] = logging.ERROR
        options["configure_logging"] = True
    if address == "local":
        options |= {
            "include_dashboard": False, "object_store_memory": _STORE_BYTES, "_node_ip_address": "127.0.0.1",
        }  # fmt: skip
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            ray.init(address=address, **options)
            break
        except Exception as error:  # Ray raises errors of many kinds, also those of gRPC
            ray.shutdown()
            if attempt == _ATTEMPTS or _BUSY not in str(error):
                raise ClusterError(f"{wanted_by} {address}: {_reason(error)}") from None
    return ClusterConnection(address, address == "local")


def _reason(error: Exception) -> str:
    """Why Ray could not connect, in one line."""
    text = " ".join(str(error).split())
    if "ersion mismatch" in text:
        versions = re.findall(r"(Ray|Python): (\d[\w.]*)", text)
        found = ", ".join(f"{name} {version}" for name, version in dict.fromkeys(versions))
        return (
            f"its versions differ from this machine's ({found}); install the same Ray and Python everywhere"
        )
    if "uthentication" in text or "UNAUTHENTICATED" in text:
        return "the cluster asks for a token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN as on its machines"
    if _BUSY in text:
        return "the head could not start a process for this client; see ray_client_server*.err in its logs"
    if "Could not find any running Ray instance" in text:
        return "no cluster runs on this machine; run ray start, or name its address"
    return f"cannot be joined ({text[:200]})"
