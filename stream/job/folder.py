"""A folder of videos and pictures -> the same tree, restored."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import JsonValue

from stream.config import Config
from stream.errors import EncodeError, SourceError, StreamError
from stream.job.api import restore_file, restore_images
from stream.job.folder_record import FolderRecord
from stream.job.interface import Options, Outcome, ProgressCallback, RunReport, Status
from stream.job.plan.facts import version_facts
from stream.media.container import VIDEO_SUFFIXES
from stream.media.encode import check_destination
from stream.media.images import is_image


def restore_folder(
    src: Path,
    dst: Path,
    config: Config,
    *,
    options: Options,
    progress: ProgressCallback | None = None,
    stop: threading.Event,
) -> list[Outcome]:
    """Restore every video and picture below `src` to the same relative path below `dst`.

    All pictures are one batch with one outcome; every video has an outcome of its own. A file that fails
    is listed in `failures`, and the others are restored. After `stop` is set no further file is begun.
    The same call after a run that was stopped or killed leaves out what is done; a note says how much.
    Raises StreamError where no file can be restored at all.
    """
    if dst.exists() and not dst.is_dir():
        raise EncodeError(f"{dst}: is a file, but INPUT is a folder; name a folder")
    if dst.resolve() == src.resolve():
        raise EncodeError(f"{dst}: is INPUT itself; name another folder")
    jobs = [(path, dst / path.relative_to(src)) for path in _files(src, dst)]
    if not jobs:
        raise SourceError(f"{src}: holds no video and no picture; check the path")
    record = FolderRecord(dst, _facts(config, options))
    if options.restart:
        record.remove()
    left = [job for job in jobs if not record.is_done(*job)]
    outcomes = []
    if len(left) < len(jobs):
        note = f"continuing: {len(jobs) - len(left)} of {len(jobs)} files done"
        report: RunReport = {"input": str(src), "output": str(dst), "notes": [note]}
        outcomes.append(Outcome(dst, Status.COMPLETE, report, (note,)))
    run = _FolderRun(config, options, progress, stop, record)
    if stills := [job for job in left if is_image(job[0])]:
        outcome = run.restore_stills(stills)
        failures = [str(error) for error in outcome.failures]
        report = {"input": str(src), "output": str(dst), **outcome.report, "failures": failures}
        outcomes.append(replace(outcome, path=dst, report=report))
    for path, destination in left:
        if not is_image(path) and not stop.is_set():
            outcomes.append(run.restore_video(path, destination))
    if not stop.is_set():
        record.remove()
    return outcomes


@dataclass(frozen=True, slots=True)
class _FolderRun:
    """What all files of a folder share."""

    config: Config
    options: Options
    progress: ProgressCallback | None
    stop: threading.Event
    record: FolderRecord

    def restore_stills(self, stills: list[tuple[Path, Path]]) -> Outcome:
        """Restore pictures as one batch."""
        ready, refused = _writable(stills, self.options)
        before = {destination: _identity(destination) for _, destination in ready}
        outcome = Outcome(stills[0][1], Status.COMPLETE, {})
        if ready:
            outcome = restore_images(
                ready, self.config, options=self.options, progress=self.progress, stop=self.stop
            )
        for path, destination in ready:
            if _identity(destination) != before[destination]:
                self._note_done(path, destination)
        return replace(outcome, failures=outcome.failures + tuple(refused))

    def restore_video(self, path: Path, destination: Path) -> Outcome:
        """Restore a video; an error is listed in the outcome."""
        try:
            _make_folder(destination)
            outcome = restore_file(
                path,
                destination,
                self.config,
                options=self.options,
                progress=self.progress,
                stop=self.stop,
            )
        except StreamError as error:
            failed: RunReport = {"input": str(path), "output": str(destination), "failures": [str(error)]}
            return Outcome(destination, Status.COMPLETE, failed, failures=(error,))
        if outcome.status is not Status.INTERRUPTED:
            self._note_done(path, destination)
        return outcome

    def _note_done(self, source: Path, destination: Path) -> None:
        """Note a result; a run that continues restores it again where that fails."""
        with suppress(OSError, SourceError):
            self.record.add(source, destination)


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file lies at a path; a result is always a new one. None: there is none."""
    with suppress(FileNotFoundError):
        facts = path.stat()
        return facts.st_ino, facts.st_mtime_ns
    return None


def _facts(config: Config, options: Options) -> dict[str, JsonValue]:
    """What two runs must share for the second to continue the first."""
    facts = version_facts()
    facts |= {"aligned": options.aligned, "start": options.start_s, "duration": options.duration_s}
    settings: dict[str, JsonValue] = config.model_dump(mode="json")
    return facts | {"settings": settings}


def _files(src: Path, dst: Path) -> Iterator[Path]:
    for path in sorted(src.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(src).parts)
        wanted = is_image(path) or path.suffix.lower() in VIDEO_SUFFIXES
        if wanted and not hidden and path.is_file() and dst.resolve() not in path.resolve().parents:
            yield path


def _make_folder(destination: Path) -> None:
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EncodeError(f"{destination.parent}: cannot be made ({error.strerror}); check OUTPUT") from None


def _writable(
    jobs: list[tuple[Path, Path]], options: Options
) -> tuple[list[tuple[Path, Path]], list[StreamError]]:
    """The jobs whose destination may be written, and the errors of the others."""
    ready: list[tuple[Path, Path]] = []
    refused: list[StreamError] = []
    for path, destination in jobs:
        try:
            _make_folder(destination)
            check_destination(path, destination, overwrite=options.overwrite)
            ready.append((path, destination))
        except StreamError as error:
            refused.append(error)
    return ready, refused
