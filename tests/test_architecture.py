"""The rules of the house, read from the syntax tree: rooms, imports, sizes and names."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from waiting import LIMIT_S

ROOT = Path(__file__).parent.parent / "stream"
ROOMS = (
    "errors", "_version", "config_live", "config",
    "picture", "pipeline", "models", "faces", "media", "job", "live", "server", "lab", "cli",
)  # fmt: skip
"""Bottom to top: a room imports only from itself and from rooms before it."""
APART = {"faces": {"media"}, "media": {"faces"}, "live": {"job"}}
"""Rooms that do not know each other, whatever their order."""
ENTRANCES = {"__init__", "errors", "_version", "config", "config_live"}
"""The only modules outside of a room."""
LIBRARIES = {
    "openvino": {"models.engines"},
    "onnxruntime": {"models.engines"},
    "spandrel": {"models.engines"},
    "torch": {"models.engines", "models.nets", "faces.detect.detectors", "lab"},
    "multiprocessing": {"pipeline.processes"},
    "typer": {"cli"},
    "fastapi": {"server.dashboard"},
    "starlette": {"server.dashboard"},
    "ray": {"job.cluster", "job.executors", "server.fleet"},
}
"""Who may import a library, by the beginning of the module's name."""
LINES, PARAMETERS, NESTING, ATTRIBUTES, FILE_LINES = 60, 8, 4, 15, 400


@cache
def modules() -> dict[str, ast.Module]:
    """Syntax trees by dotted name below `stream`; a package's is that of its `__init__`."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found[name] = ast.parse(path.read_text(), filename=str(path))
    return found


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names of all imports, those inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def inner_imports() -> Iterator[tuple[str, str]]:
    """(module, what it imports of the product), both without `stream.`"""
    for here, tree in modules().items():
        for name in imports(tree):
            if name.startswith("stream.") and name != "stream.__version__":
                yield here, name.removeprefix("stream.")


def room(name: str) -> str:
    return name.split(".")[0]


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for module, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{module}.{node.name}", node


def classes() -> Iterator[tuple[str, ast.ClassDef]]:
    for module, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                yield module, node


# --- rooms --------------------------------------------------------------------------------------


def test_only_the_entrances_stand_outside_of_the_rooms():
    assert {name for name in modules() if "." not in name} == ENTRANCES
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert folders == set(ROOMS) - ENTRANCES


def test_imports_run_one_way_through_the_rooms():
    order = {name: place for place, name in enumerate(ROOMS)}
    wrong = [
        f"{here} imports {name}"
        for here, name in inner_imports()
        if here != "__init__"
        and room(name) in order
        and (order[room(name)] > order[room(here)] or room(name) in APART.get(room(here), ()))
    ]
    assert not wrong, "\n".join(wrong)


def test_no_module_imports_itself_by_a_detour():
    edges: dict[str, set[str]] = {name: set() for name in modules()}
    for here, name in inner_imports():
        parent = name.rpartition(".")[0]
        candidates = (name, parent, f"{name}.__init__", f"{parent}.__init__")
        there = next((one for one in candidates if one in edges), here)
        if there != here:
            edges[here].add(there)
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"a circle: {' -> '.join((*path, name))}"
        if name not in done:
            for there in sorted(edges[name]):
                visit(there, (*path, name))
            done.add(name)

    for name in edges:
        visit(name, ())


def test_a_library_is_known_only_where_it_is_meant_to_be():
    wrong = [
        f"{here} imports {name}"
        for here, tree in modules().items()
        for name in imports(tree)
        if (allowed := LIBRARIES.get(name.split(".")[0])) is not None
        and not any(here == place or here.startswith(f"{place}.") for place in allowed)
    ]
    assert not wrong, "\n".join(wrong)


def test_only_one_module_starts_threads_and_processes():
    for path in ROOT.rglob("*.py"):
        if path != ROOT / "pipeline" / "processes.py":
            assert "threading.Thread(" not in path.read_text(), path


# --- sizes --------------------------------------------------------------------------------------


def test_files_and_functions_are_short_enough_to_read():
    long = [str(path) for path in ROOT.rglob("*.py") if path.read_text().count("\n") > FILE_LINES]
    long += [
        f"{name}: {length} lines"
        for name, node in functions()
        if (length := node.end_lineno - node.lineno + 1) > LINES
    ]
    assert not long, "\n".join(long)


def test_functions_take_few_parameters():
    wide = []
    for name, node in functions():
        given = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
        count = len(given) - bool(given and given[0].arg in ("self", "cls"))
        if count > PARAMETERS:
            wide.append(f"{name}: {count}")
    assert not wide, "\n".join(wide)


_BLOCKS = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.Match, ast.AsyncFor, ast.AsyncWith)


def depth(node: ast.AST, here: int = 0) -> int:
    """How deep blocks stand in each other; an `elif` is no deeper than its `if`."""
    deepest = here
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            continue
        is_elif = isinstance(node, ast.If) and isinstance(child, ast.If) and child in node.orelse
        deepest = max(deepest, depth(child, here + (isinstance(child, _BLOCKS) and not is_elif)))
    return deepest


def test_blocks_are_not_nested_deeply():
    deep = [f"{name}: {n}" for name, node in functions() if (n := depth(node)) > NESTING]
    assert not deep, "\n".join(deep)


def test_classes_hold_few_attributes():
    wide = []
    for module, node in classes():
        made = {
            item.attr
            for method in node.body
            if isinstance(method, ast.FunctionDef) and method.name == "__init__"
            for item in ast.walk(method)
            if isinstance(item, ast.Attribute)
            and isinstance(item.ctx, ast.Store)
            and isinstance(item.value, ast.Name)
            and item.value.id == "self"
        }
        if len(made) > ATTRIBUTES:
            wide.append(f"{module}.{node.name}: {len(made)}")
    assert not wide, "\n".join(wide)


@pytest.mark.parametrize("check", [["check"], ["format", "--check"]], ids=["lint", "format"])
def test_ruff_finds_nothing(check):
    command = [sys.executable, "-m", "ruff", *check, "--no-cache", "stream", "tests", "docs", "samples"]
    done = subprocess.run(command, cwd=ROOT.parent, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stdout


# --- names --------------------------------------------------------------------------------------


def test_a_name_of_a_class_or_module_means_one_thing():
    named = Counter(node.name for _, node in classes())
    named += Counter(name.rpartition(".")[2] for name in modules() if not name.endswith("__"))
    assert not {name: count for name, count in named.items() if count > 1}


def test_plain_dictionaries_stand_only_at_the_edge():
    """They are allowed where JSON or YAML from outside is read, or where a library requires them."""
    lines = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sorted(ROOT.rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if "dict[str, Any]" in line
    ]
    assert len(lines) <= 15, "\n".join(lines)


# --- tests --------------------------------------------------------------------------------------


def test_the_tests_mirror_the_rooms():
    here = Path(__file__).parent
    mirrored = {path.parent.relative_to(here).as_posix() for path in here.rglob("test_*.py")} - {"."}
    for folder in mirrored:
        assert (ROOT / folder).is_dir(), f"tests/{folder} has no room in stream/"
    names = ("architecture", "compatibility", "config", "deploy", "docs", "types", "wheel")
    alone = {f"test_{name}" for name in names}
    assert {path.stem for path in here.glob("test_*.py")} <= alone
