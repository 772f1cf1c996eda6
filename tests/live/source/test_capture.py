"""Frames and sound of every kind of live source, sent by real servers."""

import socket
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import Clip, Sound, make
from servers import MjpegServer, Mount, free_port, rtmp_server, rtsp_server, sending, wait_for
from watching import CAMERA, QUICK, Watching, camera_file, jpegs, luma, ts_of

from stream.config_live import SourceSettings
from stream.errors import SourceError
from stream.faces.detect.finder import FaceFinder
from stream.live.source import time_strip
from stream.live.source.address import parse_address
from stream.live.source.capture import Capture, first_picture
from stream.live.status import ConnectionState


@pytest.fixture(scope="module")
def camera(tmp_path_factory) -> Path:
    return camera_file(tmp_path_factory.mktemp("camera"))


@pytest.fixture(scope="module")
def server(camera):
    """An RTSP server that no test stops."""
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
            live.state(ConnectionState.CONNECTING)
            with sending(camera, server.url(), "flv") as publisher:
                live.frames(20)
                publisher.kill()
                live.state(ConnectionState.STALLED)
            with sending(camera, server.url(), "flv"):
                live.frames(20)
            assert live.epochs[-1] > live.epochs[0]


def test_mpeg_ts_by_udp_is_received_and_the_sender_may_come_and_go(camera):
    url = f"udp://127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
    with Watching(url) as live:
        for _ in range(2):
            with sending(camera, url + "?pkt_size=1316", "mpegts"):
                live.frames(20)
            live.state(ConnectionState.STALLED)
        assert live.sounds and live.capture.facts["codec"] == "h264"


def test_a_file_by_http_is_paced_by_its_own_times(camera):
    with rtmp_server() as server:
        (server.folder / "film.mp4").write_bytes(camera.read_bytes())
        with Watching(server.http("film.mp4")) as live:
            live.frames(40)
    spans = np.diff(live.arrived)
    assert 0.03 < np.median(spans) < 0.05


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
    assert set(live.epochs) == {0} and live.capture.connections == 1
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
    capture = Capture(parse_address("test:"), SourceSettings(), decoder_threads=1, hardware=False)
    boxes = []
    for frame in capture.frames():
        age_ms = frame.arrived_at_s * 1000 - time_strip.read(luma(frame.picture))
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
    with Watching("test:", SourceSettings(size="320x240", rate=50.0)) as live:
        live.frames(20)
    assert live.sizes[0] == (320, 240) and live.capture.rate == 50


def test_a_webcam_that_is_not_there_is_tried_again_until_it_is_stopped():
    with Watching("webcam:99") as live:
        status = live.state(ConnectionState.REFUSED)
        assert status.detail == "no such device" and status.retry_at_s is not None
        wait_for(lambda: live.capture.status.retry_at_s not in (None, status.retry_at_s))


def test_hardware_that_will_not_do_gives_way_to_software_with_a_note(server):
    with Watching(server.url("file"), hardware=True) as live:
        live.frames(10)
        codec = live.capture.facts["codec"]
        assert codec != "h264" or "decoded by software" in live.capture.notes[0]


def test_sound_that_is_not_wanted_is_left_out(server):
    with Watching(server.url("ball"), QUICK.model_copy(update={"audio": False})) as live:
        live.frames(10)
    assert not live.sounds and live.capture.audio is None


def test_a_flooding_source_is_noticed_and_thinned_out_to_what_it_announces(server):
    with Watching(server.url("flood")) as live:
        live.frames(10)
        wait_for(lambda: "announces 25" in live.capture.status.detail)
        dropped = live.capture.drops.by_cause["paced"]
        live.frames(60)
        assert 59 / (live.arrived[-1] - live.arrived[-60]) < 40
        assert live.capture.drops.by_cause["paced"] > dropped


def test_a_frame_rate_limit_takes_every_second_frame_evenly_and_counts_the_others(camera):
    with Watching(str(camera), QUICK.model_copy(update={"max_fps": 12.5})) as live:
        live.frames(30)
    assert np.median(np.diff(live.pts)) == 7200
    assert live.capture.drops.by_cause["paced"] == pytest.approx(len(live.pts), abs=3)


def test_the_first_picture_of_a_source_is_a_jpeg_with_facts_and_a_failure_says_why(server):
    data, facts = first_picture(parse_address(server.url("file")), QUICK)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (180, 320, 3) and facts["codec"] == "h264" and facts["sound"].startswith("aac")
    with pytest.raises(SourceError, match=r"nothing at this path \(404\)"):
        first_picture(parse_address(server.url("nothing")), QUICK)


def test_another_size_begins_a_new_epoch(tmp_path):
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
    assert {*zip(live.epochs, live.sizes, strict=True)} == {(0, (160, 120)), (1, (320, 240))}
