"""The wheel is all that a user needs: built, installed apart and used from elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile

import av
import pytest
from conftest import ROOT

pytestmark = pytest.mark.timeout(240)


def run(*command, **options):
    return subprocess.run(
        list(map(str, command)), check=True, capture_output=True, text=True, timeout=200, **options
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"stream"}
    assert {"stream/presets/default.yaml", "stream/weights/gpen-lite-256.safetensors"} <= set(names)
    assert {f"stream/compare/page.{kind}" for kind in ("html", "css", "js")} <= set(names)
    assert wheel.stat().st_size < 30e6


def test_the_installed_copy_restores_with_its_own_presets_and_weights(wheel, portrait, tmp_path):
    target, work = tmp_path / "target", tmp_path / "work"
    work.mkdir()
    run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", target, wheel)
    environment = os.environ | {"PYTHONPATH": str(target)}
    where = "import stream, stream.config, stream.model; print(stream.__file__)"
    where += "; print(stream.config.preset_path('surveillance')); print(stream.model.bundled_model_path())"
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
