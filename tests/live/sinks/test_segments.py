"""A folder of segments: when a file begins, what is deleted, a full disk, a process that is killed."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import av
import pytest
from flashes import coded, read, wait_for

from stream.config import parse_config
from stream.live.sinks import parse_sink
from stream.live.sinks.handle import SinkHandle
from stream.live.sinks.segments import SegmentSink, segments
from stream.live.sinks.sink import SinkError


def spec(folder, **record):
    return parse_sink(f"{folder}/", parse_config({"record": {"free_gb": 0.0} | record}))


def record(sink, messages):
    for message in messages:
        sink.write(message)


def recorded(folder, messages, **settings):
    """Write everything, and read every file back."""
    sink = SegmentSink(spec(folder, **settings))
    sink.open()
    record(sink, messages)
    sink.close()
    return [read(segment.path) for segment in segments(Path(folder))]


def rises(times):
    return all(a < b for a, b in itertools.pairwise(times))


def old_segment(folder: Path, days: float, size: int) -> Path:
    began = time.time() - days * 86400
    path = folder / datetime.fromtimestamp(began, UTC).strftime("%Y-%m-%dT%H-%M-%SZ.mp4")
    path.write_bytes(bytes(size))
    os.utime(path, (began, began))
    return path


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_a_file_begins_after_segment_s_at_a_keyframe_and_no_frame_is_lost(tmp_path, container):
    parts = recorded(tmp_path, coded(130), segment_s=2.0, container=container)
    assert [len(part.times_s) for part in parts] == [50, 50, 30]
    for part in parts:
        assert part.times_s[0] == 0 and rises(part.times_s) and rises(part.packet_times["video"])
        assert part.metadata.get("comment", part.metadata.get("COMMENT")) == "faces restored by a test"
    names = [segment.path.name for segment in segments(tmp_path)]
    assert all(name[4] == "-" and name[10] == "T" and name.endswith(container) for name in names)
    assert abs(segments(tmp_path)[0].began_at - time.time()) < 100


def test_a_file_begins_after_segment_mb(tmp_path):
    parts = recorded(tmp_path, coded(150), segment_mb=0.02)
    assert len(parts) > 2 and sum(len(part.times_s) for part in parts) == 150


def test_a_file_begins_with_every_epoch(tmp_path):
    messages = [*coded(30), *coded(30, epoch=1, size=(160, 120), first_pts=10**6)]
    parts = recorded(tmp_path, messages)
    assert [part.sizes[0] for part in parts] == [(320, 180), (160, 120)]
    assert [part.times_s[0] for part in parts] == [0, 0]


def test_segments_older_than_keep_days_are_deleted_and_nothing_else_is(tmp_path):
    old, young = old_segment(tmp_path, 3, 10), old_segment(tmp_path, 1, 10)
    foreign = tmp_path / "2020-01-01 holiday.mp4"
    foreign.write_bytes(b"mine")
    os.utime(foreign, (1, 1))
    sink = SegmentSink(spec(tmp_path, keep_days=2.0))
    sink.open()
    assert not old.exists() and young.exists() and foreign.exists()
    sink.close()


def test_the_oldest_segments_are_deleted_beyond_keep_gb(tmp_path):
    sizes = [1 << 20] * 4
    old = [old_segment(tmp_path, days, size) for days, size in zip((4, 3, 2, 1), sizes, strict=True)]
    sink = SegmentSink(spec(tmp_path, keep_gb=2.5 / 1024))
    sink.open()
    assert [path.exists() for path in old] == [False, False, True, True]
    record(sink, coded(30))
    assert segments(tmp_path)[-1].is_open
    sink.close()
    assert not segments(tmp_path)[-1].is_open


def test_a_second_recording_into_the_same_folder_is_refused_in_one_line(tmp_path):
    first, second = SegmentSink(spec(tmp_path)), SegmentSink(spec(tmp_path))
    first.open()
    with pytest.raises(SinkError, match="another recording writes there"):
        second.open()
    first.close()
    second.open()
    second.close()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own that holds 400 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    admin = [] if os.geteuid() == 0 else ["sudo", "-n"]
    options = f"size=400k,uid={os.getuid()}"
    subprocess.run([*admin, "mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    yield folder
    subprocess.run([*admin, "umount", "-l", folder], check=True)


def test_too_little_room_stops_the_recording_before_the_disk_is_full(small_disk):
    sink = SegmentSink(spec(small_disk, free_gb=200 / (1 << 20)))
    sink.open()
    messages = list(coded(60))
    record(sink, messages[:40])
    (small_disk / "ballast").write_bytes(bytes(200 << 10))
    with pytest.raises(SinkError, match=r"less than record\.free_gb") as refusal:
        record(sink, messages[40:])
    assert refusal.value.event == "disk_low"
    sink.close()
    assert len(read(segments(small_disk)[0].path).times_s) == 50
    with pytest.raises(SinkError, match="GiB free"):
        SegmentSink(spec(small_disk, free_gb=200 / (1 << 20))).open()


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_a_full_disk_ends_with_a_valid_file_and_recording_goes_on_when_there_is_room(small_disk, container):
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(250 << 10))
    events = []
    handle = SinkHandle(
        spec(small_disk, container=container), on_event=lambda kind, text: events.append((kind, text))
    )
    handle.start()
    source = iter(coded(100_000))

    def feed():
        for message, _ in zip(source, range(10), strict=False):
            handle.offer(message)
        handle.check()

    wait_for(lambda: events, tick=feed)
    assert events[0][0] == "disk_low" and "the disk is full" in events[0][1]
    full = read(segments(small_disk)[0].path)
    assert len(full.times_s) >= 75 and rises(full.times_s)
    ballast.unlink()
    wait_for(lambda: events[-1][0] == "sink_live" and len(segments(small_disk)) > 1, tick=feed)
    handle.stop(30)
    assert len(read(segments(small_disk)[-1].path).times_s) > 0


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_a_recording_killed_while_it_writes_plays_to_its_last_second(tmp_path, container):
    handle = SinkHandle(spec(tmp_path, container=container))
    handle.start()
    messages = list(coded(140))
    for message in messages:
        handle.offer(message)
    wait_for(lambda: handle.report()["delivered"] == 140)
    os.kill(handle.report()["pid"], signal.SIGKILL)
    wait_for(lambda: handle.report()["restarts"] == 1, tick=handle.check)
    before = segments(tmp_path)[0].path
    killed = read(before)
    assert 110 <= len(killed.times_s) <= 140 and rises(killed.times_s)
    for message in coded(30, epoch=1, first_pts=10**6):
        handle.offer(message)
    handle.stop(30)
    parts = [read(segment.path) for segment in segments(tmp_path)]
    assert [len(part.times_s) for part in parts] == [len(killed.times_s), 30]


def test_a_fragment_that_was_torn_is_cut_off_at_the_next_start(tmp_path):
    sink = SegmentSink(spec(tmp_path))
    sink.open()
    record(sink, coded(110))
    path = segments(tmp_path)[0].path
    growing = path.read_bytes()
    sink.close()
    path.write_bytes(growing[:-1000])
    with pytest.raises(av.FFmpegError):
        read(path)
    sink = SegmentSink(spec(tmp_path))
    sink.open()
    sink.close()
    assert len(read(path).times_s) in (50, 75)
    assert growing.startswith(path.read_bytes())


def test_two_leases_write_files_of_their_own_and_leave_each_others_alone(tmp_path):
    """A machine that hangs may wake up in the middle of its recording when another records long since."""
    first, second = (SegmentSink(replace(spec(tmp_path), lease=number)) for number in (7, 8))
    messages = list(coded(60))
    first.open()
    record(first, messages[:30])
    (torn,) = tmp_path.glob("*.mp4")
    with torn.open("ab") as file:  # half a fragment: it is being written
        file.write(b"\0\0\1\0moof")
    size = torn.stat().st_size
    second.open()
    record(second, messages)
    assert torn.stat().st_size == size, "the first one's file is not repaired while it may go on"
    second.close()
    names = [segment.path.name for segment in segments(tmp_path)]
    assert [name[20:] for name in names] == ["-L7.mp4", "-L8.mp4"]
    first.close()
    third = SegmentSink(replace(spec(tmp_path), lease=9))
    third.open()
    assert [path.name for path in tmp_path.glob(".recording*")] == [".recording-L9.lock"]
    third.close()


def test_what_a_killed_lease_left_is_repaired_by_the_next(tmp_path):
    killed = SegmentSink(spec(tmp_path / "other"))
    killed.open()
    record(killed, coded(60))
    (growing,) = (tmp_path / "other").glob("*.mp4")
    torn = tmp_path / f"{growing.stem}-L7.mp4"
    whole = growing.stat().st_size
    torn.write_bytes(growing.read_bytes() + b"\0\0\1\0moof")
    killed.close()
    sink = SegmentSink(replace(spec(tmp_path), lease=8))
    sink.open()
    sink.close()
    assert torn.stat().st_size == whole
