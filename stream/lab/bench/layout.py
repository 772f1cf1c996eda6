"""A table on a terminal of any width: cut between columns, never through a word or a number.

A table that fits is printed as it is. One that does not gives up its first column where several
columns together name a row: each group of rows then stands under that column's value. What still does
not fit is cut into pieces one below the other, and each piece repeats the columns that name the rows.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

_GAP = 2
"""Between columns."""
_TEXT = 30
"""Longer text wraps between words where it must, but no narrower than that."""
_HEADING_LINES = 3
"""A column is wide enough for its heading to take no more lines than that."""
_SHORT = 8
"""A heading up to that long takes one line."""


@dataclass(frozen=True, slots=True)
class Column:
    """A heading and its cells, as shown."""

    heading: str
    cells: Sequence[str]
    text: bool = False
    """Set on the left; numbers stand on the right."""
    name: bool = False
    """One of the columns that tell which row it is."""
    width: int = 0
    """Characters; given by the layout."""

    def whole(self, heading_lines: int = _HEADING_LINES) -> int:
        """The width at which no cell wraps, and the heading to so many lines at most."""
        return max(_heading_width(self.heading, heading_lines), *map(cell_len, self.cells), 1)

    def least(self) -> int:
        """The width at which only long text wraps, between its words."""
        words = [cell_len(word) for cell in self.cells for word in cell.split()]
        return min(self.whole(), max(_heading_width(self.heading, _HEADING_LINES), *words, _TEXT))


def _heading_width(heading: str, lines: int) -> int:
    if len(heading) <= _SHORT:
        return len(heading)
    longest = max(map(len, heading.split()))
    return next(width for width in range(longest, len(heading) + 1) if _lines(heading, width) <= lines)


def _lines(text: str, width: int) -> int:
    return len(textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False))


def print_columns(console: Console, columns: Sequence[Column]) -> None:
    """Print the table, in as many pieces as the console's width asks for."""
    rows = range(len(columns[0].cells))
    groups = [("", list(rows))]
    whole = _in_one(columns, console.width)
    if not whole and sum(column.name for column in columns) > 1:
        groups = [(name, list(group)) for name, group in groupby(rows, columns[0].cells.__getitem__)]
        columns = columns[1:]
        whole = _in_one(columns, console.width)
    for number, piece in enumerate([whole] if whole else _pieces(columns, console.width)):
        if number:
            console.print()
        _print_piece(console, piece, groups)


def _in_one(columns: Sequence[Column], width: int) -> list[Column]:
    """All of them side by side, their headings in as few lines as the width allows; empty: too many."""
    for lines in range(1, _HEADING_LINES + 1):
        given = [replace(column, width=column.whole(lines)) for column in columns]
        if _total(given) <= width:
            return given
    return []


def _pieces(columns: Sequence[Column], width: int) -> Iterator[list[Column]]:
    """Columns with their widths; those that name the rows stand first in every piece."""
    names = [column for column in columns if column.name]
    others = [column for column in columns if not column.name]
    widest = max((min(column.least(), width // 2) for column in others), default=-_GAP)
    names = _narrowed(names, width - widest - _GAP)
    room = width - _total(names) - _GAP
    piece: list[Column] = []
    for run in _runs([replace(column, width=min(column.least(), room)) for column in others]):
        together = [run] if _total(run) <= room else [[column] for column in run]
        for part in together:
            if piece and _total([*piece, *part]) > room:
                yield _widened([*names, *piece], width)
                piece = []
            piece += part
    yield _widened([*names, *piece], width)


def _runs(columns: Sequence[Column]) -> list[list[Column]]:
    """Columns to keep together: a heading that occurs again is told apart by the column before it."""
    count = Counter(column.heading for column in columns)
    runs: list[list[Column]] = []
    for column in columns:
        if runs and count[column.heading] > 1:
            runs[-1].append(column)
        else:
            runs.append([column])
    return runs


def _narrowed(columns: Sequence[Column], width: int) -> list[Column]:
    """As wide as they are at least, or less where the screen is too narrow even for that."""
    columns = [replace(column, width=column.least()) for column in columns]
    while _total(columns) > width and (widest := max(column.width for column in columns)) > 1:
        at = next(number for number, column in enumerate(columns) if column.width == widest)
        columns[at] = replace(columns[at], width=widest - 1)
    return columns


def _widened(columns: Sequence[Column], width: int) -> list[Column]:
    """What is left of the width goes to the columns whose text would wrap."""
    spare, result = width - _total(columns), []
    for column in columns:
        more = max(0, min(spare, column.whole() - column.width))
        result.append(replace(column, width=column.width + more))
        spare -= more
    return result


def _total(columns: Sequence[Column]) -> int:
    return sum(column.width for column in columns) + _GAP * (len(columns) - 1)


def _print_piece(console: Console, columns: Sequence[Column], groups: list[tuple[str, list[int]]]) -> None:
    width = _total(columns)
    line = "-" if console.options.ascii_only else "─"
    console.print(_grid(columns, None))
    for name, rows in groups:
        console.print(Text(f"{name} ".lstrip().ljust(width, line), style="bold" if name else ""))
        console.print(_grid(columns, rows))


def _grid(columns: Sequence[Column], rows: Sequence[int] | None) -> Grid:
    """These rows, or for None the headings alone; widths are fixed, so that the grids line up."""
    grid = Grid(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, show_header=rows is None)
    for column in columns:
        heading = Text(column.heading)
        justify: Literal["left", "right"] = "left" if column.text else "right"
        grid.add_column(heading, justify=justify, width=column.width, overflow="fold")
    for row in rows or ():
        grid.add_row(*(Text(column.cells[row]) for column in columns))
    return grid
