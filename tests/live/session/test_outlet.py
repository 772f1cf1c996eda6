"""The outlet's messages for the sinks: packets, sound, new epochs, keyframes on demand, JPEG and RGB."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from flashes import RATE, STEP, frame, read, sound

from stream.config import load_config, parse_config
from stream.errors import EncodeError
from stream.live.packets import LIVE_TIME_BASE, AudioFormat, EpochStart, JpegPicture, Packet, RawPicture
from stream.live.session.outlet import Outlet
from stream.live.sinks import parse_sink
from stream.live.sinks.muxer import Muxer
from stream.live.sinks.segments import segments
from stream.live.sinks.sink_group import SinkGroup
from stream.live.status import Delays
from stream.picture.colour import Colour
from stream.picture.frame import Frame, Timestamp, View


def outlet_to(sinks, *, audio=None, rate=RATE, config=None, note="faces restored by a test"):
    config = config or load_config()
    return Outlet(
        sinks, config.live, note=note, threads=1, get_audio=lambda: audio, get_rate=lambda: Fraction(rate)
    )


def started(text, config=None) -> SinkGroup:
    """A sink in its own process."""
    sinks = SinkGroup([parse_sink(str(text), config or load_config())], lambda kind, text: None)
    sinks.start()
    return sinks


def rises(times):
    return all(a < b for a, b in itertools.pairwise(times))


@pytest.mark.parametrize(("codec", "rate"), [("aac", 48000), ("pcm_alaw", 8000), ("libopus", 48000)])
def test_sound_stays_within_40_ms_of_its_picture(tmp_path, codec, rate):
    packets = list(sound(codec, rate, 5))
    sinks = started(tmp_path / "out.mp4")
    outlet = outlet_to(sinks, audio=packets[0].format)
    for packet in packets:  # long before its pictures, as behind slow stages
        outlet.add_sound(packet)
    for index in range(125):
        outlet.send(frame(index))
    sinks.stop(30)
    result = read(tmp_path / "out.mp4")
    assert len(result.times_s) == 125
    assert len(result.flashes_s) == 5 and len(result.beeps_s) >= 4
    for beep in result.beeps_s:
        assert min(abs(beep - flash) for flash in result.flashes_s) < 0.04
    assert all(rises(times) for times in result.packet_times.values())
    assert result.metadata["comment"] == "faces restored by a test"


class Collector:
    """Stands in for a SinkGroup, and keeps the messages of the kinds that it wants."""

    def __init__(self, *kinds, size=1):
        self.kinds, self.size, self.messages = set(kinds), size, []
        self.starved, self.delays = False, Delays()

    def __len__(self):
        return self.size

    def wants(self, kind):
        return kind in self.kinds

    def needs_keyframe(self):
        return self.starved

    def offer(self, message):
        if type(message) in self.kinds | {EpochStart}:
            self.messages.append(message)

    def of(self, kind):
        return [message for message in self.messages if type(message) is kind]


def test_every_picture_comes_out_at_once_as_one_packet():
    sink = Collector(Packet)
    outlet = outlet_to(sink)
    for index in range(60):
        outlet.send(frame(index))
        assert len(sink.of(Packet)) == index + 1
    packets = sink.of(Packet)
    assert rises([packet.dts for packet in packets]) and all(p.pts == p.dts for p in packets)
    assert isinstance(sink.messages[0], EpochStart) and packets[0].keyframe


def test_a_keyframe_comes_each_gop_s_whatever_the_rate():
    sink = Collector(Packet)
    config = parse_config({"live": {"gop_s": 0.5}})
    outlet = outlet_to(sink, rate=10, config=config)
    pts = [index * 9000 for index in range(30)] + [30 * 9000 + index * 90000 for index in range(5)]
    for index, at in enumerate(pts):
        outlet.send(frame(index, first_pts=at - index * STEP))
    keys = [packet.pts for packet in sink.of(Packet) if packet.keyframe]
    assert keys == [*range(0, 30 * 9000, 45000), *pts[30:]]


def test_a_sink_that_waits_for_a_keyframe_gets_one_but_never_floods_the_others_with_them():
    sink = Collector(Packet)
    outlet = outlet_to(sink, config=parse_config({"live": {"gop_s": 10.0}}))
    for index in range(50):
        sink.starved = index >= 20
        outlet.send(frame(index))
    keys = [packet.pts // STEP for packet in sink.of(Packet) if packet.keyframe]
    assert keys == [0, 20, 28, 36, 44]


def test_times_rise_even_where_those_of_the_frames_do_not():
    sink = Collector(Packet)
    outlet = outlet_to(sink)
    for index, at in enumerate((0, 3600, 3600, 1000, 9000)):
        outlet.send(frame(index, first_pts=at - index * STEP))
    assert [packet.pts for packet in sink.of(Packet)] == [0, 3600, 3601, 3602, 9000]


def test_a_new_epoch_or_size_is_announced_and_begins_with_a_keyframe():
    sink = Collector(Packet)
    outlet = outlet_to(sink)
    for index in range(30):
        epoch, size = (0, (320, 180)) if index < 10 else (1, (320, 180)) if index < 20 else (1, (160, 120))
        outlet.send(frame(index, epoch=epoch, size=size))
    kinds = [
        (type(m).__name__, m.epoch if type(m) is EpochStart else m.keyframe)
        for m in sink.messages
        if type(m) is EpochStart or m.keyframe
    ]
    assert kinds == [("EpochStart", 0), ("Packet", True), ("EpochStart", 1), ("Packet", True)] + [
        ("EpochStart", 1),
        ("Packet", True),
    ]
    assert [(m.video.width, m.video.height) for m in sink.of(EpochStart)][-1] == (160, 120)


def test_nothing_is_encoded_where_nobody_wants_it():
    sink = Collector()
    outlet_to(sink).send(frame(0))
    assert not sink.messages and sink.delays.summary()["median_ms"] is None


def test_without_any_sink_the_delay_is_that_of_the_outlet():
    none = Collector(size=0)
    outlet_to(none).send(frame(0))
    assert none.delays.summary()["median_ms"] is not None


def test_jpeg_and_rgb_show_the_picture_upright_in_its_own_colours():
    sink = Collector(JpegPicture, RawPicture)
    outlet = outlet_to(sink)
    rgb = np.zeros((120, 160, 3), np.uint8)
    rgb[:60] = (200, 40, 30)
    rgb[60:] = (20, 60, 220)
    shown = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(
        format="yuvj422p", dst_colorspace=5, dst_color_range=2
    )
    half_turn = ((-1, 0), (0, -1))
    still = Frame(
        0, Timestamp(0, LIVE_TIME_BASE), shown, View(160, 120, turn=half_turn), Colour(5, 2, 2, True)
    )
    outlet.send(still)
    (raw,), (jpeg,) = sink.of(RawPicture), sink.of(JpegPicture)
    plain = np.frombuffer(raw.data, np.uint8).reshape(raw.height, raw.width, 3)
    decoded = cv2.cvtColor(cv2.imdecode(np.frombuffer(jpeg.data, np.uint8), 1), cv2.COLOR_BGR2RGB)
    for image in (plain, decoded):
        assert image.shape == (120, 160, 3)
        assert np.abs(image[20, 80].astype(int) - (20, 60, 220)).max() <= 6
        assert np.abs(image[100, 80].astype(int) - (200, 40, 30)).max() <= 6


@pytest.mark.parametrize("turn", [((1, 0), (0, 1)), ((0, -1), (1, 0)), ((-1, 0), (0, -1)), ((0, 1), (-1, 0))])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj422p", "nv12", "yuv420p10le", "rgb24"])
def test_the_encoded_picture_is_upright_even_and_true_in_colour(tmp_path, turn, pix_fmt):
    stored = np.zeros((121, 161, 3), np.uint8)
    stored[:, :, 1] = np.linspace(20, 230, 161)[None]
    stored[:, :, 0] = np.linspace(20, 230, 121)[:, None]
    view = View(161, 121, turn=turn)
    full = pix_fmt in ("yuvj422p", "rgb24")
    shown = av.VideoFrame.from_ndarray(stored, format="rgb24").reformat(
        format=pix_fmt, dst_colorspace=5, dst_color_range=2 if full else 1
    )
    sink = Collector(Packet)
    outlet = outlet_to(sink, config=parse_config({"live": {"crf": 5.0, "bit_rate": 50_000}}))
    still = Frame(0, Timestamp(0, LIVE_TIME_BASE), shown, view, Colour(5, 2, 2, full))
    outlet.send(still)
    start, packet = sink.messages
    decoder = av.CodecContext.create("h264", "r")
    decoder.extradata = start.video.extradata
    (out,) = [*decoder.decode(av.Packet(packet.data)), *decoder.decode(None)]
    expected = view.orient(stored)
    assert (out.width % 2, out.height % 2) == (0, 0)
    assert abs(out.width - expected.shape[1]) <= 1 and abs(out.height - expected.shape[0]) <= 1
    assert (out.color_range, out.colorspace) == (1, 5)
    result = out.to_ndarray(format="rgb24", src_colorspace=5, dst_color_range=2).astype(int)
    expected = cv2.resize(np.ascontiguousarray(expected), (out.width, out.height)).astype(int)
    assert np.abs(result - expected)[4:-4, 4:-4].mean() < 4


def test_sound_of_another_epoch_stays_with_its_own(tmp_path):
    first = list(sound("aac", 48000, 1))
    second = list(sound("aac", 48000, 1, epoch=1, first_pts=90000))
    sink = Collector(Packet)
    outlet = outlet_to(sink, audio=first[0].format)
    for packet in (*first, *second):
        outlet.add_sound(packet)
    for index in range(50):
        outlet.send(frame(index, epoch=int(index >= 25)))
    begins = [index for index, message in enumerate(sink.messages) if type(message) is EpochStart]
    early = [m.pts for m in sink.messages[: begins[1]] if type(m) is Packet and not m.is_video]
    late = [m.pts for m in sink.messages[begins[1] :] if type(m) is Packet and not m.is_video]
    assert max(early) < min(late) and min(late) > 88000 and rises(early) and rises(late)
    assert len(early) >= 44 and len(late) >= 44


def test_sound_goes_out_with_the_picture_of_its_time():
    packets = list(sound("aac", 48000, 2))
    sink = Collector(Packet)
    outlet = outlet_to(sink, audio=packets[0].format)
    for packet in packets:
        outlet.add_sound(packet)
    for index in range(50):
        outlet.send(frame(index))
        heard = [m.pts for m in sink.of(Packet) if not m.is_video]
        assert index * STEP - 1920 < max(heard) <= (index + 1) * STEP


def test_no_picture_waits_in_the_muxer_for_the_next_one(tmp_path):
    packets = list(sound("aac", 48000, 3))
    sink = Collector(Packet)
    outlet = outlet_to(sink, audio=packets[0].format)
    for packet in packets:
        outlet.add_sound(packet)
    muxer = None
    for index in range(50):
        outlet.send(frame(index))
        for message in sink.messages:
            if type(message) is EpochStart:
                start = message
            else:
                muxer = muxer or Muxer(str(tmp_path / "out.flv"), start, message)
                muxer.write(message)
        sink.messages.clear()
        assert pictures_in_flv(tmp_path / "out.flv") == index + 2, "one tag describes the stream"
    muxer.close()


def pictures_in_flv(path):
    data, at, found = path.read_bytes(), 13, 0
    while at + 11 <= len(data):
        found += data[at] == 9
        at += 15 + int.from_bytes(data[at + 1 : at + 4], "big")
    return found


def test_a_gap_in_the_sound_becomes_silence_and_what_follows_is_in_step(tmp_path):
    packets = [p for p in sound("pcm_alaw", 8000, 5) if not 80000 < p.pts < 160000 and p.pts % 7 != 1]
    sinks = started(tmp_path / "out.mp4")
    outlet = outlet_to(sinks, audio=packets[0].format)
    for packet in packets:
        outlet.add_sound(packet)
    for index in range(125):
        outlet.send(frame(index))
    sinks.stop(60)
    result = read(tmp_path / "out.mp4")
    assert len(result.beeps_s) >= 4
    for beep in result.beeps_s:
        assert min(abs(beep - flash) for flash in result.flashes_s) < 0.04


def test_damaged_sound_is_left_out_and_the_picture_goes_on():
    packets = list(sound("libopus", 48000, 2))
    broken = [replace(p, data=b"\xff" * 7) if i % 5 == 2 else p for i, p in enumerate(packets)]
    other = AudioFormat("pcm_alaw", 8000, "mono")
    sink = Collector(Packet)
    outlet = outlet_to(sink, audio=packets[0].format)
    for packet in broken:
        outlet.add_sound(packet)
    outlet.add_sound(replace(packets[-1], format=other, pts=packets[-1].pts + 1))
    for index in range(50):
        outlet.send(frame(index))
    assert sum(p.is_video for p in sink.of(Packet)) == 50
    assert rises([p.dts for p in sink.of(Packet) if not p.is_video])


def test_a_preset_that_x264_does_not_know_is_refused_in_one_line():
    outlet = outlet_to(Collector(Packet), config=parse_config({"live": {"preset": "wrong"}}))
    with pytest.raises(EncodeError, match=r"live\.preset wrong"):
        outlet.send(frame(0))


def test_sound_that_comes_and_goes_never_stops_the_picture(tmp_path):
    config = parse_config({"record": {"free_gb": 0.0}})
    sinks = started(f"{tmp_path}/", config)
    formats = {0: None}
    outlet = Outlet(
        sinks, config.live, note="", threads=1, get_audio=lambda: formats[0], get_rate=lambda: RATE
    )
    for epoch, codec in enumerate(("aac", None, "libopus", "pcm_alaw")):
        first_pts = epoch * 10 * 90000
        rate = 8000 if codec == "pcm_alaw" else 48000
        packets = list(sound(codec, rate, 1, epoch, first_pts)) if codec else []
        formats[0] = packets[0].format if packets else None
        for packet in packets:
            outlet.add_sound(packet)
        for index in range(25):
            outlet.send(frame(index, epoch=epoch, first_pts=first_pts))
    sinks.stop(60)
    parts = [read(segment.path) for segment in segments(tmp_path)]
    assert [len(part.times_s) for part in parts] == [25] * 4
    assert ["audio" in part.packet_times for part in parts] == [True, False, True, True]
    assert all(rises(times) for part in parts for times in part.packet_times.values())


def test_the_format_of_the_sound_is_the_epochs_own_though_the_capture_may_be_ahead():
    mine = list(sound("aac", 48000, 0.5))
    sink = Collector(Packet)
    outlet = outlet_to(sink, audio=AudioFormat("pcm_alaw", 8000, "mono"))
    for packet in mine:
        outlet.add_sound(packet)
    outlet.send(frame(0))
    assert sink.of(EpochStart)[0].audio == mine[0].format
