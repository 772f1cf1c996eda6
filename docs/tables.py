"""Rewrite the tables of README.md and docs/performance.md from docs/bench/*.json.

    python docs/tables.py [--check]

A table stands between `<!-- bench:NAME.TABLE -->` and `<!-- /bench -->`, NAME being the bench and
its file (`gpen-stream bench NAME --json docs/bench/NAME.json`), TABLE one of the tables in it.
docs/quality.md holds evaluations alike, between `<!-- evaluate:NAME -->` and `<!-- /evaluate -->`: of
docs/bench/NAME.json, which `gpen-stream evaluate ... --json docs/bench/NAME.json` wrote.
`--check` writes nothing and exits with 1 where a page is out of step.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from stream.bench.report import doubts, load, markdown
from stream.quality import tables as evaluations

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", ROOT / "docs" / "performance.md")
QUALITY = ROOT / "docs" / "quality.md"
FOLDER = ROOT / "docs" / "bench"
_PLACE = re.compile(r"(<!-- bench:(\w+)\.(\w+) -->\n).*?(<!-- /bench -->)", re.DOTALL)
_EVALUATION = re.compile(r"(<!-- evaluate:(\w+) -->\n).*?(<!-- /evaluate -->)", re.DOTALL)


def rewritten(text: str, folder: Path) -> str:
    """The text with every marked table made anew. Raises StreamError, or KeyError for a table."""

    def table(place: re.Match) -> str:
        start, bench, name, end = place.groups()
        report = load(folder / f"{bench}.json")
        tables = {table.name: table for table in report.tables}
        machine = report.machine
        where = f"{machine['cpu']}, {machine['threads']} threads, {machine['date']}."
        return f"{start}\n{markdown(tables[name], where, doubts(report))}\n\n{end}"

    def evaluation(place: re.Match) -> str:
        start, name, end = place.groups()
        return f"{start}\n{evaluations.markdown(evaluations.load(folder / f'{name}.json'))}\n\n{end}"

    return _EVALUATION.sub(evaluation, _PLACE.sub(table, text))


def main() -> None:
    """Rewrite, or check."""
    for page in (*PAGES, QUALITY):
        old = page.read_text(encoding="utf-8")
        new = rewritten(old, FOLDER)
        if "--check" not in sys.argv[1:]:
            page.write_text(new, encoding="utf-8")
        elif old != new:
            sys.exit(f"{page.name} is out of step with docs/bench; run: python docs/tables.py")


if __name__ == "__main__":
    main()
