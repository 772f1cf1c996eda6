"""Layout of tables for terminals of any width. Tables are split between columns, never within a number.

A table that fits is printed as it is. If it does not fit and several columns together name a row, the
first column becomes a heading above each group of rows. A table that still does not fit is split into
pieces, one below the other; each piece repeats the columns that name the rows.
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
"""Width between columns."""
_TEXT = 30
"""Longer text wraps between words if necessary, but to no less than this width."""
_HEADING_LINES = 3
"""Largest number of lines in a heading."""
_SHORT = 8
"""A heading of at most this length occupies one line."""


@dataclass(frozen=True, slots=True)
class Column:
    """A heading and the text of its cells."""

    heading: str
    cells: Sequence[str]
    text: bool = False
    """Whether cells are aligned to the left; numbers are aligned to the right."""
    name: bool = False
    """Whether the column is one of those that name the row."""
    width: int = 0
    """Width in characters, set by the layout."""

    def full_width(self, heading_lines: int = _HEADING_LINES) -> int:
        """The width at which no cell wraps and the heading has at most `heading_lines` lines."""
        return max(_heading_width(self.heading, heading_lines), *map(cell_len, self.cells), 1)

    def least_width(self) -> int:
        """The width at which only long text wraps, between words."""
        words = [cell_len(word) for cell in self.cells for word in cell.split()]
        return min(self.full_width(), max(_heading_width(self.heading, _HEADING_LINES), *words, _TEXT))


def _heading_width(heading: str, lines: int) -> int:
    if len(heading) <= _SHORT:
        return len(heading)
    longest = max(map(len, heading.split()))
    return next(width for width in range(longest, len(heading) + 1) if _lines(heading, width) <= lines)


def _lines(text: str, width: int) -> int:
    return len(textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False))


def print_columns(console: Console, columns: Sequence[Column]) -> None:
    """Print the table, in as many pieces as the console's width requires."""
    rows = range(len(columns[0].cells))
    groups = [("", list(rows))]
    one_piece = _in_one_piece(columns, console.width)
    if not one_piece and sum(column.name for column in columns) > 1:
        groups = [(name, list(group)) for name, group in groupby(rows, columns[0].cells.__getitem__)]
        columns = columns[1:]
        one_piece = _in_one_piece(columns, console.width)
    for number, piece in enumerate([one_piece] if one_piece else _pieces(columns, console.width)):
        if number:
            console.print()
        _print_piece(console, piece, groups)


def _in_one_piece(columns: Sequence[Column], width: int) -> list[Column]:
    """All columns side by side, with as few lines in the headings as possible; empty if they do not fit."""
    for lines in range(1, _HEADING_LINES + 1):
        given = [replace(column, width=column.full_width(lines)) for column in columns]
        if _total(given) <= width:
            return given
    return []


def _pieces(columns: Sequence[Column], width: int) -> Iterator[list[Column]]:
    """The columns in pieces, with their widths. Those that name the rows come first in every piece."""
    names = [column for column in columns if column.name]
    others = [column for column in columns if not column.name]
    widest = max((min(column.least_width(), width // 2) for column in others), default=-_GAP)
    names = _narrowed(names, width - widest - _GAP)
    room = width - _total(names) - _GAP
    piece: list[Column] = []
    for run in _runs([replace(column, width=min(column.least_width(), room)) for column in others]):
        together = [run] if _total(run) <= room else [[column] for column in run]
        for part in together:
            if piece and _total([*piece, *part]) > room:
                yield _widened([*names, *piece], width)
                piece = []
            piece += part
    yield _widened([*names, *piece], width)


def _runs(columns: Sequence[Column]) -> list[list[Column]]:
    """Groups of columns that are not split: the column before a repeated heading distinguishes it."""
    count = Counter(column.heading for column in columns)
    runs: list[list[Column]] = []
    for column in columns:
        if runs and count[column.heading] > 1:
            runs[-1].append(column)
        else:
            runs.append([column])
    return runs


def _narrowed(columns: Sequence[Column], width: int) -> list[Column]:
    """The columns with their least widths, or less if the terminal is narrower."""
    columns = [replace(column, width=column.least_width()) for column in columns]
    while _total(columns) > width and (widest := max(column.width for column in columns)) > 1:
        at = next(number for number, column in enumerate(columns) if column.width == widest)
        columns[at] = replace(columns[at], width=widest - 1)
    return columns


def _widened(columns: Sequence[Column], width: int) -> list[Column]:
    """The columns, with spare width given to those whose text would wrap."""
    spare, result = width - _total(columns), []
    for column in columns:
        more = max(0, min(spare, column.full_width() - column.width))
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
    """A grid of the rows, or of the headings if `rows` is None. Fixed widths align all grids."""
    grid = Grid(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, show_header=rows is None)
    for column in columns:
        heading = Text(column.heading)
        justify: Literal["left", "right"] = "left" if column.text else "right"
        grid.add_column(heading, justify=justify, width=column.width, overflow="fold")
    for row in rows or ():
        grid.add_row(*(Text(column.cells[row]) for column in columns))
    return grid
