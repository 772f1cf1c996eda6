"""How many cores this process really has, and how its pools of threads share them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

_DECODER_PART, _DECODER_MOST = 4, 4
_DETECTOR_PART, _DETECTOR_MOST = 2, 8
_ENCODER_PART, _ENCODER_MOST = 1, 16
"""One thread for so many cores, and the most that help (see `budget`)."""


def available_cores(root: Path = Path("/")) -> int:
    """Cores that this process may use, at least 1: its affinity, cut by its cgroups' CPU quota.

    A quota of 1.5 cores counts as 2: one thread would leave a third of it unused. `root` is where
    `/proc` and `/sys` lie.
    """
    known = hasattr(os, "sched_getaffinity")  # Linux
    cores = len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1
    quota = cpu_quota(root)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """The tightest CPU quota, in cores, of this process's cgroups and those above them.

    None where there is none, or no cgroups at all. Version 2 keeps "quota period" in `cpu.max`,
    version 1 two files (Linux, Documentation/admin-guide/cgroup-v2.rst and
    scheduler/sched-bwc.rst). A group above can be tighter than the process's own.
    """
    quotas = [quota for folder in _cpu_groups(root) if (quota := _quota_of(folder)) is not None]
    return min(quotas, default=None)


def _cpu_groups(root: Path) -> Iterator[Path]:
    """Folders of the groups that can hold a CPU quota for this process, each with all above it."""
    own: dict[str, PurePosixPath] = {}
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        for name in controllers.split(","):  # version 2 names none
            own[name] = PurePosixPath(path)
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        controller = "" if kind == "cgroup2" else "cpu"
        if kind not in ("cgroup", "cgroup2") or controller not in own:
            continue
        if kind == "cgroup" and "cpu" not in options.split(","):
            continue
        top, place = before.split(" ")[3:5]
        # A container may see its group as the top of the mount, and its path from the host.
        group = own[controller]
        inside = group.relative_to(top) if group.is_relative_to(top) else PurePosixPath()
        mount = root / place.lstrip("/")
        for part in (inside, *inside.parents):
            yield mount / part


def _quota_of(folder: Path) -> float | None:
    both = _lines(folder / "cpu.max")
    if both:
        quota, period = both[0].split()
    else:
        halves = _lines(folder / "cpu.cfs_quota_us") + _lines(folder / "cpu.cfs_period_us")
        if len(halves) != 2:
            return None
        quota, period = halves
    return None if quota in ("max", "-1") else int(quota) / int(period)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


@dataclass(frozen=True, slots=True)
class ThreadBudget:
    """Threads of each pool of one run."""

    inference: int
    """Of the engine that restores crops."""
    detector: int
    decoder: int
    """Of FFmpeg's decoder."""
    encoder: int
    """Of FFmpeg's encoder."""
    cv2: int = 1
    """OpenCV's pool is left out: every stage that calls it has a thread of its own."""

    def for_live(self) -> ThreadBudget:
        """The detector gets every core too: in a live picture all frames behind wait for it.

        Of 640 px, on two cores: 44 ms where one thread takes 74.
        """
        return replace(self, detector=max(self.detector, min(_DETECTOR_MOST, self.inference)))


def budget(cores: int, inference: int = 0, decoder: int = 0, encoder: int = 0) -> ThreadBudget:
    """Share `cores` out; a number above 0 is the user's own and stays.

    What may be a run's bottleneck gets every core: inference where there are faces, the encoder
    where there are none (on two cores one thread took 1.4 times as long as two; beside a busy
    restorer the second costs no CPU time that could be measured). They do not add up: the slower of
    the two keeps the other waiting. What never is gets a part, so that it does not push threads of
    inference aside, for whose end the others wait. The decoder does a tenth of the encoder's work:
    a thread for four cores. The detector looks at one frame in ten while the restorer is busy with
    those before it: half the cores (on two, one thread took 4 to 12 % less CPU time than two).
    So all pools together have at most three threads a core, on two cores and more.
    The upper ends: FFmpeg's decoders hold a picture for each thread, x264 compresses worse with
    more than 16, and CenterFace's layers are too small for more than 8.
    """

    def share(part: int, most: int) -> int:
        return max(1, min(most, cores // part))

    return ThreadBudget(
        inference=inference or cores,
        detector=share(_DETECTOR_PART, _DETECTOR_MOST),
        decoder=decoder or share(_DECODER_PART, _DECODER_MOST),
        encoder=encoder or share(_ENCODER_PART, _ENCODER_MOST),
    )


def ordinary_priority() -> None:
    """Take threads of this process out of the real-time class, where a library put them.

    SVT-AV1 does so where it is run as root: with itself, and with the process's main thread, from
    which every later child inherits it; a machine with as many such threads as cores stands still.
    """
    tasks = Path("/proc/self/task")
    if not hasattr(os, "sched_getscheduler") or not tasks.is_dir():
        return
    for task in tasks.iterdir():
        with suppress(OSError):  # it has just ended
            if os.sched_getscheduler(int(task.name)) in (os.SCHED_FIFO, os.SCHED_RR):
                os.sched_setscheduler(int(task.name), os.SCHED_OTHER, os.sched_param(0))
