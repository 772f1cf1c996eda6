"""The interface that users, scripts and dashboards rely on, read from the running product.

`python tests/compatibility.py --write` records it in `tests/golden/compatibility.json`; `--check` holds the
whole samples against the record. `test_compatibility.py` checks all but the whole samples.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import av
import numpy as np
from waiting import until

ROOT = Path(__file__).parent.parent
RECORD = ROOT / "tests" / "golden" / "compatibility.json"
SAMPLES, PRESETS = ("portrait", "group"), ("default", "fast", "surveillance")
PART_S = 1.2
"""Length that the suite restores of each sample: three keyframes of the detector, and frames between."""
_EXACT = ("restore.precision=fp32", "restore.threads=1", "decode.threads=1", "encode.threads=1")
_GRID, _EVERY = 4, 5
"""Blocks along each side of a frame whose mean luma is kept, and of how many frames one."""
_BY_CHANCE = frozenset({"drops"})
"""Dictionaries whose keys depend on the machine's pace."""
Keys = dict[str, Any]
_ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def command(
    *arguments: str | Path, code: str | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """The product's command in a process of its own, from this checkout."""
    return subprocess.run(
        [sys.executable, "-m", "stream.cli", *map(str, arguments)],
        capture_output=True, text=True, env=_ENVIRONMENT, stdin=subprocess.DEVNULL, timeout=900,
    )  # fmt: skip


# --- pictures ---------------------------------------------------------------------------------------


def machine() -> str:
    """The facts that determine the last bit of a result: the processor's instructions and the libraries."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    flags = set((re.search(r"^flags\s*:(.*)$", text, re.M) or ["", ""])[1].split())
    vendor = (re.search(r"^vendor_id\s*:\s*(.*)$", text, re.M) or ["", "?"])[1]
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile")
    libraries = (f"{name} {version(name)}" for name in ("openvino", "opencv-python", "av", "torch", "numpy"))
    return ", ".join((vendor, *(flag for flag in wanted if flag in flags), *libraries))


def pictures(path: Path) -> dict[str, Any]:
    """SHA-256 over all decoded planes, and mean luma by block of every fifth frame."""
    digest, blocks, count = hashlib.sha256(), [], 0
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            planes = frame.to_ndarray()
            digest.update(np.ascontiguousarray(planes).tobytes())
            if count % _EVERY == 0:
                blocks.append(_blocks(planes[: frame.height]))
            count += 1
    return {"frames": count, "sha256": digest.hexdigest(), "luma": blocks}


def _blocks(luma: np.ndarray) -> list[float]:
    high, wide = (side // _GRID for side in luma.shape)
    whole = luma[: high * _GRID, : wide * _GRID].reshape(_GRID, high, _GRID, wide)
    return [round(float(value), 2) for value in whole.mean(axis=(1, 3)).ravel()]


def restored(sample: str, preset: str, folder: Path, duration_s: float | None = None) -> dict[str, Any]:
    """A sample restored by the command in FP32 on one thread: `pictures` of it."""
    target = folder / f"{sample}-{preset}.mp4"
    settings = [text for setting in _EXACT for text in ("--set", setting)]
    part = [] if duration_s is None else ["--duration", str(duration_s)]
    source = ROOT / "samples" / f"{sample}.mp4"
    done = command("restore", source, target, "--preset", preset, "--overwrite", "--quiet", *part, *settings)
    assert done.returncode == 0, done.stderr
    return pictures(target)


# --- keys, names and codes --------------------------------------------------------------------------


def keys(value: Any) -> Any:
    """Names in nested JSON: a dictionary's keys, sorted; of a list those of all its items together."""
    if isinstance(value, dict):
        return {name: None if name in _BY_CHANCE else keys(value[name]) for name in sorted(value)}
    if isinstance(value, list):
        items = [keys(item) for item in value if isinstance(item, dict)]
        merged: Keys = {}
        for item in items:
            merged |= item
        return [dict(sorted(merged.items()))] if merged else []
    return None


def report_keys(folder: Path) -> Keys:
    """Keys of `--report` for a video, a picture and a folder."""
    face = ROOT / "samples" / "faces" / "congress_C001092_0.jpg"
    (folder / "in").mkdir(exist_ok=True)
    shutil.copy(face, folder / "in")
    runs = {
        "video": [ROOT / "samples" / "portrait.mp4", folder / "out.mp4", "--duration", "0.3"],
        "picture": [face, folder / "out.png"],
        "folder": [folder / "in", folder / "out"],
    }
    found = {}
    for name, arguments in runs.items():
        report = folder / f"{name}.json"
        done = command("restore", *arguments, "--overwrite", "--quiet", "--report", report)
        assert done.returncode == 0, done.stderr
        found[name] = keys(json.loads(report.read_text()))
    return found


def setting_keys() -> dict[str, list[str]]:
    """Keys of the settings of a run and of a cameras file."""
    from stream.config import Config
    from stream.server.camera_config import CamerasFile

    return {"run": sorted(_fields(Config)), "cameras": sorted(_fields(CamerasFile))}


def _fields(model: Any, prefix: str = "") -> Iterator[str]:
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})

    def walk(node: Any, path: str) -> Iterator[str]:
        for option in (node, *node.get("anyOf", ()), *node.get("allOf", ())):
            if "$ref" in option:
                yield from walk(definitions[option["$ref"].split("/")[-1]], path)
            if isinstance(option.get("additionalProperties"), dict):
                yield from walk(option["additionalProperties"], f"{path}.*")
        for name, child in node.get("properties", {}).items():
            yield f"{path}.{name}".lstrip(".")
            yield from walk(child, f"{path}.{name}")

    yield from walk(schema, prefix)


def options() -> dict[str, list[str]]:
    """The spellings of every command's arguments and options."""
    import typer

    from stream.cli.main import app

    found: dict[str, list[str]] = {}

    def walk(node: Any, path: str) -> None:
        for name, child in getattr(node, "commands", {}).items():
            walk(child, f"{path} {name}".strip())
        if not hasattr(node, "commands"):
            found[path] = sorted(
                spelling
                for option in node.params
                for spelling in (*option.opts, *option.secondary_opts)
                if option.param_type_name == "option"
            ) + [option.name for option in node.params if option.param_type_name == "argument"]

    walk(typer.main.get_command(app), "")
    return dict(sorted(found.items()))


def exit_codes(folder: Path) -> dict[str, int]:
    """Exit codes by the cause of the end."""
    from clips import first_part, make, remux

    clip = make(folder / "clip.mp4")
    remux(ROOT / "samples" / "portrait.mp4", folder / "whole.mkv")
    first_part(folder / "whole.mkv", folder / "short.mkv", 0.6)
    plain = {
        "done": ["restore", clip, folder / "codes.mp4", "--overwrite", "--quiet"],
        "no such input": ["restore", folder / "nothing.mp4", folder / "codes.mp4"],
        "not a picture": ["restore", Path(__file__), folder / "codes.mp4"],
        "output exists": ["restore", clip, clip],
        "unknown option": ["restore", clip, "--nothing"],
        "unknown setting": ["restore", clip, folder / "no.mp4", "--set", "restore.nothing=1"],
        "setting out of range": ["restore", clip, folder / "no.mp4", "--strength", "7"],
        "no arguments": [],
        "unknown model": ["restore", clip, folder / "no.mp4", "--model", "nothing"],
        "input ends early": ["restore", folder / "short.mkv", folder / "short.mp4", "--start", "5"],
        "probe": ["probe", clip],
        "live without a sink": ["live", "test:"],
        "live from nowhere": ["live", folder / "nothing.mp4", "--to", folder / "live.mp4"],
        "serve without its file": ["serve", "--config", folder / "nothing.yaml"],
    }
    codes = {name: command(*arguments).returncode for name, arguments in plain.items()}
    for name, number in (("interrupted", signal.SIGINT), ("terminated", signal.SIGTERM)):
        codes[name] = _stopped_by(number, folder)
    return codes


def _stopped_by(number: int, folder: Path) -> int:
    """The exit code of a run that gets a signal once its output has begun."""
    arguments = ["restore", str(ROOT / "samples" / "portrait.mp4"), str(folder / "stop.mp4"), "--overwrite"]
    process = subprocess.Popen(
        [sys.executable, "-m", "stream.cli", *arguments],
        env=_ENVIRONMENT,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until((folder / ".stop.partial.mp4").exists)
    process.send_signal(number)
    return process.wait(100)


def server(folder: Path) -> dict[str, Any]:
    """Paths, bodies, keys of answers and names of metrics of `gpen-stream serve` with a camera and a file."""
    from dashboard_client import Client, served

    cameras = "cameras: {test: {source: 'test:', to: [seen/], set: {source.rate: 5.0}}}\nserver: {data: .}\n"
    (folder / "cameras.yaml").write_text(cameras)
    with served("--config", "cameras.yaml", "--port", "0", cwd=folder) as process:
        client = Client(process.port())
        until(lambda: _is_busy(client), timeout_s=200)
        client.upload(ROOT / "samples" / "faces" / "congress_C001092_0.jpg")
        begun = client.ask("POST", "/api/jobs", {"file": "congress_C001092_0.jpg"}).json
        until(lambda: client.get("/api/jobs").json[0]["state"] == "done", timeout_s=200)
        answers = {path: keys(client.get(path).json) for path in _ANSWERS}
        answers["POST /api/jobs"] = keys(begun)
        answers["POST /api/test"] = keys(client.ask("POST", "/api/test", {"source": "test:"}).json)
        changed = client.ask("POST", "/api/cameras/test/change", {"strength": 0.5}).json
        answers["POST change"] = sorted(changed)
        pages = {
            path: client.get(path).status for path in ("/", "/login", "/favicon.ico", "/static/icon.svg")
        }
        metrics = _metrics(client.get("/metrics").body.decode())
        with client.watch("/api/cameras/test/live?kind=pair") as socket:
            live = type(socket.recv(timeout=60)).__name__
        routes = _routes(client.get("/openapi.json").json)
    return {"routes": routes, "answers": answers, "pages": pages, "live": live, "metrics": metrics}


_ANSWERS = (
    "/healthz", "/readyz", "/api/server", "/api/models", "/api/presets", "/api/cameras", "/api/cameras/test",
    "/api/cameras/test/segments", "/api/events", "/api/files", "/api/jobs",
)  # fmt: skip


def _is_busy(client: Any) -> bool:
    """Whether the camera restores, records and has measured itself."""
    report = client.get("/api/cameras/test").json["report"]
    if not report.get("faces_restored") or "restore" not in report["stage_ms"]:
        return False
    restorer = client.get("/api/server").json["restorer"]
    recorded = report["sinks"][0]["delivered"] and client.get("/api/cameras/test/segments").json
    return bool(recorded and restorer.get("crops", {}).get("test"))


def _routes(api: Any) -> dict[str, Any]:
    """Names of the parameters and of the body's properties of each route, by method and path."""
    found = {}
    for path, methods in api["paths"].items():
        for method, facts in methods.items():
            properties: set[str] = set()
            for content in facts.get("requestBody", {}).get("content", {}).values():
                schema = content.get("schema", {})
                if "$ref" in schema:
                    schema = api["components"]["schemas"][schema["$ref"].split("/")[-1]]
                properties |= set(schema.get("properties", ()))
            parameters = sorted(one["name"] for one in facts.get("parameters", ()))
            found[f"{method.upper()} {path}"] = {"parameters": parameters, "body": sorted(properties)}
    return found


def _metrics(text: str) -> dict[str, list[str]]:
    """Names of the product's own metrics and of their labels.

    The labels of `gpen_stream_camera_drops_total` are left out: it has samples only once a frame was
    dropped.
    """
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if (name := re.match(r"# TYPE (gpen_[a-z_]+)", line)) is not None:
            found[name[1]] = []
        elif (name := re.match(r"gpen_[a-z_]+", line)) is not None:
            found[name[0]] = sorted(re.findall(r'(\w+)="', line))
    found["gpen_stream_camera_drops_total"] = []
    return found


def python_api() -> list[str]:
    """Names that `import stream` gives."""
    import stream
    import stream.errors

    names = [name for name in stream.__all__ if getattr(stream, name)]
    return sorted(names) + sorted(f"errors.{name}" for name in dir(stream.errors) if name.endswith("Error"))


def names(folder: Path) -> dict[str, Any]:
    """Everything but the pictures."""
    found = {
        "report": report_keys(folder),
        "settings": setting_keys(),
        "options": options(),
        "exit_codes": exit_codes(folder),
        "server": server(folder),
        "python": python_api(),
    }
    return json.loads(json.dumps(found))


def main() -> None:
    """Write the record, or hold the whole samples against it."""
    parser = argparse.ArgumentParser(description=__doc__)
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--write", action="store_true", help="record what is: only where a change is meant")
    group.add_argument("--check", action="store_true", help="compare the whole samples on this machine")
    arguments = parser.parse_args()
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {"pictures": {}}
    os.environ.setdefault("GPEN_STREAM_CACHE", tempfile.mkdtemp())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole, part = {}, {}
        for sample in SAMPLES:
            for preset in PRESETS:
                whole[f"{sample} {preset}"] = restored(sample, preset, folder)
                part[f"{sample} {preset}"] = restored(sample, preset, folder, PART_S)
                print(sample, preset, whole[f"{sample} {preset}"]["sha256"][:12], flush=True)
        mine = {"whole": whole, "part": part}
        if arguments.write:
            record["pictures"][machine()] = mine
            record["names"] = names(folder)
            RECORD.write_text(json.dumps(record, indent=1) + "\n")
            return
    wrong = [
        f"{length} {name}"
        for length, runs in record["pictures"][machine()].items()
        for name, facts in runs.items()
        if mine[length][name] != facts
    ]
    raise SystemExit(f"changed: {', '.join(wrong)}" if wrong else None)


if __name__ == "__main__":
    main()
