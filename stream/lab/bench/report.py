"""The result of a bench: tables, written as JSON, on a terminal, as Markdown and as a chart."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from stream.lab.bench.machine import QUIET_SHARE, Machine, bundled_weights_sha256, measured_commit
from stream.lab.bench.worker import BenchError

if TYPE_CHECKING:  # the workers import this module, and rich would add to their memory
    from stream.lab.bench.layout import Column

Cell: TypeAlias = str | float | bool | None
Row: TypeAlias = dict[str, Cell]
"""Values by the keys of `Table.columns`."""
Option: TypeAlias = float | str | Sequence[str] | Mapping[str, "Option"]


@dataclass(frozen=True, slots=True)
class Table:
    """One table. A value that is missing in a row, or None, is shown as a dash."""

    name: str
    title: str
    columns: dict[str, str]
    """Headings with units, by the key in a row. The first column names the row."""
    rows: list[Row]
    chart: str = ""
    """Key of the column that the chart shows; empty for no chart."""
    notes: list[str] = field(default_factory=list)
    """Sentences that stand below the table."""


@dataclass(frozen=True, slots=True)
class BenchReport:
    """All tables of one run."""

    bench: str
    machine: Machine
    options: Mapping[str, Option]
    """The options of the bench, by name."""
    other_load: float | None
    """Largest share of the machine that other processes took in any part, 0..1."""
    tables: list[Table]
    commit: str | None = field(default_factory=measured_commit)
    """The measured commit, see `machine.measured_commit`; None if unknown."""
    weights_sha256: str = field(default_factory=bundled_weights_sha256)
    """SHA-256 of the bundled model's weights, whichever models were measured."""

    def to_json(self) -> str:
        """The report as JSON (RFC 8259). An infinite PSNR, of equal pictures, becomes the text "equal"."""
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
    """Read a report that `to_json` wrote. Raises BenchError."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if not data.keys() >= {"commit", "weights_sha256"}:
            raise KeyError  # the fields' defaults describe this version, not the measured one
        return BenchReport(**data | {"tables": [Table(**table) for table in data["tables"]]})
    except OSError as error:
        raise BenchError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except (ValueError, KeyError, TypeError):
        raise BenchError(f"{path}: not a bench's JSON; write it with gpen-stream bench NAME --json") from None


def cell_text(value: Cell) -> str:
    """The text of a cell: three digits of a number, a dash for None."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if math.isinf(value):
            return "equal"
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def load_warning(report: BenchReport) -> str:
    """A warning if other processes took much of the machine; otherwise empty."""
    if report.other_load is None or report.other_load <= QUIET_SHARE:
        return ""
    share = round(report.other_load * 100)
    return (
        f"The machine was not quiet (others took up to {share} % of it): these times are not to be trusted."
    )


def show(report: BenchReport) -> None:
    """Print the tables with the terminal's width, or 80 columns wide without a terminal."""
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
    if warning := load_warning(report):
        console.print(Text(warning, style="bold"))


def _columns(table: Table) -> list[Column]:
    """The columns that have values. The first column and any text columns after it name the rows."""
    from stream.lab.bench.layout import Column

    columns: list[Column] = []
    for key, heading in table.columns.items():
        values = [row.get(key) for row in table.rows]
        if columns and all(value in (None, "") for value in values):
            continue
        text = any(isinstance(value, str) and value != "equal" for value in values)
        name = not columns or (text and columns[-1].name)
        columns.append(Column(heading, [cell_text(value) for value in values], text or name, name))
    return columns


def markdown(table: Table, *remarks: str) -> str:
    """The table in Markdown: title, rows, notes, and `remarks` after them."""
    lines = ["| " + " | ".join(table.columns.values()) + " |", "|" + "---|" * len(table.columns)]
    lines += [
        "| " + " | ".join(cell_text(row.get(key)) for key in table.columns) + " |" for row in table.rows
    ]
    notes = [text for text in (*table.notes, *remarks) if text]
    return "\n".join([f"{table.title}:", "", *lines, *(["", " ".join(notes)] if notes else [])])


def draw(report: BenchReport, path: Path) -> None:
    """Write a PNG with a bar chart for each table that names one. Raises BenchError."""
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
            (cell_text(row[first]), value)
            for row in table.rows
            if isinstance(value := row.get(table.chart), (int, float))
        ]
        places = range(len(bars))
        axis.barh(places, [value for _, value in bars], color="#4477aa")
        axis.set_yticks(places, [name for name, _ in bars])
        axis.invert_yaxis()
        axis.bar_label(axis.containers[0], [cell_text(value) for _, value in bars], padding=3)
        axis.margins(x=0.12)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlabel(table.columns[table.chart])
        axis.set_title(table.title, loc="left", fontsize=10)
    if warning := load_warning(report):
        figure.supxlabel(warning, fontsize=8)
    try:
        figure.savefig(path, format="png", dpi=110)
    except OSError as error:
        raise BenchError(f"--chart {path}: cannot be written ({error.strerror}); name another file") from None
    finally:
        pyplot.close(figure)
