"""Write into the pages what JSON files and the code say: tables, single figures, settings and commands.

    python docs/tables.py [--check]

A page marks a place by two comments. What stands between them is made anew:

    <!-- bench: FILE.TABLE -->...<!-- /bench -->        a table of docs/bench/FILE.json
    <!-- figure: FILE.TABLE; ROW; COLUMN -->...<!-- /figure -->   one value of it, inside a sentence
    <!-- evaluate: FILE -->...<!-- /evaluate -->        an evaluation, by `gpen-stream evaluate --json`
    <!-- groups: FILE -->...<!-- /groups -->            the same by the groups of docs/bench/report-faces.csv
    <!-- presets: all -->...<!-- /presets -->           what each preset sets
    <!-- settings: run|cameras -->...<!-- /settings --> every setting, from its model
    <!-- commands: all -->...<!-- /commands -->         every command and option, from the command line
    <!-- modules: ROOM -->...<!-- /modules -->          the modules of a folder, by their docstrings

ROW is the text of a cell, or of several cells with `; ` between them; exactly one row must hold them all.
COLUMN is the column's key in the JSON file. `--check` writes nothing and exits with 1 where a page differs.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import typer
import yaml
from pydantic import BaseModel

from stream.cli.main import app
from stream.config import PRESETS, Config, preset_path
from stream.lab.bench.report import BenchReport, Table, cell_text, load, load_warning, markdown
from stream.lab.quality import tables as evaluations
from stream.lab.quality.evaluation_report import EvaluationReport
from stream.models.info import bundled_model_path
from stream.server.camera_config import CamerasFile

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
FOLDER = ROOT / "docs" / "bench"
INDEPENDENT = frozenset("engines recipe soak".split())
"""Files whose figures stay true when the bundled weights change: times of networks, and detection."""
_PLACE = re.compile(
    r"<!-- (?P<kind>bench|figure|evaluate|groups|presets|settings|commands|modules): (?P<what>[^>]*?) -->"
    r".*?<!-- /(?P=kind) -->",
    re.DOTALL,
)


class StalePageError(Exception):
    """A marked place names what does not exist."""


def rewritten(text: str, folder: Path = FOLDER) -> str:
    """The page's text with every marked place made anew. Raises StreamError or StalePageError."""

    def made(place: re.Match[str]) -> str:
        kind, what = place["kind"], place["what"]
        content = _MAKERS[kind](what, folder)
        content = content if kind == "figure" else f"\n\n{content}\n\n"
        return f"<!-- {kind}: {what} -->{content}<!-- /{kind} -->"

    return _PLACE.sub(made, text)


# --- JSON files -------------------------------------------------------------------------------------


def _table_of(what: str, folder: Path) -> tuple[BenchReport, Table]:
    file, _, name = what.partition(".")
    report = load(folder / f"{file}.json")
    found = {table.name: table for table in report.tables}
    if name not in found:
        raise StalePageError(f"{file}.json has no table {name!r}; it has {', '.join(found)}")
    return report, found[name]


def _bench(what: str, folder: Path) -> str:
    report, table = _table_of(what, folder)
    machine, commit = report.machine, (report.commit or "")[:7]
    where = f"{machine['cpu']}, {machine['threads']} threads, {machine['date']}, commit {commit}."
    return markdown(table, where, _age(report.weights_sha256), load_warning(report))


def _age(weights_sha256: str) -> str:
    """A remark where the figures were measured with other weights than those that ship."""
    shipped = hashlib.sha256(bundled_model_path().read_bytes()).hexdigest()
    return "" if weights_sha256 == shipped else f"The bundled weights were {weights_sha256[:8]} then."


def _figure(what: str, folder: Path) -> str:
    place, *row, column = (part.strip() for part in what.split(";"))
    _, table = _table_of(place, folder)
    rows = [line for line in table.rows if set(row) <= {cell_text(cell) for cell in line.values()}]
    if len(rows) != 1 or column not in table.columns:
        raise StalePageError(f"figure: {what}: {len(rows)} rows; columns: {', '.join(table.columns)}")
    return cell_text(rows[0].get(column))


def _evaluation(what: str, folder: Path) -> str:
    return evaluations.markdown(evaluations.load(folder / f"{what}.json"))


def _groups(what: str, folder: Path) -> str:
    report = evaluations.load(folder / f"{what}.json")
    return "\n".join(_group_lines(report, folder / "report-faces.csv"))


def _group_lines(report: EvaluationReport, faces: Path) -> Iterator[str]:
    """The bare model's gain in dB and the change of the identity distance, for each group of faces."""
    with faces.open(encoding="utf-8") as file:
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


# --- the code ---------------------------------------------------------------------------------------


def _lines(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; bars inside cells are escaped."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in (headings, ["---"] * len(headings), *cells))


def _presets(_what: str, _folder: Path) -> str:
    """A row for each setting that one of the presets names."""
    flat = {name: dict(leaves(yaml.safe_load(preset_path(name).read_text()))) for name in PRESETS}
    default = dict(leaves(Config().model_dump()))
    keys = list(dict.fromkeys(key for settings in flat.values() for key in settings))
    rows = [
        [f"`{key}`", *(str(flat[name].get(key, default[key])) for name in PRESETS)]
        for key in keys
    ]  # fmt: skip
    return _lines(["setting", *(f"`{name}`" for name in PRESETS)], rows)


def leaves(settings: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Each setting by its full name, with its value."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _settings(what: str, _folder: Path) -> str:
    return "\n\n".join(_sections({"run": Config, "cameras": CamerasFile}[what]))


def _sections(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """A heading, the meaning and a table for each section of settings; inner sections follow it."""
    schema = model.model_json_schema()["properties"]
    rows, inner = [], []
    for name, field in model.model_fields.items():
        below = _section_in(field.annotation)
        if below is not None:
            inner.append(
                (below, f"{path}{name}.NAME." if schema[name].get("type") == "object" else f"{path}{name}.")
            )
            continue
        default = (
            "required" if field.is_required() else _default(field.get_default(call_default_factory=True))
        )
        rows.append([f"`{path}{name}`", default, _allowed(schema[name]), field.description or ""])
    if rows:
        yield f"### `{path.rstrip('.')}`\n\n{' '.join((model.__doc__ or '').split())}"
        yield _lines(["setting", "default", "allowed", "meaning"], rows)
    for below, key in inner:
        yield from _sections(below, key)


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, be it optional or by name; None for a plain value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_section_in(part) for part in get_args(annotation))
    return next((section for section in found if section is not None), None)


def _default(value: object) -> str:
    if value is None:
        return "unset"
    if value in ((), "", {}):
        return "none"
    return f"`{yaml.safe_dump(value, default_flow_style=True).removesuffix('...' + chr(10)).strip()}`"


def _allowed(facts: dict[str, Any]) -> str:
    """Choices or bounds, as far as the schema knows them."""
    facts = next((part for part in facts.get("anyOf", ()) if part.get("type") != "null"), {}) | facts
    if "enum" in facts:
        return ", ".join(f"`{choice}`" for choice in facts["enum"])
    if "const" in facts:
        return f"`{facts['const']}`"
    low = facts.get("minimum", facts.get("exclusiveMinimum"))
    high = facts.get("maximum", facts.get("exclusiveMaximum"))
    if low is not None and high is not None:
        above = "above " if "exclusiveMinimum" in facts else ""
        return f"{above}{low:,g} to {high:,.10g}"
    kinds = {"boolean": "true, false", "string": "text", "array": "list", "object": "mapping"}
    return kinds.get(facts.get("type", ""), "")


def _commands(_what: str, _folder: Path) -> str:
    return "\n\n".join(_command_parts(typer.main.get_command(app), "gpen-stream"))


def _command_parts(command: Any, path: str) -> Iterator[str]:
    """A heading, the help and a table for each command below `command`, in the order of `--help`."""
    for name, child in getattr(command, "commands", {}).items():
        yield from _command_parts(child, f"{path} {name}")
    if hasattr(command, "commands"):
        return
    yield f"## {path}"
    yield "\n\n".join(" ".join(part.split()) for part in (command.help or "").split("\n\n"))
    arguments = [option for option in command.params if option.param_type_name == "argument"]
    options = [option for option in command.params if option.param_type_name == "option"]
    rows = [[f"`{option.metavar or option.name.upper()}`", option.help or ""] for option in arguments]
    rows += [
        [", ".join(f"`{text}`" for text in (*option.opts, *option.secondary_opts)) + _value(option),
         (option.help or "") + _shown_default(option)]
        for option in options
    ]  # fmt: skip
    yield _lines(["argument or option", "meaning"], rows)


def _value(option: Any) -> str:
    """How an option's value is written, behind its name."""
    return "" if option.is_flag else f" `{option.metavar or 'VALUE'}`"


def _shown_default(option: Any) -> str:
    value = option.default
    if option.is_flag or value is None or callable(value) or value in ((), [], ""):
        return ""
    return f" Default: {value}."


def _modules(what: str, _folder: Path) -> str:
    """A row for each module of a room with the first line of its docstring; packages come first."""
    folder, rows = ROOT / "stream" / what, []
    for path in sorted(folder.rglob("*.py"), key=lambda path: (path.parent, path.name)):
        about = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
        rows.append([f"`{path.relative_to(ROOT)}`", " ".join(about.split())])
    return _lines(["module", "what it is"], rows)


_MAKERS: dict[str, Callable[[str, Path], str]] = {
    "bench": _bench,
    "figure": _figure,
    "evaluate": _evaluation,
    "groups": _groups,
    "presets": _presets,
    "settings": _settings,
    "commands": _commands,
    "modules": _modules,
}


def main() -> None:
    """Rewrite the pages, or check them."""
    stale = []
    for page in PAGES:
        old = page.read_text(encoding="utf-8")
        new = rewritten(old)
        if old != new:
            stale.append(str(page.relative_to(ROOT)))
            if "--check" not in sys.argv[1:]:
                page.write_text(new, encoding="utf-8")
    if stale and "--check" in sys.argv[1:]:
        sys.exit(f"{', '.join(stale)}: differ from docs/bench or from the code; run: python docs/tables.py")


if __name__ == "__main__":
    main()
