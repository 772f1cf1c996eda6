"""A live session from its source to its sinks: what is delivered, what changes while it runs, what fails."""

import dataclasses
import json
import multiprocessing
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from unittest.mock import patch

import av
import cv2
import numpy as np
import pytest
from conftest import on_terminal
from dashboard_client import command_line, descendants
from pydantic import ValidationError
from servers import Mount, accepts, free_port, rtsp_server, wait_for
from small_models import write_model
from waiting import LIMIT_S

from stream.config import load_config
from stream.errors import ConfigError, ModelError
from stream.faces.track.tracker import Tracker
from stream.live.session import session
from stream.live.session.degradation import PaceSample
from stream.live.session.graph import Graph
from stream.live.session.live_settings import LiveSettings
from stream.live.session.pace_control import PaceControl
from stream.live.sinks import parse_sink
from stream.live.sinks.handle import SinkHandle
from stream.live.source.address import parse_address
from stream.live.status import ConnectionState, ConnectionStatus, Drops
from stream.media.decode import FileSource
from stream.media.probe import probe
from stream.picture.frame import Timestamp

PLAIN = (
    "restore.interval=1", "restore.skip_sharp=1", "compose.guard=false", "latency.budget_ms=5000",
    "latency.give_way=false",  # a busy machine must not change what the pictures show
)  # fmt: skip

GOOD = PaceSample(delivered=25, late=0, dropped=0, faces=6)
BAD = PaceSample(delivered=15, late=5, dropped=10, faces=6)


class Loop:
    """Stands in for Capture: plays files one after another, again and again, in real time."""

    def __init__(self, *paths, fps=25.0, still=False, most=10**9):
        self.frames_in = self.corrupt_packets = 0
        self.connections, self.notes, self.facts = 1, [], {"codec": "h264"}
        self.drops, self.status = Drops(), ConnectionStatus(ConnectionState.CONNECTING)
        self.rate, self.audio, self.fps = Fraction(25), None, fps
        self._paths, self._still, self._most = paths, still, most
        self._stopped, self._on_status = threading.Event(), None

    def __call__(self, address, source, *, decoder_threads, hardware, on_status, on_audio):
        self._on_status = on_status
        return self

    def stop(self):
        self._stopped.set()

    def frames(self):
        self.status = ConnectionStatus(ConnectionState.LIVE)
        self._on_status(self.status)
        began, due_s = time.monotonic(), 0.0
        for epoch, frame in self._pictures():
            if self._stopped.wait(max(0.0, began + due_s - time.monotonic())) or self.frames_in == self._most:
                break
            time_ = Timestamp(round(due_s * 90000), Fraction(1, 90000))
            self.frames_in += 1
            yield dataclasses.replace(
                frame, index=self.frames_in - 1, time=time_, arrived_at_s=time.monotonic(), epoch=epoch
            )
            due_s += 1 / self.fps
        self.status = ConnectionStatus(ConnectionState.STOPPED)

    def _pictures(self):
        epoch = 0
        while True:
            for path in self._paths:
                epoch += 1
                for frame in FileSource(probe(path), threads=1).frames():
                    yield epoch, frame
                    while self._still:
                        yield (
                            epoch,
                            dataclasses.replace(frame, picture=frame.picture.reformat(format="yuv420p")),
                        )


class Brighter:
    """An engine that adds 0.2. It waits while `may_run` is not set, and fails with `error`."""

    name = "brighter"

    def __init__(self, model):
        self.model, self.error, self.calls = model, None, 0
        self.may_run = threading.Event()
        self.may_run.set()

    def restore(self, crops):
        self.calls += 1
        assert self.may_run.wait(LIMIT_S)
        if isinstance(self.error, Exception):
            raise self.error
        return np.full_like(crops, np.nan) if self.error else crops + np.float32(0.2)

    def close(self): ...


class Running:
    """A session in a thread, its events and its engines, none of which loads before `may_load` is set."""

    def __init__(self, capture, config, sinks=(), brighter=True):
        self.events, self.pairs, self.engines = [], [], []
        self.may_load = threading.Event()
        self.may_load.set()
        self.stop, self.error = threading.Event(), None
        with patch.object(session, "Capture", capture):
            self.session = session.Session(
                "cam",
                parse_address("test:"),
                [parse_sink(str(sink), config) for sink in sinks],
                config,
                create_engine=self._create if brighter else None,
                on_event=lambda kind, text: self.events.append((kind, text)),
                on_preview=lambda kind, jpeg: self.pairs.append(jpeg.data),
            )
        self.thread = threading.Thread(target=self._run)

    def _create(self, config, model):
        assert self.may_load.wait(LIMIT_S)
        self.engines.append(Brighter(model))
        return self.engines[-1]

    def _run(self):
        try:
            self.session.run(self.stop)
        except Exception as error:
            self.error = error

    def kinds(self):
        return [kind for kind, _ in self.events]

    def report(self):
        return self.session.report()

    def until(self, condition, timeout_s=LIMIT_S):
        deadline = time.monotonic() + timeout_s
        while not condition(self):
            assert self.error is None, self.error
            assert time.monotonic() < deadline, (self.report(), self.events)
            time.sleep(0.05)

    def goes_on_while_it_loads(self):
        """Wait until the old engine alone has restored more frames; then let the new one load."""
        self.until(lambda r: r.session.is_loading)
        went_out, restored = self.report().frames_out, self.report().faces_restored
        self.until(lambda r: r.report().frames_out > went_out + 5 and r.report().faces_restored > restored)
        assert len(self.engines) == 1
        self.may_load.set()
        self.until(lambda r: len(r.engines) == 2)

    def change_in_the_picture(self, last=3):
        """Largest change of brightness in the next pictures, in levels of 255."""
        seen = len(self.pairs)
        self.until(lambda r: len(r.pairs) >= seen + 8 + last)  # eight may be in the stages
        found = []
        for data in self.pairs[-last:]:
            both = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE).astype(np.float32)
            before, after = np.split(cv2.GaussianBlur(both, (0, 0), 4), 2)
            found.append(float(np.abs(after - before)[20:-20].max()))
        return max(found)


@contextmanager
def running(capture, *sets, sinks=(), preset="default", loads=True, **options):
    threads = set(threading.enumerate())
    run = Running(capture, load_config(preset, None, [*PLAIN, *sets]), sinks, **options)
    if not loads:
        run.may_load.clear()
    run.thread.start()
    try:
        yield run
    finally:
        run.stop.set()
        run.may_load.set()
        run.thread.join(LIMIT_S)
    assert set(threading.enumerate()) <= threads, "threads are left"


def restoring(run):
    return run.report().faces_restored > 3


def test_a_source_goes_through_the_real_model_into_a_file_that_plays(portrait, tmp_path):
    out = tmp_path / "out.mp4"
    with running(Loop(portrait), sinks=[out], brighter=False) as run:
        run.until(lambda r: restoring(r) and r.report().frames_out > 60)
        report = run.report()
    assert run.error is None and run.report().sinks[0]["words"] == "stopped"
    with av.open(str(out)) as container:
        times = [frame.time for frame in container.decode(video=0)]
        assert container.streams.video[0].codec.name == "h264"
    assert len(times) > 50 and all(b > a for a, b in pairwise(times))
    assert report.state is ConnectionState.LIVE and report.size == (640, 480) and report.faces == 1
    assert report.sinks[0]["delivered"] > 0 and report.delay["median_ms"] > 0
    assert report.settings.model == "gpen-lite-256" and report.engine
    assert run.kinds()[0] == "camera_up" and "face_seen" in run.kinds()


def test_the_picture_goes_out_while_the_model_is_still_loading(portrait):
    with running(Loop(portrait), loads=False) as run:
        run.until(lambda r: r.report().frames_out > 10)
        assert not run.report().restoring and run.report().engine == ""
        run.may_load.set()
        run.until(restoring)
    assert run.error is None


def test_a_stop_does_not_wait_for_a_model_that_loads_on_and_what_comes_of_it_is_released(portrait, tmp_path):
    closed = []

    class Slow(Running):
        def _create(self, config, model):
            engine = super()._create(config, model)
            engine.close = lambda: closed.append(engine)
            return engine

    out = tmp_path / "out.mp4"
    run = Slow(Loop(portrait), load_config("default", None, PLAIN), [out])
    run.may_load.clear()
    run.thread.start()
    try:
        run.until(lambda r: r.report().frames_out > 10 and r.session.is_loading)
        run.stop.set()
        run.thread.join(LIMIT_S)
        assert not run.thread.is_alive()
        assert run.session.is_loading and run.report().sinks[0]["state"] == "stopped"
        with av.open(str(out)) as container:
            assert sum(1 for _ in container.decode(video=0)) > 5
    finally:
        run.may_load.set()
    run.until(lambda r: not r.session.is_loading)
    assert closed == run.engines and run.error is None


def test_where_a_sink_cannot_be_started_what_was_started_is_stopped(portrait, tmp_path, monkeypatch):
    healthy, started = SinkHandle.start, []

    def start(self):
        if started:
            raise RuntimeError("can't start new thread")
        started.append(self)
        healthy(self)

    monkeypatch.setattr(SinkHandle, "start", start)
    with running(Loop(portrait), sinks=[tmp_path / "one.mp4", tmp_path / "two.mp4"]) as run:
        run.thread.join(LIMIT_S)
        assert not run.thread.is_alive() and str(run.error) == "can't start new thread"
    assert started[0].report()["state"] == "stopped" and not multiprocessing.active_children()


def test_strength_regions_and_passing_change_from_the_next_frame(portrait):
    with running(Loop(portrait)) as run:
        run.session.watch(frozenset({"pair"}))
        run.until(restoring)
        assert run.change_in_the_picture() > 15
        run.session.change(LiveSettings(strength=0.0))
        assert run.change_in_the_picture() < 3 and run.report().settings.strength == 0
        run.session.change(LiveSettings(strength=1.0, exclude=((0.0, 0.0, 1.0, 1.0),)))
        assert run.change_in_the_picture() < 3
        run.session.change(LiveSettings(exclude=()))
        assert run.change_in_the_picture() > 15
        run.session.change(LiveSettings(passing=True))
        assert run.change_in_the_picture() < 3 and not run.report().restoring
        run.session.change(LiveSettings(passing=False, interval=4))
        assert run.change_in_the_picture() > 15
        run.until(lambda r: r.report().faces_carried > 3)
        run.session.change(LiveSettings(stabilise=0.25))
        assert run.report().settings.stabilise == 0.25 and run.change_in_the_picture() > 15
        run.session.change(LiveSettings(stabilise=0.0))
        assert run.report().settings.stabilise == 0 and run.change_in_the_picture() > 15


def test_a_change_that_is_wrong_is_refused_in_one_line_and_nothing_changes(portrait):
    with running(Loop(portrait)) as run:
        run.until(restoring)
        for wrong in (
            {"strength": 0.5, "interval": 99},
            {"include": ((0.0, 0.0, 2.0, 1.0),)},
            {"strength": 0.5, "model": "no-such-model"},
            {"strength": 0.5, "preset": "fastest"},
        ):
            with pytest.raises((ConfigError, ModelError, ValidationError), match=list(wrong)[-1]):
                run.session.change(LiveSettings(**wrong))
        assert run.report().settings.strength == 1 and run.report().settings.interval == 1


def test_another_preset_is_loaded_while_the_picture_goes_on_and_keeps_what_the_user_set(portrait):
    with running(Loop(portrait), "restore.strength=0.6") as run:
        run.until(restoring)
        run.may_load.clear()
        run.session.change(LiveSettings(preset="surveillance"))
        run.goes_on_while_it_loads()
        run.until(lambda r: r.report().settings.preset == "surveillance")
        before = run.report().faces_restored
        run.until(lambda r: r.report().faces_restored > before + 3)
        assert run.report().settings.strength == 0.6 and run.report().connections == 1
    assert run.error is None


def test_what_changes_while_a_preset_is_loaded_keeps_what_the_preset_brings(portrait):
    with running(Loop(portrait)) as run:
        run.until(restoring)
        run.may_load.clear()
        run.session.change(LiveSettings(preset="fast"))
        run.until(lambda r: r.session.is_loading)
        run.session.change(LiveSettings(strength=0.5))
        run.may_load.set()
        run.until(lambda r: r.report().settings.preset == "fast" and len(r.engines) == 2)
        run.until(lambda r: r.engines[1].calls > 3)
        assert (run.report().settings.strength, run.report().settings.interval) == (0.5, 3)
        assert run.session._runner.graph.restore.mode.strength == 0.5
        run.session.change(LiveSettings(strength=0.6))
        assert run.report().settings.interval == 3
    assert run.error is None


def test_where_a_change_cannot_be_loaded_the_settings_stay_as_they_were(portrait, tmp_path):
    small = write_model(tmp_path / "small.safetensors", size=64)

    class Choosy(Running):
        def _create(self, config, model):
            if model.size == 64:
                raise ModelError("the device is full")
            return super()._create(config, model)

    run = Choosy(Loop(portrait), load_config("default", None, PLAIN))
    run.thread.start()
    try:
        run.until(restoring)
        run.session.change(LiveSettings(model=str(small), strength=0.5))
        run.until(lambda r: "change_failed" in r.kinds())
        run.session.change(LiveSettings(preset="fast"))
        run.until(lambda r: r.report().settings.preset == "fast")
        assert (run.report().settings.model, run.report().settings.strength) == ("gpen-lite-256", 0.5)
    finally:
        run.stop.set()
        run.thread.join(LIMIT_S)
    assert run.error is None


def test_another_model_of_another_size_is_loaded_while_the_picture_goes_on(portrait, tmp_path):
    small = write_model(tmp_path / "small.safetensors", size=64)
    with running(Loop(portrait)) as run:
        run.until(restoring)
        run.may_load.clear()
        run.session.change(LiveSettings(model=str(small)))
        run.goes_on_while_it_loads()
        assert run.engines[1].model.size == 64 and run.engines[0].model.size == 256
        run.until(lambda r: r.report().settings.model == "small")
        run.until(lambda r: r.engines[1].calls > 5)  # frames that were under way have ended
        calls = run.engines[0].calls
        run.until(lambda r: r.engines[1].calls > 10)
        assert run.engines[0].calls == calls, "crops of the old size go nowhere any more"
        assert run.report().connections == 1
    assert run.error is None


@pytest.mark.parametrize("error", [RuntimeError("device lost"), "NaN"])
def test_where_the_model_fails_the_original_frames_go_out(portrait, error):
    with running(Loop(portrait)) as run:
        run.session.watch(frozenset({"pair"}))
        run.until(restoring)
        run.engines[0].error = error
        assert run.change_in_the_picture() < 3
        if error != "NaN":
            text = dict(run.events)["model_failed"]
            assert text == "the model fails (RuntimeError: device lost); faces stay as they are"
        run.engines[0].error = None
        assert run.change_in_the_picture() > 15
    assert run.error is None and run.kinds().count("model_failed") <= 1


def test_a_stage_that_fails_is_built_anew_and_the_picture_goes_on(portrait, monkeypatch):
    healthy, failures = Tracker.process, [ValueError("bad luck")]

    def process(self, item):
        if item.frame.index > 30 and failures:
            raise failures.pop()
        return healthy(self, item)

    monkeypatch.setattr(Tracker, "process", process)
    with running(Loop(portrait)) as run:
        run.until(lambda r: "stage_failed" in r.kinds())
        before = run.report().faces_restored
        run.until(lambda r: r.report().faces_restored > before + 3)
    assert run.error is None
    assert (
        "stage_failed",
        "track: ValueError: bad luck; frames go out as they came until it is built anew",
    ) in (run.events)


def test_a_graph_whose_detector_cannot_be_prepared_is_released_and_the_settings_stay(portrait, monkeypatch):
    closed, healthy = [], Graph.warm

    class Closing(Running):
        def _create(self, config, model):
            engine = super()._create(config, model)
            engine.close = lambda: closed.append(engine)
            return engine

    def warm(self, frame):
        if run.session._runner.graph is not None:
            raise RuntimeError("no memory")
        healthy(self, frame)

    monkeypatch.setattr(Graph, "warm", warm)
    run = Closing(Loop(portrait), load_config("default", None, PLAIN))
    run.thread.start()
    try:
        run.until(restoring)
        run.session.change(LiveSettings(preset="fast"))
        run.until(lambda r: "change_failed" in r.kinds())
        assert closed == [run.engines[1]] and run.report().settings.preset == "default"
    finally:
        run.stop.set()
        run.thread.join(LIMIT_S)
    assert run.error is None


def test_a_model_that_cannot_be_loaded_at_the_start_ends_the_session_with_its_reason(portrait):
    class Broken(Running):
        def _create(self, config, model):
            raise ModelError("model.safetensors: too short; fetch it again")

    run = Broken(Loop(portrait), load_config("default", None, PLAIN))
    run.thread.start()
    run.thread.join(LIMIT_S)
    assert isinstance(run.error, ModelError) and "too short" in str(run.error)


def test_while_a_stage_is_slow_frames_are_dropped_and_then_the_newest_go_out(portrait):
    with running(Loop(portrait)) as run:
        run.until(restoring)
        run.engines[0].may_run.clear()
        run.until(lambda r: r.report().drops.get("overrun", 0) > 10)
        went_out = run.report().frames_out
        run.engines[0].may_run.set()
        run.until(lambda r: r.report().frames_out > went_out + 10)
    assert run.error is None


def test_under_overload_it_gives_way_and_recovers_by_itself(portrait, monkeypatch):
    overload = threading.Event()
    monkeypatch.setattr(PaceControl, "_sample", lambda self: BAD if overload.is_set() else GOOD)
    with running(Loop(portrait), "latency.give_way=true") as run:
        run.until(restoring)
        overload.set()
        run.until(lambda r: r.report().level >= 1)
        overload.clear()
        run.until(lambda r: r.report().level == 0, timeout_s=LIMIT_S)
    levels = [text for kind, text in run.events if kind == "level_changed"]
    assert levels[0] == "level 1: restores on keyframes only" and levels[-1].startswith("level 0")


def test_without_motion_only_the_idle_frames_go_out_and_nothing_is_restored(portrait):
    gate = "motion.gate=true", "motion.hold_s=1", "motion.idle_fps=2"
    with running(Loop(portrait, still=True), *gate) as run:
        run.until(lambda r: r.report().idle)
        run.until(lambda r: r.report().drops.get("idle", 0) > 10)
        before = run.report()
        run.until(lambda r: r.report().drops["idle"] > before.drops["idle"] + 50)
        after = run.report()
    assert after.faces_restored - before.faces_restored <= 1
    assert 1 <= after.frames_out - before.frames_out <= 10


def test_a_source_that_changes_its_size_is_restored_on(portrait, tmp_path):
    from clips import make

    small = make(tmp_path / "small.mp4", size=(320, 240), frames=20)
    with running(Loop(portrait, small)) as run:
        run.until(lambda r: r.report().size == (320, 240))
        run.until(lambda r: r.report().take >= 3 and r.report().faces == 1)
        before = run.report().faces_restored
        run.until(lambda r: r.report().faces_restored > before + 3)
    assert run.error is None


def test_the_end_of_a_source_ends_the_session(portrait):
    with running(Loop(portrait, most=40)) as run:
        run.thread.join(LIMIT_S)
        assert not run.thread.is_alive() and run.error is None
        report = run.report()
    assert report.frames_in == 40 == report.frames_out + sum(report.drops.values())


# --- the command, with real servers ---------------------------------------------------------------


@pytest.fixture(scope="module")
def filmed(portrait, tmp_path_factory):
    """The portrait as a camera sends it: sound, a keyframe each second, no B-frames."""
    path = tmp_path_factory.mktemp("filmed") / "portrait.mp4"
    with av.open(str(portrait)) as source, av.open(str(path), "w") as output:
        options = {"preset": "ultrafast", "tune": "zerolatency", "g": "25", "crf": "23"}
        stream = output.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
        sound = output.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux():
            if packet.stream.type == "audio" and packet.dts is not None:
                packet.stream = sound
                output.mux(packet)
            for frame in packet.decode() if packet.stream.type == "video" else ():
                frame.pict_type = 0
                output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


@contextmanager
def command(*arguments, folder):
    """`gpen-stream live ...` in a process of its own, which Ctrl-C ends; `log` reads its output."""
    log = folder / "log.txt"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "stream.cli", "live", *map(str, arguments)], stderr=file, stdout=file
        )
        process.log = log.read_text
        try:
            yield process
            process.send_signal(signal.SIGINT)
            assert process.wait(LIMIT_S) == 0, log.read_text()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def read_back(url, count):
    """Times of the first pictures of a stream; an empty list if it cannot be played yet."""
    try:
        with av.open(url, timeout=(20, 20)) as container:
            return [frame.pts for frame, _ in zip(container.decode(video=0), range(count), strict=False)]
    except av.FFmpegError:
        return []


def test_an_rtsp_camera_goes_out_by_mjpeg_and_rtsp_and_into_a_file_without_its_password_anywhere(
    filmed, tmp_path
):
    relay = rtsp_server({"out": Mount(record=True), "play": Mount(of="out")})
    out, facts, port = tmp_path / "out.mp4", tmp_path / "facts.json", free_port()
    with rtsp_server(filmed, user="ada", password="s3cr3t-Pa55") as camera, relay as server:
        given = (camera.url("live"), "--to", f"mjpeg:{port}", "--to", server.url("out"), "--to", out)
        with command(*given, "--report", facts, folder=tmp_path) as process:
            wait_for(lambda: accepts(port), what="the MJPEG server")
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/stream", timeout=LIMIT_S) as stream:
                seen = b""
                while seen.count(b"\xff\xd8\xff") < 20:
                    seen += stream.read(4096)
            wait_for(lambda: "face seen" in process.log(), what="a face")
            times = []
            wait_for(lambda: times.extend(read_back(server.url("play"), 30)) or times, what="its pictures")
            listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
            ours = [line for line in listed.splitlines() if "gpen-stream" in line and "s3cr3t" in line]
    assert len(times) == 30 and not ours
    log = process.log()
    assert "camera up: live" in log and "face seen" in log
    for text in (log, facts.read_text()):
        assert "s3cr3t" not in text and "Pa55" not in text
    assert b"s3cr3t" not in out.read_bytes()
    report = json.loads(facts.read_text())
    assert report["faces_restored"] > 3 and {sink["kind"] for sink in report["sinks"]} == {
        "mjpeg",
        "rtsp",
        "file",
    }
    assert all(sink["delivered"] > 15 and sink["delay"]["median_ms"] > 0 for sink in report["sinks"])


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["test:"], "--to: is missing", 2),
        (["test:", "--to", "gopher://x/y"], "gopher", 2),
        (["ftp://x/y", "--to", "window"], "ftp", 2),
        (["test:", "--to", "out.mp4", "--set", "latency.budget_ms=1"], "latency.budget_ms", 2),
        (["no-such-file.mp4", "--to", "out.mp4"], "no-such-file.mp4", 1),
        (["test:", "--to", "out.mp4", "--model", "no-such-model"], "no-such-model", 2),
    ],
)
def test_what_cannot_work_is_said_in_one_line(run_cli, tmp_path, arguments, words, code):
    done = run_cli("live", *arguments, "--quiet", cwd=tmp_path)
    assert done.returncode == code
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: ") and words in done.stderr


def test_the_test_picture_goes_into_a_file_its_face_is_restored_and_the_status_is_told_in_words(tmp_path):
    out, facts = tmp_path / "out.mp4", tmp_path / "facts.json"
    with command("test:", "--to", out, "--report", facts, folder=tmp_path) as process:
        wait_for(lambda: "face seen" in process.log(), what="a face in the test picture")
        wait_for(lambda: out.exists() and out.stat().st_size > 20_000, what="several pictures in the file")
    assert "camera up: live" in process.log()
    with av.open(str(out)) as container:
        assert sum(1 for _ in container.decode(video=0)) > 5
    report = json.loads(facts.read_text())
    assert report["faces_restored"] > 0 == report["faces_left_alone"]


def test_a_terminal_that_closes_ends_the_command_and_leaves_no_process(tmp_path):
    out, (main, child) = tmp_path / "out.mp4", pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "stream.cli", "live", "test:", "--to", str(out)],
        preexec_fn=lambda: os.login_tty(child),
    )
    os.close(child)
    try:
        wait_for(lambda: out.exists() and out.stat().st_size > 20_000, 60, "several pictures in the file")
        processes = descendants(process.pid)
        assert any("gpen-stream" in command_line(pid) for pid in processes[1:]), "the file's own process"
        os.close(main)  # the system sends SIGHUP to all of them
        assert process.wait(LIMIT_S) == 0
    finally:
        process.kill()
        process.wait()
    assert not [command_line(pid) for pid in processes if "gpen-stream" in command_line(pid)]
    with av.open(str(out)) as container:
        assert container.streams.video[0].frames > 5, "a finished file counts its pictures"


_SLOW_TO_LOAD = """
import os, signal, threading
import stream.live.session.session
from stream.cli.main import main

def load(*arguments):
    os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait()

stream.live.session.session.Graph = load
main()
"""


def test_ctrl_c_ends_the_command_while_its_model_still_loads(run_cli, tmp_path):
    done = run_cli("live", "test:", "--to", tmp_path / "out.mp4", code=_SLOW_TO_LOAD)
    assert done.returncode == 0 and "unexpected" not in done.stderr


def test_a_terminal_shows_one_line_that_is_kept_up_to_date_and_at_the_end_what_came_of_it(portrait, tmp_path):
    command = [sys.executable, "-m", "stream.cli", "live", str(portrait), "--to", str(tmp_path / "out.mp4")]
    code, shown = on_terminal(command, 80, lambda text: "model ready" in text and " fps in" in text)
    lines = [line.split("\r")[-1] for line in shown.replace("\r\n", "\n").splitlines()]
    assert code == 0 and "\r" in shown and re.search(r"[1-9]\d* fps in", shown)
    assert not re.search(r"(?<!\d)0 fps in, 0 out", shown), "rates that are not known yet are not shown"
    assert any(line.startswith("model ready: gpen-lite-256, ") for line in lines)
    assert re.fullmatch(
        r"ended: \d+ frames in \d+ s · \d+ faces restored · .*out\.mp4: \d+ delivered", lines[-1]
    )


def test_sources_lists_what_is_there_or_says_that_there_is_none(run_cli):
    done = run_cli("sources")
    assert done.returncode == 0 and ("webcam:" in done.stdout or "no camera found" in done.stderr)
