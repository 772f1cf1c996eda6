"""An evaluation as tables on a terminal and in Markdown, and its JSON file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from stream.errors import ConfigError, SourceError
from stream.lab.quality.evaluation_report import EvaluationReport, FigureDifference

if TYPE_CHECKING:
    from rich.table import Table

HEADINGS = {
    "psnr": "PSNR dB",
    "ssim": "SSIM",
    "gmsd": "GMSD",
    "haarpsi": "HaarPSI",
    "vif": "VIF",
    "lpips": "LPIPS",
    "sharpness": "sharpness",
    "overshoot": "overshoot %",
    "landmarks": "landmarks %",
    "identity": "identity",
}
_DIGITS = {"psnr": 2, "gmsd": 4, "sharpness": 2, "overshoot": 1, "landmarks": 1}
_PERCENT = {"overshoot", "landmarks"}
_MARKS = {"better": "✓", "worse": "✗", "": ""}
_STYLES = {"✓": "green", "✗": "red"}
_KEYS = ("model", "models", "split", "seed", "faces", "levels", "rows", "figures", "middles", "differences")
LEGEND = (
    "✓ better, ✗ worse than the input: the 95 % interval of the paired bootstrap over faces excludes no "
    "change. Means; of sharpness the median. Lower is better for GMSD, LPIPS, overshoot, landmarks, identity."
)


def load(path: Path) -> EvaluationReport:
    """Read a report that `evaluate --json` wrote. Raises SourceError for any other file."""
    try:
        report: EvaluationReport = json.loads(path.read_text(encoding="utf-8"))
        if not all(key in report for key in _KEYS):
            raise KeyError
        return report
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except (ValueError, KeyError, TypeError):
        raise SourceError(f"{path}: no evaluation; write it with gpen-stream evaluate --json") from None


def save(report: EvaluationReport, path: Path) -> None:
    """Write the report with one line for each key. Raises ConfigError if it cannot be written."""
    parts = (f"{json.dumps(key)}: {_json(value)}" for key, value in report.items())
    try:
        path.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--json {path}: cannot be written ({error.strerror}); check the path") from None


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def markdown(report: EvaluationReport) -> str:
    """One table for each level, with marks for better or worse than the input."""
    figures = report["figures"]
    parts = []
    for level in report["levels"]:
        head = [level, *(HEADINGS[figure] for figure in figures)]
        lines = [head, ["---"] * len(head)]
        lines += [[row, *cells] for row, cells in _cells(report, level)]
        parts.append("\n".join("| " + " | ".join(line) + " |" for line in lines))
    about = f"{report['model']}, {len(report['faces'])} faces ({report['split']}), seed {report['seed']}."
    return "\n\n".join([*parts, f"{about} {LEGEND}"])


def rich_tables(report: EvaluationReport) -> Iterator[Table]:
    """Two tables for each level: the figures, then the model's differences with their intervals."""
    from rich.table import Table
    from rich.text import Text

    for level in report["levels"]:
        title = f"{level}, {len(report['faces'])} faces"
        table = Table(
            "", *(HEADINGS[figure] for figure in report["figures"]), title=title, title_justify="left"
        )
        for row, cells in _cells(report, level):
            table.add_row(row, *(Text(cell, _STYLES.get(cell[-1:], "")) for cell in cells))
        yield table
        compared: dict[str, dict[str, Text]] = {}
        for each in report["differences"]:
            if each["level"] == level and each["row"] in report["models"]:
                cell = Text(_interval(each), _STYLES.get(_MARKS[each["verdict"]], ""))
                compared.setdefault(f"{each['row']} − {each['against']}", {})[each["figure"]] = cell
        table = Table(f"{level}: differences", *compared)
        for figure in report["figures"]:
            table.add_row(HEADINGS[figure], *(cells[figure] for cells in compared.values()))
        yield table


def _cells(report: EvaluationReport, level: str) -> Iterator[tuple[str, list[str]]]:
    """The rows of a level: name, and cells with their marks against the input."""
    verdicts = {
        (each["row"], each["figure"]): each["verdict"]
        for each in report["differences"]
        if each["level"] == level and each["against"] == "input"
    }
    for row in report["rows"]:
        middles = report["middles"][level][row]
        yield (
            row,
            [
                f"{_shown(figure, middles[figure])} {_MARKS[verdicts.get((row, figure), '')]}".strip()
                for figure in report["figures"]
            ],
        )


def _shown(figure: str, value: float | None, sign: str = "") -> str:
    if value is None:
        return "–"
    scale = 100 if figure in _PERCENT else 1
    return f"{value * scale:{sign}.{_DIGITS.get(figure, 3)}f}"


def _interval(each: FigureDifference) -> str:
    values = (each["difference"], each["low"], each["high"])
    middle, low, high = (_shown(each["figure"], value, "+") for value in values)
    return f"{middle} [{low}, {high}] {_MARKS[each['verdict']]}".strip()
