"""The command `gpen-stream compare`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream.cli.options import Debug, gathers_options
from stream.errors import ConfigError

if TYPE_CHECKING:  # loading it takes a second, which `--help` does without
    from stream.lab.compare.comparison import ComparisonResult

app = typer.Typer()
_HTML = (".html", ".htm")
_OUT, _PART = "Output", "Which part"


@dataclass(frozen=True, slots=True)
class CompareOutput:
    """Files that are written beside the printed figures."""

    html: Annotated[
        bool,
        typer.Option(
            "--html", help="Write the page; needed only beside another output.", rich_help_panel=_OUT
        ),
    ] = False
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="A few frames and faces as one picture.", rich_help_panel=_OUT),
    ] = None
    video: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.mp4", help="Both as one video, with A's sound and times.", rich_help_panel=_OUT
        ),
    ] = None
    layout: Annotated[
        str,
        typer.Option(help="Of the video: split (half of each) or side (both whole).", rich_help_panel=_OUT),
    ] = "split"
    as_json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE.json", help="All figures.", rich_help_panel=_OUT)
    ] = None
    megabytes: Annotated[
        float,
        typer.Option(
            "--megabytes",
            min=1,
            max=500,
            metavar="N",
            help="Size of the page, about; it holds as many frames as fit.",
            rich_help_panel=_OUT,
        ),
    ] = 20
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace outputs that exist.", rich_help_panel=_OUT)
    ] = False
    quiet: Annotated[bool, typer.Option("--quiet", help="Print errors only.", rich_help_panel=_OUT)] = False


@dataclass(frozen=True, slots=True)
class ComparePart:
    """The part of both files that is compared."""

    start: Annotated[
        float, typer.Option(min=0, max=1e7, help="Begin here in A, seconds.", rich_help_panel=_PART)
    ] = 0.0
    duration: Annotated[
        float | None,
        typer.Option(min=0.001, max=1e7, help="Length of the part, seconds.", rich_help_panel=_PART),
    ] = None
    offset: Annotated[
        float,
        typer.Option(
            min=-1e7,
            max=1e7,
            help="Time in A at which B begins, seconds, as after restore --start.",
            rich_help_panel=_PART,
        ),
    ] = 0.0


@app.command()
@gathers_options
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="A video or a picture, such as the original.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another of the same kind, such as the result.")],
    *,
    page: Annotated[
        Path | None,
        typer.Argument(metavar="[PAGE.html]", help="The page to write; by default A-vs-B.html, here."),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(metavar="R", help="Undamaged original, which the figures compare both with."),
    ] = None,
    output: CompareOutput,
    part: ComparePart,
    debug: Debug = False,
) -> None:
    """Compare two videos, or two pictures: figures, and a page that shows both under a divider.

    Prints the figures. Without an output it also writes the page A-vs-B.html into the current folder:
    one file that works without a network, to open or to send. Frames belong together by their time;
    the smaller picture is enlarged to the size of the larger one.

    Exit codes: 0 done, 1 failed, 2 wrong usage.
    """
    _check(a, b, page, output)
    if page is None and (output.html or not (output.sheet or output.video or output.as_json)):
        page = _page_name(a, b)
    from stream.lab.compare.comparison import ComparisonOutputs
    from stream.lab.compare.comparison import compare as run

    outputs = ComparisonOutputs(
        page, output.sheet, output.video, output.as_json, output.layout,
        round(output.megabytes * 1e6), output.overwrite,
    )  # fmt: skip
    with _Display(output.quiet) as display:
        result = run(
            a,
            b,
            reference,
            outputs,
            start_s=part.start,
            duration_s=part.duration,
            offset_s=part.offset,
            on_progress=display.tick,
        )
    if not output.quiet:
        _print(result)


def _check(a: Path, b: Path, page: Path | None, output: CompareOutput) -> None:
    if output.layout not in ("split", "side"):
        raise ConfigError(f"--layout {output.layout}: unknown; use split or side")
    for path in (a, b):
        if path.suffix.lower() in _HTML:
            raise ConfigError(f"{path}: is a page, not a picture; write: gpen-stream compare A B {path}")
    if page is not None and page.suffix.lower() not in _HTML:
        raise ConfigError(
            f"{page}: is no third input; end the page's name in .html, or write --reference {page}"
        )
    if output.sheet is not None and output.sheet.suffix.lower() != ".png":
        raise ConfigError(f"--sheet {output.sheet}: the sheet is a PNG; end its name in .png")


def _page_name(a: Path, b: Path) -> Path:
    """A-vs-B.html in the current folder; with the folders' names where both are called the same."""
    names = [a.stem, b.stem]
    if names[0] == names[1]:
        folders = [path.resolve().parent.name for path in (a, b)]
        names = [f"{folder}-{a.stem}" for folder in folders] if folders[0] != folders[1] else [a.name, b.name]
    return Path(f"{names[0]}-vs-{names[1]}.html")


class _Display:
    """Shows progress in one line on a terminal; prints nothing elsewhere."""

    def __init__(self, quiet: bool) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)
        shown = self._console.is_terminal and not quiet
        self._status = self._console.status("opening") if shown else None

    def __enter__(self) -> _Display:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def tick(self, what: str, count: int) -> None:
        """Show that `count` frames are `what`, such as "measured"."""
        if self._status is not None:
            self._status.update(f"{count} frames {what}")


def _print(result: ComparisonResult) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    both = any("a" in figure.values for figure in result.figures)
    columns = ("a", "b") if both else ("b",)
    heads = {"a": "A", "b": "B" if result.has_reference else "B against A"}
    table = Table("figure", title=escape(result.summary), title_justify="left", title_style="bold")
    for which in columns:
        table.add_column(heads[which], justify="right")
    table.add_column("")
    for figure in result.figures:
        cells = [
            f"[green]{figure.text(which)}[/]" if figure.winner == which else figure.text(which)
            for which in columns
        ]
        table.add_row(figure.label, *cells, figure.reading)
    console = Console()
    console.print(table)
    for note in result.notes:
        console.print(note, style="dim", markup=False, highlight=False)
    for path in result.written:
        console.print(f"wrote {path}", markup=False, highlight=False, soft_wrap=True)
