"""Faults of live sources, produced by real servers: one test for each fault."""

import logging
import os
import re
import signal
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from clips import Clip, make
from servers import (
    LossyUdp,
    MjpegServer,
    Mount,
    Proxy,
    free_port,
    rtmp_server,
    rtsp_server,
    sending,
    wait_for,
)
from watching import CAMERA, QUICK, Watching, camera_file, jpegs, ts_of

from stream.config_live import SourceSettings
from stream.errors import SourceError
from stream.live.source import pacing, retry
from stream.live.source.address import parse_address
from stream.live.source.capture import first_picture
from stream.live.status import ConnectionState


@pytest.fixture(scope="module")
def camera(tmp_path_factory) -> Path:
    return camera_file(tmp_path_factory.mktemp("camera"))


@pytest.fixture(scope="module")
def server(camera):
    """An RTSP server that no test stops."""
    with rtsp_server({"ball": Mount(), "file": Mount(file=str(camera))}) as server:
        yield server


def test_a_port_where_nobody_listens_is_refused_and_tried_again_with_growing_jittered_pauses():
    with Watching(f"rtsp://127.0.0.1:{free_port()}/live") as live:
        status = live.state(ConnectionState.REFUSED)
        assert re.fullmatch(r"refused, retrying in \d s \(nobody listens there\)", status.words())
    pauses = retry.Retry(0.5, 5.0)
    drawn = [pauses.pause_s(at) for at in (0, 1, 2, 10, 10, 10, 30, 100, 1000)]
    assert drawn[0] == 0.5 and len(set(drawn[3:6])) > 1
    assert all(pause <= 1.0 for pause in drawn[:6]) and all(pause <= 5 for pause in drawn) and drawn[-1] > 3


def test_a_path_that_is_not_there_is_said_once_and_tried_slowly(server):
    with Watching(server.url("nothing")) as live:
        status = live.state(ConnectionState.REFUSED)
        assert status.detail == "nothing at this path (404)"
        assert status.retry_at_s - time.monotonic() > 5
        assert live.words == ["connecting", "refused"]


def test_a_status_that_does_not_change_is_told_once(monkeypatch, server):
    monkeypatch.setattr(retry, "SLOW_S", 0.05)
    with Watching(server.url("nothing")) as live:
        live.state(ConnectionState.REFUSED)
        live.attempts(4)
        assert live.words == ["connecting", "refused"]


def test_a_wrong_password_is_named_and_shown_nowhere(caplog, capfd, camera):
    caplog.set_level(logging.DEBUG)
    with rtsp_server({"live": Mount()}, user="admin", password="right-pa55") as server:
        with Watching(server.url()) as live:
            live.frames(3)
        with Watching(server.url(user="admin:wrong-pa55@")) as live:
            status = live.state(ConnectionState.UNAUTHORISED)
            shown = [repr(live.capture.facts), repr(live.capture.notes), status.words(), repr(status)]
        with pytest.raises(SourceError) as caught:
            first_picture(parse_address(server.url(user="admin:wrong-pa55@")), QUICK)
        shown += [str(caught.value), repr(caught.value.__cause__), repr(caught.value.__context__)]
        server.kill()
        with pytest.raises(SourceError) as caught:
            first_picture(parse_address(server.url()), QUICK)
        shown += [str(caught.value), repr(caught.value.__cause__), repr(caught.value.__context__)]
    shown += [caplog.text, *capfd.readouterr(), *(repr(status) for status in live.statuses)]
    assert "pa55" not in "".join(shown)
    assert "wrong or missing user and password" in shown[4]


@pytest.mark.parametrize("scheme", ["rtmp", "http", "https"])
def test_whatever_the_protocol_a_silent_server_is_given_up_and_holds_no_other_thread(server, scheme):
    with Proxy(server.port) as proxy:
        proxy.silent = True
        source = QUICK.model_copy(update={"open_timeout_s": 1.0, "stall_s": 1.0})
        with Watching(f"{scheme}://127.0.0.1:{proxy.port}/live/x.m3u8", source) as live:
            turns = 0  # of this thread: few where the attempt holds Python's lock for its second
            while len(live.statuses) < 2:
                turns += 1
                time.sleep(0.01)
            assert live.statuses[-1].detail == "nothing came for 1 s" and turns > 10


def test_a_server_that_accepts_connections_and_says_nothing_is_given_up(server):
    with Proxy(server.port) as proxy:
        proxy.silent = True
        with Watching(
            server.url("ball", proxy.port), QUICK.model_copy(update={"open_timeout_s": 1.0})
        ) as live:
            status = live.state(ConnectionState.RETRYING)
            assert status.detail == "nothing came for 1 s"
            proxy.silent = False
            live.frames(5)


def test_a_server_that_stalls_is_seen_at_once_and_reconnected(camera):
    with rtsp_server(camera) as server, Watching(server.url()) as live:
        live.frames(5)
        server.stop()
        wait_for(lambda: live.capture.status.state is ConnectionState.STALLED)
        live.state(ConnectionState.STALLED)
        server.cont()
        live.frames(30)
        assert live.capture.connections == 2 and live.epochs[-1] == 1


def test_a_server_that_is_killed_is_live_again_after_its_return(camera):
    with rtsp_server(camera) as server, Watching(server.url(), SourceSettings()) as live:
        live.frames(5)
        server.kill()
        live.state(ConnectionState.REFUSED)
        live.attempts(3)
        server.start()
        live.frames(1)  # tests/bench/bench_reconnect.py measures the time
        gap = np.diff(live.arrived).argmax()
        assert np.diff(live.pts)[gap] / 90000 == pytest.approx(np.diff(live.arrived)[gap], abs=0.5)


def test_a_connection_that_is_cut_or_truncated_is_opened_again(server):
    with Proxy(server.port) as proxy, Watching(server.url("file", proxy.port)) as live:
        live.frames(5)
        proxy.cut()
        live.frames(5)
        proxy.truncate = 30_000
        proxy.cut()
        wait_for(lambda: proxy.connections >= 6)
        proxy.truncate = None
        live.frames(20)
        assert live.capture.connections >= 2


def test_a_slow_network_only_delays(server):
    with Proxy(server.port) as proxy:
        proxy.delay_s = 0.2
        with Watching(server.url("file", proxy.port)) as live:
            live.frames(20)
            assert live.capture.connections == 1


def test_damaged_packets_are_skipped_and_counted_and_no_grey_picture_is_shown(camera):
    with rtmp_server() as server:
        data = bytearray(ts_of(camera).read_bytes())
        noise = np.random.default_rng(5)
        for at in range(60_000, len(data) - 400, 9_973):
            data[at : at + 200] = noise.bytes(200)
        (server.folder / "damaged.ts").write_bytes(data)
        with Watching(server.http("damaged.ts")) as live:
            live.frames(30)
            wait_for(lambda: live.capture.corrupt_packets)
            assert live.capture.drops.by_cause["corrupt"] == live.capture.corrupt_packets


def test_a_source_that_starts_without_a_keyframe_waits_for_one(camera):
    with rtmp_server() as server:
        (server.folder / "late.ts").write_bytes(ts_of(camera, skip=10).read_bytes())
        with Watching(server.http("late.ts")) as live:
            live.frames(10)
            assert live.capture.drops.by_cause["no_keyframe"] >= 10
    assert min(live.spreads) > 0.5 * np.median(live.spreads)  # a picture without its reference is flat


def test_sound_that_comes_and_goes_begins_a_new_epoch_and_the_picture_goes_on(camera, tmp_path):
    silent = make(tmp_path / "silent.mp4", Clip(size=(320, 180), frames=125, options=CAMERA))
    with rtmp_server() as server, Watching(server.url()) as live:
        with sending(camera, server.url(), "flv"):
            live.frames(20)
            wait_for(lambda: live.sounds)
        with sending(silent, server.url(), "flv"):
            wait_for(lambda: live.capture.audio is None)
            live.frames(20)
        with sending(camera, server.url(), "flv"):
            heard = len(live.sounds)
            live.frames(20)
            wait_for(lambda: len(live.sounds) > heard)
    assert len(set(live.epochs)) >= 3


def test_a_frozen_picture_is_noticed_and_so_is_its_end(monkeypatch):
    monkeypatch.setattr(pacing, "FROZEN_S", 1.5)
    with MjpegServer(jpegs(1), rate=20) as camera, Watching(camera.url) as live:
        wait_for(lambda: "has not changed" in live.capture.status.detail)
        camera.pictures = list(jpegs(5))
        wait_for(
            lambda: live.capture.status.detail == "" and live.capture.status.state is ConnectionState.LIVE
        )


def test_a_stream_that_crashes_over_and_over_meets_the_breaker():
    pauses = retry.Retry(0.1, 1.0)
    for number in range(9):
        pauses.connection_ended(number, number + 0.5)
        paused = pauses.pause_s(number + 0.5)
        assert (paused > 20) == pauses.breaker_is_open == (number >= 7)
    pauses.connection_ended(100, 120)
    assert pauses.breaker_is_open
    pauses.connection_ended(200, 261)
    assert not pauses.breaker_is_open and pauses.pause_s(261) == 0.1


def test_a_camera_that_hangs_up_after_each_few_pictures_is_tried_slowly_and_said_to_be_so(server):
    with Proxy(server.port) as proxy:
        proxy.truncate = 15_000
        with Watching(server.url("ball", proxy.port)) as live:
            wait_for(lambda: "fails again and again" in live.capture.status.detail)
            assert live.capture.status.retry_at_s - time.monotonic() > 15
            assert live.capture.connections >= 8


def test_an_mjpeg_camera_that_falls_silent_is_opened_again_and_its_errors_are_told():
    with MjpegServer(jpegs(), rate=20) as camera, Watching(camera.url) as live:
        live.frames(10)
        camera.silent = True
        live.state(ConnectionState.STALLED)
        camera.silent = False
        live.frames(10)
        camera.answer = 401
        camera.silent = True
        live.state(ConnectionState.UNAUTHORISED)


def test_setting_the_machine_s_clock_changes_nothing(monkeypatch):
    with Watching("test:") as live:
        live.frames(5)
        monkeypatch.setattr(time, "time", lambda: 0.0)
        live.frames(5)
        monkeypatch.undo()
    assert np.diff(live.pts).max() < 90000


def test_stopping_waits_neither_for_a_stall_nor_for_a_pause(server):
    patient = SourceSettings(stall_s=300, retry_s=60, retry_most_s=600)
    with Watching(server.url("ball"), patient) as live:
        live.frames(3)
        live.capture.stop()
        live.ended()
    with Watching(f"rtsp://127.0.0.1:{free_port()}/x", patient) as live:
        live.state(ConnectionState.REFUSED)
        retry_at_s = live.capture.status.retry_at_s
        live.capture.stop()
        live.ended()
        assert time.monotonic() < retry_at_s, "the pause of 60 s was waited for"


def held() -> tuple[int, int, float]:
    """Open files, threads, resident MiB of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return (
        len(os.listdir("/proc/self/fd")),
        threading.active_count(),
        pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
    )


def test_ten_kills_and_restarts_leave_no_file_thread_or_memory_behind(camera):
    with rtsp_server(camera) as server, Watching(server.url()) as live:
        figures = []
        for _ in range(10):
            live.frames(30)
            figures.append(held())
            server.restart()
        live.frames(5)
        assert live.capture.connections == 11
        files, threads, megabytes = (np.array(column) for column in zip(*figures, strict=True))
        assert files[-5:].max() <= files[:5].max() and threads.max() == threads.min()
        assert megabytes[-3:].mean() < megabytes[2:5].mean() * 1.05 + 2


def test_a_publisher_that_is_stopped_for_a_while_goes_on(camera):
    """A sleeping laptop does the same: the connection stays open and nothing comes."""
    with (
        rtmp_server() as server,
        sending(camera, server.url(), "flv") as publisher,
        Watching(server.url()) as live,
    ):
        live.frames(10)
        publisher.send_signal(signal.SIGSTOP)
        live.state(ConnectionState.STALLED)
        publisher.send_signal(signal.SIGCONT)
        live.frames(10)


def test_a_network_that_loses_packets_costs_pictures_but_not_the_connection(camera):
    port = free_port(socket.SOCK_DGRAM)
    with LossyUdp(port, every=40) as lossy, Watching(f"udp://127.0.0.1:{port}") as live:
        with sending(camera, f"udp://127.0.0.1:{lossy.port}?pkt_size=1316", "mpegts"):
            live.frames(60)
            wait_for(lambda: live.capture.corrupt_packets)
        assert lossy.lost and live.capture.connections == 1
    assert min(live.spreads) > 0.5 * np.median(live.spreads)


def test_several_damaged_packets_in_a_row_open_the_connection_anew(camera):
    with rtmp_server() as server:
        data = bytearray(ts_of(camera).read_bytes())
        for at in range(
            188 * 300, len(data) - 188, 188
        ):  # damages all pictures from there on, not the packets' headers
            data[at + 60 : at + 180] = bytes(120)
        (server.folder / "damaged.ts").write_bytes(data)
        with Watching(server.http("damaged.ts")) as live:
            wait_for(lambda: any("damaged packets in a row" in status.detail for status in live.statuses))
            wait_for(lambda: live.capture.connections >= 2)
