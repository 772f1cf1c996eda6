"""Channels, the stage loop and the pipeline: order, the first error, and no hang."""

import threading
from fractions import Fraction

import av
import pytest
from servers import wait_for
from waiting import LIMIT_S

from stream.errors import SourceError, StageError
from stream.picture.colour import Colour
from stream.picture.face import FrameWork
from stream.picture.frame import Frame, Timestamp, View
from stream.pipeline import meter as metering
from stream.pipeline.channel import Channel, ChannelClosed, Overflow
from stream.pipeline.meter import Meter
from stream.pipeline.pipeline import Pipeline
from stream.pipeline.stage import Stage, run_stage


def frame(index: int) -> Frame:
    picture = av.VideoFrame(16, 16, "yuv420p")
    return Frame(index, Timestamp(index, Fraction(1, 25)), picture, View(16, 16), Colour(1, 1, 1, False))


class Source:
    """`count` frames, by default without end; fails before frame `fail_at`."""

    def __init__(self, count=10**9, fail_at=None):
        self.frames_in, self.closed = 0, False
        self._count, self._fail_at = count, fail_at

    def frames(self):
        try:
            for index in range(self._count):
                if index == self._fail_at:
                    raise SourceError("in.mp4: broken")
                self.frames_in += 1
                yield frame(index)
        finally:
            self.closed = True


class Step(Stage):
    """Passes frames on, calls `before` with each frame's index, and fails in a named method."""

    def __init__(self, fail_in=None, before=lambda index: None):
        self.calls, self.seen, self.thread = [], [], None
        self._fail_in, self._before = fail_in, before

    def _enter(self, name):
        self.calls.append(name)
        self.thread = threading.current_thread()
        if self._fail_in == name:
            raise ValueError("bad luck")

    def open(self):
        self._enter("open")

    def process(self, work):
        if work.frame.index == 5:
            self._enter("process")
        self._before(work.frame.index)
        self.seen.append(work.frame.index)
        yield work

    def flush(self):
        self._enter("flush")
        return ()

    def close(self):
        self._enter("close")


def no_threads_left(before):
    return set(threading.enumerate()) <= before


@pytest.mark.parametrize("position", range(3))
@pytest.mark.parametrize("method", ["open", "process", "flush", "close"])
def test_the_first_error_of_any_stage_reaches_the_caller_and_ends_every_thread(position, method):
    before = set(threading.enumerate())
    steps = [Step(), Step(), Step()]
    steps[position] = Step(method)
    source = Source(count=40 if method in ("flush", "close") else 10**9)
    with pytest.raises(StageError, match=f"s{position}: ValueError: bad luck") as caught:
        Pipeline.from_source(source, [(f"s{i}", step) for i, step in enumerate(steps)]).run()
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.__cause__.__traceback__ is not None
    assert all("close" in step.calls for step in steps)
    assert source.closed
    assert no_threads_left(before)


def test_an_error_of_the_source_is_raised_as_it_is():
    with pytest.raises(SourceError, match=r"in\.mp4: broken"):
        Pipeline.from_source(Source(fail_at=7), [("a", Step())]).run()


def test_nothing_is_flushed_after_an_error():
    after = Step()
    with pytest.raises(StageError):
        Pipeline.from_source(Source(), [("a", Step("process")), ("b", after)]).run()
    assert after.calls == ["open", "close"]


def test_frames_leave_in_order_and_none_is_lost():
    steps = [Step(), Step(), Step()]
    out = [
        work.frame.index
        for work in Pipeline.from_source(Source(60), [(f"s{i}", s) for i, s in enumerate(steps)])
    ]
    assert out == list(range(60))
    assert len({step.thread for step in steps}) == 3


def test_stopping_finishes_what_is_on_its_way():
    step, source = Step(before=lambda index: index == 10 and pipeline.stop()), Source()
    pipeline = Pipeline.from_source(source, [("a", step)])
    pipeline.run()
    assert pipeline.stopped
    assert step.seen == list(range(source.frames_in)) and source.frames_in > 10
    assert "flush" in step.calls


def test_leaving_the_iteration_early_ends_every_thread():
    before = set(threading.enumerate())
    source = Source()
    for work in Pipeline.from_source(source, [("a", Step()), ("b", Step())]):
        if work.frame.index == 3:
            break
    del work
    assert no_threads_left(before)
    assert source.closed


def test_an_error_reaches_the_caller_who_iterates():
    with pytest.raises(StageError, match="b: ValueError"):
        for _ in Pipeline.from_source(Source(), [("a", Step()), ("b", Step("process"))]):
            pass


def test_a_slow_stage_holds_the_source_back():
    """The stage waits until the source is as far ahead as it may be; without a bound it would go on."""
    source, ahead = Source(40), []
    may_be_ahead = 6  # one in the stage, four in the channel, one that is being put

    def wait(index):
        wait_for(lambda: source.closed or source.frames_in - index >= may_be_ahead)
        ahead.append(source.frames_in - index)

    Pipeline.from_source(source, [("a", Step(before=wait))]).run()
    assert max(ahead) == may_be_ahead


def test_ctrl_c_stops_the_source_and_is_raised_when_all_is_done():
    step, source = Step(), Source()
    pipeline = Pipeline.from_source(source, [("a", step)])
    interrupted = threading.Event()

    def tick():
        if step.seen and not interrupted.is_set():
            interrupted.set()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.run(tick)
    assert step.seen == list(range(source.frames_in))


def test_a_meter_counts_every_call_and_only_the_stage_itself(monkeypatch):
    """The clock moves only while the stage works, and while its result waits for the next stage."""
    now_s = [0.0]
    monkeypatch.setattr(metering.time, "perf_counter", lambda: now_s[0])

    class Full(Channel):
        def put(self, item):
            now_s[0] += 100

    def compute(index):
        now_s[0] += 2

    meter = Meter("a")
    run_stage(Step(before=compute), [FrameWork(frame(index)) for index in range(5)], Full(1), meter)
    summary = meter.summary()
    assert summary["busy_s"] == 10, "waiting for the next stage is not work"
    assert summary["p95"] == 2000


def test_a_closed_channel_drains_and_then_ends():
    channel = Channel(4)
    channel.put(1)
    channel.put(2)
    channel.close()
    assert list(channel) == [1, 2]
    with pytest.raises(ChannelClosed):
        channel.put(3)


def test_a_writer_blocked_on_a_full_channel_wakes_when_it_fails():
    channel, caught = Channel(1), []
    channel.put(1)

    def write():
        try:
            channel.put(2)
        except ChannelClosed:
            caught.append(channel.error)

    thread = threading.Thread(target=write)
    thread.start()
    channel.fail(ValueError("first"))
    channel.fail(ValueError("second"))
    thread.join(LIMIT_S)
    assert not thread.is_alive()
    assert str(caught[0]) == "first"
    with pytest.raises(ChannelClosed):
        next(iter(channel))


def test_drop_oldest_keeps_the_newest_and_counts_what_it_drops():
    channel = Channel(2, Overflow.DROP_OLDEST)
    for item in range(5):
        channel.put(item)
    channel.close()
    assert list(channel) == [3, 4]
    assert channel.dropped == 3
