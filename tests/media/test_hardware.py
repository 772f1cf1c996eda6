"""Hardware decoders and encoders: which results are accepted, and that software replaces them on failure.

The machine of these tests has no device, so every failure is FFmpeg's own. FFmpeg's software stands in for a
device that works.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
from clips import make
from encoding import luma_db, packets, run

from stream.config import Config, Decode, Encode, parse_config
from stream.errors import ConfigError, HardwareError, SourceError
from stream.job import api
from stream.job.interface import Status
from stream.media import codecs, decode, hardware, quality_trial
from stream.media.codecs import EncoderRecipe
from stream.media.container import open_video, window_pts
from stream.media.decode import FileSource
from stream.media.encode import FileSink
from stream.media.output import Encoder
from stream.media.probe import probe
from stream.picture import pixel_formats

LONG = {"size": (192, 128), "frames": 60, "options": {"preset": "veryfast", "g": "20", "bf": "2"}}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make(tmp_path_factory.mktemp("hardware") / "in.mp4", **LONG)


def here(codec: str) -> bool:
    """Whether this machine has a device."""
    try:
        encoder = av.CodecContext.create(f"{codec}_nvenc", "w")
        encoder.width, encoder.height, encoder.pix_fmt = 320, 240, "yuv420p"
        encoder.time_base = encoder.framerate = Fraction(1, 25)
        encoder.open()
    except (av.FFmpegError, ValueError):
        return False
    return True


without_device = pytest.mark.skipif(here("h264"), reason="there is a device")


# --- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"encode": {"hardware": "on"}}, "encode.hardware: input should be 'auto' or 'off', got 'on'"),
        ({"decode": {"hardware": True}}, "decode.hardware: input should be 'auto' or 'off', got True"),
        ({"decode": {"threads": -1}}, "decode.threads: input should be greater than or equal to 0"),
        ({"decode": {"device": "cuda"}}, "decode.device: unknown setting; known there: threads, hardware"),
    ],
)
def test_unknown_values_are_refused_by_name(settings, words):
    with pytest.raises(ConfigError) as caught:
        parse_config(settings)
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize("encoder", hardware.QUALITIES)
@pytest.mark.parametrize("effort", ["low", "normal", "high"])
def test_every_option_and_value_is_one_that_the_encoder_knows(encoder, effort):
    codec = encoder.partition("_")[0]
    if encoder not in hardware.encoders(codec, "yuv420p"):
        pytest.skip("not in this build of FFmpeg")

    def error_of(options):
        context = av.CodecContext.create(encoder, "w")
        context.width, context.height, context.pix_fmt = 320, 240, "nv12"
        context.time_base = Fraction(1, 25)
        context.options = options
        try:
            context.open()
        except av.FFmpegError as error:
            return type(error)
        return None

    best, _, worst = hardware.QUALITIES[encoder]
    for level in (best, worst):
        options = hardware.effort_options(encoder, effort) | hardware.quality_options(encoder, level)
        assert error_of(options) is not av.ArgumentError  # a missing device is another error
    for name in options:
        assert error_of(options | {name: "no such value"}) is av.ArgumentError, name


# --- pictures ---------------------------------------------------------------------------------

PAIRS = {
    "nv12": "yuv420p", "nv21": "yuv420p", "nv16": "yuv422p", "nv24": "yuv444p", "p010le": "yuv420p10le",
    "p012le": "yuv420p12le", "p210le": "yuv422p10le", "p410le": "yuv444p10le",
}  # fmt: skip


def semi_planar(name: str, depth: int, size=(70, 54)) -> tuple[av.VideoFrame, list[np.ndarray]]:
    """A picture of noise over the whole range, filled by numpy alone, and its values."""
    rng = np.random.default_rng(1)
    picture = av.VideoFrame(*size, name)
    layout = pixel_formats.layout_of(name)
    values = []
    for part in range(3):
        samples = pixel_formats.view(picture, layout, part)
        values.append(rng.integers(0, 1 << depth, samples.shape).astype(layout.dtype))
        samples[...] = values[-1] << (layout.shift + layout.depth - depth)
    picture.pts, picture.time_base = 77, Fraction(1, 90000)
    picture.color_range, picture.colorspace, picture.color_trc, picture.color_primaries = 1, 9, 16, 9
    return picture, values


@pytest.mark.parametrize(
    ("name", "target", "depth"),
    [*((a, b, pixel_formats.layout_of(b).depth) for a, b in PAIRS.items()), ("nv12", "yuvj420p", 8),
     ("p016le", "yuv420p12le", 12)],
)  # fmt: skip
def test_interleaved_chroma_becomes_planes_without_a_changed_bit(name, target, depth):
    picture, values = semi_planar(name, depth)
    planar = hardware.to_software_format(picture, target, av.video.reformatter.VideoReformatter())
    layout = pixel_formats.layout_of(target)
    assert planar.format.name == target
    for part in range(3):
        np.testing.assert_array_equal(pixel_formats.view(planar, layout, part), values[part])
    assert (planar.pts, planar.time_base) == (77, Fraction(1, 90000))
    tags = planar.color_range, planar.colorspace, planar.color_trc, planar.color_primaries
    assert tags == (1, 9, 16, 9)


@pytest.mark.parametrize(("name", "target"), PAIRS.items())
def test_what_swscale_interleaves_comes_back_as_it_was(name, target):
    picture = av.VideoFrame(70, 54, target)
    layout = pixel_formats.layout_of(target)
    rng = np.random.default_rng(2)
    for part in range(3):
        samples = pixel_formats.view(picture, layout, part)
        samples[...] = rng.integers(0, 1 << layout.depth, samples.shape)
    sides = {"src_colorspace": 1, "dst_colorspace": 1, "src_color_range": 1, "dst_color_range": 1}
    device = picture.reformat(format=name, **sides)
    device.pts = picture.pts = 3
    device.time_base = Fraction(1, 25)
    assert device.format.name == name
    back = hardware.to_software_format(device, target, av.video.reformatter.VideoReformatter())
    assert hardware.identical(back, picture)


@pytest.mark.parametrize(
    ("name", "target"),
    [("nv12", "yuv420p10le"), ("p010le", "yuv420p"), ("nv12", "yuv422p"), ("rgb24", "yuv444p"),
     ("p016le", "yuv420p10le"), ("y210le", "yuv422p10le")],
)  # fmt: skip
def test_pictures_that_would_lose_or_guess_something_are_refused(name, target):
    with pytest.raises(hardware.Unusable, match=f"{name} in place of {target}"):
        hardware.to_software_format(av.VideoFrame(64, 48, name), target, None)


def test_pictures_are_the_same_only_with_the_same_time_and_every_sample():
    one, _ = semi_planar("p010le", 10)
    assert hardware.identical(one, semi_planar("p010le", 10)[0])
    for part in range(3):
        other, _ = semi_planar("p010le", 10)
        pixel_formats.view(other, pixel_formats.layout_of("p010le"), part)[-1, -1] ^= 1 << 6
        assert not hardware.identical(one, other)
    later, _ = semi_planar("p010le", 10)
    later.pts = 78
    assert not hardware.identical(one, later)


# --- decoding ---------------------------------------------------------------------------------


def decoded(path, try_hardware, **window):
    info = probe(path)
    source = FileSource(info, window_pts(info, **window), threads=1, try_hardware=try_hardware)
    shown = ((frame.time.pts, frame.picture) for frame in source.frames())
    return [(pts, p.format.name, p.interlaced_frame, p.to_ndarray().tobytes()) for pts, p in shown], source


def pretend(monkeypatch, path=None):
    """Let FFmpeg's software stand in for a device; it decodes `path` instead of the given file."""
    opened = []

    def open_decoder(given, codec):
        opened.append(open_video(path or given))
        return opened[-1], "pretended"

    monkeypatch.setattr(hardware, "open_decoder", open_decoder)
    return opened


def hurt(path, target, at: int):
    """A copy in which the packet of video number `at` is noise after its first bytes."""
    with av.open(str(path)) as container:
        packet = [p for p in container.demux(video=0) if p.size][at]
        start, size = packet.pos, packet.size
    shutil.copy(path, target)
    with target.open("r+b") as file:
        file.seek(start + 4)
        file.write(np.random.default_rng(at).bytes(size - 4))
    return target


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libvpx-vp9", "mpeg4", "libsvtav1"])
def test_without_a_device_software_decodes_and_one_note_says_so(tmp_path, codec):
    options = {"libx265": {"x265-params": "log-level=0"}, "libx264": {"bf": "2"}}.get(codec, {})
    source = make(tmp_path / "in.mkv", codec=codec, frames=9, options=options)
    soft, _ = decoded(source, False)
    found, feed = decoded(source, True)
    assert found == soft and len(found) == 9
    if "(" not in feed.decoder:  # else there is a device
        assert len(feed.notes) == 1 and "decoded by software, no hardware would do (" in feed.notes[0]
        assert feed.decoder == probe(source).codec


@without_device
def test_ffmpegs_own_reason_is_told(clip):
    with pytest.raises(hardware.Unusable, match="cuda: "):
        hardware.open_decoder(clip, "h264")
    for codec in ("mpeg4", "libdav1d"):
        with pytest.raises(hardware.Unusable, match=f"exact for {codec}"):
            hardware.open_decoder(clip, codec)


@pytest.mark.parametrize("window", [{}, {"start_s": 0.9}, {"start_s": 0.33, "duration_s": 1.1}])
def test_a_device_that_works_gives_every_picture_and_is_named(clip, monkeypatch, window):
    soft, _ = decoded(clip, False, **window)
    opened = pretend(monkeypatch)
    found, feed = decoded(clip, True, **window)
    assert found == soft and len(found) > 20
    assert feed.decoder == "h264 (pretended)" and not feed.notes and not feed.truncated
    assert opened


@pytest.mark.parametrize("window", [{}, {"start_s": 0.9}])
@pytest.mark.parametrize("at", [0, 7, 31, 32, 45, 59])
def test_software_takes_over_at_a_damaged_packet_and_conceals_it_its_own_way(
    tmp_path, clip, monkeypatch, at, window
):
    broken = hurt(clip, tmp_path / "broken.mp4", at)
    soft, plain = decoded(broken, False, **window)
    pretend(monkeypatch)
    found, feed = decoded(broken, True, **window)
    assert found == soft
    assert (feed.corrupt_packets, feed.truncated) == (plain.corrupt_packets, plain.truncated)
    reached = not window or at > 20
    assert len(feed.notes) == len(plain.notes) + reached
    if reached and at > 0:
        assert "decoded by software from" in feed.notes[0] and feed.decoder.endswith("then software")


def test_a_file_that_was_cut_short_ends_as_it_does_in_software(tmp_path, monkeypatch):
    whole = make(tmp_path / "whole.ts", **LONG)
    cut = tmp_path / "cut.ts"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    soft, plain = decoded(cut, False)
    pretend(monkeypatch)
    found, feed = decoded(cut, True)
    assert found == soft and feed.corrupt_packets == plain.corrupt_packets


def test_a_device_that_shows_other_pictures_is_not_believed(tmp_path, clip, monkeypatch):
    other = make(tmp_path / "other.mp4", **LONG | {"noise": 1.0})
    soft, _ = decoded(clip, False)
    pretend(monkeypatch, other)
    found, feed = decoded(clip, True)
    assert found == soft
    assert len(feed.notes) == 1 and "shows other pictures than software" in feed.notes[0]
    assert feed.decoder == "h264"


def test_a_device_that_shows_fewer_pictures_is_not_believed(tmp_path, monkeypatch):
    clip = make(tmp_path / "in.mp4", **LONG | {"frames": 12})
    short = make(tmp_path / "short.mp4", **LONG | {"frames": 12, "options": {"bf": "0"}})
    with av.open(str(clip)) as source, av.open(str(short), "w") as out:
        copy = out.add_stream_from_template(source.streams.video[0])
        for packet in [p for p in source.demux(video=0) if p.size][:9]:
            packet.stream = copy
            out.mux(packet)
    soft, _ = decoded(clip, False)
    pretend(monkeypatch, short)
    found, feed = decoded(clip, True)
    assert found == soft and len(feed.notes) == 1


@pytest.mark.parametrize("fields", ["", "tt"])
@pytest.mark.parametrize(("pix_fmt", "given"), [("yuv420p", "nv12"), ("yuv420p10le", "p010le")])
def test_pictures_of_a_device_arrive_in_the_software_decoders_format(
    tmp_path, monkeypatch, pix_fmt, given, fields
):
    source = make(tmp_path / "in.mp4", **LONG | {"pix_fmt": pix_fmt, "interlaced": fields})
    soft, _ = decoded(source, False)
    opened, kept = pretend(monkeypatch), decode.decoded_pictures

    def interleaved(container, stream, damage):
        for picture in kept(container, stream, damage):
            if container in opened:
                sides = {"src_color_range": 1, "dst_color_range": 1}
                other = picture.reformat(format=given, src_colorspace=1, dst_colorspace=1, **sides)
                other.pts, other.time_base = picture.pts, picture.time_base
                picture = other
            yield picture

    monkeypatch.setattr(decode, "decoded_pictures", interleaved)
    found, feed = decoded(source, True)
    assert found == soft and found[0][1:3] == (pix_fmt, bool(fields))
    assert feed.decoder == "h264 (pretended)" and not feed.notes


def test_times_that_an_avi_does_not_store_are_left_to_software(tmp_path, monkeypatch):
    source = make(tmp_path / "in.avi", frames=12, options={"preset": "ultrafast"})
    soft, _ = decoded(source, False)
    pretend(monkeypatch)
    found, feed = decoded(source, True)
    assert found == soft and "AVI stores no times" in feed.notes[0]


# --- encoding ---------------------------------------------------------------------------------


def test_hardware_is_tried_only_where_it_can_do_all_that_software_does(clip):
    info, auto = probe(clip), Encode(hardware="auto")

    def names(info, config=auto):
        software = codecs.recipe(info, config)
        return [recipe.encoder for recipe in codecs.hardware_alternatives(info, software, config)]

    built = [n for n in ("h264_nvenc", "h264_qsv", "h264_amf") if n in hardware.encoders("h264", "yuv420p")]
    assert names(info) == built
    assert names(info, Encode()) == []
    for named in ({"codec": "libx264"}, {"crf": 20.0}, {"preset": "fast"}):
        assert names(info, Encode(hardware="auto", **named)) == []
    for change in ({"field_order": "tt"}, {"content_light": b"12345678"}, {"pix_fmt": "yuv444p"}):
        assert names(replace(info, **change)) == []
    assert names(replace(info, codec="mpeg4")) == []
    for recipe in codecs.hardware_alternatives(info, codecs.recipe(info, auto), auto):
        assert recipe.is_hardware and not recipe.is_settled
        assert recipe.quality == hardware.QUALITIES[recipe.encoder][1]


@without_device
def test_without_a_device_the_file_is_softwares_and_one_note_says_so(tmp_path, clip):
    soft, _ = run(clip, tmp_path / "soft.mp4", Encode(threads=1))
    auto, sink = run(clip, tmp_path / "auto.mp4", Encode(threads=1, hardware="auto"))
    assert packets(auto) == packets(soft)
    assert len(sink.notes) == 1
    assert "encoded by libx264, no hardware would do (h264_" in sink.notes[0]
    assert sink.recipe.encoder == "libx264" and not sink.recipe.is_hardware


def test_where_no_hardware_suits_the_video_a_note_says_so(tmp_path):
    source = make(tmp_path / "in.mp4", frames=6, interlaced="tt", size=(128, 96))
    _, sink = run(source, tmp_path / "out.mp4", Encode(threads=1, hardware="auto"))
    assert len(sink.notes) == 1 and "no hardware suits it" in sink.notes[0]


def pretended(**options) -> EncoderRecipe:
    """A recipe for a hardware encoder, with x264 in place of one, whose options the trial has to judge."""
    settings = {"preset": "veryfast"} | options
    return EncoderRecipe("libx264", "h264", "yuv420p", settings, 19.0, is_settled=False, is_hardware=True)


def test_an_encoder_that_keeps_the_quality_takes_softwares_place(tmp_path, clip, monkeypatch):
    monkeypatch.setattr(codecs, "hardware_alternatives", lambda *_: [pretended()])
    target, sink = run(clip, tmp_path / "out.mp4", Encode(threads=1, hardware="auto"))
    assert sink.recipe.is_hardware and sink.recipe.is_settled and not sink.notes
    assert min(luma_db(clip, target)) >= 42
    assert target.stat().st_size <= 2.5 * clip.stat().st_size


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"x264-params": "qpmin=44"}, "libx264: keeps .* dB, 42.6 are wanted"),
        ({"x264-params": "qpmax=4"}, "libx264: makes the video .* times as large"),
        ({"x264-params": "bframes=99999999:keyint=-7", "level": "nonsense"}, "libx264: "),
    ],
)
def test_an_encoder_that_breaks_the_promise_of_quality_is_refused(tmp_path, clip, monkeypatch, options, why):
    soft, _ = run(clip, tmp_path / "soft.mp4", Encode(threads=1))
    monkeypatch.setattr(codecs, "hardware_alternatives", lambda *_: [pretended(**options)])
    target, sink = run(clip, tmp_path / "out.mp4", Encode(threads=1, hardware="auto"))
    assert not sink.recipe.is_hardware and packets(target) == packets(soft)
    assert len(sink.notes) == 1
    assert re.search(why, sink.notes[0])


def fail_for_real():
    """Raise FFmpeg's own error of a hardware encoder: no card encodes pictures of 16x16."""
    encoder = av.CodecContext.create("h264_nvenc", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 16, 16, "yuv420p"
    encoder.time_base = Fraction(1, 25)
    encoder.open()


@pytest.mark.skipif("h264_nvenc" not in av.codecs_available, reason="not in this build of FFmpeg")
@pytest.mark.parametrize("at", [0, 17])
def test_an_encoder_that_fails_on_its_way_is_made_up_for_by_software(tmp_path, clip, monkeypatch, at):
    quiet = Config(encode=Encode(threads=1))
    soft = api.restore_file(clip, tmp_path / "soft.mp4", quiet)
    encode, encoded = Encoder.encode, []

    def failing(encoder, picture, pts):
        if encoder.recipe.is_hardware:
            encoded.append(pts)
            if len(encoded) == at + 1:
                fail_for_real()
        return encode(encoder, picture, pts)

    monkeypatch.setattr(Encoder, "encode", failing)
    monkeypatch.setattr(
        codecs,
        "hardware_alternatives",
        lambda info, plan, config: [pretended()] if config.hardware == "auto" else [],
    )
    auto = Config(encode=Encode(threads=1, hardware="auto"))
    outcome = api.restore_file(clip, tmp_path / "auto.mp4", auto)
    assert packets(outcome.path) == packets(soft.path)
    assert outcome.status is Status.COMPLETE and outcome.report["frames_out"] == 60
    assert len(outcome.notes) == 1 and "made again by libx264 (" in outcome.notes[0]
    assert outcome.report["notes"] == list(outcome.notes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["auto.mp4", "soft.mp4"]


def test_only_a_chosen_hardware_encoders_own_failure_calls_for_software(tmp_path, clip, monkeypatch):
    sink = FileSink(probe(clip), tmp_path / "out.mp4", Encode())
    broken = av.error.ExternalError(-542398533, "failed")
    assert not isinstance(sink._error_for(broken), HardwareError)
    monkeypatch.setattr(codecs, "recipe", lambda info, config: pretended())
    sink = FileSink(probe(clip), tmp_path / "out.mp4", Encode())
    assert isinstance(sink._error_for(broken), HardwareError)
    assert "set encode.hardware to off" in str(sink._error_for(broken))
    assert not isinstance(sink._error_for(OSError(28, "no space left")), HardwareError)


@without_device
@pytest.mark.skipif("h264_nvenc" not in av.codecs_available, reason="not in this build of FFmpeg")
def test_an_encoder_that_the_user_named_fails_in_one_line(tmp_path, clip, run_cli):
    done = run_cli("restore", clip, tmp_path / "out.mp4", "--set", "encode.codec=h264_nvenc")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "h264_nvenc failed" in done.stderr and "try encode.codec" in done.stderr


def test_a_whole_run_with_both_on_auto_tells_what_did_the_work(tmp_path, clip, run_cli):
    report = tmp_path / "report.json"
    switches = ["--set", "decode.hardware=auto", "--set", "encode.hardware=auto", "--report", report]
    done = run_cli("restore", clip, tmp_path / "out.mp4", *switches)
    assert done.returncode == 0, done.stderr
    facts = json.loads(report.read_text())
    assert facts["decoder"].startswith("h264") and facts["encoder"]
    assert set(facts["threads"]) == {"inference", "detector", "decoder", "encoder", "cv2"}
    assert facts["frames_out"] == 60
    if not here("h264"):
        assert (facts["decoder"], facts["encoder"]) == ("h264", "libx264")
        assert [("decoded by" in note, "encoded by" in note) for note in facts["notes"]] == [
            (True, False), (False, True),
        ]  # fmt: skip
        assert done.stdout.count("note: ") + done.stderr.count("note: ") == 2


def test_the_input_is_read_once_however_many_encoders_are_tried(clip):
    info = probe(clip)
    plan = codecs.recipe(info, Encode(hardware="auto"))
    read, sample = [], quality_trial._sample
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality_trial, "_sample", lambda *given: read.append(1) or sample(*given))
        failing = [replace(pretended(), encoder=name) for name in hardware.encoders("h264", "yuv420p")]
        assert quality_trial.settle(info, plan, 1, (None, None), failing).is_settled
    assert read == [1]


def test_a_container_opened_for_a_device_still_says_what_is_wrong(tmp_path):
    with pytest.raises(SourceError, match="no such file"):
        hardware.open_decoder(tmp_path / "none.mp4", "h264")


def test_nothing_of_it_is_on_unless_asked_for():
    assert Config().decode == Decode(threads=0, hardware="off")
    assert Config().encode.hardware == "off"
