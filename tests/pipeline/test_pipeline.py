"""Channels, the stage loop and the pipeline: order, the first error, and no hang."""

import threading
import time
from fractions import Fraction

import av
import pytest

from stream.errors import SourceError, StageError
from stream.picture.colour import Colour
from stream.picture.frame import Frame, Timestamp, View
from stream.pipeline.channel import Channel, Closed, Overflow
from stream.pipeline.pipeline import Pipeline

pytestmark = pytest.mark.timeout(20)


def frame(index: int) -> Frame:
    picture = av.VideoFrame(16, 16, "yuv420p")
    return Frame(index, Timestamp(index, Fraction(1, 25)), picture, View(16, 16), Colour(1, 1, 1, False))


class Source:
    """Frames without end, or `count`; fails before frame `fail_at`."""

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


class Step:
    """Passes frames on; fails in a named method, at a named frame; notes what was called."""

    def __init__(self, fail_in=None, error=None, delay_s=0.0):
        self.calls, self.seen, self.thread = [], [], None
        self._fail_in, self._error, self._delay_s = fail_in, error or ValueError("bad luck"), delay_s

    def _enter(self, name):
        self.calls.append(name)
        self.thread = threading.current_thread()
        if self._fail_in == name:
            raise self._error

    def open(self):
        self._enter("open")

    def process(self, work):
        if work.frame.index == 5:
            self._enter("process")
        time.sleep(self._delay_s)
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
    steps = [Step(delay_s=0.001), Step(), Step(delay_s=0.002)]
    out = [
        work.frame.index
        for work in Pipeline.from_source(Source(60), [(f"s{i}", s) for i, s in enumerate(steps)])
    ]
    assert out == list(range(60))
    assert len({step.thread for step in steps}) == 3


def test_stopping_finishes_what_is_on_its_way():
    step, source = Step(delay_s=0.002), Source()
    pipeline = Pipeline.from_source(source, [("a", step)])
    threading.Timer(0.3, pipeline.stop).start()
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
    source = Source(200)
    step = Step(delay_s=0.005)
    ahead = []
    step._enter = lambda name: None
    original = step.process
    step.process = lambda work: (ahead.append(source.frames_in - len(step.seen)), *original(work))[1:]
    Pipeline.from_source(source, [("a", step)]).run()
    assert max(ahead) <= 8


def test_ctrl_c_stops_the_source_and_is_raised_when_all_is_done():
    step, source = Step(delay_s=0.002), Source()
    pipeline = Pipeline.from_source(source, [("a", step)])
    ticks = []

    def tick():
        ticks.append(1)
        if len(ticks) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.run(tick)
    assert step.seen == list(range(source.frames_in))


def test_a_meter_counts_every_call_and_only_the_stage_itself():
    slow_reader = Step(delay_s=0.01)
    pipeline = Pipeline.from_source(Source(20), [("quick", Step()), ("slow", slow_reader)])
    pipeline.run()
    summary = {name: meter.summary() for name, meter in pipeline.meters.items()}
    assert summary["slow"]["busy_s"] > 0.19
    assert summary["quick"]["busy_s"] < 0.1, "waiting for the next stage is not work"
    assert summary["slow"]["p95"] >= 10


def test_a_closed_channel_drains_and_then_ends():
    channel = Channel(4)
    channel.put(1)
    channel.put(2)
    channel.close()
    assert list(channel) == [1, 2]
    with pytest.raises(Closed):
        channel.put(3)


def test_a_writer_blocked_on_a_full_channel_wakes_when_it_fails():
    channel, caught = Channel(1), []
    channel.put(1)

    def write():
        try:
            channel.put(2)
        except Closed:
            caught.append(channel.error)

    thread = threading.Thread(target=write)
    thread.start()
    channel.fail(ValueError("first"))
    channel.fail(ValueError("second"))
    thread.join(5)
    assert not thread.is_alive()
    assert str(caught[0]) == "first"
    with pytest.raises(Closed):
        next(iter(channel))


def test_drop_oldest_keeps_the_newest_and_counts_what_it_drops():
    channel = Channel(2, Overflow.DROP_OLDEST)
    for item in range(5):
        channel.put(item)
    channel.close()
    assert list(channel) == [3, 4]
    assert channel.dropped == 3
