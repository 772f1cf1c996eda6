"""Progress on the terminal: a bar where there is one, plain lines where not."""

from __future__ import annotations

import time
from contextlib import suppress
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from stream.cli.options import tell
from stream.job.interface import Progress as Done

_PLAIN_EVERY_S = 10.0


class Display:
    """Called with every `api.Progress`; a context manager round the run."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._last_plain = time.monotonic()
        self._told_before = False

    def __enter__(self) -> Display:
        if self._console.is_terminal and not self._quiet:
            columns = (
                BarColumn(),
                TextColumn("{task.completed:.0f}/{task.total:.0f} frames"),
                TextColumn("{task.fields[fps]:.1f} fps"),
                TextColumn("{task.fields[faces]} faces{task.fields[segments]}"),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=self._console, transient=True)
            with suppress(OSError):
                self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            with suppress(OSError):  # the terminal was closed
                self._bar.stop()

    def __call__(self, done: Done) -> None:
        """Show how far the run is."""
        if self._quiet:
            return
        if done.frames_before and not self._told_before:
            self._told_before = True
            self.say(f"continuing: {done.segments_done} of {done.segments_total} segments done")
        fps = (done.frames_done - done.frames_before) / done.elapsed_s if done.elapsed_s else 0.0
        total = max(done.frames_total, done.frames_done)
        if self._bar is not None:
            segments = _segments(done, "/")
            with suppress(OSError):  # the terminal was closed
                if self._task is None:
                    self._task = self._bar.add_task("restore", total=total, fps=0.0, faces=0, segments="")
                self._bar.update(
                    self._task,
                    completed=done.frames_done,
                    total=total,
                    fps=fps,
                    faces=done.faces,
                    segments=segments,
                )
        elif (done.frames_done or not done.workers) and self._is_due():
            left = f", {(total - done.frames_done) / fps:.0f} s left" if fps and done.frames_total else ""
            of = f" of {done.frames_total}" if done.frames_total else ""
            segments = _segments(done, " of ")
            self.say(f"{done.frames_done}{of} frames{segments}, {fps:.1f} fps, {done.faces} faces{left}")

    def _is_due(self) -> bool:
        """Whether it is time for another plain line."""
        now = time.monotonic()
        if now - self._last_plain < _PLAIN_EVERY_S:
            return False
        self._last_plain = now
        return True

    def say(self, text: str) -> None:
        """One plain line on stderr, never wrapped."""
        if not self._quiet:
            tell(text)


def _segments(done: Done, of: str) -> str:
    """How many segments are done, and by how many processes; empty for a run without a plan."""
    if not done.segments_total:
        return ""
    workers = "" if done.workers == 1 else f", {done.workers} workers"
    if not done.workers:
        workers = ", waiting for a worker"
    return f", {done.segments_done}{of}{done.segments_total} segments{workers}"
