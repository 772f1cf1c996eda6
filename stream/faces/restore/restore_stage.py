"""Crops -> patches: which crops go through the network, its one call in batches, order kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

import numpy as np

from stream.faces.restore.propagate import Match, Propagation, Propagator
from stream.faces.restore.sharpness import keep
from stream.faces.restore.tasks import Restoration
from stream.picture.face import Crop, FrameWork, Patch

_MAX_HELD = 32
"""Frames held back at most while a batch fills, beside those that wait for a track's next keyframe."""
UNEXPLAINED = 7 / 255
"""A crop that its neighbours leave unexplained by more is restored itself. Measured on the samples:
at most 6 levels where a face turns or sways, 7 to 16 in a blink, 20 and more behind an obstacle."""


class CropRestorer(Protocol):
    """What an engine offers; see `stream.models.engines`."""

    def restore(self, crops: np.ndarray) -> np.ndarray:
        """RGB f32[N,in,in,3] in 0..1 -> the restored crops, f32[N,S,S,3], not clipped."""

    def close(self) -> None:
        """Release the network."""


@dataclass(slots=True, eq=False)
class _Job:
    """A crop on its way: restored itself, or carried from jobs that are."""

    crop: Crop
    restored: np.ndarray | None = None
    """f32[S,S,3] in 0..1; None before, and where the output was not finite."""
    done: bool = False
    """Whether the network has run."""
    carry: Propagation | None = None
    sources: tuple[_Job, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether everything is there that its patch is made of."""
        return self.done or (bool(self.sources) and all(source.done for source in self.sources))


@dataclass(frozen=True, slots=True, eq=False)
class Interval:
    """How restorations are spared; `restore.interval` and what goes with it."""

    frames: int
    """From restoration to restoration of a track; 1: all."""
    lookahead: bool
    """Whether frames may wait for the next restoration, to be carried from both sides."""
    landmarks: np.ndarray = field(repr=False)
    """f64[5,2]: the model's template, px of the crop."""
    size: int
    """Side of a crop, px."""


@dataclass(frozen=True, slots=True)
class RestoreMode:
    """What may change while frames run through; see `RestoreStage.way`."""

    strength: float = 1.0
    interval: int = 1
    """As `Interval.frames`."""
    strict: bool = False
    """Nothing is restored out of turn: what a carried crop's source leaves unexplained shows the input."""


class RestoreStage:
    """Stage: gathers crops of several frames into one batch and hands the frames on in order.

    With an `interval` of N, a track's first, every N-th and last crop are restored, and those that
    their neighbours cannot explain; the others are carried (`stream.faces.restore.propagate`). With
    look-ahead at most N frames wait for a track's next restoration; without, none waits for anything.
    `skip_sharp` is the sharpness above which a crop is left alone, see
    `stream.faces.restore.sharpness`; `task` says what the network is shown of a crop and what comes
    of its answer.
    """

    def __init__(
        self,
        create: Callable[[], CropRestorer],
        batch_size: int,
        strength: float,
        interval: Interval | None = None,
        skip_sharp: float = 1.0,
        task: Restoration | None = None,
    ) -> None:
        self.faces_restored = 0
        """Crops that went through the network."""
        self.faces_left_alone = 0
        """Crops too sharp to gain: the network never saw them."""
        self.faces_carried = 0
        self.restorations_forced = 0
        """Of those restored: the ones out of turn, because their neighbours did not explain them."""
        self.not_finite = 0
        """Crops that went through unchanged: the output, or one carried from, held NaN or infinity."""
        self._create = create
        self._engine: CropRestorer | None = None
        self.way = RestoreMode(strength, interval.frames if interval else 1)
        """Any thread may set another one; the next frame follows it. An interval needs the
        constructor's `interval`, be it 1."""
        self._now = self.way
        self._batch_size, self._interval = batch_size, interval
        self._task, self._skip_sharp = task or Restoration(), skip_sharp
        self._lookahead = interval.lookahead if interval else True
        self._held: deque[tuple[FrameWork, list[_Job]]] = deque()
        self._due: list[_Job] = []
        """Crops for the network's next call."""
        self._runs: dict[int | None, list[_Job]] = {}
        """By track: its last restoration, and the crops since."""

    def open(self) -> None:
        """Load the network, in this thread."""
        self._engine = self._create()

    def process(self, work: FrameWork) -> Iterable[FrameWork]:
        """Hold the frame until its crops' batch is full; where nothing waits it passes at once."""
        self._now = self.way
        work = self._without_sharp(work)
        jobs = [_Job(crop) for crop in work.crops]
        self._held.append((work, jobs))
        self._schedule(jobs)
        everything = not self._lookahead or len(self._held) >= _MAX_HELD
        self._run(everything)
        yield from self._finished()

    def flush(self) -> Iterable[FrameWork]:
        """Restore what is held back."""
        for run in self._runs.values():
            self._close(run)
        self._runs.clear()
        self._run(everything=True)
        yield from self._finished()

    def close(self) -> None:
        """Release the network."""
        self._held.clear()
        if self._engine is not None:
            self._engine.close()

    def _without_sharp(self, work: FrameWork) -> FrameWork:
        worth = tuple(crop for crop in work.crops if keep(crop.sharpness, self._skip_sharp) > 0)
        self.faces_left_alone += len(work.crops) - len(worth)
        return work if len(worth) == len(work.crops) else replace(work, crops=worth)

    # --- which crops are restored ---------------------------------------------------------------

    def _schedule(self, jobs: list[_Job]) -> None:
        """Decide, now or when the track's next restoration is known, how each crop is made."""
        if self._now.interval == 1:
            for ended in self._runs.values():
                self._close(ended)
            self._runs.clear()
            self._due += jobs
            return
        present = {_track(job): job for job in jobs}
        for track in [track for track in self._runs if track not in present]:
            self._close(self._runs.pop(track))
        for track, job in present.items():
            run = self._runs.get(track)
            if run is None:
                self._restart(track, job)
            elif self._lookahead:
                run.append(job)
                if len(run) > self._now.interval:
                    self._close(run)
                    self._runs[track] = [job]
            else:
                self._follow(track, run, job)

    @cached_property
    def _carrier(self) -> Propagator:
        """Made when the first crop is carried."""
        if self._interval is None:
            raise ValueError("RestoreStage.way has an interval, but the stage was built without one")
        return Propagator(self._interval.landmarks, self._interval.size)

    def _restart(self, track: int | None, job: _Job) -> None:
        self._due.append(job)
        self._runs[track] = [job]

    def _follow(self, track: int | None, run: list[_Job], job: _Job) -> None:
        """Without look-ahead: carried from the last restoration, or restored."""
        if len(run) >= self._now.interval or run[0].restored is None:
            self._restart(track, job)
            return
        carry = self._carrier.weigh([self._carrier.match(job.crop.image, run[0].crop.image)], [1.0])
        if carry.unexplained > UNEXPLAINED and not self._now.strict:
            self.restorations_forced += 1
            self._restart(track, job)
            return
        job.carry, job.sources = carry, (run[0],)
        run.append(run[0])  # only counted: the crops between need not be kept

    def _close(self, run: list[_Job]) -> None:
        """The run's last crop is restored; those between are carried from both ends."""
        if len(run) > 1 and self._lookahead:
            self._due.append(run[-1])
            self._settle(run, 0, len(run) - 1, {})

    def _settle(self, run: list[_Job], first: int, last: int, matches: dict[tuple[int, int], Match]) -> None:
        """Carry the crops between two restored ones; the one least explained may split the run."""

        def match(here: int, source: int) -> Match:
            if (here, source) not in matches:
                images = run[here].crop.image, run[source].crop.image
                matches[here, source] = self._carrier.match(*images)
            return matches[here, source]

        between = range(first + 1, last)
        carries = {
            at: self._carrier.weigh([match(at, first), match(at, last)], [last - at, at - first])
            for at in between
        }
        worst = max(between, key=lambda at: carries[at].unexplained, default=None)
        if worst is not None and carries[worst].unexplained > UNEXPLAINED:
            self.restorations_forced += 1
            self._due.append(run[worst])
            self._settle(run, first, worst, matches)
            self._settle(run, worst, last, matches)
            return
        for at, carry in carries.items():
            run[at].carry, run[at].sources = carry, (run[first], run[last])

    # --- what is made of them -------------------------------------------------------------------

    def _run(self, everything: bool) -> None:
        """Restore the crops that are due, in full batches; the last may be short if `everything`."""
        count = len(self._due) if everything else len(self._due) // self._batch_size * self._batch_size
        jobs, self._due = self._due[:count], self._due[count:]
        for job, image in zip(jobs, self._restored([job.crop for job in jobs]), strict=True):
            job.restored, job.done = image, True

    def _restored(self, crops: Sequence[Crop]) -> Iterable[np.ndarray | None]:
        """The network's pictures of crops, f32[S,S,3] in 0..1; None where one is not finite."""
        for at in range(0, len(crops), self._batch_size):
            batch = crops[at : at + self._batch_size]
            assert self._engine is not None, "a frame came before open()"
            outputs = self._engine.restore(np.stack([self._task.prepare(crop) for crop in batch]))
            for crop, output in zip(batch, outputs, strict=True):
                yield self._task.finish(crop, output) if np.isfinite(output).all() else None

    def _finished(self) -> Iterable[FrameWork]:
        while self._held and all(job.ready for job in self._held[0][1]):
            work, jobs = self._held.popleft()
            yield replace(work, patches=tuple(self._patch(job) for job in jobs))

    def _patch(self, job: _Job) -> Patch:
        image = self._image(job)
        if image is None:
            self.not_finite += 1
            return Patch(job.crop, np.zeros_like(job.crop.image), weight=0.0)
        weight = np.float32(self._now.strength) * np.float32(keep(job.crop.sharpness, self._skip_sharp))
        residual = (image - job.crop.image) * weight
        return Patch(job.crop, residual, opacity=self._task.opacity(job.crop), weight=float(weight))

    def _image(self, job: _Job) -> np.ndarray | None:
        """The restored picture f32[S,S,3] of a job that is ready; None: leave the crop as it is."""
        if job.carry is None:
            self.faces_restored += job.restored is not None
            return job.restored
        pictures = [source.restored for source in job.sources if source.restored is not None]
        if len(pictures) < len(job.sources):
            return None
        self.faces_carried += 1
        return self._carrier.carry(job.crop.image, job.carry, pictures)


def _track(job: _Job) -> int | None:
    """Whose crop it is; None for an input that already is a crop."""
    return job.crop.face.track_id if job.crop.face is not None else None
