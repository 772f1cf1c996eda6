"""Sinks in their own processes: one that stalls, dies or is refused delays no other; drops are counted."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import resource
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from flashes import coded, read, wait_for

from stream.config import load_config, parse_config
from stream.errors import ConfigError
from stream.live.packets import EpochStart, FinishSink, JpegPicture, Packet
from stream.live.sinks import backlog as backlog_module
from stream.live.sinks import create, parse_sink, sink_process
from stream.live.sinks import handle as handle_module
from stream.live.sinks.backlog import Backlog, BacklogOverflow
from stream.live.sinks.handle import SinkHandle, stop_all
from stream.live.sinks.sink import SinkDone, SinkError

CONFIG = parse_config({"record": {"free_gb": 0.0}})


def file_sink(path, **settings) -> SinkHandle:
    return SinkHandle(parse_sink(str(path), CONFIG), **settings)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


class Feed:
    """A live epoch without end, ten frames at a time, to several handles."""

    def __init__(self, *handles: SinkHandle) -> None:
        self.handles, self.offered = handles, 0
        self._source = iter(coded(100_000))
        self._pts = 0

    def __call__(self) -> None:
        for _ in range(10):
            message = next(self._source)
            self.offered += isinstance(message, Packet)
            for handle in self.handles:
                handle.offer(message)
        for handle in self.handles:
            handle.check()


def test_all_that_was_offered_is_in_the_file_when_a_sink_is_stopped(tmp_path):
    handle = file_sink(tmp_path / "out.mp4")
    handle.start()
    for message in coded(200):
        handle.offer(message)
    handle.stop(60)
    report = handle.report()
    assert (report["delivered"], report["dropped"], report["state"]) == (200, 0, "stopped")
    assert report["delay"]["median_ms"] > 0
    result = read(tmp_path / "out.mp4")
    assert len(result.times_s) == 200 and result.duration_s == pytest.approx(8, abs=0.01)


def test_a_sink_that_hangs_is_killed_and_started_again_while_the_others_go_on(tmp_path):
    events = []
    stuck = file_sink(
        tmp_path / "stuck.mp4", hang_timeout_s=10.0, on_event=lambda kind, text: events.append((kind, text))
    )
    well = file_sink(tmp_path / "well.mp4")
    feed = Feed(stuck, well)
    for handle in feed.handles:
        handle.start()
    wait_for(lambda: stuck.report()["delivered"] and well.report()["delivered"], tick=feed)
    first = stuck.report()["pid"]
    os.kill(first, signal.SIGSTOP)
    wait_for(lambda: stuck.report()["restarts"] == 1, tick=feed)
    assert not is_running(first)
    assert events[0][0] == "sink_failed" and "hung" in events[0][1]
    delivered = stuck.report()["delivered"]
    wait_for(lambda: stuck.report()["delivered"] > delivered, tick=feed)
    wait_for(lambda: events[-1][0] == "sink_live", tick=feed)
    stop_all(feed.handles, 60)
    for handle in feed.handles:
        report = handle.report()
        assert report["delivered"] + report["dropped"] == feed.offered
    assert well.report()["dropped"] == 0 < stuck.report()["dropped"]
    assert len(read(tmp_path / "well.mp4").times_s) == feed.offered
    assert len(read(tmp_path / "stuck-2.mp4").times_s) > 0


def test_offering_to_a_stopped_process_never_blocks_and_keeps_little(tmp_path):
    handle = file_sink(tmp_path / "out.mp4", hang_timeout_s=1000.0)
    handle.start()
    messages = list(coded(30))
    for message in messages:
        handle.offer(message)
    wait_for(lambda: handle.report()["delivered"])
    os.kill(handle.report()["pid"], signal.SIGSTOP)
    key = messages[1]
    heavy = Packet(True, bytes(1 << 20), key.pts, key.dts, key.duration, True)
    for _ in range(300):  # 300 MiB: more than any pipe holds
        handle.offer(heavy)
    assert handle.report()["dropped"] > 200
    handle.stop(0.5)
    assert handle.report()["words"] == "stopped (did not end in time and was killed)"


def test_a_sink_that_is_killed_comes_back_and_asks_for_a_keyframe(tmp_path):
    handle = file_sink(tmp_path / "out.mkv")
    feed = Feed(handle)
    handle.start()
    wait_for(lambda: handle.report()["delivered"], tick=feed)
    wait_for(lambda: not handle.needs_keyframe(), tick=feed)
    os.kill(handle.report()["pid"], signal.SIGKILL)
    wait_for(lambda: handle.report()["restarts"] == 1, tick=handle.check)
    assert handle.needs_keyframe()
    wait_for(lambda: (tmp_path / "out-2.mkv").exists(), tick=feed)
    assert not handle.needs_keyframe()
    handle.stop(60)
    assert read(tmp_path / "out-2.mkv").times_s[0] == 0


def test_a_sink_that_cannot_open_says_why_once_and_recovers(tmp_path):
    blocker = tmp_path / "folder"
    blocker.write_text("a file where the folder should be")
    events = []
    handle = file_sink(blocker / "out.mp4", on_event=lambda kind, text: events.append((kind, text)))
    feed = Feed(handle)
    handle.start()
    wait_for(lambda: handle.report()["dropped"] > 100 and events, tick=feed)
    assert handle.report()["words"].startswith("retrying in ")
    assert "cannot be written" in handle.report()["words"] and "\n" not in handle.report()["words"]
    blocker.unlink()
    wait_for(lambda: handle.report()["state"] == "live", tick=feed)
    feed()
    handle.stop(60)
    assert [kind for kind, _ in events] == ["sink_failed", "sink_live"]
    assert events[0][1].count(str(blocker)) == 1
    report = handle.report()
    assert report["restarts"] == 0, "the process itself lived on"
    assert report["delivered"] + report["dropped"] == feed.offered


_PARENT = """
import sys, threading
sys.path[:0] = {folders!r}
from flashes import coded, wait_for
from test_sinks import file_sink
if __name__ == "__main__":
    handle = file_sink(sys.argv[1])
    handle.start()
    for message in coded(50):
        handle.offer(message)
    wait_for(lambda: handle.report()["delivered"] == 50)
    print(handle.report()["pid"], flush=True)
    threading.Event().wait()
"""


def test_when_the_camera_is_killed_its_sinks_finish_their_files_and_end(tmp_path):
    script, parents = tmp_path / "parent.py", Path(__file__).parents
    folders = [str(folder) for folder in (parents[0], parents[2], parents[3])]
    script.write_text(_PARENT.format(folders=folders))
    with subprocess.Popen(
        [sys.executable, script, tmp_path / "out.mp4"], stdout=subprocess.PIPE, text=True
    ) as parent:
        sink = int(parent.stdout.readline())
        os.kill(sink, signal.SIGTERM)  # as a service manager does to all: the parent decides
        parent.kill()
        wait_for(lambda: not is_running(sink))
    result = read(tmp_path / "out.mp4")
    assert len(result.times_s) == 50
    assert b"moov" in (tmp_path / "out.mp4").read_bytes()[-20_000:], "closed as it should be"


def test_an_existing_file_is_never_overwritten(tmp_path):
    (tmp_path / "out.mp4").write_text("precious")
    handle = file_sink(tmp_path / "out.mp4")
    handle.start()
    for message in coded(10):
        handle.offer(message)
    handle.stop(60)
    assert (tmp_path / "out.mp4").read_text() == "precious"
    assert len(read(tmp_path / "out-2.mp4").times_s) == 10


def test_an_epoch_that_is_coded_alike_goes_on_in_the_same_file_and_another_begins_a_new_one(tmp_path):
    handle = file_sink(tmp_path / "out.mp4")
    handle.start()
    for epoch in (coded(25), coded(25, 1, first_pts=10 * 90000), coded(25, 2, (160, 120), 20 * 90000)):
        for message in epoch:
            handle.offer(message)
    handle.stop(60)
    first, second = read(tmp_path / "out.mp4"), read(tmp_path / "out-2.mp4")
    assert len(first.times_s) == 50 and first.times_s[25] == pytest.approx(10, abs=0.01)
    assert set(second.sizes) == {(160, 120)} and len(second.times_s) == 25


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    """The clock of a Backlog, which stands still unless the test moves it: its time is `clock.now_s`."""
    clock = SimpleNamespace(now_s=0.0)
    monkeypatch.setattr(backlog_module, "time", SimpleNamespace(monotonic=lambda: clock.now_s))
    return clock


def test_a_full_backlog_of_a_recording_drops_what_comes_up_to_the_next_keyframe(clock):
    backlog = Backlog(10.0, BacklogOverflow.DROP_NEW)
    start, *packets = coded(40)
    backlog.put(start)
    clock.now_s = 10.1
    for packet in packets[:10]:
        backlog.put(packet)
    assert (backlog.dropped, backlog.awaits_keyframe, backlog.needs_keyframe) == (10, True, False)
    assert backlog.get() is start
    for packet in packets[10:]:
        backlog.put(packet)
        if packet.pts >= packets[25].pts:
            assert backlog.get() is packet
    assert backlog.dropped == 25


def test_a_full_backlog_of_a_viewer_drops_what_waits_and_goes_on_with_a_fresh_keyframe(clock):
    backlog = Backlog(2.0, BacklogOverflow.DROP_WAITING)
    start, *packets = coded(60)
    for message in (start, *packets[:20]):
        backlog.put(message)
    clock.now_s = 2.1
    for packet in packets[20:]:
        backlog.put(packet)
        assert not backlog.needs_keyframe or packet.pts < packets[25].pts
    assert backlog.get() is start
    assert backlog.get() is packets[25]
    assert backlog.dropped == 25


def test_only_the_newest_picture_waits_and_epochs_do_not_pile_up():
    backlog = Backlog(2.0, BacklogOverflow.DROP_WAITING)
    for number in range(5):
        backlog.put(JpegPicture(bytes([number]), 0.0, number))
    assert backlog.get().pts == 4 and backlog.dropped == 4
    start = next(coded(1))
    for epoch in range(5):
        backlog.put(EpochStart(epoch, start.video, None, 0.0, ""))
    assert backlog.get().epoch == 4
    backlog.abandon()
    assert backlog.get() is None


@pytest.mark.parametrize(
    ("text", "kind", "target"),
    [
        ("window", "window", ""),
        ("virtual-camera", "virtual-camera", ""),
        ("virtual-camera:/dev/video9", "virtual-camera", "/dev/video9"),
        ("/r/out.mp4", "file", "/r/out.mp4"),
        ("/r/out.MKV", "file", "/r/out.MKV"),
        ("/r/cam/", "segments", "/r/cam"),
        ("rtsp://me:secret@host/path", "rtsp", "rtsp://me:secret@host/path"),
        ("rtmp://host/app/secret", "rtmp", "rtmp://host/app/secret"),
        ("hls:/r/hls", "hls", "/r/hls"),
        ("rtmp://me:secret@host/app/key?token=secret", "rtmp", "rtmp://me:secret@host/app/key?token=secret"),
        ("rtsp://me:secr@et@host/secret?x", "rtsp", "rtsp://me:secr@et@host/secret?x"),
        ("whip:https://host/path?token=secret", "whip", "https://host/path?token=secret"),
        ("mjpeg:8090", "mjpeg", "127.0.0.1:8090"),
        ("mjpeg:0.0.0.0:8090", "mjpeg", "0.0.0.0:8090"),
        ("mjpeg:[::1]:8090", "mjpeg", "[::1]:8090"),
        ("snapshots:/r/faces", "snapshots", "/r/faces"),
    ],
)
def test_every_form_of_a_sink_is_understood_and_shows_no_credential(text, kind, target):
    spec = parse_sink(text, load_config())
    assert (spec.kind, spec.target) == (kind, target)
    for said in (repr(spec), spec.shown, spec.safe(f"{text}: {target} and {target[5:]} refused,\n really")):
        assert "me:s" not in said and "=secret" not in said and "app/secret" not in said and "\n" not in said
    assert pickle.loads(pickle.dumps(spec)) == spec


def test_a_credential_may_come_from_the_environment_and_is_not_shown(monkeypatch):
    monkeypatch.setenv("STREAM_KEY", "s3cr3t")
    spec = parse_sink("rtmp://host/app/${STREAM_KEY}", load_config())
    assert spec.target == "rtmp://host/app/s3cr3t" and spec.shown == "rtmp://host/app/***"
    spec = parse_sink("rtsp://me:${STREAM_KEY}@host/path", load_config())
    assert "s3cr3t" not in spec.safe("password s3cr3t was wrong for rtsp://me:s3cr3t@host/path")
    with pytest.raises(ConfigError, match=r"\$\{NOT_THERE\} is not set"):
        parse_sink("rtsp://me:${NOT_THERE}@host/path", load_config())


@pytest.mark.parametrize(
    "text",
    ["", "out.avi", "nonsense", "ftp://me:secret@host/x", "rtsp://", "rtsp://me:secret@host", "whip:nothing",
     "mjpeg:", "mjpeg:99999", "mjpeg:port", "hls:", "snapshots:", "file:///etc/passwd"],
)  # fmt: skip
def test_a_sink_that_is_none_is_refused_in_one_line_without_its_credentials(text):
    with pytest.raises(ConfigError) as refusal:
        parse_sink(text, load_config())
    message = str(refusal.value)
    assert "\n" not in message and "secret" not in message and ("write" in message or "choose" in message)


class Closing:
    """A sink whose user closes it at the third message."""

    wanted, detail = True, ""

    def __init__(self, spec):
        self.written = self.opened = 0

    def open(self):
        self.opened += 1

    def write(self, message):
        self.written += 1
        if self.written > 2:
            self.refuse()

    def refuse(self):
        raise SinkDone("closed by its user")

    def idle(self):
        pass

    def close(self):
        pass


class Failing(Closing):
    """A sink whose library fails with the address in its words."""

    def refuse(self):
        raise RuntimeError("rtsp://me:secret@host/path: no\nway")

    def close(self):
        raise SinkError("and closing fails too")


def run_here(monkeypatch, sink, messages):
    """Run the process's body in this thread, with all messages in the pipe; returns its last report."""
    ours, theirs = multiprocessing.Pipe()
    for message in (*messages, FinishSink()):
        ours.send(message)
    monkeypatch.setattr(sink_process, "create", sink)
    before = signal.getsignal(signal.SIGTERM)
    sink_process.run_sink(theirs, parse_sink("rtsp://me:secret@host/path", CONFIG))
    signal.signal(signal.SIGTERM, before)
    last = None
    while ours.poll():
        last = ours.recv()
    return last


def test_a_sink_that_its_user_closed_stays_closed(monkeypatch):
    last = run_here(monkeypatch, Closing, coded(10))
    assert last.status.words() == "stopped (closed by its user)"
    assert not last.wanted and (last.delivered, last.dropped) == (1, 9)


def test_whatever_a_sink_raises_is_told_in_one_line_without_credentials(monkeypatch):
    last = run_here(monkeypatch, Failing, coded(10))
    assert last.event == "sink_failed" and "no way" in last.status.detail
    assert "secret" not in last.status.detail and "\n" not in last.status.detail
    assert (last.delivered, last.dropped) == (1, 9)


def test_pictures_that_come_faster_than_they_can_be_read_are_shown_all_the_same(monkeypatch):
    shown, reports = [], []

    class Showing(Closing):
        def write(self, message):
            shown.append(message.pts)

    class Full:
        """A pipe that is full again as soon as something is read from it."""

        sent = 0

        def poll(self, timeout=0):
            return True

        def recv(self):
            self.sent += 1
            return FinishSink() if len(shown) == 3 else JpegPicture(b"", 0.0, self.sent)

        def send(self, report):
            reports.append(report)

    monkeypatch.setattr(sink_process, "create", Showing)
    pipe, before = Full(), signal.getsignal(signal.SIGTERM)
    sink_process.run_sink(pipe, parse_sink("mjpeg:8090", CONFIG))
    signal.signal(signal.SIGTERM, before)
    assert len(shown) == 3 and shown == sorted(shown)
    assert reports[-1].delivered == 3 and reports[-1].dropped == shown[-1] - 3


def test_all_are_asked_to_finish_before_any_is_waited_for_and_they_share_one_time(monkeypatch):
    now_s, calls = 0.0, []

    class Slow:
        """A handle that needs 4 s to stop."""

        def finish(self):
            calls.append("finish")

        def stop(self, timeout_s):
            nonlocal now_s
            calls.append(timeout_s)
            now_s += 4.0

    monkeypatch.setattr(handle_module, "time", SimpleNamespace(monotonic=lambda: now_s))
    stop_all([Slow(), Slow(), Slow(), Slow()], 10.0)
    assert calls == ["finish"] * 4 + [10.0, 6.0, 2.0, 0.1]


def test_where_several_hang_the_healthy_ones_finish(tmp_path):
    handles = [file_sink(tmp_path / f"{name}.mp4") for name in ("stuck-a", "stuck-b", "well")]
    for handle in handles:
        handle.start()
    for message in coded(50):
        for handle in handles:
            handle.offer(message)
    wait_for(lambda: all(handle.report()["delivered"] for handle in handles))
    for handle in handles[:2]:
        os.kill(handle.report()["pid"], signal.SIGSTOP)
    stop_all(handles, 10)
    assert len(read(tmp_path / "well.mp4").times_s) == 50


@pytest.mark.parametrize("target", ["out.mp4", "out.mkv", "folder/"])
class TestEverySinkOnDisk:
    """The contract of `stream.live.sinks.sink.LiveSink`, without a process."""

    @staticmethod
    def made(tmp_path, target):
        return create(parse_sink(f"{tmp_path}/{target}", CONFIG))

    def test_it_can_be_closed_before_anything_came_and_more_than_once(self, tmp_path, target):
        sink = self.made(tmp_path, target)
        sink.open()
        sink.idle()
        sink.write(next(coded(1)))
        sink.close()
        sink.close()
        assert not [path for path in tmp_path.rglob("*.m*") if path.is_file()], (
            "nothing came, nothing is left"
        )

    def test_it_can_be_opened_anew_and_goes_on(self, tmp_path, target):
        for _ in range(2):
            sink = self.made(tmp_path, target)
            sink.open()
            for message in coded(10):
                sink.write(message)
            assert "writing" in sink.detail and sink.wanted
            sink.close()
        files = [path for path in tmp_path.rglob("*.m*") if path.is_file()]
        assert [len(read(path).times_s) for path in files] == [10, 10]

    def test_a_folder_that_cannot_be_made_is_one_line(self, tmp_path, target):
        (tmp_path / "in-the-way").write_text("")
        sink = self.made(tmp_path / "in-the-way", target)
        with pytest.raises(SinkError, match="cannot be written") as refusal:
            sink.open()
        sink.close()
        assert "\n" not in str(refusal.value)


def test_where_no_process_can_be_started_the_sink_waits_and_tries_again(tmp_path):
    handle = file_sink(tmp_path / "out.mp4")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")), hard))
    try:
        handle.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "no process can be started (too many open files)" in handle.report()["words"]
    feed = Feed(handle)
    wait_for(lambda: handle.report()["delivered"], tick=feed)
    handle.stop(60)
    assert handle.report()["delivered"] + handle.report()["dropped"] == feed.offered
