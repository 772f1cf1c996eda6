"""A folder that is restored file by file: a run that was stopped or killed is continued."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading

import pytest
from films import film, packets_sha256
from waiting import until

from stream import Options, load_config
from stream.job.folder import restore_folder
from stream.job.folder_record import NAME, FolderRecord

pytestmark = pytest.mark.timeout(300)
CONFIG = load_config("fast", None, ["restore.precision=fp32"])


@pytest.fixture(scope="module")
def source(tmp_path_factory, face):
    """Two pictures and two videos of a second."""
    folder = tmp_path_factory.mktemp("in")
    for name in ("one.jpg", "two.jpg"):
        shutil.copy(face, folder / name)
    (folder / "clips").mkdir()
    for name in ("first.mp4", "second.mp4"):
        film(folder / "clips" / name, frames=25, options={"preset": "ultrafast"})
    return folder


def restore(source, target, config=CONFIG, stop=None, progress=None, **options):
    stop = stop or threading.Event()
    given = Options(**options)
    return restore_folder(source, target, config, options=given, stop=stop, progress=progress)


def results(target):
    return sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())


ALL = ["clips/first.mp4", "clips/second.mp4", "one.jpg", "two.jpg"]


def test_a_run_that_is_killed_is_continued_file_by_file(source, tmp_path):
    target = tmp_path / "out"
    command = [sys.executable, "-m", "stream.cli", "restore", source, target, "--preset=fast"]
    command += ["--set=restore.precision=fp32"]
    process = subprocess.Popen([*map(str, command)], stderr=subprocess.DEVNULL)
    until(lambda: process.poll() is not None or (target / "clips" / "first.mp4").exists())
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in target.glob("*.jpg")}
    outcomes = restore(source, target)
    assert results(target) == ALL
    assert any("of 4 files done" in note for note in outcomes[0].notes), outcomes[0].notes
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert not any(outcome.failures for outcome in outcomes)


def test_a_stopped_run_is_continued_and_what_is_done_is_not_touched(source, tmp_path):
    target, stop = tmp_path / "out", threading.Event()

    def progress(done):
        if (target / "clips" / "first.mp4").exists():
            stop.set()

    restore(source, target, stop=stop, progress=progress)
    before = packets_sha256(target / "clips" / "first.mp4")
    assert (target / NAME).exists()
    outcomes = restore(source, target)
    assert outcomes[0].notes == ("continuing: 3 of 4 files done",)
    assert packets_sha256(target / "clips" / "first.mp4") == before
    assert [path for path in results(target) if ".partial" not in path] == ALL


@pytest.mark.parametrize("change", ["input", "output", "settings"])
def test_a_file_counts_as_done_only_while_nothing_has_changed(tmp_path, face, monkeypatch, change):
    """The record stays, as after a run that was killed at its end."""
    monkeypatch.setattr(FolderRecord, "remove", lambda record: None)
    folder, target, config = tmp_path / "in", tmp_path / "out", CONFIG
    folder.mkdir()
    for name in ("one.jpg", "two.jpg"):
        shutil.copy(face, folder / name)
    restore(folder, target)
    assert restore(folder, target)[0].notes == ("continuing: 2 of 2 files done",)
    if change == "input":
        (folder / "one.jpg").write_bytes((folder / "one.jpg").read_bytes() + b"\0")
    elif change == "output":
        (target / "one.jpg").write_bytes(b"other")
    else:
        config = load_config("fast", None, ["restore.precision=fp32", "restore.strength=0.5"])
    outcomes = restore(folder, target, config)
    refused = [
        str(failure) for outcome in outcomes for failure in outcome.failures if "exists" in str(failure)
    ]
    assert len(refused) == (2 if change == "settings" else 1)


def test_restart_forgets_what_is_done(source, tmp_path):
    target = tmp_path / "out"
    stop = threading.Event()
    stop.set()
    restore(source, target, stop=stop)
    outcomes = restore(source, target, restart=True, overwrite=True)
    assert results(target) == ALL and not any("continuing" in note for o in outcomes for note in o.notes)
