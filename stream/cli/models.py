"""`gpen-stream models`: list, download, verify and import models."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated

import typer

from stream.cli.options import DebugAlone

if TYPE_CHECKING:  # it takes time to load, and only a download on a terminal needs it
    from rich.progress import Progress, TaskID

app = typer.Typer(
    name="models",
    help="List, download and verify models, and import files of your own.",
    no_args_is_help=True,
)
_PLAIN_EVERY_S = 10.0


_Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="As `models list` shows them.")]
_Consent = Annotated[
    bool, typer.Option("--accept-licence", help="Accept the licence that is shown; it is asked for once.")
]
_Quiet = Annotated[bool, typer.Option("--quiet", help="Print errors only.")]


@app.command("list")
def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False, debug: DebugAlone = False
) -> None:
    """Print all models: task, size, download, licence, and whether they are on this machine."""
    from stream.models import registry
    from stream.models.ledger import models_folder

    models = registry.list_models()
    if as_json:
        print(json.dumps([asdict(model) for model in models], indent=2), flush=True)
        return
    rows = [("name", "task", "px", "MB", "state", "licence")]
    for model in models:
        megabytes = f"{model.bytes / 1e6:.0f}" if model.bytes else "?"
        size, pinned = str(model.size or ""), ", pinned" if model.pinned_sha256 else ""
        asked = "" if model.licence_accepted else " (to be accepted)"
        rows.append((model.name, model.task, size, megabytes, model.state + pinned, model.licence + asked))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]]))
    print(f"folder: {models_folder()}", flush=True)


@app.command()
def fetch(
    names: _Names,
    accept_licence: _Consent = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Open no connection; fail where a file is missing.")
    ] = False,
    quiet: _Quiet = False,
    debug: DebugAlone = False,
) -> int:
    """Download models and verify them. A download that broke off is resumed.

    GPEN_STREAM_MODELS names another folder to keep them in, GPEN_STREAM_MODELS_URL a mirror,
    GPEN_STREAM_OFFLINE=1 forbids connections, GPEN_STREAM_ACCEPT_LICENCE=1 accepts licences.
    """
    from stream.models import registry

    for name in names:
        registry.entry_named(name)
    try:
        for name in names:
            with _Bar(name, quiet) as bar:
                path = registry.fetch(
                    name, accept_licence=accept_licence, offline=offline, progress=bar, notify=bar.say
                )
            bar.say(f"{name}: {path}")
    except KeyboardInterrupt:
        print("stopped; what came is kept: run the command again to go on", file=sys.stderr, flush=True)
        return 130
    return 0


@app.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME...]", help="All that are here, by default.")
    ] = None,
    debug: DebugAlone = False,
) -> int:
    """Hash models again, and compare with the published hash or the one pinned at first use."""
    from stream.models.registry import verify as verified

    results = verified(names)
    for result in results:
        stream = sys.stdout if result.good else sys.stderr
        print(f"{'' if result.good else 'error: '}{result.name}: {result.text}", file=stream, flush=True)
    return 0 if all(result.good for result in results) else 1


@app.command("import")
def import_model(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .pth, .safetensors or .onnx.")],
    name: Annotated[str | None, typer.Option(help="The model's name; the file's by default.")] = None,
    task: Annotated[
        str | None, typer.Option(help="restore (the default), colorize, inpaint or segment.")
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="Alignment: arcface_gpen (the default), ffhq_512, arcface_128.")
    ] = None,
    input_range: Annotated[
        str | None, typer.Option(metavar="LOW,HIGH", help="Range of the network's input: -1,1 or 0,1.")
    ] = None,
    accept_licence: _Consent = False,
    quiet: _Quiet = False,
    debug: DebugAlone = False,
) -> None:
    """Import a file of this machine: an official model, or GPEN weights or a network of your own.

    A .pth is converted to safetensors in the models folder. Only tensors are read from it: no code runs.
    """
    from stream.models.importing import ImportOptions, import_file

    bar = _Bar(str(file), quiet)
    options = ImportOptions(name, task, template, input_range)
    made = import_file(file, options, accept_licence=accept_licence, notify=bar.say)
    what = ""
    if made.info is not None:
        sides = f"{made.info.in_size} to {made.info.size} px" if made.info.in_size != made.info.size else ""
        what = f" ({made.info.task}, {sides or f'{made.info.size} px'}, {made.info.template})"
    bar.say(f"{made.name}{what}: {made.path}")


class _Bar:
    """Shows a download on stderr: a bar on a terminal, else a line every ten seconds."""

    def __init__(self, name: str, quiet: bool) -> None:
        self._name, self._quiet = name, quiet
        self._bar: tuple[Progress, TaskID] | None = None
        self._last_plain = time.monotonic()

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar[0].stop()

    def __call__(self, done: int, total: int | None) -> None:
        """See `download.ReceivedCallback`."""
        if self._quiet:
            return
        if sys.stderr.isatty():
            if self._bar is None:
                self._bar = self._started()
            progress, task = self._bar
            progress.update(task, completed=done, total=total)
        elif time.monotonic() - self._last_plain >= _PLAIN_EVERY_S:
            self._last_plain = time.monotonic()
            of = f" of {total / 1e6:.1f}" if total else ""
            self.say(f"{self._name}: {done / 1e6:.1f}{of} MB")

    def _started(self) -> tuple[Progress, TaskID]:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        columns = (
            "{task.description}",
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        progress = Progress(*columns, console=Console(stderr=True), transient=True)
        task = progress.add_task(self._name, total=None)
        progress.start()
        return progress, task

    def say(self, text: str) -> None:
        """One plain line on stderr."""
        if not self._quiet:
            print(text, file=sys.stderr, flush=True)
