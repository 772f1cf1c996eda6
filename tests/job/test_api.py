"""The Python interface: progress, stopping, leaving early, and errors of the caller's own."""

from __future__ import annotations

import _thread
import itertools
import threading
from fractions import Fraction

import av
import pytest

import stream
from stream import Options, Status, load_config, restore_file, restored_frames
from stream.errors import ConfigError, SourceError, StreamError

LOSSLESS = load_config("default", None, ["encode.codec=ffv1"])
"""Its quality needs no trial, so the run begins sooner."""


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    # torch's converter starts a pool once, when the first model is converted.
    left = [
        t.name for t in set(threading.enumerate()) - before if not t.name.startswith("ThreadPoolExecutor")
    ]
    assert not left


def playable_frames(path):
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_every_name_of_the_api_is_there():
    for name in stream.__all__:
        assert getattr(stream, name) is not None
    with pytest.raises(AttributeError, match="restore_everything"):
        _ = stream.restore_everything


def test_importing_the_package_loads_no_library(run_cli):
    heavy = {"av", "cv2", "numpy", "openvino", "pydantic", "torch"}
    done = run_cli(code=f"import sys, stream; print(sorted({heavy} & set(sys.modules)))")
    assert done.stdout.strip() == "[]", done.stderr


def test_progress_only_grows_and_ends_at_the_total(portrait, tmp_path):
    seen = []
    options = Options(duration_s=0.6)
    outcome = restore_file(portrait, tmp_path / "out.mp4", options=options, progress=seen.append)
    assert outcome.status is Status.COMPLETE and outcome.path == tmp_path / "out.mp4"
    for before, after in itertools.pairwise(seen):
        assert before.frames_in <= after.frames_in and before.frames_done <= after.frames_done
        assert before.elapsed_s <= after.elapsed_s and before.faces <= after.faces
    assert seen[-1].frames_done == seen[-1].frames_total == seen[-1].frames_in == 15
    assert seen[-1].faces == outcome.report["faces_restored"] > 0


def test_a_stop_event_ends_the_run_and_keeps_what_there_is(portrait, tmp_path):
    stop = threading.Event()

    def progress(done):
        if done.frames_done >= 3:
            stop.set()

    outcome = restore_file(portrait, tmp_path / "out.mkv", LOSSLESS, progress=progress, stop=stop)
    assert outcome.status is Status.INTERRUPTED
    assert [path.name for path in tmp_path.iterdir()] == ["out.partial.mkv"]
    assert 3 <= playable_frames(outcome.path) == outcome.report["frames_out"] < 215


def test_a_keyboard_interrupt_finishes_the_partial_file_and_is_raised_again(portrait, tmp_path):
    def progress(done):
        if done.frames_done >= 3 and not interrupted:
            interrupted.append(done.frames_done)
            _thread.interrupt_main()

    interrupted = []
    with pytest.raises(KeyboardInterrupt):
        restore_file(portrait, tmp_path / "out.mkv", LOSSLESS, progress=progress)
    assert [path.name for path in tmp_path.iterdir()] == ["out.partial.mkv"]
    assert interrupted[0] <= playable_frames(tmp_path / "out.partial.mkv") < 215


def test_a_second_interrupt_waits_no_longer_and_still_leaves_a_file_that_plays(portrait, tmp_path):
    def progress(done):
        if done.frames_done >= 3:
            _thread.interrupt_main()

    with pytest.raises(KeyboardInterrupt):
        restore_file(portrait, tmp_path / "out.mp4", progress=progress)
    assert [path.name for path in tmp_path.iterdir()] == ["out.partial.mp4"]
    assert playable_frames(tmp_path / "out.partial.mp4") > 0


def test_an_error_in_the_callers_callback_ends_the_run_and_leaves_nothing(portrait, tmp_path):
    def progress(done):
        if done.frames_done:
            raise RuntimeError("the caller's own")

    with pytest.raises(RuntimeError, match="the caller's own"):
        restore_file(portrait, tmp_path / "out.mkv", LOSSLESS, progress=progress)
    assert not list(tmp_path.iterdir())


def test_restored_frames_come_in_order_with_their_faces_and_times(portrait):
    config = load_config("fast")
    works = list(restored_frames(portrait, config, options=Options(start_s=1.0, duration_s=0.4)))
    assert [work.frame.index for work in works] == list(range(10))
    assert works[0].frame.time.seconds == 1.0
    steps = {b.frame.time.pts - a.frame.time.pts for a, b in itertools.pairwise(works)}
    assert {step * works[0].frame.time.time_base for step in steps} == {Fraction(1, 25)}
    assert all(len(work.faces) == 1 for work in works)
    assert {work.frame.picture.format.name for work in works} == {"yuv420p"}


def test_leaving_restored_frames_early_hangs_nothing(portrait):
    for work in restored_frames(portrait):
        if work.frame.index == 2:
            break
    assert work.frame.picture.width == 640


def test_an_error_reaches_whoever_iterates(tmp_path):
    with pytest.raises(SourceError, match=r"none\.mp4"):
        next(restored_frames(tmp_path / "none.mp4"))


def test_a_picture_may_be_restored_by_the_same_call(face, tmp_path):
    seen = []
    every = load_config(overrides=["restore.skip_sharp=1"])
    outcome = restore_file(str(face), str(tmp_path / "out.jpg"), every, progress=seen.append)
    assert outcome.status is Status.COMPLETE and outcome.report["faces_restored"] == 1
    assert seen[-1].frames_done == seen[-1].frames_total == 1


def test_a_start_beyond_the_end_is_refused_and_leaves_nothing(portrait, tmp_path):
    with pytest.raises(SourceError, match="lower --start"):
        restore_file(portrait, tmp_path / "out.mp4", options=Options(start_s=60))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "given", [{"start_s": -1}, {"duration_s": 0}, {"start_s": float("nan")}, {"duration_s": 1e300}]
)
def test_times_that_make_no_sense_are_refused(given):
    with pytest.raises(ConfigError, match="write seconds"):
        Options(**given)


def test_every_error_that_is_expected_is_a_stream_error():
    assert issubclass(ConfigError, StreamError) and issubclass(SourceError, StreamError)
