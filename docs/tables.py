"""Rewrite the tables of README.md and docs/performance.md from docs/bench/*.json.

    python docs/tables.py [--check]

A table stands between `<!-- bench:NAME.TABLE -->` and `<!-- /bench -->`, NAME being the bench and
its file (`gpen-stream bench NAME --json docs/bench/NAME.json`), TABLE one of the tables in it.
docs/quality.md holds evaluations alike, between `<!-- evaluate:NAME -->` and `<!-- /evaluate -->`: of
docs/bench/NAME.json, which `gpen-stream evaluate ... --json docs/bench/NAME.json` wrote.
docs/model-card.md holds the same by groups of faces, between `<!-- groups:NAME -->` and `<!-- /groups -->`:
who is in which group stands in docs/bench/report-faces.csv.
`--check` writes nothing and exits with 1 where a page is out of step.
"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stream.lab.bench.report import load, load_warning, markdown
from stream.lab.quality import tables as evaluations
from stream.lab.quality.evaluation_report import EvaluationReport

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", ROOT / "docs" / "performance.md")
EVALUATIONS = (ROOT / "docs" / "quality.md", ROOT / "docs" / "model-card.md")
FOLDER = ROOT / "docs" / "bench"
_PLACE = re.compile(r"(<!-- bench:(\w+)\.(\w+) -->\n).*?(<!-- /bench -->)", re.DOTALL)
_GROUPS = re.compile(r"(<!-- groups:(\w+) -->\n).*?(<!-- /groups -->)", re.DOTALL)
_EVALUATION = re.compile(r"(<!-- evaluate:(\w+) -->\n).*?(<!-- /evaluate -->)", re.DOTALL)


def rewritten(text: str, folder: Path) -> str:
    """The text with every marked table made anew. Raises StreamError, or KeyError for a table."""

    def table(place: re.Match) -> str:
        start, bench, name, end = place.groups()
        report = load(folder / f"{bench}.json")
        tables = {table.name: table for table in report.tables}
        machine = report.machine
        where = f"{machine['cpu']}, {machine['threads']} threads, {machine['date']}."
        return f"{start}\n{markdown(tables[name], where, load_warning(report))}\n\n{end}"

    def evaluation(place: re.Match) -> str:
        start, name, end = place.groups()
        return f"{start}\n{evaluations.markdown(evaluations.load(folder / f'{name}.json'))}\n\n{end}"

    def groups(place: re.Match) -> str:
        start, name, end = place.groups()
        lines = _groups(evaluations.load(folder / f"{name}.json"), folder)
        return "\n".join((start, *lines, "", end))

    return _GROUPS.sub(groups, _EVALUATION.sub(evaluation, _PLACE.sub(table, text)))


def _groups(report: EvaluationReport, folder: Path) -> Iterator[str]:
    """For each group of faces the bare model's gain in dB, and the change of the identity distance."""
    with (folder / "report-faces.csv").open(encoding="utf-8") as file:
        people = {row["name"]: row for row in csv.DictReader(file)}
    levels, model = report["levels"], report["models"][0]
    yield "| faces | " + " | ".join(f"{level}, dB | identity" for level in levels) + " |"
    yield "|---" * (1 + 2 * len(levels)) + "|"
    for kind in ("skin", "age"):
        for name in sorted({row[kind] for row in people.values()} - {""}):
            inside = np.array([people[face][kind] == name for face in report["faces"]])
            cells = []
            for level in levels:
                rows = report["by_face"][level]
                for figure, digits in (("psnr", 2), ("identity", 3)):
                    ours, before = (np.array(rows[row][figure], float)[inside] for row in (model, "input"))
                    cells.append(f"{np.nanmean(ours - before):+.{digits}f}")
            yield f"| {name}{' skin' * (kind == 'skin')} ({inside.sum()}) | " + " | ".join(cells) + " |"


def main() -> None:
    """Rewrite, or check."""
    for page in (*PAGES, *EVALUATIONS):
        old = page.read_text(encoding="utf-8")
        new = rewritten(old, FOLDER)
        if "--check" not in sys.argv[1:]:
            page.write_text(new, encoding="utf-8")
        elif old != new:
            sys.exit(f"{page.name} is out of step with docs/bench; run: python docs/tables.py")


if __name__ == "__main__":
    main()
