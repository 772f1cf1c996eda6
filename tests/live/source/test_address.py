"""Addresses of sources: the allowed ones are accepted, and credentials in them are never shown."""

import pickle

import pytest

from stream.errors import ConfigError
from stream.live.source.address import Address, parse_address, redact


@pytest.mark.parametrize(
    "text, kind",
    [
        ("webcam:0", "webcam"),
        ("webcam:/dev/video2", "webcam"),
        ("test:", "test"),
        ("rtsp://camera/stream", "rtsp"),
        ("RTSPS://camera/stream", "rtsp"),
        ("rtmp://server/live/key", "rtmp"),
        ("https://server/hls/index.m3u8", "http"),
        ("udp://127.0.0.1:5000", "udp"),
        ("udp://@:5000", "udp"),
        ("movie.mp4", "file"),
        ("C:\\movies\\one.mp4", "file"),
        ("file:/tmp/movie.mp4", "file"),
    ],
)
def test_every_source_has_its_kind(text, kind):
    assert parse_address(text).kind == kind


@pytest.mark.parametrize(
    "text, part",
    [
        ("", "is empty"),
        ("concat:a.mp4|b.mp4", "concat: is not known"),
        ("gopher://host/", "gopher:// is not allowed"),
        ("file:///etc/passwd\nx", "control character"),
        ("subfile,,start,0,end,9,,:/etc/passwd", "no such file"),
        ("webcm:0", "webcm: is not known"),
        ("webcam:", "which one"),
        ("test:ball", "nothing follows"),
        ("rtsp:///path", "names no host"),
        ("rtsp://host:port/", "host or port"),
        ("udp://127.0.0.1", "names no port"),
        ("rtsp://${GPEN_STREAM_NOT_SET}@host/", "holds no GPEN_STREAM_NOT_SET"),
    ],
)
def test_what_is_not_allowed_is_refused_in_one_line(text, part):
    if part == "no such file":  # FFmpeg's own protocols are not known: the text is the name of a file
        assert parse_address(text).kind == "file"
        return
    with pytest.raises(ConfigError) as caught:
        parse_address(text)
    assert part in str(caught.value) and "\n" not in str(caught.value)


def test_srt_is_taken_where_ffmpeg_has_it_and_refused_in_one_line_where_not():
    try:
        assert parse_address("srt://127.0.0.1:9000").kind == "srt"
    except ConfigError as error:
        assert "this build of FFmpeg has no srt" in str(error)


SECRETS = [
    "rtsp://admin:hunter2@camera:554/h264",
    "rtsp://hunter2@camera/h264",
    "rtsp://admin:hunt/hunter2@camera/h264",
    "rtsp://admin:p@hunter2@camera/h264",
    "http://camera/video.mjpg?user=bob&password=hunter2&x=1",
    "http://camera/video?access_token=hunter2#end",
    "http://camera/cgi?pwd=hunter2;res=hd",
    "https://a:hunter2@camera/hls.m3u8?sig=hunter2",
    "rtsp://admin:hunter2@camera:notaport/",
    "gopher://a:hunter2@camera/",
    "rtsp://:hunter2@/nothing",
]


@pytest.mark.parametrize("text", SECRETS)
def test_credentials_are_shown_nowhere(text):
    try:
        address = parse_address(text)
    except ConfigError as error:
        assert "hunter2" not in str(error) and "hunter2" not in repr(error.__cause__)
        return
    assert "hunter2" not in f"{address} {address!r} {address.shown}"
    assert address.reveal() == text
    assert "camera" in address.shown


def test_redacting_leaves_the_rest_of_a_text_alone():
    text = "opening rtsp://u:hunter2@a/b and http://c/d?token=hunter2&q=1 failed at 10:30 (a@b.example)"
    assert redact(text) == "opening rtsp://***@a/b and http://c/d?token=***&q=1 failed at 10:30 (a@b.example)"
    assert redact("rtsp://camera:554/stream@1") == "rtsp://camera:554/stream@1"


def test_credentials_come_from_the_environment_and_are_not_shown(monkeypatch):
    monkeypatch.setenv("CAMERA_LOGIN", "admin:hunter2")
    monkeypatch.setenv("CAMERA_HOST", "camera.local")
    address = parse_address("rtsp://${CAMERA_LOGIN}@${CAMERA_HOST}/live")
    assert address.reveal() == "rtsp://admin:hunter2@camera.local/live"
    assert address.shown == "rtsp://***@${CAMERA_HOST}/live"


def test_an_address_pickles_whole():
    address = pickle.loads(pickle.dumps(parse_address(SECRETS[0])))
    assert isinstance(address, Address) and address.reveal() == SECRETS[0]
