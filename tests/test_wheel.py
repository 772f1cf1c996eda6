"""The wheel is all that a user needs: built, installed apart and used from elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile

import av
import pytest
from conftest import ROOT, SAMPLES

pytestmark = pytest.mark.timeout(600)


def run(*command, **options):
    return subprocess.run(
        list(map(str, command)), check=True, capture_output=True, text=True, timeout=500, **options
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def target(wheel, tmp_path_factory):
    """The folder that the wheel is installed in."""
    folder = tmp_path_factory.mktemp("installed") / "target"
    run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", folder, wheel)
    return folder


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"stream"}
    assert {"stream/presets/default.yaml", "stream/weights/gpen-lite-256.safetensors"} <= set(names)
    assert {f"stream/lab/compare/page.{kind}" for kind in ("html", "css", "js")} <= set(names)
    needed = {path for kind in ("*.mp4", "*.json", "faces/*.jpg") for path in SAMPLES.glob(kind)}
    held = {f"stream/samples/{path.relative_to(SAMPLES)}" for path in needed}
    assert len(held) == 10 and held <= set(names)
    assert wheel.stat().st_size < 30e6


def test_the_installed_copy_restores_with_its_own_presets_and_weights(target, portrait, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    environment = os.environ | {"PYTHONPATH": str(target)}
    where = "import stream, stream.config, stream.models.info; print(stream.__file__)"
    where += (
        "; print(stream.config.preset_path('surveillance')); print(stream.models.info.bundled_model_path())"
    )
    paths = run(sys.executable, "-c", where, cwd=work, env=environment).stdout.split()
    assert len(paths) == 3 and all(path.startswith(str(target)) for path in paths)
    arguments = ["out.mp4", "--duration", "0.5", "--preset", "fast", "--report", "report.json"]
    restore = [sys.executable, "-m", "stream.cli", "restore", portrait, *arguments]
    run(*restore, cwd=work, env=environment)
    report = json.loads((work / "report.json").read_text())
    assert report["frames_out"] == 13
    assert report["faces_restored"] >= 5 and report["faces_restored"] + report["faces_carried"] >= 10
    assert report["config"]["encode"]["effort"] == "low"
    with av.open(str(work / "out.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 13
    version = run(target / "bin" / "gpen-stream", "--version", cwd=work, env=environment)
    assert version.stdout.startswith("gpen-stream ")


def test_the_installed_copy_measures_itself_inside_a_clone_too(target, tmp_path):
    """The command of README is used. Neither the clone's package nor its samples may be used."""
    (tmp_path / "stream").mkdir()
    (tmp_path / "stream" / "__init__.py").write_text(
        "raise ImportError('the clone is not what is installed')"
    )
    environment = os.environ | {"PYTHONPATH": str(target), "COLUMNS": "80"}
    bench = [target / "bin" / "gpen-stream", "bench"]
    small = ["recipe", "--rounds", 1, "--portraits", 1, "--height", 96, "--only", "1 "]
    shown = run(*bench, *small, cwd=tmp_path, env=environment).stdout
    assert "0 baseline" in shown and "1 aligned" in shown
    shown = run(*bench, "pipeline", "--only", "start", "--rounds", 1, cwd=tmp_path, env=environment).stdout
    assert "first frame of samples/portrait.mp4" in shown
