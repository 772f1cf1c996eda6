"""A folder of videos and pictures -> the same tree, restored."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from stream.config import Config
from stream.errors import EncodeError, SourceError, StreamError
from stream.job.api import restore_file, restore_images
from stream.job.interface import Options, Outcome, ProgressCallback, RunReport, Status
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
    Raises StreamError where no file can be restored at all.
    """
    if dst.exists() and not dst.is_dir():
        raise EncodeError(f"{dst}: is a file, but INPUT is a folder; name a folder")
    if dst.resolve() == src.resolve():
        raise EncodeError(f"{dst}: is INPUT itself; name another folder")
    jobs = [(path, dst / path.relative_to(src)) for path in _files(src, dst)]
    if not jobs:
        raise SourceError(f"{src}: holds no video and no picture; check the path")
    stills = [job for job in jobs if is_image(job[0])]
    videos = [job for job in jobs if not is_image(job[0])]
    outcomes = []
    if stills:
        ready, refused = _writable(stills, options)
        outcome = Outcome(dst, Status.COMPLETE, {})
        if ready:
            outcome = restore_images(ready, config, options=options, progress=progress, stop=stop)
        failures = outcome.failures + tuple(refused)
        report: RunReport = {
            "input": str(src),
            "output": str(dst),
            **outcome.report,
            "failures": [str(error) for error in failures],
        }
        outcomes.append(replace(outcome, path=dst, report=report, failures=failures))
    for path, destination in videos:
        if stop.is_set():
            break
        try:
            _make_folder(destination)
            outcomes.append(
                restore_file(path, destination, config, options=options, progress=progress, stop=stop)
            )
        except StreamError as error:
            failed: RunReport = {"input": str(path), "output": str(destination), "failures": [str(error)]}
            outcomes.append(Outcome(destination, Status.COMPLETE, failed, failures=(error,)))
    return outcomes


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
