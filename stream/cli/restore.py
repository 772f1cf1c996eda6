"""`gpen-stream restore`: arguments -> settings -> a file or a folder -> an exit code."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from stream.cli.options import Debug, complain, gathers_options
from stream.cli.restore_options import (
    RestoreMethod,
    RestoreOutput,
    RestorePart,
    RestorePaths,
    RestorePlan,
    options_of,
    settings_of,
)
from stream.config import Config
from stream.errors import ConfigError, EncodeError
from stream.pipeline.end_signals import HANG_UP, handle_end_signals

if TYPE_CHECKING:  # loading them takes a second, which `--help` does without
    from stream.cli.progress import Display
    from stream.job.interface import Options, Outcome, RunReport

app = typer.Typer()
_TRUNCATED = 3
"""Exit code where the input ends early."""


@app.command()
@gathers_options
def restore(
    files: RestorePaths,
    part: RestorePart,
    method: RestoreMethod,
    output: RestoreOutput,
    plan: RestorePlan,
    debug: Debug = False,
) -> int:
    """Restore the faces in INPUT and write OUTPUT.

    Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 the input ends early, 128 + N stopped by
    signal N.
    """
    source, target = files.paths("restore")
    settings, options = settings_of(part, method, output), options_of(part, output, plan)
    if output.report is not None:
        _check_report(output.report, source, target)
    return _restore(source, target, settings, options, output)


def _restore(source: Path, target: Path, config: Config, options: Options, output: RestoreOutput) -> int:
    from stream.cli.progress import Display
    from stream.job.api import restore_file
    from stream.job.folder import restore_folder
    from stream.job.interface import Status

    is_folder = source.is_dir()
    with _stopped_by_signals() as (stop, caught), Display(output.quiet) as display:
        if is_folder:
            outcomes = restore_folder(source, target, config, options=options, progress=display, stop=stop)
        else:
            outcomes = [restore_file(source, target, config, options=options, progress=display, stop=stop)]
    if output.report is not None:
        _write_report(output.report, [outcome.report for outcome in outcomes], is_folder)
    code = _tell(outcomes, display)
    stopped = any(outcome.status is Status.INTERRUPTED for outcome in outcomes)
    if caught and is_folder and not stopped:  # between two files
        complain(f"stopped; what was restored so far: {target}")
    return 128 + caught[0] if caught and (stopped or is_folder) else code


@contextmanager
def _stopped_by_signals() -> Iterator[tuple[threading.Event, list[int]]]:
    """An event that signals set, and the numbers of the signals that came.

    The second signal raises KeyboardInterrupt: what is on its way is not waited for. A hang-up never does,
    because the system and the shell both send one when a terminal closes.
    """
    stop, caught = threading.Event(), list[int]()

    def on_signal(number: int, _frame: object) -> None:
        caught.append(number)
        stop.set()
        if len(caught) > 1 and number != HANG_UP:
            raise KeyboardInterrupt

    with handle_end_signals(on_signal):
        yield stop, caught


def _tell(outcomes: list[Outcome], display: Display) -> int:
    """Say in a line or more how each file went; the exit code of all."""
    from stream.job.interface import Status

    code = 0
    for outcome in outcomes:
        report, path = outcome.report, outcome.path
        for note in outcome.notes:
            display.say(f"note: {note}")
        for failure in outcome.failures:
            complain(f"error: {failure}")
            code = 1
        if outcome.status is Status.TRUNCATED:
            complain(f"error: {report['input']}: ends early; restored as far as it goes: {path}")
            code = code or _TRUNCATED
        elif outcome.status is Status.INTERRUPTED:
            complain(f"stopped; what was restored so far: {path}")
        elif report.get("frames_out"):
            frames, faces = report["frames_out"], report["faces_restored"] + report["faces_carried"]
            alone = report["faces_left_alone"]
            spared = f", {alone} left alone" if alone else ""
            display.say(f"{path}: {frames} frames, {faces} faces{spared}, {report['fps']:.1f} fps")
    return code


def _check_report(report: Path, source: Path, target: Path) -> None:
    if not report.resolve().parent.is_dir():
        raise ConfigError(f"--report {report}: its folder does not exist; make it first")
    if report.is_dir():
        raise ConfigError(f"--report {report}: is a folder; name a file")
    if report.resolve() in (source.resolve(), target.resolve()):
        raise ConfigError(f"--report {report}: is INPUT or OUTPUT itself; name another file")


def _write_report(path: Path, reports: list[RunReport], several: bool) -> None:
    text = json.dumps(reports if several else reports[0], indent=2)
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise EncodeError(f"--report {path}: cannot be written ({error.strerror})") from None
