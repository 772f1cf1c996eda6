"""The structure that the design promises, read from the syntax tree."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent / "stream"
# Down to up: a module may import only what stands before it. A folder counts as one place.
ORDER = """
    __init__ errors workers cores colour pixels resample frame face config_live config geometry channel
    metrics stage status packets clock retry
    catalog model tasks nets engines store trust fetch importing zoo
    container probe hardware decode images coloured codecs limits mov trial convert remux output encode
    address timestrip devices connection pattern supply capture
    detectors detect stills keyframes flow association fusion track sharpness crop
    carry average restore stabilise guard masks upscale compose
    sinks taps outlet motion relief
    inlet pipeline assembly run graph api folder progress inspection
    changes session_report
    shared previews gauges watch live webhook events cameras camera_messages camera supervisor serve
    damage quality compare train
    tracebacks models_cli live_cli quality_cli compare_cli train_cli bench cli
""".split()
STAGES = {
    "decode", "images", "encode", "detect", "stills", "track", "crop", "restore", "stabilise", "masks",
    "upscale", "compose",
}  # fmt: skip
LIBRARIES = {
    "openvino": {"engines"},
    "onnxruntime": {"engines"},
    "torch": {"engines", "nets", "detectors", "bench", "quality", "train"},
    "spandrel": {"engines"},
    "multiprocessing": {"workers", "shared"},
}


def place(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> set[str]:
    """Dotted names of all imports, those inside functions too."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def modules():
    return [(path, ast.parse(path.read_text())) for path in sorted(ROOT.rglob("*.py"))]


def test_imports_run_one_way_and_stages_never_import_each_other():
    for path, tree in modules():
        here = place(path)
        for name in imports(tree):
            parts = name.split(".")
            if parts[0] != "stream" or here == "__init__":
                continue
            there = parts[1] if parts[1] in ORDER else "__init__"
            assert ORDER.index(there) <= ORDER.index(here), (
                f"{path.name} imports {name}, which stands after it"
            )
            if here in STAGES and there != here:
                assert there not in STAGES, f"stage {here} imports stage {there}"


def test_every_module_has_its_place_in_the_order():
    assert {place(path) for path, _ in modules()} == set(ORDER)


def test_only_engines_know_inference_libraries_and_only_workers_start_threads_and_processes():
    for path, tree in modules():
        for name in imports(tree):
            for library, allowed in LIBRARIES.items():
                if name.split(".")[0] == library:
                    assert place(path) in allowed, f"{path.name} imports {name}"
        text = path.read_text()
        assert "threading.Thread(" not in text or place(path) == "workers", path.name


def test_files_stay_short_enough_to_read():
    long = {path.name: n for path, _ in modules() if (n := path.read_text().count("\n")) > 400}
    assert not long
