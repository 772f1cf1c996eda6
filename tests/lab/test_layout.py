"""The benches' tables on terminals: complete at any width."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from conftest import ROOT

from stream.lab.bench import report

FOLDER = ROOT / "docs" / "bench"


@pytest.fixture
def printed(monkeypatch, capsys):
    """The output of `show` at a width, or without a terminal for None."""

    def show(figures: report.BenchReport, columns: int | None) -> str:
        monkeypatch.delenv("COLUMNS", raising=False)
        if columns is not None:
            monkeypatch.setenv("COLUMNS", str(columns))
        report.show(figures)
        return capsys.readouterr().out

    return show


def one_table(columns: dict[str, str], *rows: dict) -> report.BenchReport:
    return report.BenchReport("x", {}, {}, None, [report.Table("x", "Title", columns, list(rows))])


def words(*texts: str) -> Counter[str]:
    return Counter(word for text in texts for word in text.split())


@pytest.mark.parametrize("columns", [None, 60, 80, 100, 160, 240])
@pytest.mark.parametrize("name", ["engines", "pipeline", "recipe"])
def test_no_line_is_too_long_and_every_heading_and_value_is_printed_uncut(printed, name, columns):
    figures = report.load(FOLDER / f"{name}.json")
    text = printed(figures, columns)
    assert max(map(len, text.splitlines())) <= (columns or 80)
    expected: Counter[str] = Counter()
    for table in figures.tables:
        first, *others = table.columns
        filled = [key for key in others if any(row.get(key) not in (None, "") for row in table.rows)]
        expected += words(table.title, *table.notes, *(table.columns[key] for key in filled))
        expected += words(*(report.cell_text(row.get(key)) for row in table.rows for key in filled))
        # A name that rows share may stand above them once.
        expected += words(*{report.cell_text(row[first]) for row in table.rows})
    assert not expected - words(text)


def test_a_wide_terminal_gets_the_table_in_one_piece_with_a_line_for_each_row(printed):
    figures = report.load(FOLDER / "engines.json")
    (table,) = figures.tables
    lines = printed(figures, 240).splitlines()
    headings = next(line for line in lines if line.startswith("model"))
    assert sum(line.startswith("model") for line in lines) == 1 and "precision" in headings
    for row in table.rows:
        cells = [report.cell_text(row.get(key)) for key in table.columns]
        assert sum(re.split(r"\s{2,}", line.strip()) == cells for line in lines) == 1


def test_each_piece_of_a_cut_table_says_which_rows_it_holds(printed):
    columns = {"model": "model", "side": "side"} | {f"v{i}": f"figure-{i:02}" for i in range(12)}
    rows = [
        {"model": model, "side": side} | {f"v{i}": 1000 * m + 100 * s + i for i in range(12)}
        for m, model in enumerate(("first", "second"), 1)
        for s, side in enumerate(("fair baseline", "every frame, FP32"), 1)
    ]
    pieces = printed(one_table(columns, *rows), 80).strip().split("\n\n")
    assert len(pieces) > 1
    for piece in pieces:
        headings, *lines = piece.removeprefix("Title\n").splitlines()
        assert headings.split()[0] == "side"
        held = [int(number) for number in re.findall(r"figure-(\d+)", headings)]
        for m, (model, fair, every) in enumerate((lines[:3], lines[3:]), 1):
            assert model.split()[0] == ("first", "second")[m - 1]
            for s, (line, side) in enumerate(((fair, "fair baseline"), (every, "every frame, FP32")), 1):
                values = [str(1000 * m + 100 * s + i) for i in held]
                assert re.split(r"\s{2,}", line.strip()) == [side, *values]


def test_columns_with_one_heading_stay_beside_the_one_that_tells_them_apart(printed):
    kinds = ("old scan", "night shot", "compressed")
    columns = {"row": "row"} | {
        f"{kind} {what}": heading
        for kind in kinds
        for what, heading in (("psnr", f"{kind}: PSNR"), ("ssim", "SSIM"), ("clean", "to clean"))
    }
    row = {key: 12345 for key in columns} | {"row": "the row's own name"}
    for width in range(60, 130):
        for piece in printed(one_table(columns, row), width).strip().split("\n\n"):
            numbers = piece.splitlines()[-1].split().count("12345")
            assert numbers % 3 == 0, f"at {width} columns"


def test_names_are_printed_letter_by_letter_and_a_column_without_values_is_left_out(printed):
    columns = {"model": "model", "ms": "ms", "aim": "aim", "note": "note"}
    name, path = "net[bold] [/red] :smile:", "/a/long/" + "folder/" * 12 + "net.safetensors"
    text = printed(one_table(columns, {"model": name, "ms": 1.5, "note": f"not here: {path}"}), 80)
    assert name in text and "aim" not in text.split()
    assert path in "".join(text.split()) and max(map(len, text.splitlines())) <= 80


def test_a_table_without_rows_still_has_its_headings(printed):
    assert "first" in printed(one_table({"a": "first", "b": "second"}), 80)
