"""The shared restorer: the engine's own pictures, fair shares, and nobody harmed by a client or a restart."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from stream import zoo
from stream.config import Restore
from stream.engines import create_engine
from stream.errors import ModelError
from stream.model import read_model_info
from stream.shared import Place, RemoteEngine, run_restorer
from stream.shared.fair import Fair
from stream.workers import ChildProcess

PATH = zoo.resolve("gpen-lite-256")
MODEL = read_model_info(PATH)
SETTINGS = Restore(precision="fp32", engine="openvino")
NONSENSE = (
    b"", b"{}\n", b'{"camera": 1}\n', b"\xff\xfe\n", b"x" * 70000,
    b'{"camera": "a", "priority": 1, "count": 1, "path": "/nowhere", "settings": {"kind": "openvino"}, '
    b'"file": "../../etc/passwd"}\n',
)  # fmt: skip


@pytest.fixture(scope="module")
def restorer(tmp_path_factory):
    """One process for most tests: loading the network takes a second."""
    with running(tmp_path_factory.mktemp("place")) as pair:
        RemoteEngine(pair[0], "warm", MODEL, PATH, SETTINGS).close()
        yield pair


@contextmanager
def running(folder):
    place = Place(folder)
    process = start(place)
    try:
        yield place, process
    finally:
        process.link.close()  # its parent is gone: it ends by itself
        assert process.join(30)


def start(place):
    process = ChildProcess("restorer", run_restorer, place, 1)
    wait_for(lambda: os.path.exists(place.socket))
    return process


def wait_for(condition, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def reports(process, count=1):
    """The next reports of the restorer, older ones thrown away."""
    while process.link.poll(0):
        process.link.recv()
    found = []
    while len(found) < count:
        assert process.link.poll(20)
        found.append(process.link.recv()[1])
    return found


def crops(count, seed=0):
    return np.random.default_rng(seed).random((count, 256, 256, 3), np.float32)


def connect(place, camera="cam", **options):
    return RemoteEngine(place, camera, MODEL, PATH, SETTINGS, **({"timeout_s": 30.0} | options))


def test_the_pictures_are_those_of_an_engine_in_the_process_bit_for_bit(restorer):
    own = create_engine("openvino", PATH, threads=1, precision="fp32")
    engine = connect(restorer[0])
    batch = crops(6)  # more than fit the slots at once
    assert np.array_equal(engine.restore(batch), own.restore(batch))
    assert engine.restore(batch[:0]).shape == (0, 256, 256, 3)
    assert engine.name == own.name
    engine.close()
    own.close()


def test_a_closed_engine_and_wrong_crops_are_refused(restorer):
    engine = connect(restorer[0])
    with pytest.raises(ValueError, match="256"):
        engine.restore(np.zeros((1, 8, 8, 3), np.float32))
    engine.close()
    with pytest.raises(RuntimeError, match="closed"):
        engine.restore(crops(1))


def test_weights_that_cannot_be_loaded_are_named_and_others_go_on(restorer, tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no weights")
    with pytest.raises(ModelError, match=r"broken\.safetensors"):
        RemoteEngine(restorer[0], "cam", MODEL, broken, SETTINGS)
    engine = connect(restorer[0])
    assert np.isfinite(engine.restore(crops(1))).all()
    engine.close()


def test_two_models_are_run_side_by_side(restorer):
    half = RemoteEngine(restorer[0], "half", MODEL, PATH, SETTINGS.model_copy(update={"fidelity": 0.5}))
    whole = connect(restorer[0], "whole")
    batch = crops(1)
    assert not np.array_equal(half.restore(batch), whole.restore(batch))
    assert len(reports(restorer[1])[0]["models"]) == 2
    half.close()
    whole.close()


def test_shares_go_by_priority_and_a_flood_takes_none_of_them(restorer):
    """Three clients that never stop asking: one of priority 8, two of 2; the flood asks with four crops."""
    done, stop = Counter(), threading.Event()

    def ask(name, count, priority):
        engine = connect(restorer[0], name, priority=priority)
        batch = crops(count)
        while not stop.is_set():
            assert np.isfinite(engine.restore(batch)).all()
            done[name] += count
        engine.close()

    threads = [
        threading.Thread(target=ask, args=arguments)
        for arguments in (("high", 1, 8), ("low", 1, 2), ("flood", 4, 2))
    ]
    for thread in threads:
        thread.start()
    wait_for(lambda: done["low"] >= 3 and done["high"] >= 3 and done["flood"] >= 4)
    base = Counter(done)
    wait_for(lambda: done["low"] - base["low"] >= 12, 100)
    shares = done - base
    stop.set()
    for thread in threads:
        thread.join()
    # One outstanding call each: "high" waits for at most one call of another between two of its own.
    assert shares["high"] >= 1.5 * shares["low"]
    assert shares["flood"] <= 1.6 * shares["low"] + 4


def test_a_client_that_dies_or_talks_nonsense_leaves_the_others_alone(restorer):
    engine = connect(restorer[0])
    for text in NONSENSE:
        channel = socket.socket(socket.AF_UNIX)
        channel.connect(restorer[0].socket)
        with suppress(BrokenPipeError):
            channel.sendall(text)
        assert np.isfinite(engine.restore(crops(1))).all()
        channel.close()
    engine.close()
    wait_for(lambda: reports(restorer[1])[0]["cameras"] == 0)


def test_no_files_are_left_behind_and_memory_stays_flat_over_many_clients(restorer):
    def resident():
        text = Path(f"/proc/{restorer[1].pid}/status").read_text()
        return int(text.split("VmRSS:")[1].split()[0]) / 1024

    def use(times):
        for i in range(times):
            engine = connect(restorer[0], f"cam{i}")
            engine.restore(crops(4))
            engine.close()
        wait_for(lambda: reports(restorer[1])[0]["cameras"] == 0)
        return resident()

    first = use(4)
    later = use(16)
    assert later < 1.05 * first + 8
    assert os.listdir(restorer[0].folder) == ["restorer"]
    assert len(os.listdir(f"/proc/{restorer[1].pid}/fd")) < 40


def test_a_frozen_restorer_costs_the_time_out_and_the_restoration_and_it_is_met_again(restorer):
    engine = connect(restorer[0], timeout_s=0.5)
    os.kill(restorer[1].pid, signal.SIGSTOP)
    began = time.monotonic()
    assert np.isnan(engine.restore(crops(1))).all()
    assert time.monotonic() - began < 20
    os.kill(restorer[1].pid, signal.SIGCONT)
    wait_for(lambda: np.isfinite(engine.restore(crops(1))).all())
    engine.close()


def test_a_restorer_that_was_killed_and_started_again_is_met_without_any_order(tmp_path):
    place = Place(tmp_path)
    process = start(place)
    engine = connect(place)
    assert np.isfinite(engine.restore(crops(1))).all()
    os.kill(process.pid, signal.SIGKILL)
    process.join(20)
    assert np.isnan(engine.restore(crops(1))).all()
    process.link.close()
    process = start(place)
    wait_for(lambda: np.isfinite(engine.restore(crops(1))).all())
    engine.close()
    process.link.close()
    assert process.join(30)


def test_without_a_restorer_crops_come_back_as_they_cannot_be_used(tmp_path):
    engine = RemoteEngine(Place(tmp_path), "cam", MODEL, PATH, SETTINGS)
    assert np.isnan(engine.restore(crops(2))).all()
    engine.close()
    assert os.listdir(tmp_path) == []


def test_stride_scheduling_gives_shares_by_priority_and_none_for_having_been_away():
    fair, work = Fair(), Counter()
    priorities = {"a": 4, "b": 1, "c": 1}
    for step in range(600):
        waiting = ["a", "b"] if step < 300 else ["a", "b", "c"]
        client = fair.order(waiting)[0]
        fair.charge(client, 1, priorities[client])
        work[client] += 1
        if step == 299:
            early = Counter(work)
    assert early["a"] == pytest.approx(240, abs=2)
    assert (work - early)["c"] == pytest.approx(50, abs=2)
    assert (work - early)["a"] == pytest.approx(200, abs=2)
