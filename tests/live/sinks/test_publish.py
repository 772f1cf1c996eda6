"""Servers, players and programs that open files read back the published video."""

from __future__ import annotations

import itertools
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from feeds import CONFIG, Feed, epoch_messages, opened
from flashes import read, wait_for
from receivers import RtspRecorder
from servers import Server, free_port, rtmp_server
from waiting import LIMIT_S

from stream.live.packets import Snapshot
from stream.live.sinks import parse_sink
from stream.live.sinks.handle import SinkHandle
from stream.live.sinks.hls import PLAYLIST
from stream.live.sinks.sink import SinkError
from stream.live.sinks.snapshots import INDEX, MOST
from stream.live.status import ConnectionState


def test_an_rtsp_server_records_picture_and_sound_in_step(tmp_path):
    recorded = tmp_path / "recorded.mkv"
    with RtspRecorder(recorded, sound=True) as server:
        with Feed(SinkHandle(parse_sink(server.url, CONFIG)), epoch_messages(100, with_sound=True)) as feed:
            report = feed.wait(lambda report: report["delivered"] >= 110 and report)
        assert report["state"] == "live" and report["delay"]["median_ms"] > 0
        wait_for(lambda: recorded.stat().st_size > 30_000)
    result = read(recorded)
    assert len(result.times_s) > 50 and result.sizes[0] == (320, 180)
    assert len(result.beeps_s) >= 2 <= len(result.flashes_s)
    for flash in result.flashes_s[1:3]:
        assert min(abs(flash - beep) for beep in result.beeps_s) < 0.12


def test_an_rtsp_server_asks_for_a_password_and_it_is_in_no_message(tmp_path):
    with RtspRecorder(tmp_path / "recorded.mkv", user="me:sesame1") as server:
        right, wrong = (server.url.replace("//", f"//me:{word}@") for word in ("sesame1", "sesame2"))
        with pytest.raises(SinkError, match="user name or password") as error:
            opened(wrong, *epoch_messages(1))
        assert error.value.state is ConnectionState.UNAUTHORISED and "sesame" not in str(error.value)
        with Feed(SinkHandle(parse_sink(right, CONFIG)), epoch_messages(50)) as feed:
            feed.wait(lambda report: report["delivered"] > 10)
            wait_for(lambda: (tmp_path / "recorded.mkv").stat().st_size > 5_000)
            assert "sesame" not in str(feed.handle.report()) + repr(feed.handle.spec)


def test_an_rtmp_server_relays_picture_and_sound_to_players():
    with rtmp_server() as server:
        events = []
        handle = SinkHandle(parse_sink(server.url(), CONFIG), on_event=lambda *event: events.append(event))
        with Feed(handle, epoch_messages(50, with_sound=True)) as feed:
            feed.wait(lambda report: report["delivered"] > 10)
            with av.open(server.url(), timeout=LIMIT_S) as player:
                kinds = {stream.type: stream.codec_context.name for stream in player.streams}
                levels, pts = [], []
                for frame in player.decode(video=0):
                    levels.append(frame.to_ndarray(format="gray").mean())
                    pts.append(frame.pts)
                    if len(levels) == 60:
                        break
        assert kinds == {"video": "h264", "audio": "aac"} and pts == sorted(set(pts))
        assert min(levels) < 60 and max(levels) > 200  # dark and flashing: not grey
        assert events == []


def test_a_server_that_was_killed_gets_the_picture_again_when_it_is_back():
    events = []
    with rtmp_server() as server:
        handle = SinkHandle(parse_sink(server.url(), CONFIG), on_event=lambda *event: events.append(event))
        with Feed(handle, epoch_messages(50)) as feed:
            feed.wait(lambda report: report["delivered"] > 10)
            server.kill()
            feed.wait(lambda report: report["state"] == "refused")
            assert events[0][0] == "sink_failed" and f"rtmp://127.0.0.1:{server.port}/live/" in events[0][1]
            server.start()
            before = handle.report()["delivered"]
            feed.wait(lambda report: report["state"] == "live" and report["delivered"] > before + 20)
            with av.open(server.url(), timeout=LIMIT_S) as player:
                assert next(player.decode(video=0)).width == 320
    assert handle.report()["dropped"] > 0


@contextmanager
def serving(kind: str, folder: Path) -> Iterator[tuple[Server, str]]:
    """A server of a kind, and an address on it."""
    if kind == "rtsp":
        with RtspRecorder(folder / "recorded.mkv") as server:
            yield server, server.url
    else:
        with rtmp_server() as server:
            yield server, server.url()


@pytest.mark.parametrize("kind", ["rtsp", "rtmp"])
def test_a_server_that_stalls_is_left_and_holds_nobody_up(tmp_path, kind):
    with serving(kind, tmp_path) as (server, url):
        handle = SinkHandle(parse_sink(url, CONFIG))
        large = epoch_messages(25, size=(1280, 720))
        with Feed(handle, large, speed=20) as feed:  # fills the sockets' buffers soon
            feed.wait(lambda report: report["delivered"] > 10)
            server.stop()
            try:
                assert feed.wait(
                    lambda report: report["state"] in ("retrying", "refused") and report["words"]
                )
            finally:
                server.cont()
            before = handle.report()["delivered"]
            feed.wait(lambda report: report["state"] == "live" and report["delivered"] > before + 10)


@pytest.mark.parametrize("kind", ["rtsp", "rtmp"])
def test_nobody_there_and_a_wrong_path_are_told_in_one_line(tmp_path, kind):
    with pytest.raises(SinkError, match="nobody listens there") as error:
        opened(f"{kind}://me:sesame@127.0.0.1:{free_port()}/live/cam")
    assert error.value.state is ConnectionState.REFUSED and "sesame" not in str(error.value)
    wrong = {"rtsp": "no such path", "rtmp": "check the application"}[kind]
    with serving(kind, tmp_path) as (_, url), pytest.raises(SinkError, match=wrong):
        opened(url.replace("/live", "/nowhere/cam"), *epoch_messages(1))


def test_a_name_that_another_publishes_under_is_told(tmp_path):
    with rtmp_server() as server:
        first = opened(server.url(), *epoch_messages(10))
        with pytest.raises(SinkError, match="is it taken"):
            opened(server.url(), *epoch_messages(1))
        first.close()


@pytest.mark.parametrize("takes_sound", [False, True])
def test_a_server_that_refuses_such_a_stream_is_told_once_and_never_looks_live(tmp_path, takes_sound):
    events, states = [], []
    with RtspRecorder(tmp_path / "recorded.mkv", sound=takes_sound) as server:
        handle = SinkHandle(parse_sink(server.url, CONFIG), on_event=lambda *event: events.append(event))
        with Feed(handle, epoch_messages(50, with_sound=not takes_sound)) as feed:

            def refused_thrice(report: dict) -> bool:
                if not states or states[-1] != report["state"]:
                    states.append(report["state"])
                return states.count("refused") == 3

            feed.wait(refused_thrice)
    assert set(states) == {"connecting", "refused"}
    words = "may want sound" if takes_sound else "may want none: set source.audio to false"
    assert [kind for kind, _ in events] == ["sink_failed"] and words in events[0][1]
    assert events[0][1].startswith(f"{server.url}: refuses H.264 with")


@pytest.mark.parametrize("kind", ["mjpeg", "snapshots"])
def test_what_waits_for_a_viewer_or_a_face_is_live_once_it_is_open(tmp_path, kind):
    target = f"mjpeg:{free_port()}" if kind == "mjpeg" else f"snapshots:{tmp_path}"
    handle = SinkHandle(parse_sink(target, CONFIG))
    handle.start()
    try:
        wait_for(lambda: handle.report()["state"] == "live")
        assert handle.report()["delivered"] == 0
    finally:
        handle.stop(30)


_ANSWERING = """
import json, socket, sys
statuses = json.loads(sys.argv[2])
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    while True:
        with listener.accept()[0] as connection, connection.makefile("rb") as lines:
            while line := lines.readline():
                method, headers = line.split()[0].decode(), {}
                while (header := lines.readline()).strip():
                    name, _, value = header.decode().partition(":")
                    headers[name.lower()] = value.strip()
                lines.read(int(headers.get("content-length", 0)))
                status = statuses.get(method, "200 OK")
                connection.sendall(f"RTSP/1.0 {status}\\r\\nCSeq: {headers['cseq']}\\r\\n\\r\\n".encode())
"""
"""A server that gives the answers of its arguments to RTSP's methods. It needs a process of its own, because
FFmpeg writes a header while it holds Python's lock."""


@pytest.mark.parametrize(
    ("statuses", "words", "state"),
    [
        ({"SETUP": "503 Service Unavailable"}, "trouble of its own", ConnectionState.RETRYING),
        ({"SETUP": "453 Not Enough Bandwidth"}, "may want sound", ConnectionState.REFUSED),
        ({"ANNOUNCE": "415 Unsupported Media Type"}, "may want sound", ConnectionState.REFUSED),
    ],
)
def test_what_an_rtsp_server_answers_has_words_of_its_own(statuses, words, state):
    port = free_port()
    with (
        Server([sys.executable, "-c", _ANSWERING, str(port), json.dumps(statuses)], port),
        pytest.raises(SinkError, match=words) as error,
    ):
        opened(f"rtsp://127.0.0.1:{port}/live", *epoch_messages(1))
    assert error.value.state is state and str(error.value).count("rtsp://") == 1


def test_an_rtsp_server_that_accepts_and_stays_silent_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(SinkError, match=rf"^rtsp://127\.0\.0\.1:{port}/live: "):
            opened(f"rtsp://127.0.0.1:{port}/live", *epoch_messages(1))


def test_a_publisher_connects_again_where_the_size_changes(tmp_path):
    with rtmp_server() as server:
        sink = opened(server.url(), *epoch_messages(30))
        small = epoch_messages(400, epoch=1, size=(160, 120), first_pts=300_000)
        sink.write(small[0])
        again = threading.Event()

        def publish() -> None:
            for message in small[1:]:
                sink.write(message)
                if again.wait(0.04):
                    break

        thread = threading.Thread(target=publish)
        thread.start()
        with av.open(server.url(), timeout=LIMIT_S) as player:
            assert next(player.decode(video=0)).width == 160
        again.set()
        thread.join()
        sink.close()


class Playlist:
    """The view that a player has of an HLS folder."""

    def __init__(self, folder: Path) -> None:
        self.text = (folder / PLAYLIST).read_text()
        lines = self.text.splitlines()
        self.files = [folder / line for line in lines if line and not line.startswith("#")]
        self.seconds = [float(line[8:].rstrip(",")) for line in lines if line.startswith("#EXTINF:")]


def test_hls_segments_last_a_second_and_old_ones_go(tmp_path):
    sink = opened(f"hls:{tmp_path}", *epoch_messages(500, with_sound=True))
    playlist = Playlist(tmp_path)
    assert playlist.seconds == pytest.approx([1.0] * 6, abs=0.05)
    assert all(file.exists() for file in playlist.files)
    assert len(list(tmp_path.glob("*.ts"))) <= 14
    assert "ENDLIST" not in playlist.text
    sink.close()
    assert Playlist(tmp_path).text.endswith("#EXT-X-ENDLIST\n")
    result = read(tmp_path / PLAYLIST)
    assert len(result.times_s) == 150 and result.times_s == sorted(set(result.times_s))
    for flash in result.flashes_s[1:]:
        assert min(abs(flash - beep) for beep in result.beeps_s) < 0.08


def test_hls_goes_on_over_a_new_epoch_and_a_killed_process_without_a_number_twice(tmp_path):
    sink = opened(f"hls:{tmp_path}", *epoch_messages(60))
    before = Playlist(tmp_path)
    for message in epoch_messages(60, epoch=1, size=(160, 120), first_pts=2_000_000):
        sink.write(message)
    after = Playlist(tmp_path)
    assert "#EXT-X-DISCONTINUITY\n" in after.text
    assert after.files[: len(before.files)] == before.files
    # As if killed: the sink is not closed.
    again = opened(f"hls:{tmp_path}", *epoch_messages(60, epoch=2, first_pts=4_000_000))
    again.close()
    last = Playlist(tmp_path)
    assert len(set(last.files)) == len(last.files)
    sizes = []
    for file in last.files:
        with av.open(str(file)) as segment:
            frames = list(segment.decode(video=0))
            assert frames[0].key_frame
            sizes.append(frames[0].width)
    assert [size for size, _ in itertools.groupby(sizes)] == [320, 160, 320]
    del sink  # it lived as long as the process that was killed


def test_an_old_playlist_is_not_gone_on_with(tmp_path):
    opened(f"hls:{tmp_path}", *epoch_messages(60)).close()
    other = tmp_path / "mine.ts"
    other.write_bytes(b"kept")
    os.utime(tmp_path / PLAYLIST, (1, 1))
    sink = opened(f"hls:{tmp_path}")
    assert not (tmp_path / PLAYLIST).exists() and list(tmp_path.glob("*.ts")) == [other]
    sink.close()


def snap(number: int) -> Snapshot:
    image = cv2.imencode(".png", np.full((8, 8, 3), number % 255, np.uint8))[1].tobytes()
    return Snapshot(f"2026-11-24T19-31-44-{number:06d}Z-1", image, image, {"track": number, "score": 0.9})


def test_snapshots_are_pairs_with_a_line_each_and_their_number_is_bounded(tmp_path):
    first = opened(f"snapshots:{tmp_path}", *(snap(number) for number in range(MOST)))
    first.close()
    sink = opened(f"snapshots:{tmp_path}", *(snap(number) for number in range(MOST, MOST + 120)))
    sink.close()
    entries = [json.loads(line) for line in (tmp_path / INDEX).read_text().splitlines()]
    assert MOST <= len(entries) < MOST + 50 and entries[-1]["track"] == MOST + 119
    assert len(list(tmp_path.glob("*.png"))) == 2 * len(entries)
    for entry in entries[:2] + entries[-2:]:
        original = cv2.imread(str(tmp_path / entry["original"]))
        assert (original == entry["track"] % 255).all() and (tmp_path / entry["restored"]).exists()


def test_a_snapshot_cannot_leave_its_folder(tmp_path):
    sink = opened(f"snapshots:{tmp_path / 'in'}")
    with pytest.raises(SinkError, match="no name for a file"):
        sink.write(replace(snap(0), name="../out"))
    assert not list(tmp_path.glob("*.png"))
