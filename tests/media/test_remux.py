"""Everything except the restored video: copied, converted, or refused by name."""

from __future__ import annotations

from fractions import Fraction

import av
import pytest
from clips import Sound, make, picture
from encoding import FAST, NOTE, packets, pictures, run

from stream.config import Encode
from stream.errors import EncodeError
from stream.media.encode import FileSink
from stream.media.inspection import describe
from stream.media.remux import program_metadata

TWO_SOUNDS = (
    Sound(language="eng", title="Main"),
    Sound(language="fra", title="Commentary", disposition=int(av.stream.Disposition.comment), layout="mono"),
)


def described(path) -> list[tuple]:
    """The facts that a player lists for each stream, including cover pictures and attachments."""
    stale = ("DURATION", "ENCODER", "encoder", "vendor_id")
    with av.open(str(path)) as container:
        return [
            (
                s.type,
                s.codec_context.codec.canonical_name if s.codec_context else getattr(s, "name", None),
                int(s.disposition),
                {
                    k: v
                    for k, v in s.metadata.items()
                    if k not in (*stale, "handler_name" if s.type == "data" else "")
                },
            )
            for s in container.streams
        ]


def chapter_list(path) -> list[tuple]:
    with av.open(str(path)) as container:
        return [
            (c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"]["title"])
            for c in container.chapters()
        ]


RICH = {
    "mp4": {
        "sounds": TWO_SOUNDS, "subtitles": "mov_text", "chapters": True, "cover": True,
        "second_video": True,
    },
    "mov": {"sounds": TWO_SOUNDS, "subtitles": "mov_text", "chapters": True, "timecode": "01:02:03:04"},
    "mkv": {
        "sounds": (*TWO_SOUNDS, Sound("flac"), Sound("libopus")), "subtitles": "ass", "chapters": True,
        "cover": True, "font": True, "second_video": True,
    },
    "ts": {"sounds": (Sound("mp2"), Sound("aac", language="fra")), "data": "klv"},
}  # fmt: skip


@pytest.mark.parametrize("ending", RICH)
def test_a_rich_file_keeps_every_stream_as_it_was(tmp_path, ending):
    tags = {"title": "Holiday", "artist": "Us", "date": "2020-05-06"}
    source = make(tmp_path / f"in.{ending}", metadata=tags if ending != "ts" else {}, **RICH[ending])
    target, sink = run(source, tmp_path / f"out.{ending}")
    assert described(target) == described(source)
    assert chapter_list(target) == chapter_list(source)
    assert len(chapter_list(target)) == (2 if "chapters" in RICH[ending] else 0)
    old, new = packets(source), packets(target)
    assert new.keys() == old.keys()
    for index in old.keys() - {0}:
        kept = [item for item in new[index] if item[3] != b"\0\0"]  # mov_text: an empty line ends a text
        assert [i[3] for i in kept] == [i[3] for i in old[index] if i[3] != b"\0\0"]
        assert [i[:2] for i in kept] == [i[:2] for i in old[index] if i[3] != b"\0\0"]
    with av.open(str(source)) as a, av.open(str(target)) as b:
        assert NOTE in (b.metadata | program_metadata(b)).values()
        lower = {k.lower(): v for k, v in b.metadata.items()}
        kept = {
            k.lower(): v
            for k, v in a.metadata.items()
            if k not in ("encoder", "ENCODER", "compatible_brands")
        }
        assert kept.items() <= lower.items()
        fonts = [[s.data for s in c.streams if s.type == "attachment"] for c in (a, b)]
        assert fonts[0] == fonts[1]
        if ending == "ts":
            assert [s.id for s in a.streams] == [s.id for s in b.streams]
    assert not sink.notes


def test_the_tag_of_a_codec_survives(tmp_path):
    options = {"preset": "ultrafast", "x265-params": "log-level=0"}
    source = make(tmp_path / "in.mp4", codec="libx265", options=options, frames=4, sounds=(Sound(),))
    target, _ = run(source, tmp_path / "out.mp4")
    with av.open(str(source)) as old, av.open(str(target)) as new:
        assert [s.codec_context.codec_tag for s in new.streams] == [
            s.codec_context.codec_tag for s in old.streams
        ]


def test_sound_that_the_container_cannot_hold_becomes_aac_in_step(tmp_path):
    sound = Sound("wmav2", seconds=1.2)
    source = make(tmp_path / "in.avi", frames=50, codec="mpeg4", options={}, quantiser=3, sounds=(sound,))
    target, sink = run(source, tmp_path / "out.mp4", Encode(threads=2))
    assert any("becomes aac" in note for note in sink.notes)
    assert described(target)[1][:2] == ("audio", "aac")
    with av.open(str(source)) as old, av.open(str(target)) as new:
        frames = [list(c.decode(audio=0)) for c in (old, new)]
    starts = [float(f[0].pts * f[0].time_base) for f in frames]
    lengths = [sum(x.samples for x in f) / f[0].sample_rate for f in frames]
    assert abs(starts[0] - starts[1]) < 0.03
    assert abs(lengths[0] - lengths[1]) < 0.05


def test_text_that_the_container_cannot_hold_becomes_mov_text(tmp_path):
    source = make(tmp_path / "in.mkv", subtitles="ass")
    target, sink = run(source, tmp_path / "out.mp4")
    assert any("becomes mov_text" in note for note in sink.notes)
    lines = [(pts, duration, data) for pts, _, duration, data in packets(target)[1] if data != b"\0\0"]
    with av.open(str(target)) as container:
        unit = container.streams[1].time_base
        assert container.streams[1].metadata["language"] == "deu"
    assert [(round(p * unit * 1000), round(d * unit * 1000), t[2:]) for p, d, t in lines] == [
        (200, 250, b"line 200"), (600, 250, b"line 600"),
    ]  # fmt: skip


def test_what_would_be_lost_is_refused_by_name_and_allowed_on_demand(tmp_path):
    source = make(tmp_path / "in.mkv", font=True, frames=4)
    with pytest.raises(EncodeError, match=r"would lose attachment.*letters\.ttf.*--allow-loss"):
        run(source, tmp_path / "out.mp4")
    assert [p.name for p in tmp_path.iterdir()] == ["in.mkv"]
    target, sink = run(source, tmp_path / "out.mp4", allow_loss=True)
    assert len(pictures(target)) == 4
    assert any("lost attachment" in note for note in sink.notes)


def test_chapters_and_tags_that_the_container_cannot_hold_are_refused(tmp_path):
    source = make(tmp_path / "in.mkv", chapters=True, metadata={"mood": "glad"}, frames=4)
    for ending in ("ts", "avi"):
        with pytest.raises(EncodeError, match=r"would lose metadata \(MOOD\), the chapters"):
            run(source, tmp_path / f"out.{ending}")
        assert len(pictures(run(source, tmp_path / f"out.{ending}", allow_loss=True)[0])) == 4


def test_a_cover_goes_before_free_keys_and_the_keys_are_named(tmp_path):
    tagged = make(tmp_path / "in.mkv", cover=True, metadata={"mood": "glad"}, frames=4)
    with pytest.raises(EncodeError, match=r"would lose metadata \(MOOD\)"):
        run(tagged, tmp_path / "out.mp4")
    target, _ = run(tagged, tmp_path / "out.mp4", allow_loss=True)
    assert [kind for kind, *_ in described(target)] == ["video", "video"]


def hdr10_plus_nal() -> bytes:
    """A HEVC SEI unit with one window of SMPTE ST 2094-40 metadata, length first."""
    fields = [
        (1, 2),
        (400, 27),
        (0, 1),
        *[(12_000, 17)] * 3,
        (9_000, 17),
        (0, 4),
        (37, 10),
        (0, 1),
        (0, 1),
        (0, 1),
    ]
    bits = "".join(f"{value:0{width}b}" for value, width in fields)
    body = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8))
    message = bytes([0xB5, 0, 0x3C, 0, 1, 4, 1]) + body
    payload = bytes([4, len(message)]) + message + b"\x80"
    for last in range(4):  # emulation prevention
        payload = payload.replace(bytes([0, 0, last]), bytes([0, 0, 3, last]))
    return (len(payload) + 2).to_bytes(4) + b"\x4e\x01" + payload


def test_hdr10_plus_data_are_refused_by_name_unless_they_may_be_lost(tmp_path):
    plain = make(tmp_path / "plain.mkv", codec="libx265", options={"x265-params": "log-level=0"}, frames=4)
    source = tmp_path / "in.mkv"
    with av.open(str(plain)) as old, av.open(str(source), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size:
                marked = av.Packet(hdr10_plus_nal() + bytes(packet))
                marked.pts, marked.dts, marked.time_base = packet.pts, packet.dts, packet.time_base
                marked.is_keyframe, marked.stream = packet.is_keyframe, stream
                new.mux(marked)
    kinds = {item.type.name for item in pictures(source)[0].side_data}
    assert "DYNAMIC_HDR_PLUS" in kinds, "the clip is not what this test needs"
    with pytest.raises(EncodeError, match=r"would lose HDR10\+ data of .*--allow-loss"):
        run(source, tmp_path / "out.mkv")
    assert not (tmp_path / "out.mkv").exists()
    target, sink = run(source, tmp_path / "out.mkv", allow_loss=True)
    assert len(pictures(target)) == 4
    assert any("lost HDR10+ data" in note for note in sink.notes)


def test_dolby_vision_data_are_refused_by_name(tmp_path, monkeypatch):
    """No real stream is at hand: another kind of side data stands in for it."""
    source = make(tmp_path / "in.mp4", frames=3)
    monkeypatch.setattr(
        "stream.media.quality_trial._DYNAMIC_HDR", {"Dolby Vision data": {"SEI_UNREGISTERED"}}
    )
    with pytest.raises(EncodeError, match=r"would lose Dolby Vision data.*--allow-loss"):
        run(source, tmp_path / "out.mp4")
    assert len(pictures(run(source, tmp_path / "out.mp4", allow_loss=True)[0])) == 3


def test_a_stream_that_ffmpeg_cannot_decode_is_copied(tmp_path):
    source = tmp_path / "in.ts"
    with av.open(str(source), "w") as output:
        video = output.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        video.codec_context.width, video.codec_context.height = 64, 48
        text = output.add_mux_stream("dvb_teletext")
        text.metadata["language"] = "deu"
        output.start_encoding()
        for start in (0, 36000):
            packet = av.Packet(b"\x10" + bytes(45))
            packet.stream, packet.time_base = text, Fraction(1, 90000)
            packet.pts = packet.dts = start
            output.mux_one(packet)
        for index in range(15):
            frame = av.VideoFrame.from_ndarray(picture(index, (64, 48))).reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
    target, _ = run(source, tmp_path / "out.ts")
    with av.open(str(target)) as container:
        assert container.streams[1].codec_context is None
        assert container.streams[1].metadata["language"] == "deu"
    assert [p[3] for p in packets(target)[1]] == [p[3] for p in packets(source)[1]]
    assert len(packets(target)[1]) == 2


def test_sound_that_ffmpeg_cannot_decode_is_described_and_copied(tmp_path):
    source = tmp_path / "in.mp4"
    with av.open(str(source), "w") as output:
        video = output.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        video.codec_context.width, video.codec_context.height = 64, 48
        sound = output.add_mux_stream("mpegh_3d_audio", rate=48000)
        sound.time_base = Fraction(1, 48000)
        output.start_encoding()
        for index in range(5):
            packet = av.Packet(b"\xc0\x01\xa5" + bytes(200))
            packet.stream, packet.time_base, packet.duration = sound, Fraction(1, 48000), 1920
            packet.pts = packet.dts = index * 1920
            output.mux_one(packet)
            frame = av.VideoFrame.from_ndarray(picture(index, (64, 48))).reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
    told = {"type": "audio", "codec": "none", "language": "und", "what_happens": "copied"}
    assert describe(source)["stream"][1] == told
    target, _ = run(source, tmp_path / "out.mp4")
    assert packets(target)[1] == packets(source)[1]


def test_chapters_and_subtitles_are_cut_with_the_pictures(tmp_path):
    source = make(tmp_path / "in.mkv", frames=50, subtitles="ass", chapters=True)
    target, _ = run(source, tmp_path / "out.mkv", start_s=0.32, duration_s=0.4)
    assert [(float(a), float(b), t) for a, b, t in chapter_list(target)] == [
        (0.0, 0.08, "one"), (0.08, 0.4, "two"),
    ]  # fmt: skip
    assert [(i[0], i[2]) for i in packets(target)[1]] == [(0, 130), (280, 250)]


def test_mp4_to_mkv_and_back_keeps_sound_cover_and_chapters(tmp_path):
    first = make(tmp_path / "in.mp4", sounds=(Sound(),), chapters=True, cover=True)
    second, _ = run(first, tmp_path / "mid.mkv")
    third, _ = run(second, tmp_path / "out.mp4")
    for path in (second, third):
        kinds = sorted(kind for kind, *_ in described(path) if kind != "data")
        assert kinds == ["audio", "video", "video"]
        assert [title for *_, title in chapter_list(path)] == ["one", "two"]
    sound = [[data for *_, data in packets(path)[1]] for path in (first, second, third)]
    assert sound[0] == sound[1] == sound[2]


def test_sound_longer_than_the_pictures_is_copied_to_its_end(tmp_path):
    source = make(tmp_path / "in.mp4", frames=10, sounds=(Sound(seconds=3.0),))
    target, _ = run(source, tmp_path / "out.mp4")
    assert packets(target)[1] == packets(source)[1]


def test_a_file_without_sound_and_one_with_a_late_sound_work(tmp_path):
    assert len(pictures(run(make(tmp_path / "a.mp4", frames=3), tmp_path / "b.mp4")[0])) == 3
    late = make(tmp_path / "c.mkv", frames=50, sounds=(Sound(start_s=1.5, seconds=0.4),))
    assert packets(run(late, tmp_path / "d.mkv")[0])[1] == packets(late)[1]


def test_memory_stays_flat_because_packets_are_read_as_the_pictures_go(tmp_path):
    source = make(tmp_path / "in.mp4", frames=100, sounds=(Sound(),))
    info_target = tmp_path / "out.mp4"
    from stream.media.decode import FileSource
    from stream.media.probe import probe
    from stream.picture.face import FrameWork

    info = probe(source)
    sink = FileSink(info, info_target, FAST)
    sink.open()
    for frame in FileSource(info, threads=1).frames():
        sink.process(FrameWork(frame))
        assert len(sink._output.copier._waiting) <= 1
    sink.flush()
    sink.close()
    sink.finish(True)
    assert packets(info_target)[1] == packets(source)[1]


def test_an_encoder_without_crf_is_steered_by_its_own_scale(tmp_path):
    source = make(tmp_path / "in.mp4", frames=10)
    for codec, ending in (("mpeg4", "mp4"), ("mjpeg", "mov"), ("ffv1", "mkv"), ("prores_ks", "mov")):
        target, _ = run(source, tmp_path / f"{codec}.{ending}", Encode(threads=2, codec=codec))
        assert len(pictures(target)) == 10
