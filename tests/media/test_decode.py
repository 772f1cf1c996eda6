"""Decoding: formats, times, damage, and what is known before the first frame."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import SAMPLES

from stream.errors import SourceError
from stream.media.container import window_pts
from stream.media.decode import FileSource
from stream.media.probe import probe
from stream.picture import pixel_formats

HANDLED = """
    yuv420p yuv422p yuv444p yuvj420p yuvj422p yuvj444p yuv420p10le yuv422p10le yuv444p10le yuv420p12le
    yuv422p12le yuv444p12le gray gray10le nv12 p010le yuyv422 rgb24 bgr0 gbrp yuva420p
""".split()


def write(
    path: Path, pix_fmt="yuv420p", codec="ffv1", count=8, pts=None, size=(96, 64), options=None, setup=None
):
    """A clip of a moving ramp; pts in 1/1000 s."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        if setup:
            setup(stream)
        ramp = np.tile(np.linspace(20, 220, size[0], dtype=np.uint8), (size[1], 1))
        for index in range(count):
            rgb = np.dstack([np.roll(ramp, 5 * index, 1), ramp, ramp[:, ::-1]])
            picture = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=pix_fmt)
            picture.pts = pts[index] if pts else 40 * index
            picture.time_base = Fraction(1, 1000)
            out.mux(stream.encode(picture))
        out.mux(stream.encode())
    return path


@pytest.mark.parametrize("pix_fmt", HANDLED)
def test_every_promised_format_is_read_and_written_in_place(pix_fmt):
    """A residual of 0.1 changes the picture's RGB by 0.1 inside of its box only."""
    rng = np.random.default_rng(0)
    picture = av.VideoFrame(64, 48, pix_fmt)
    layout = pixel_formats.layout_of(pix_fmt)
    assert layout is not None
    for index in range(len(layout.components)):
        samples = pixel_formats.view(picture, layout, index)
        middle = 128 << (layout.depth - 8)
        samples[...] = (middle + rng.integers(-9, 9, samples.shape)).astype(layout.dtype) << layout.shift
    from stream.picture.colour import Colour
    from stream.picture.frame import Frame, Timestamp, View

    full = layout.kind != "yuv" or pix_fmt.startswith("yuvj")
    frame = Frame(0, Timestamp(0, Fraction(1, 25)), picture, View(64, 48), Colour(1, 1, 1, full))
    before = frame.region((0, 0, 64, 48))
    kept = [pixel_formats.view(picture, layout, i).copy() for i in range(len(layout.components))]
    frame.writable().add((16, 16, 48, 40), np.full((24, 32, 3), 0.1, np.float32))
    change = frame.region((0, 0, 64, 48)) - before
    assert np.abs(change[18:38, 18:46] - 0.1).max() < 0.006
    for i, (part, old) in enumerate(zip(layout.components, kept, strict=True)):
        new = pixel_formats.view(picture, layout, i)
        x, y = 1 << part.log2_w, 1 << part.log2_h
        inside = np.zeros(new.shape, bool)
        inside[16 // y : 40 // y, 16 // x : 48 // x] = True
        np.testing.assert_array_equal(new[~inside], old[~inside])
        assert not (new & ((1 << layout.shift) - 1)).any(), "padding bits were written"


@pytest.mark.parametrize(
    ("codec", "pix_fmt"),
    [("ffv1", "yuv422p12le"), ("ffv1", "gray10le"), ("rawvideo", "nv12"), ("rawvideo", "yuyv422"),
     ("utvideo", "gbrp"), ("ffv1", "yuv420p10le"), ("ffv1", "bgr0"), ("ffv1", "yuva420p"),
     ("libx264", "yuv444p10le")],
)  # fmt: skip
def test_frames_keep_the_decoders_own_planes(tmp_path, codec, pix_fmt):
    source = FileSource(probe(write(tmp_path / "clip.nut", pix_fmt, codec)))
    frames = list(source.frames())
    assert [frame.picture.format.name for frame in frames] == [pix_fmt] * 8
    assert source.notes == [] and source.frames_in == 8


@pytest.mark.parametrize(
    ("pix_fmt", "codec", "becomes"),
    [("yuv411p", "ffv1", "yuv444p"), ("rgb565le", "rawvideo", "rgb24"), ("gray10be", "rawvideo", "gray10le")],
)
def test_other_formats_are_converted_with_a_note_of_the_cost(tmp_path, pix_fmt, codec, becomes):
    path = write(tmp_path / "clip.nut", pix_fmt, codec)
    source = FileSource(probe(path))
    frames = list(source.frames())
    assert {frame.picture.format.name for frame in frames} == {becomes}
    assert [frame.time.pts for frame in frames] == [frames[1].time.pts * i for i in range(8)]
    assert len(source.notes) == 1 and becomes in source.notes[0] and pix_fmt in source.notes[0]


def test_variable_rate_and_offset_times_come_out_as_they_went_in(tmp_path):
    times = [700, 733, 900, 901, 1000, 1500, 1501, 1540]
    path = write(
        tmp_path / "clip.mkv", "yuv420p", "libx264", pts=times, options={"bf": "3", "preset": "ultrafast"}
    )
    frames = list(FileSource(probe(path)).frames())
    assert [frame.time.pts for frame in frames] == times
    assert frames[0].time.time_base == Fraction(1, 1000)


def test_pictures_of_an_avi_with_b_frames_come_in_order(tmp_path):
    path = tmp_path / "clip.avi"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"bf": "3", "b-adapt": "0"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for index in range(20):
            picture = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 5 * index, np.uint8), format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, 25)
            out.mux(stream.encode(picture.reformat(format="yuv420p")))
        out.mux(stream.encode())
    frames = list(FileSource(probe(path)).frames())
    times = [frame.time.pts for frame in frames]
    assert len(times) == 20 and np.diff(times).tolist() == [1] * 19
    light = [frame.region((0, 0, 96, 64)).mean() for frame in frames]
    assert light == sorted(light)


def test_start_and_duration_choose_frames_by_their_times(tmp_path):
    path = write(tmp_path / "clip.mkv", "yuv420p", "libx264", count=50, options={"g": "10"})
    info = probe(path)
    source = FileSource(info, window_pts(info, 0.5, 0.4))
    assert [frame.time.pts for frame in source.frames()] == [40 * i for i in range(13, 23)]


def test_damaged_packets_are_counted_and_skipped(tmp_path):
    whole = write(tmp_path / "whole.nut", "rgb24", "png", count=30)
    damaged = tmp_path / "damaged.nut"
    with av.open(str(whole)) as source, av.open(str(damaged), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(p for p in source.demux(video=0) if p.dts is not None):
            if number in (5, 6, 20):
                broken = av.Packet(b"\0" * 100)
                broken.pts, broken.dts, broken.time_base = packet.pts, packet.dts, packet.time_base
                packet = broken
            packet.stream = stream
            out.mux(packet)
    source = FileSource(probe(damaged))
    times = [round(frame.time.seconds * 1000) for frame in source.frames()]
    assert source.corrupt_packets == 3
    assert times == [40 * i for i in range(30) if i not in (5, 6, 20)]
    assert not source.truncated


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.mov"])
def test_a_file_that_ends_early_is_known_as_truncated(tmp_path, name):
    options = {} if name.endswith("mkv") else {"movflags": "faststart"}
    whole = tmp_path / name
    with av.open(str(SAMPLES / "portrait.mp4")) as source, av.open(str(whole), "w", options=options) as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    short = tmp_path / f"short-{name}"
    short.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.6)])
    for path, expected in ((whole, False), (short, True)):
        source = FileSource(probe(path))
        count = sum(1 for _ in source.frames())
        assert source.truncated is expected, f"{path.name}: {count} frames"
        assert count == 215 if not expected else 60 < count < 190


def test_a_change_of_size_within_the_stream_is_refused_in_one_line(tmp_path):
    sizes = (96, 64), (128, 96)
    parts = [write(tmp_path / f"{w}.ts", codec="libx264", size=(w, h)) for w, h in sizes]
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(SourceError, match=r"both\.ts.*96x64 to 128x96"):
        list(FileSource(probe(path)).frames())


@pytest.mark.parametrize("location", ["left", "center", "topleft", "top"])
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_the_chroma_location_is_read_from_the_bitstream(tmp_path, codec, location):
    number = ["left", "center", "topleft", "top"].index(location)
    key = codec.removeprefix("lib") + "-params"
    quiet = ":log-level=none" if codec == "libx265" else ""
    path = write(tmp_path / "clip.mp4", codec=codec, options={key: f"chromaloc={number}{quiet}"})
    found = probe(path).chroma_location
    assert found == location or (location, found) == ("left", "unspecified"), "x264 leaves the default unsaid"


def test_rotation_mirroring_and_pixel_shape_are_known(tmp_path):
    def turn(stream):
        stream.set_display_rotation(90)
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)

    info = probe(write(tmp_path / "clip.mp4", codec="libx264", setup=turn))
    assert info.view.sar == Fraction(4, 3)
    assert info.view.upright_size == (64, 128)
    assert info.view.turn == ((0, 1), (-1, 0))


def test_a_cover_picture_is_not_taken_for_the_video(tmp_path):
    """The default stream wins over a first one that is not."""
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as out:
        for index in range(2):
            stream = out.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64 + 32 * index, 64, "yuv420p"
            stream.disposition = av.stream.Disposition.default if index else av.stream.Disposition(0)
        for index, stream in enumerate(out.streams):
            picture = av.VideoFrame(64 + 32 * index, 64, "yuv420p")
            picture.pts = 0
            out.mux(stream.encode(picture))
            out.mux(stream.encode())
    assert probe(path).view.width == 96
