"""A bench's result: tables that become JSON, a terminal's, Markdown, and a chart."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from stream.lab.bench.machine import QUIET_SHARE, Machine, bundled_weights_sha256, measured_commit
from stream.lab.bench.worker import BenchError

if TYPE_CHECKING:  # rich would count towards the memory of the workers, which import this module
    from stream.lab.bench.layout import Column

Cell: TypeAlias = str | float | bool | None
Row: TypeAlias = dict[str, Cell]
"""Values by the keys of `Table.columns`."""
Option: TypeAlias = float | str | Sequence[str] | Mapping[str, "Option"]


@dataclass(frozen=True, slots=True)
class Table:
    """One table. Rows are dicts; a value that is missing or None is shown as a dash."""

    name: str
    title: str
    columns: dict[str, str]
    """Key of a row -> heading, unit included; the first column names the row."""
    rows: list[Row]
    chart: str = ""
    """Key of the column that the chart shows; empty: none."""
    notes: list[str] = field(default_factory=list)
    """Sentences below the table."""


@dataclass(frozen=True, slots=True)
class BenchReport:
    """All tables of one run."""

    bench: str
    machine: Machine
    options: Mapping[str, Option]
    """What was asked for, by name."""
    other_load: float | None
    """Largest share of the machine that others took in any part, 0..1."""
    tables: list[Table]
    commit: str | None = field(default_factory=measured_commit)
    """The version that was measured; None where it was no clone."""
    weights_sha256: str = field(default_factory=bundled_weights_sha256)
    """Of the bundled model, whichever models were measured."""

    def to_json(self) -> str:
        """RFC 8259: what is infinite (a PSNR of equal pictures) is the text "equal"."""
        return json.dumps(_finite(asdict(self)), indent=1, ensure_ascii=False, allow_nan=False)


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return "equal" if math.isinf(value) else float(f"{value:.5g}")
    return value


def load(path: Path) -> BenchReport:
    """A report as `to_json` wrote it. Raises BenchError."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if not data.keys() >= {"commit", "weights_sha256"}:
            raise KeyError  # the defaults are today's version, not the measured one
        return BenchReport(**data | {"tables": [Table(**table) for table in data["tables"]]})
    except OSError as error:
        raise BenchError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except (ValueError, KeyError, TypeError):
        raise BenchError(f"{path}: not a bench's JSON; write it with gpen-stream bench NAME --json") from None


def shown(value: Cell) -> str:
    """A cell: three digits of a number, a dash for nothing."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if math.isinf(value):
            return "equal"
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def doubts(report: BenchReport) -> str:
    """A warning where the machine was not quiet; empty where it was."""
    if report.other_load is None or report.other_load <= QUIET_SHARE:
        return ""
    share = round(report.other_load * 100)
    return (
        f"The machine was not quiet (others took up to {share} % of it): these times are not to be trusted."
    )


def show(report: BenchReport) -> None:
    """Print the tables as wide as the terminal, or 80 columns wide where there is none."""
    from rich.console import Console
    from rich.text import Text

    from stream.lab.bench.layout import print_columns

    console = Console()
    for table in report.tables:
        console.print(Text(table.title, style="italic"))
        print_columns(console, _columns(table))
        for number, note in enumerate(table.notes):
            console.print(Text("" if number else "\n"), Text(note), sep="")
        console.print()
    if warning := doubts(report):
        console.print(Text(warning, style="bold"))


def _columns(table: Table) -> list[Column]:
    """Columns that hold something. Rows are named by the first one and by the text that follows it."""
    from stream.lab.bench.layout import Column

    columns: list[Column] = []
    for key, heading in table.columns.items():
        values = [row.get(key) for row in table.rows]
        if columns and all(value in (None, "") for value in values):
            continue
        text = any(isinstance(value, str) and value != "equal" for value in values)
        name = not columns or (text and columns[-1].name)
        columns.append(Column(heading, [shown(value) for value in values], text or name, name))
    return columns


def markdown(table: Table, *remarks: str) -> str:
    """The table as the README holds it: title, rows, and its notes with `remarks` behind them."""
    lines = ["| " + " | ".join(table.columns.values()) + " |", "|" + "---|" * len(table.columns)]
    lines += ["| " + " | ".join(shown(row.get(key)) for key in table.columns) + " |" for row in table.rows]
    notes = [text for text in (*table.notes, *remarks) if text]
    return "\n".join([f"{table.title}:", "", *lines, *(["", " ".join(notes)] if notes else [])])


def draw(report: BenchReport, path: Path) -> None:
    """Write a PNG with one bar chart for each table that has one. Raises BenchError."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn = [table for table in report.tables if table.chart]
    heights = [0.35 * len(table.rows) + 1 for table in drawn]
    figure, axes = pyplot.subplots(
        len(drawn), 1, figsize=(9, sum(heights)), height_ratios=heights, squeeze=False, layout="constrained"
    )
    for axis, table in zip(axes[:, 0], drawn, strict=True):
        first = next(iter(table.columns))
        bars = [
            (shown(row[first]), value)
            for row in table.rows
            if isinstance(value := row.get(table.chart), (int, float))
        ]
        places = range(len(bars))
        axis.barh(places, [value for _, value in bars], color="#4477aa")
        axis.set_yticks(places, [name for name, _ in bars])
        axis.invert_yaxis()
        axis.bar_label(axis.containers[0], [shown(value) for _, value in bars], padding=3)
        axis.margins(x=0.12)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlabel(table.columns[table.chart])
        axis.set_title(table.title, loc="left", fontsize=10)
    if warning := doubts(report):
        figure.supxlabel(warning, fontsize=8)
    try:
        figure.savefig(path, format="png", dpi=110)
    except OSError as error:
        raise BenchError(f"--chart {path}: cannot be written ({error.strerror}); name another file") from None
    finally:
        pyplot.close(figure)
