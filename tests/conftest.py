"""Shared fixtures: the samples, the command, and one cache of converted networks."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import pytest
from waiting import LIMIT_S

import stream.models.engines  # noqa: F401  before any test imports OpenVINO, which it keeps from reporting
from stream.config import Detect
from stream.faces.detect.finder import FaceFinder
from stream.pipeline.cpu_budget import ordinary_priority

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "samples"

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background jobs ignore Ctrl-C


SERVER = """
    cli/test_models live/session/test_session live/sinks live/source/test_capture server/dashboard
    server/fleet/test_fleet server/fleet/test_serve_on server/test_restorer_service server/test_supervisor
""".split()
"""Tests that start servers, cameras or sinks in processes of their own, by the beginning of their path."""
SLOW = """
    cli/test_cli cli/test_outputs cli/test_start faces/compose/test_upscale faces/track job lab/test_adversary
    lab/test_align lab/test_bench lab/test_compare lab/test_evaluate lab/test_train media/test_hardware
    models/engines pipeline/test_cpu_budget test_compatibility test_deploy test_docs test_types test_wheel

    faces/compose/test_masks.py::test_a_run_leaves_what_stands_before_a_face
    faces/compose/test_occlusion.py::test_ordinary_restoration_is_left_alone
    faces/restore/test_propagate.py::test_a_folder_of_pictures_is_restored_whole
    faces/restore/test_propagate.py::test_a_whole_run_reports
    faces/restore/test_propagate.py::test_quality_stays_within
    faces/restore/test_restore_stage.py::test_a_sharp_600_px_face
    faces/restore/test_sharpness.py::test_a_sharp_picture_comes_out_as_it_went_in
    faces/restore/test_stabilise.py::test_a_restored_file_flickers_less
    media/test_images.py::test_a_destination_that_cannot_hold_the_picture
    media/test_images.py::test_a_turned_jpeg_keeps_its_tag
    media/test_images.py::test_one_picture_that_fails
    media/test_images.py::test_pictures_without_a_face
    models/test_registry.py::test_a_model_of_ones_own_is_imported_and_restores
""".split()
"""Tests that take long: they restore whole files, load the bundled network, train, or build the package.

Converting that network costs each run ten seconds, so no unit test loads it.
"""


def place_of(path: Path) -> str:
    """The path of a test file below `tests`, as the tables above write it."""
    return path.relative_to(ROOT / "tests").as_posix()


def pytest_ignore_collect(collection_path, config):
    """With `-m unit`, files without unit tests are not imported: that takes seconds of each process."""
    if config.option.markexpr == "unit" and collection_path.suffix == ".py":
        return place_of(collection_path).startswith((*SERVER, *SLOW)) or None
    return None


def pytest_collection_modifyitems(items):
    """Give every test one marker: browser, server, slow or unit."""
    for item in items:
        place = f"{place_of(item.path)}::{item.name}"
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.browser)
        elif place.startswith(tuple(SERVER)):
            item.add_marker(pytest.mark.server)
        elif place.startswith(tuple(SLOW)):
            item.add_marker(pytest.mark.slow)
        else:
            item.add_marker(pytest.mark.unit)


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory):
    """Converting the network takes seconds: once for the session, in this process and in others.

    The models folder is the tests' own too.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # by all workers of a run
    folder = os.environ.setdefault("GPEN_STREAM_CACHE", str(shared / "cache"))
    os.environ["GPEN_STREAM_MODELS"] = str(tmp_path_factory.mktemp("models"))
    return Path(folder)


@pytest.fixture(scope="session", autouse=True)
def one_cv2_thread():
    """Give OpenCV one thread, as in a run, where every stage has its own thread."""
    cv2.setNumThreads(1)


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright  # few files need it

    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-quic", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=flags)
        yield browser
        browser.close()


@pytest.fixture(autouse=True)
def ordinary_threads():
    """Test clips are encoded in this process: threads of an AV1 encoder must not outrank a server's."""
    yield
    ordinary_priority()


@pytest.fixture(scope="session")
def finder() -> FaceFinder:
    """The default detector, compiled once."""
    return FaceFinder(Detect(), threads=2)


@pytest.fixture(scope="session")
def portrait() -> Path:
    return SAMPLES / "portrait.mp4"


@pytest.fixture(scope="session")
def face() -> Path:
    """A JPEG portrait, 288 px."""
    return SAMPLES / "faces" / "congress_C001092_0.jpg"


@pytest.fixture(scope="session")
def run_cli():
    """Runs the real command in a process of its own, without a terminal."""

    def run(*arguments, timeout_s=LIMIT_S, code=None, **options) -> subprocess.CompletedProcess:
        start = ["-c", code] if code else ["-m", "stream.cli"]
        command = [sys.executable, *start, *map(str, arguments)]
        options = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True} | options
        return subprocess.run(command, timeout=timeout_s, **options)

    return run


@pytest.fixture(scope="session")
def read_frames():
    """Decoded pictures of a video as arrays, in its own pixel format."""

    def read(path, thread_type="AUTO"):
        with av.open(str(path)) as container:
            container.streams.video[0].thread_type = thread_type
            return [frame.to_ndarray() for frame in container.decode(video=0)]

    return read


def on_terminal(
    command, columns, stop_when: Callable[[str], bool] = lambda shown: False, **options
) -> tuple[int, str]:
    """Run a command on a terminal of its own: its exit code, and all that was shown there.

    As soon as `stop_when` is true of what was shown, the command gets a Ctrl-C.
    """
    main, child = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": str(columns)}
    process = subprocess.Popen(command, stdin=child, stdout=child, stderr=child, env=environment, **options)
    os.close(child)
    shown, stopped, deadline = b"", False, time.monotonic() + LIMIT_S
    try:
        while time.monotonic() < deadline:
            if select.select([main], [], [], 0.2)[0]:
                try:
                    shown += os.read(main, 65536)
                except OSError:  # the other side is closed
                    break
            if not stopped and stop_when(shown.decode(errors="ignore")):
                process.send_signal(signal.SIGINT)
                stopped = True
        return process.wait(LIMIT_S if stopped else 10), shown.decode()
    finally:
        os.close(main)
        process.kill()
        process.wait()
