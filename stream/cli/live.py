"""`gpen-stream live` and `gpen-stream sources`."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import setproctitle
import typer

from stream.cli.options import DebugAlone, gathers_options, tell
from stream.config import PRESETS, Config, load_config
from stream.errors import ConfigError, EncodeError
from stream.pipeline.end_signals import HANG_UP, handle_end_signals
from stream.pipeline.processes import exit_process

if TYPE_CHECKING:  # loading it takes a second, which `--help` does without
    from stream.live.session.session import Session
    from stream.live.session.session_report import SessionReport

app = typer.Typer()
_PLAIN_EVERY_S, _TERMINAL_EVERY_S = 10.0, 0.5
_LOST = ("overrun", "late", "failed")
"""Causes of drops that mean trouble."""


@dataclass(frozen=True, slots=True)
class LiveMethod:
    """How faces are restored."""

    preset: Annotated[str, typer.Option(help=", ".join(PRESETS) + ".")] = "fast"
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="YAML settings over the preset.")] = None
    assign: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="One setting, e.g. latency.budget_ms=200."),
    ] = None
    model: Annotated[
        str | None, typer.Option(metavar="NAME|PATH", help="Which model restores; see `models list`.")
    ] = None
    strength: Annotated[float | None, typer.Option(metavar="0..1", help="How far faces are changed.")] = None

    def settings(self) -> Config:
        """The preset, and over it the file, the single settings and the options, in this order."""
        given = {"model": self.model, "strength": self.strength}
        texts = [f"restore.{key}={json.dumps(value)}" for key, value in given.items() if value is not None]
        return load_config(self.preset, self.config, [*(self.assign or []), *texts])


@app.command()
@gathers_options
def live(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="webcam:0, rtsp://..., rtmp://..., http(s)://..., udp://..., a video file, or test:",
        ),
    ],
    *,
    to: Annotated[
        list[str] | None,
        typer.Option(
            "--to",
            metavar="SINK",
            help="window, virtual-camera, FILE.mp4, FOLDER/ (segments), rtsp://..., rtmp://..., hls:FOLDER, "
            "whip:https://..., mjpeg:PORT, snapshots:FOLDER. May be given several times.",
        ),
    ] = None,
    method: LiveMethod,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Write counts and delays at the end.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print errors only.")] = False,
    debug: DebugAlone = False,
) -> int:
    """Restore the faces in a live picture, until Ctrl-C.

    An address may hold ${NAME}, the value of an environment variable, so that the command holds no password.
    Exit codes: 0 stopped or at the end of a file, 1 failed, 2 wrong usage or settings.
    """
    arguments = [source, *(to or [])]
    _hide(arguments)
    if not to:
        raise ConfigError("--to: is missing; write where the picture goes, such as --to window")
    if report is not None and not report.resolve().parent.is_dir():
        raise ConfigError(f"--report {report}: its folder does not exist; make it first")
    settings = method.settings()
    from stream.live.session.session import Session
    from stream.live.sinks import parse_sink
    from stream.live.source.address import parse_address

    address = parse_address(source)
    sinks = [parse_sink(text, settings) for text in to]
    screen = _Screen(quiet)
    session = Session("live", address, sinks, settings, preset=method.preset, on_event=screen.tell)
    try:
        _run(session, screen)
    finally:
        if report is not None:
            _write(report, session.report())
    if session.is_loading:
        exit_process(0)
    return 0


@app.command()
def sources(debug: DebugAlone = False) -> None:
    """List the cameras of this machine, with the addresses that `live` accepts."""
    from stream.live.source.devices import cameras

    devices = cameras()
    for device in devices:
        print(f"{device.address}  {device.name}")
    if not devices:
        print("no camera found; test: gives a test picture", file=sys.stderr)


def _run(session: Session, screen: _Screen) -> None:
    """Run until a signal; a second one does not wait for the sinks."""
    stop = threading.Event()

    def on_signal(number: int, _frame: object) -> None:
        if stop.is_set() and number != HANG_UP:  # a terminal that closes may send several
            raise KeyboardInterrupt
        stop.set()

    with handle_end_signals(on_signal):
        try:
            session.run(stop, on_tick=lambda: screen.show(session, stop.is_set()))
            screen.end(session.report())
        finally:
            screen.close()


class _Screen:
    """Shows a session on stderr: one line kept up to date on a terminal, else a line every ten seconds."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._live = sys.stderr.isatty()
        self._shown_s = float("-inf")
        self._model = ""
        self._stopping = False
        self._width = 0
        self._lock = threading.Lock()

    def tell(self, kind: str, text: str) -> None:
        """Print an event; from any thread."""
        if not self._quiet:
            self._print(f"{kind.replace('_', ' ')}: {text}")

    def show(self, session: Session, stopping: bool) -> None:
        """Print the session's state, if it is time to; cheap to call often."""
        now = time.monotonic()
        since_s = now - self._shown_s
        if self._quiet or self._stopping:
            return
        if stopping:
            self._stopping = True
            self._print("stopping: delivering the frames that are left; Ctrl-C again does not wait for them")
            return
        if since_s < (_TERMINAL_EVERY_S if self._live else _PLAIN_EVERY_S):
            return
        self._shown_s = now
        report = session.report()
        model = report.engine and f"model ready: {report.settings.model}, {report.engine}"
        if model != self._model:
            self._model = model
            self._print(model)
        line = _summary(report)
        if not self._live:
            self._print(line)
            return
        with suppress(OSError):  # the terminal was closed
            line = line[: os.get_terminal_size(sys.stderr.fileno()).columns - 1]
        with self._lock:
            tell(f"\r{line.ljust(self._width)}", end="")
            self._width = len(line)

    def end(self, report: SessionReport) -> None:
        """Print the totals of the session in one line."""
        if self._quiet:
            return
        faces = report.faces_restored + report.faces_carried
        parts = [f"{report.frames_out} frames in {report.uptime_s:.0f} s", f"{faces} faces restored"]
        for sink in report.sinks:
            lost = f", {sink['dropped']} dropped" if sink["dropped"] else ""
            parts.append(f"{sink['name']}: {sink['delivered']} delivered{lost}")
        self._print("ended: " + " · ".join(parts))

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._width:
            tell("")
            self._width = 0

    def _print(self, text: str) -> None:
        with self._lock:
            clear = f"\r{' ' * self._width}\r" if self._width else ""
            tell(f"{clear}{text}")
            self._width = 0


def _summary(report: SessionReport) -> str:
    """The state of a session in one line."""
    parts = [report.words]
    if report.size is not None:
        width, height = report.size
        parts[0] += f" {width}x{height}"
    if report.fps_in or report.fps_out:  # known after a while, and not while it is interrupted
        parts.append(f"{report.fps_in:.0f} fps in, {report.fps_out:.0f} out")
    delay = report.delay
    if delay["median_ms"] is not None:
        parts.append(f"delay {delay['median_ms']:.0f} ms (95 %: {delay['p95_ms']:.0f})")
    if not report.engine:
        parts.append("loading the model")
    elif report.idle:
        parts.append("no motion")
    else:
        parts.append(f"{report.faces} face{'' if report.faces == 1 else 's'}")
    if report.level:
        parts.append(report.level_words)
    if dropped := sum(report.drops[cause] for cause in report.drops if cause in _LOST):
        parts.append(f"{dropped} dropped")
    parts += [f"{sink['kind']} {sink['state']}" for sink in report.sinks if sink["state"] != "live"]
    return " · ".join(parts)


def _hide(arguments: list[str]) -> None:
    """Keep credentials out of the list of processes."""
    from stream.live.source.address import redact

    if any(redact(argument) != argument for argument in arguments):
        setproctitle.setproctitle(" ".join(["gpen-stream", *map(redact, sys.argv[1:])]))


def _write(path: Path, report: SessionReport) -> None:
    try:
        path.write_text(json.dumps(report.to_json(), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise EncodeError(f"--report {path}: cannot be written ({error.strerror})") from None
