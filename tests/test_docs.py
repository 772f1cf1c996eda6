"""README, CONTRIBUTING and docs/: what they name exists, what they show was measured, and they build."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import compatibility
import numpy as np
import pytest
from clips import make
from conftest import ROOT
from PIL import Image
from waiting import LIMIT_S

import stream
from stream.config import Config
from stream.faces.restore.sharpness import WEIGHTS
from stream.lab.train.settings import TrainSettings
from stream.live.packets import Packet
from stream.live.sinks import parse_sink
from stream.models.info import bundled_model_path, read_model_info
from stream.picture.face import Face, FrameWork

sys.path.append(str(ROOT / "docs"))
import tables

README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FILES = sorted((ROOT / "docs" / "bench").glob("*.json"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def text_of(page: Path) -> str:
    """A page without HTML comments."""
    return re.sub(r"<!--.*?-->", "", page.read_text(), flags=re.DOTALL)


def code_of(page: Path) -> list[str]:
    """The parts of a page that are marked as code, inside of lines and as whole blocks."""
    text = text_of(page)
    inline = re.findall(r"`([^`\n]+)`", BLOCK.sub("", text))
    return inline + [block for _, block in BLOCK.findall(text)]


def blocks(page: Path, language: str) -> list[str]:
    return [block for name, block in BLOCK.findall(page.read_text()) if name == language]


def by_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


# --- figures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", tables.PAGES, ids=by_name)
def test_a_page_is_in_step_with_its_figures_and_with_the_code(page):
    text = page.read_text()
    assert tables.rewritten(text) == text, "run: python docs/tables.py"


def test_a_place_that_was_changed_by_hand_is_made_anew():
    text = (ROOT / "docs" / "performance.md").read_text()
    stale = text.replace("<!-- /bench -->", "more\n<!-- /bench -->").replace("fps -->", "fps -->9")
    assert stale != text and tables.rewritten(stale) == text
    for wrong in ("pipeline.speed; nothing; fps", "pipeline.speed; fast; fps", "pipeline.nothing; x; y"):
        with pytest.raises(tables.StalePageError):
            tables.rewritten(f"<!-- figure: {wrong} --><!-- /figure -->")


def test_no_figure_stands_at_the_start_of_a_line():
    """A comment there would end the paragraph."""
    for page in tables.PAGES:
        assert "\n<!-- figure" not in page.read_text(), page


@pytest.mark.parametrize("file", FILES, ids=by_name)
def test_a_file_of_figures_names_commit_and_weights(file):
    facts = json.loads(file.read_text())
    assert re.fullmatch("[0-9a-f]{40}", facts["commit"]), "measure a commit without changes"
    assert re.fullmatch("[0-9a-f]{64}", facts["weights_sha256"])
    if file.stem in tables.INDEPENDENT:
        return
    shipped = read_model_info(bundled_model_path()).sha256
    assert facts["weights_sha256"] == shipped, (
        "measured with other weights than those that ship: measure again"
    )
    assert facts.get("sha256", shipped) == shipped
    gauge = hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
    assert facts.get("options", {}).get("sharpness_sha256", gauge) == gauge


def test_every_file_of_figures_is_shown():
    shown = "".join(page.read_text() for page in tables.PAGES)
    unused = [file.stem for file in FILES if not re.search(rf"<!-- \w+: {file.stem}[.;\s]", shown)]
    assert not unused and {*tables.INDEPENDENT} <= {file.stem for file in FILES}


def test_the_picture_of_the_readme_is_made_by_the_weights_that_ship():
    with Image.open(ROOT / "docs" / "images" / "before-after.png") as picture:
        facts = picture.text
    assert facts["weights_sha256"] == read_model_info(bundled_model_path()).sha256
    assert re.fullmatch("[0-9a-f]{40}", facts["commit"])


CONSTANTS = {
    "42 dB", "40 dB",  # aims of the encoder's trial and of half precision
    "45 dB", "99 dB",  # definitions in figures
    "24 fps",  # the bench's clip
    "1 ms",  # what a stage may cost
    "300 ms",
}  # fmt: skip
"""Quantities that the product sets or aims at; nobody measured them."""
MEASURED = re.compile(r"[+-]?\d[\d.,]* (?:ms|dB|fps|MiB|GiB|frames a second)\b")


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_no_measured_figure_stands_in_prose_without_its_file(page):
    if page.parent.name == "decisions":  # they name commit and machine
        return
    prose = BLOCK.sub("", page.read_text())
    prose = re.sub(r"<!-- (\w+): .*? -->.*?<!-- /\1 -->", "", prose, flags=re.DOTALL)
    assert set(MEASURED.findall(prose)) <= CONSTANTS


# --- what is named ----------------------------------------------------------------------------------


MADE = {"deploy/environment"}
"""Paths that a reader makes."""
PATH = re.compile(r"(?<![\w./-])(?:stream|tests|config|docs|samples|deploy|\.ci)/[\w./*-]*")


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_every_path_that_is_named_exists(page):
    for named in PATH.findall(text_of(page)):
        named = named.rstrip(".")
        if named in MADE or re.search(r"\*|\b[A-Z]{3,}\b(?!\.md)", named):  # a pattern, or NAME in its place
            continue
        assert (ROOT / named).exists() or (page.parent / named).exists(), named


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_every_module_and_name_of_the_package_that_is_named_exists(page):
    text = "\n".join(code_of(page)) + "\n".join(re.findall("^::: (.*)$", text_of(page), re.MULTILINE))
    for named in set(re.findall(r"(?<![\w/-])stream(?:\.\w+)+", text)):
        parts = named.split(".")
        found = stream
        for at, part in enumerate(parts[1:], 2):
            if not hasattr(found, part):
                importlib.import_module(".".join(parts[:at]))
            found = getattr(found, part)


@cache
def options() -> dict[str, set[str]]:
    """Spellings of options by command, those of every command included."""
    return {name: {*found, "--help"} for name, found in compatibility.options().items()}


def calls(text: str) -> list[list[str]]:
    """The words of each call of gpen-stream in a piece of code."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        line = re.sub(r"\s#.*", "", line)
        found += [
            re.sub(r"'[^']*'|\"[^\"]*\"", "TEXT", call).split()
            for call in re.findall(r"(?:^|\s|/)gpen-stream\s+(.*)", line)
        ]
    return found


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_every_command_and_option_that_is_named_exists(page):
    commands = options()
    groups = {name.split()[0] for name in commands if " " in name}
    every = set().union(*commands.values()) | {"--version"}
    for code in code_of(page):
        for words in calls(code):
            name = " ".join(words[:2] if words[0] in groups else words[:1])
            if not re.match("[a-z]", name) or "|" in name:  # COMMAND, --version, a|b
                continue
            known = commands.get(name)
            if known is None:  # a group's name alone
                assert name in groups or name.split()[1].isupper(), name
                continue
            for word in words:
                if word.startswith("--"):
                    assert word.split("=")[0] in known, f"{name} {word}"
        if code.startswith("--"):
            assert re.match(r"--[\w-]+", code)[0] in every, code


TRAINING = {name for name, _ in tables.leaves(TrainSettings().model_dump())}
SETTINGS = {*compatibility.setting_keys()["run"], *compatibility.setting_keys()["cameras"], *TRAINING}


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_every_setting_that_is_named_exists(page):
    sections = [*Config.model_fields, "loss", "adversary", "server"]
    pattern = rf"(?<![\w./-])({'|'.join(sections)})\.([a-z_]+)\b(?!\()"
    for section, key in re.findall(pattern, text_of(page)):
        if key in ("py", "md", "json", "yaml", "mp4", "jsonl"):
            continue
        name = f"{section}.{key}"
        assert name in SETTINGS or any(known.startswith(f"{name}.") for known in SETTINGS), name


# --- README and site --------------------------------------------------------------------------------


def test_the_readme_is_short_and_its_first_blocks_are_those_that_ci_runs():
    assert README.read_text().count("\n") <= 150
    first, second, *_ = (block for _, block in BLOCK.findall(README.read_text()))
    assert "pip install ." in first and "gpen-stream restore samples/portrait.mp4 " in first
    assert 'pip install ".[test]"' in second and "-m pytest" in second
    quoted = re.search(r"^second_block=.*$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)[0]
    done = subprocess.run(
        ["bash", "-c", f'{quoted}\nprintf "%s\\n" "$second_block"'], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout == second


def test_the_changelog_begins_with_this_version():
    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"^## (\S+) \(\d{4}-\d\d-\d\d\)$", text, re.MULTILINE)[1] == stream.__version__


def test_the_readme_links_to_what_is_there():
    for page in (README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            assert (ROOT / target).is_file(), f"{page.name}: {target}"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site. The build fails at a broken link, a missing anchor or a page outside of the menu."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_site_is_built_and_has_the_reference_of_the_api(site):
    reference = "".join(page.read_text() for page in (site / "api").glob("*.html"))
    for name in (
        "stream.job.api.restore_file", "stream.job.api.restored_frames", "stream.config.load_config",
        "stream.errors.StreamError", "stream.pipeline.stage.Stage.process",
        "stream.models.engines.engine.Engine.restore", "stream.faces.detect.detectors.Detector.detect",
        "stream.live.sinks.sink.LiveSink.write",
    ):  # fmt: skip
        assert f'id="{name}"' in reference, name
    assert len(list((site / "decisions").glob("*.html"))) > 12


def test_the_site_loads_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|img|iframe|link)[^>]+(?:src|href)=\"?(?:https?:)?//[^\"> ]+", page.read_text()
        )
        assert not loaded, f"{page.name}: {loaded}"
    for sheet in site.rglob("*.css"):
        assert not re.findall(r"url\(['\"]?https?:", sheet.read_text()), sheet.name


def test_the_pages_of_the_site_are_those_of_the_folder(site):
    for page in (ROOT / "docs").rglob("*.md"):
        assert (site / page.relative_to(ROOT / "docs").with_suffix(".html")).is_file()
    assert not list(site.rglob("*.py"))


# --- examples ---------------------------------------------------------------------------------------


@pytest.mark.timeout(600)  # they convert the network and restore five clips
@pytest.mark.parametrize("page", [README, ROOT / "docs" / "python.md"], ids=by_name)
def test_the_python_examples_run(page, tmp_path, monkeypatch, capsys):
    found = blocks(page, "python")
    assert found
    for number, block in enumerate(found):
        folder = tmp_path / str(number)
        folder.mkdir()
        make(folder / "old.mp4")
        monkeypatch.chdir(folder)
        if "start_s=60" in block:  # the clip is shorter
            block = block.replace("start_s=60", "start_s=0")
        exec(compile(block, f"{page.name}, block {number + 1}", "exec"), {"__name__": "example"})
        assert "not restored" not in capsys.readouterr().out


@pytest.fixture(scope="module")
def examples() -> dict[str, type]:
    """The classes that CONTRIBUTING.md adds, by name."""
    found: dict[str, type] = {}
    for number, block in enumerate(blocks(ROOT / "CONTRIBUTING.md", "python")):
        exec(compile(block, f"CONTRIBUTING.md, block {number + 1}", "exec"), found)
    return found


def test_the_example_of_a_stage_keeps_the_largest_face(examples):
    def face(number: int, side: float) -> Face:
        box, marks = np.array([0, 0, side, side], np.float32), np.zeros((5, 2), np.float32)
        return Face(number, box, marks, 1.0, coasted=False, confidence=1.0)

    stage = examples["LargestFaceStage"]()
    stage.open()
    work = FrameWork(frame=None, faces=(face(1, 20), face(2, 50), face(3, 30)))
    (kept,) = stage.process(work)
    assert [one.track_id for one in kept.faces] == [2]
    (none,) = stage.process(FrameWork(frame=None))
    assert none.faces == () and list(stage.flush()) == []
    stage.close()


def test_the_example_of_an_engine_keeps_the_contract(examples):
    model = read_model_info(bundled_model_path())
    engine = examples["UnchangedEngine"](model)
    crops = np.random.default_rng(0).random((2, model.in_size, model.in_size, 3), np.float32)
    restored = engine.restore(crops)
    assert np.array_equal(restored, crops) and not np.shares_memory(restored, crops)
    with pytest.raises(ValueError, match="expected"):
        engine.restore(crops[0])
    assert engine.name and engine.description and engine.model is model
    engine.close()


def test_the_example_of_a_detector_finds_the_middle(examples):
    (hit,) = examples["CentreDetector"]().detect(np.zeros((100, 200, 3), np.float32))
    assert hit.box_xyxy.tolist() == [75, 25, 125, 75] and hit.landmarks.shape == (5, 2)
    assert (hit.landmarks >= hit.box_xyxy[:2]).all() and (hit.landmarks <= hit.box_xyxy[2:]).all()


def test_the_example_of_a_sink_writes_its_packets(examples, tmp_path):
    spec = parse_sink(str(tmp_path / "packets.mp4"), Config())
    sink = examples["PacketLogSink"](spec)
    sink.open()
    sink.write(Packet(True, b"12345", pts=90, dts=90, duration=3600, keyframe=True))
    sink.idle()
    sink.close()
    assert json.loads((tmp_path / "packets.mp4").read_text()) == {"pts": 90, "bytes": 5}
    broken = examples["PacketLogSink"](parse_sink(str(tmp_path / "missing" / "packets.mp4"), Config()))
    with pytest.raises(examples["SinkError"], match="cannot be written"):
        broken.open()


def test_the_hooks_of_pre_commit_need_no_network():
    import yaml

    file = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repo["repo"] for repo in file["repos"]] == ["local"]
    hooks = file["repos"][0]["hooks"]
    assert {hook["id"] for hook in hooks} == {"ruff-check", "ruff-format", "mypy"}
    assert {hook["language"] for hook in hooks} == {"system"}
