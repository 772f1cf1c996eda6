"""How many cores this process may use, and how its thread pools share them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

_DECODER_CORES, _DECODER_MOST = 4, 4
_DETECTOR_CORES, _DETECTOR_MOST = 2, 8
_ENCODER_CORES, _ENCODER_MOST = 1, 16
"""Cores for each thread, and the most threads that help; `budget` gives the reasons."""


def available_cores(root: Path = Path("/")) -> int:
    """Cores that this process may use, at least 1: those of its affinity, limited by its CPU quota.

    A quota of 1.5 cores counts as 2, because one thread would leave a third of it unused. `root` is the
    folder that holds `/proc` and `/sys`.
    """
    known = hasattr(os, "sched_getaffinity")  # Linux
    cores = len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1
    quota = cpu_quota(root)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """The least CPU quota, in cores, of this process's cgroups and of their parents; None without any.

    A parent's quota can be less than that of the process's own group. Version 2 keeps "quota period" in
    `cpu.max`; version 1 keeps them in two files (Linux, Documentation/admin-guide/cgroup-v2.rst and
    scheduler/sched-bwc.rst).
    """
    quotas = [quota for folder in _cpu_groups(root) if (quota := _quota_of(folder)) is not None]
    return min(quotas, default=None)


def _cpu_groups(root: Path) -> Iterator[Path]:
    """Folders of the cgroups that can hold a CPU quota for this process: its own groups and all parents."""
    own: dict[str, PurePosixPath] = {}
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        for name in controllers.split(","):  # empty in version 2
            own[name] = PurePosixPath(path)
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        controller = "" if kind == "cgroup2" else "cpu"
        if kind not in ("cgroup", "cgroup2") or controller not in own:
            continue
        if kind == "cgroup" and "cpu" not in options.split(","):
            continue
        top, mount_point = before.split(" ")[3:5]
        # In a container the group may be the top of the mount although its path is the host's.
        group = own[controller]
        inside = group.relative_to(top) if group.is_relative_to(top) else PurePosixPath()
        mount = root / mount_point.lstrip("/")
        for folder in (inside, *inside.parents):
            yield mount / folder


def _quota_of(folder: Path) -> float | None:
    lines = _lines(folder / "cpu.max")
    if lines:
        quota, period = lines[0].split()
    else:
        lines = _lines(folder / "cpu.cfs_quota_us") + _lines(folder / "cpu.cfs_period_us")
        if len(lines) != 2:
            return None
        quota, period = lines
    return None if quota in ("max", "-1") else int(quota) / int(period)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


@dataclass(frozen=True, slots=True)
class ThreadBudget:
    """Number of threads of each pool in one run."""

    inference: int
    """Threads of the engine that restores crops."""
    detector: int
    decoder: int
    """Threads of FFmpeg's decoder."""
    encoder: int
    """Threads of FFmpeg's encoder."""
    cv2: int = 1
    """Threads of OpenCV; one, because every stage that calls OpenCV has its own thread."""

    def for_live(self) -> ThreadBudget:
        """The budget of a live run: the detector gets every core too, because all later frames wait for it.

        A detection at 640 px takes 44 ms on two cores and 74 ms on one.
        """
        return replace(self, detector=max(self.detector, min(_DETECTOR_MOST, self.inference)))


def budget(cores: int, inference: int = 0, decoder: int = 0, encoder: int = 0) -> ThreadBudget:
    """Share `cores` among the pools. A number above 0 is the user's setting and is kept.

    Pools that can be the bottleneck of a run get every core: inference where there are faces, the encoder
    where there are none. On two cores an encoder with one thread took 1.4 times as long as with two;
    beside a busy restorer the second thread cost no measurable CPU time. The two pools do not compete,
    because the slower one makes the other wait.

    The other pools get fewer threads, so that they do not displace threads of inference, on which the
    stages wait. The decoder does a tenth of the encoder's work and gets one thread for four cores. The
    detector works on one frame in ten while the restorer is busy with earlier frames; it gets half the
    cores (on two cores, one thread used 4 to 12 % less CPU time than two). On two or more cores all pools
    together have at most three threads a core.

    Upper limits: FFmpeg's decoders hold a picture for each thread, x264 compresses worse with more than 16
    threads, and CenterFace's layers are too small for more than 8.
    """

    def share(cores_each: int, most: int) -> int:
        return max(1, min(most, cores // cores_each))

    return ThreadBudget(
        inference=inference or cores,
        detector=share(_DETECTOR_CORES, _DETECTOR_MOST),
        decoder=decoder or share(_DECODER_CORES, _DECODER_MOST),
        encoder=encoder or share(_ENCODER_CORES, _ENCODER_MOST),
    )


def ordinary_priority() -> None:
    """Return threads that a library moved to a real-time scheduling class to the ordinary class.

    SVT-AV1 run as root moves its own threads and the process's main thread. Later children inherit the
    class from the main thread. A machine with as many real-time threads as cores stops responding.
    """
    tasks = Path("/proc/self/task")
    if not hasattr(os, "sched_getscheduler") or not tasks.is_dir():
        return
    for task in tasks.iterdir():
        with suppress(OSError):  # the thread has ended meanwhile
            if os.sched_getscheduler(int(task.name)) in (os.SCHED_FIFO, os.SCHED_RR):
                os.sched_setscheduler(int(task.name), os.SCHED_OTHER, os.sched_param(0))
