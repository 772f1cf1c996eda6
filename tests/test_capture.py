"""Live sources against real servers, and every fault that one can have."""

import logging
import os
import re
import signal
import socket
import threading
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import Clip, Sound, make
from servers import MjpegServer, Mount, Proxy, free_port, rtmp_server, rtsp_server, sending, wait_for
from watching import QUICK, Watching, luma

from stream import retry, supply, timestrip
from stream.address import parse_address
from stream.capture import Capture, first_picture
from stream.config_live import Source
from stream.detect import FaceFinder
from stream.errors import SourceError
from stream.status import State

CAMERA = {"preset": "ultrafast", "tune": "zerolatency", "g": "25", "sc_threshold": "0", "slices": "1",
          "threads": "1"}  # fmt: skip
"""A keyframe each second, no B-frames."""


@pytest.fixture(scope="module")
def camera(tmp_path_factory) -> Path:
    """Five seconds as a camera sends them, with sound."""
    clip = Clip(size=(320, 180), frames=125, options=CAMERA, sounds=(Sound(layout="mono"),), noise=3)
    return make(tmp_path_factory.mktemp("camera") / "camera.mp4", clip)


@pytest.fixture(scope="module")
def server(camera):
    """Mounts that no test kills."""
    mounts = {
        "ball": Mount(sound=True),
        "file": Mount(file=str(camera)),
        "flood": Mount(file=str(camera), speed=4),
        "udp": Mount(transports="udp"),
    }
    with rtsp_server(mounts) as server:
        yield server


# Every kind of source ------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_rtsp_comes_live_by_tcp_and_by_udp_with_its_sound(server, transport):
    source = QUICK.model_copy(update={"transport": transport})
    with Watching(server.url("ball"), source) as live:
        live.frames(20)
        wait_for(lambda: live.sounds)
        assert live.words == ["connecting", "live"]
        assert live.capture.facts["transport"] == transport
        assert live.capture.audio.codec == live.sounds[0].format.codec == "pcm_alaw"
    assert live.words[-1] == "stopped" and live.error is None


def test_a_camera_that_speaks_udp_only_is_found_by_itself(server):
    with Watching(server.url("udp")) as live:
        live.frames(5)
        assert live.capture.facts["transport"] == "udp"


def test_rtmp_comes_live_with_its_sound_and_goes_on_when_the_publisher_comes_back(camera):
    with rtmp_server() as server:
        with sending(camera, server.url(), "flv"):
            wait_for(lambda: list((server.folder / "hls").glob("*.m3u8")))
            with Watching(server.url()) as live, Watching(server.hls()) as segments:
                live.frames(20)
                segments.frames(20)
                wait_for(lambda: live.sounds and segments.sounds)
        # Readers of nginx get no end of file when the publisher leaves.
        with Watching(server.url()) as live:
            time.sleep(0.5)
            assert not live.pts
            with sending(camera, server.url(), "flv") as publisher:
                live.frames(20)
                publisher.kill()
                live.state(State.STALLED)
            with sending(camera, server.url(), "flv"):
                live.frames(20)
            assert live.takes[-1] > live.takes[0]


def test_mpeg_ts_by_udp_is_received_and_the_sender_may_come_and_go(camera):
    url = f"udp://127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
    with Watching(url) as live:
        for _ in range(2):
            with sending(camera, url + "?pkt_size=1316", "mpegts"):
                live.frames(20)
            live.state(State.STALLED)
        assert live.sounds and live.capture.facts["codec"] == "h264"


def test_a_file_by_http_is_paced_by_its_own_times(camera):
    with rtmp_server() as server:
        (server.folder / "film.mp4").write_bytes(camera.read_bytes())
        with Watching(server.http("film.mp4")) as live:
            live.frames(40)
    spans = np.diff(live.arrived)
    assert 0.03 < np.median(spans) < 0.05


def jpegs(count=5, size=(320, 180)):
    for i in range(count):
        image = np.full((size[1], size[0], 3), 40 * i, np.uint8)
        yield cv2.imencode(".jpg", image)[1].tobytes()


def test_mjpeg_over_http_comes_live_and_is_put_by_its_arrival():
    with MjpegServer(jpegs(), rate=20) as camera, Watching(camera.url) as live:
        live.frames(30)
        assert live.capture.facts["codec"] == "mjpeg"
        seconds = (live.pts[-1] - live.pts[0]) / 90000
        assert seconds == pytest.approx(live.arrived[-1] - live.arrived[0], abs=0.1)


def test_a_file_loops_in_real_time_without_a_seam_and_its_sound_with_it(camera, tmp_path):
    short = make(tmp_path / "short.mp4", Clip(frames=25, options=CAMERA, sounds=(Sound(layout="mono"),)))
    with Watching(str(short)) as live:
        live.frames(70)
    assert set(live.takes) == {0} and live.capture.connections == 1
    steps = np.diff(live.pts)
    assert np.median(steps) == 3600 and len(live.pts) / (live.pts[-1] / 90000) == pytest.approx(25, rel=0.1)
    assert live.sounds[-1].pts > 1.5 * 90000


def test_a_file_that_shall_not_loop_ends(tmp_path):
    short = make(tmp_path / "short.mp4", Clip(frames=10))
    with Watching(str(short), QUICK.model_copy(update={"loop": False})) as live:
        live.ended()
    assert len(live.pts) == 10 and live.words == ["connecting", "live", "stopped"]


@pytest.mark.parametrize("content", [None, b"", b"garbage" * 999])
def test_a_file_that_is_missing_empty_or_garbage_is_one_line_and_no_endless_retry(tmp_path, content):
    path = tmp_path / "broken.mp4"
    if content is not None:
        path.write_bytes(content)
    with Watching(str(path)) as live:
        live.ended()
    assert isinstance(live.error, SourceError) and "\n" not in str(live.error)


def test_the_test_pattern_shows_a_face_that_moves_and_the_time_in_its_strip(finder: FaceFinder):
    capture = Capture(parse_address("test:"), Source(), decoder_threads=1, hardware=False)
    boxes = []
    for frame in capture.frames():
        age_ms = frame.arrived_at_s * 1000 - timestrip.read(luma(frame.picture))
        assert 0 <= age_ms < 2
        if frame.index % 25 == 0:
            found = finder(frame)
            assert len(found) == 1
            boxes.append(found[0].box_xyxy)
        if len(boxes) == 3:
            capture.stop()
    assert np.abs(boxes[0] - boxes[2]).max() > 10
    assert (frame.view.width, frame.view.height) == (640, 360)


def test_the_test_pattern_has_the_size_and_the_rate_that_are_asked_for():
    with Watching("test:", Source(size="320x240", rate=50.0)) as live:
        live.frames(20)
    assert live.sizes[0] == (320, 240) and live.capture.rate == 50


def test_a_webcam_that_is_not_there_is_tried_again_until_it_is_stopped():
    with Watching("webcam:99") as live:
        status = live.state(State.REFUSED)
        assert status.detail == "no such device" and status.retry_at_s is not None
        wait_for(lambda: live.capture.status.retry_at_s not in (None, status.retry_at_s))


def test_hardware_that_will_not_do_gives_way_to_software_with_a_note(server):
    with Watching(server.url("file"), hardware=True) as live:
        live.frames(10)
        codec = live.capture.facts["codec"]
        assert codec != "h264" or "decoded by software" in live.capture.notes[0]


# Faults --------------------------------------------------------------------------------------------


def test_a_port_where_nobody_listens_is_refused_and_tried_again_with_growing_jittered_pauses():
    with Watching(f"rtsp://127.0.0.1:{free_port()}/live") as live:
        status = live.state(State.REFUSED)
        assert re.fullmatch(r"refused, retrying in \d s \(nobody listens there\)", status.words())
    pauses = retry.Retry(0.5, 5.0)
    drawn = [pauses.pause_s(at) for at in (0, 1, 2, 10, 10, 10, 30, 100, 1000)]
    assert drawn[0] == 0.5 and len(set(drawn[3:6])) > 1
    assert all(pause <= 1.0 for pause in drawn[:6]) and all(pause <= 5 for pause in drawn) and drawn[-1] > 3


def test_a_path_that_is_not_there_is_said_once_and_tried_slowly(server):
    with Watching(server.url("nothing")) as live:
        status = live.state(State.REFUSED)
        assert status.detail == "nothing at this path (404)"
        assert status.retry_at_s - time.monotonic() > 5
        assert live.words == ["connecting", "refused"]


def test_a_status_that_does_not_change_is_told_once(monkeypatch, server):
    monkeypatch.setattr(retry, "SLOW_S", 0.05)
    with Watching(server.url("nothing")) as live:
        live.state(State.REFUSED)
        time.sleep(1)  # several more attempts
        assert live.words == ["connecting", "refused"]


def test_a_wrong_password_is_named_and_shown_nowhere(caplog, capfd, camera):
    caplog.set_level(logging.DEBUG)
    with rtsp_server({"live": Mount()}, user="admin", password="right-pa55") as server:
        with Watching(server.url()) as live:
            live.frames(3)
        with Watching(server.url(user="admin:wrong-pa55@")) as live:
            status = live.state(State.UNAUTHORISED)
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


def test_a_server_that_takes_connections_and_says_nothing_is_given_up_in_time(server):
    with Proxy(server.port) as proxy:
        proxy.silent = True
        began = time.monotonic()
        with Watching(
            server.url("ball", proxy.port), QUICK.model_copy(update={"open_timeout_s": 1.0})
        ) as live:
            status = live.state(State.STALLED)
            assert status.detail == "nothing came for 1 s" and time.monotonic() - began < 10
            proxy.silent = False
            live.frames(5)


def test_a_server_that_stalls_is_seen_at_once_and_reconnected(camera):
    with rtsp_server(camera) as server, Watching(server.url()) as live:
        live.frames(5)
        server.stop()
        wait_for(lambda: live.capture.status.state is State.STALLED)
        live.state(State.STALLED)
        server.cont()
        live.frames(30)
        assert live.capture.connections == 2 and live.takes[-1] == 1


def test_a_server_that_is_killed_is_live_again_soon_after_its_return(camera):
    with rtsp_server(camera) as server, Watching(server.url(), Source()) as live:
        live.frames(5)
        server.kill()
        live.state(State.REFUSED)
        time.sleep(2)
        server.start()
        began = time.monotonic()
        live.frames(1)
        assert time.monotonic() - began < 15  # three on a machine with nothing else to do: see the bench
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
        for at in range(60_000, len(data) - 400, 9_973):
            data[at : at + 200] = os.urandom(200)
        (server.folder / "damaged.ts").write_bytes(data)
        with Watching(server.http("damaged.ts")) as live:
            live.frames(30)
            wait_for(lambda: live.capture.corrupt_packets)
            assert live.capture.drops.by_cause["corrupt"] == live.capture.corrupt_packets


def ts_of(path: Path, skip: int = 0) -> Path:
    """The same as MPEG-TS, without its first packets of video."""
    target = path.with_name(f"skip{skip}.ts")
    with av.open(str(path)) as source, av.open(str(target), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.dts is not None and number >= skip:
                packet.stream = stream
                out.mux(packet)
    return target


def test_a_source_that_starts_without_a_keyframe_waits_for_one(camera):
    with rtmp_server() as server:
        (server.folder / "late.ts").write_bytes(ts_of(camera, skip=10).read_bytes())
        with Watching(server.http("late.ts")) as live:
            live.frames(10)
            assert live.capture.drops.by_cause["no_keyframe"] >= 10
    assert min(live.spreads) > 0.5 * np.median(live.spreads)  # a picture without its reference is flat


def test_another_size_begins_a_new_take(tmp_path):
    parts = [
        ts_of(make(tmp_path / f"{size[0]}.mp4", Clip(size=size, frames=30, options=CAMERA))).rename(
            tmp_path / f"{size[0]}.ts"
        )
        for size in ((160, 120), (320, 240))
    ]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    with Watching(str(joined), QUICK.model_copy(update={"loop": False})) as live:
        live.ended()
    assert {*zip(live.takes, live.sizes, strict=True)} == {(0, (160, 120)), (1, (320, 240))}


def test_sound_that_is_not_wanted_is_left_out(server):
    with Watching(server.url("ball"), QUICK.model_copy(update={"audio": False})) as live:
        live.frames(10)
    assert not live.sounds and live.capture.audio is None


def test_sound_that_comes_and_goes_begins_a_new_take_and_the_picture_goes_on(camera, tmp_path):
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
    assert len(set(live.takes)) >= 3


def test_a_flooding_source_is_noticed_and_thinned_out_to_what_it_announces(server):
    with Watching(server.url("flood")) as live:
        live.frames(10)
        wait_for(lambda: "announces 25" in live.capture.status.detail)
        dropped, passed, began = live.capture.drops.by_cause["paced"], len(live.pts), time.monotonic()
        time.sleep(2)
        seconds = time.monotonic() - began
        assert (len(live.pts) - passed) / seconds < 40
        assert live.capture.drops.by_cause["paced"] > dropped


def test_a_frame_rate_limit_takes_every_second_frame_evenly_and_counts_the_others(camera):
    with Watching(str(camera), QUICK.model_copy(update={"max_fps": 12.5})) as live:
        live.frames(30)
    assert np.median(np.diff(live.pts)) == 7200
    assert live.capture.drops.by_cause["paced"] == pytest.approx(len(live.pts), abs=3)


def test_a_frozen_picture_is_noticed_and_so_is_its_end(monkeypatch):
    monkeypatch.setattr(supply, "FROZEN_S", 1.5)
    with MjpegServer(jpegs(1), rate=20) as camera, Watching(camera.url) as live:
        wait_for(lambda: "has not changed" in live.capture.status.detail)
        camera.pictures = list(jpegs(5))
        wait_for(lambda: live.capture.status.detail == "" and live.capture.status.state is State.LIVE)


def test_a_stream_that_crashes_over_and_over_meets_the_breaker():
    pauses = retry.Retry(0.1, 1.0)
    for number in range(9):
        pauses.lived(number, number + 0.5)
        paused = pauses.pause_s(number + 0.5)
        assert (paused > 20) == pauses.broken == (number >= 7)
    pauses.lived(100, 120)
    assert pauses.broken
    pauses.lived(200, 261)
    assert not pauses.broken and pauses.pause_s(261) == 0.1


def test_an_mjpeg_camera_that_falls_silent_is_opened_again_and_its_errors_are_told():
    with MjpegServer(jpegs(), rate=20) as camera, Watching(camera.url) as live:
        live.frames(10)
        camera.silent = True
        live.state(State.STALLED)
        camera.silent = False
        live.frames(10)
        camera.answer = 401
        camera.silent = True
        live.state(State.UNAUTHORISED)


def test_setting_the_machine_s_clock_changes_nothing(monkeypatch):
    with Watching("test:") as live:
        live.frames(5)
        monkeypatch.setattr(time, "time", lambda: 0.0)
        live.frames(5)
        monkeypatch.undo()
    assert np.diff(live.pts).max() < 90000


def test_stopping_takes_no_longer_than_a_read_may(server):
    with Watching(server.url("ball")) as live:
        live.frames(3)
        assert live.stop() < QUICK.stall_s + 5
    with Watching(f"rtsp://127.0.0.1:{free_port()}/x", Source(retry_s=30.0)) as live:
        live.state(State.REFUSED)
        assert live.stop() < 5


def test_the_first_picture_of_a_source_is_a_jpeg_with_facts_and_a_failure_says_why(server):
    data, facts = first_picture(parse_address(server.url("file")), QUICK)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (180, 320, 3) and facts["codec"] == "h264" and facts["sound"].startswith("aac")
    with pytest.raises(SourceError, match=r"nothing at this path \(404\)"):
        first_picture(parse_address(server.url("nothing")), QUICK)


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
    """As when a laptop sleeps: nothing is closed, and nothing comes."""
    with (
        rtmp_server() as server,
        sending(camera, server.url(), "flv") as publisher,
        Watching(server.url()) as live,
    ):
        live.frames(10)
        publisher.send_signal(signal.SIGSTOP)
        live.state(State.STALLED)
        publisher.send_signal(signal.SIGCONT)
        live.frames(10)
