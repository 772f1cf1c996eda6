"""The process of an actor: what Ray sets for its workers, and what cameras must not inherit."""

from __future__ import annotations

import contextlib
import os
import sys

from stream.server.events import log_to_stderr


def prepare_process() -> None:
    """Undo Ray's settings for workers; the log goes to stderr, which Ray keeps for each process.

    Workers are niced to 15: on a busy machine renewals would come late. Only root can undo it; others set
    RAY_worker_niceness=0 for `ray start`. Their main module imports Ray, and every process that is spawned
    here would import it again, which takes a second. OMP_NUM_THREADS is set to 1 for actors without CPUs.
    """
    log_to_stderr()
    main = sys.modules["__main__"]
    if hasattr(main, "__file__"):
        del main.__file__
    with contextlib.suppress(OSError, AttributeError):
        for thread in os.listdir("/proc/self/task"):
            os.setpriority(os.PRIO_PROCESS, int(thread), 0)
    os.environ.pop("OMP_NUM_THREADS", None)
