"""The sink: real clips are decoded, encoded, read back and compared."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import Sound, make
from encoding import FAST, NOTE, luma_db, packets, pictures, run
from waiting import LIMIT_S

from stream.config import Encode
from stream.errors import EncodeError
from stream.media.encode import FileSink, OutputOptions
from stream.media.partial_file import PartialFile
from stream.media.probe import probe
from stream.picture import pixel_formats

B_FRAMES = {"preset": "veryfast", "bf": "3"}
VARIABLE = (0, 600, 1000, 2200, 2300, 4000, 4100, 5000, 5600, 7000, 7700, 8000)


def tags(path: Path) -> dict[str, str]:
    with av.open(str(path)) as container:
        return {key.lower(): value for key, value in container.metadata.items()}


TIMED = {
    "plain": {"options": B_FRAMES, "sounds": (Sound(),)},
    "offset": {"options": B_FRAMES, "start_s": 1.5, "sounds": (Sound(start_s=1.8),)},
    "variable": {"options": B_FRAMES, "pts": VARIABLE, "time_base": Fraction(1, 10000), "sounds": (Sound(),)},
}


@pytest.mark.parametrize("timing", TIMED)
@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "ts"])
def test_timestamps_of_pictures_and_sound_come_out_as_they_went_in(tmp_path, ending, timing):
    source = make(tmp_path / f"in.{ending}", **TIMED[timing])
    target, _ = run(source, tmp_path / f"out.{ending}")
    assert [p.pts for p in pictures(target)] == [p.pts for p in pictures(source)]
    assert packets(target)[1] == packets(source)[1]
    with av.open(str(source)) as old, av.open(str(target)) as new:
        assert [s.time_base for s in new.streams] == [s.time_base for s in old.streams]
        assert [s.start_time for s in new.streams] == [s.start_time for s in old.streams]
        if ending in ("mp4", "mov"):
            assert [s.duration for s in new.streams] == [s.duration for s in old.streams]


@pytest.mark.parametrize(
    ("ending", "clip"),
    [
        ("avi", {"codec": "mpeg4", "options": {}, "quantiser": 3, "sounds": (Sound("libmp3lame"),)}),
        ("webm", {"codec": "libvpx-vp9", "options": {"cpu-used": "8"}, "sounds": (Sound("libopus"),)}),
        ("ts", {"codec": "mpeg2video", "options": {"bf": "2"}, "quantiser": 3, "sounds": (Sound("mp2"),)}),
        ("mp4", {"codec": "mpeg4", "options": {"bf": "2"}, "quantiser": 3, "sounds": (Sound(),)}),
        ("flv", {"options": B_FRAMES, "sounds": (Sound(),)}),
        ("mkv", {"codec": "ffv1", "options": {}, "sounds": (Sound("flac"),)}),
    ],
)
def test_other_codecs_and_containers_keep_their_times_too(tmp_path, ending, clip):
    source = make(tmp_path / f"in.{ending}", frames=12, **clip)
    target, _ = run(source, tmp_path / f"out.{ending}", Encode(threads=2))
    assert [p.pts for p in pictures(target)] == [p.pts for p in pictures(source)]
    assert packets(target)[1] == packets(source)[1]


@pytest.mark.parametrize(
    ("codec", "ending", "pix_fmt"),
    [
        ("ffv1", "mkv", "yuv422p10le"), ("ffv1", "mkv", "bgr0"), ("utvideo", "avi", "yuv422p"),
        ("huffyuv", "avi", "rgb24"), ("rawvideo", "avi", "yuv420p"), ("png", "mov", "rgb24"),
        ("png", "mov", "rgb48be"), ("qtrle", "mov", "rgb24"),
    ],
)  # fmt: skip
def test_lossless_stays_lossless(tmp_path, codec, ending, pix_fmt):
    source = make(tmp_path / f"in.{ending}", codec=codec, pix_fmt=pix_fmt, options={}, frames=3)
    target, sink = run(source, tmp_path / f"out.{ending}", Encode(threads=2))
    for old, new in zip(pictures(source), pictures(target), strict=True):
        assert new.format.name == old.format.name
        layout = pixel_formats.layout_of(new.format.name) or pixel_formats.layout_of(
            pixel_formats.substitute(new.format.name)
        )
        if pixel_formats.layout_of(new.format.name) is None:
            new, old = (p.reformat(format=pixel_formats.substitute(p.format.name)) for p in (new, old))
        for part in range(len(layout.components)):
            assert (pixel_formats.view(new, layout, part) == pixel_formats.view(old, layout, part)).all()
    assert not sink.notes


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_colour_tags_hdr_data_rotation_and_aspect_survive(tmp_path, codec):
    hdr = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
    params = {
        "libx264": {"preset": "veryfast", "x264-params": f"mastering-display={hdr}:cll=1000,400"},
        "libx265": {
            "preset": "ultrafast",
            "x265-params": f"log-level=0:master-display={hdr}:max-cll=1000,400",
        },
    }
    source = make(
        tmp_path / "in.mp4", codec=codec, pix_fmt="yuv420p10le", options=params[codec], matrix=9, transfer=16,
        primaries=9, chroma_location="topleft", rotation=90, sar=Fraction(4, 3), frames=6,
    )  # fmt: skip
    target, _ = run(source, tmp_path / "out.mp4")
    old, new = probe(source), probe(target)
    assert len(old.mastering_display) >= 88 and old.chroma_location == "topleft"
    assert old.view.turn != ((1, 0), (0, 1)) and old.colour.is_hdr
    for name in ("view", "colour", "chroma_location", "mastering_display", "content_light", "display_matrix"):
        assert getattr(new, name) == getattr(old, name), name


def test_hdr_data_survive_in_av1(tmp_path):
    display = "G(0.265,0.69)B(0.15,0.06)R(0.68,0.32)WP(0.3127,0.329)L(1000,0.005)"
    params = f"mastering-display={display}:content-light=1000,400"
    source = make(
        tmp_path / "in.mp4", codec="libsvtav1", pix_fmt="yuv420p10le", matrix=9, transfer=16, primaries=9,
        options={"preset": "12", "svtav1-params": params}, frames=4,
    )  # fmt: skip
    target, _ = run(source, tmp_path / "out.mp4", Encode(threads=2))
    old, new = probe(source), probe(target)
    assert len(old.mastering_display) >= 88
    assert new.mastering_display == old.mastering_display
    assert (new.content_light, new.colour) == (old.content_light, old.colour)


@pytest.mark.parametrize(
    ("codec", "order", "ending"),
    [
        ("libx264", "tt", "mp4"),
        ("libx264", "bb", "mkv"),
        ("mpeg2video", "tt", "ts"),
        ("prores_ks", "tt", "mov"),
    ],
)
def test_field_order_is_kept(tmp_path, codec, order, ending):
    clip = {"codec": codec, "interlaced": order, "size": (128, 96), "frames": 6}
    if codec != "libx264":
        clip |= {"options": {}, "quantiser": 3 if codec == "mpeg2video" else 0}
    if codec == "prores_ks":
        clip |= {"pix_fmt": "yuv422p10le"}
    source = make(tmp_path / f"in.{ending}", **clip)
    target, _ = run(source, tmp_path / f"out.{ending}", Encode(threads=2))
    assert probe(source).field_order == order
    assert probe(target).field_order == order
    assert [p.interlaced_frame for p in pictures(target)] == [p.interlaced_frame for p in pictures(source)]


@pytest.mark.parametrize("full", [False, True])
def test_colour_range_is_kept(tmp_path, full):
    source = make(tmp_path / "in.mp4", range_full=full, matrix=1, transfer=1, primaries=1, frames=4)
    target, _ = run(source, tmp_path / "out.mp4")
    assert probe(source).colour.range_full is full
    assert probe(target).colour == probe(source).colour


def test_the_file_says_that_faces_were_restored_in_every_container(tmp_path):
    for ending in ("mp4", "mov", "mkv"):
        source = make(tmp_path / f"in.{ending}", frames=3, metadata={"title": "Party", "comment": "mine"})
        target, _ = run(source, tmp_path / f"out.{ending}")
        found = tags(target)
        assert NOTE in found.values(), ending
        assert (found["title"], found["comment"]) == ("Party", "mine")
    source = make(tmp_path / "plain.mp4", frames=3)
    assert tags(run(source, tmp_path / "noted.mp4")[0])["comment"] == NOTE
    source = make(tmp_path / "in.avi", codec="mpeg4", options={}, quantiser=3, frames=3)
    assert tags(run(source, tmp_path / "out.avi", Encode(threads=2))[0])["comment"] == NOTE


def test_free_metadata_keys_of_a_phone_survive(tmp_path):
    keys = {"com.android.version": "14", "com.apple.quicktime.make": "Apple", "title": "x"}
    source = make(
        tmp_path / "in.mp4", frames=3, metadata=keys, container_options={"movflags": "use_metadata_tags"}
    )
    found = tags(run(source, tmp_path / "out.mp4")[0])
    assert all(found[key] == value for key, value in keys.items())
    assert NOTE in found.values()


def test_start_and_duration_cut_pictures_and_sound_alike(tmp_path):
    source = make(
        tmp_path / "in.mp4", frames=60, sounds=(Sound(),), options={"preset": "veryfast", "g": "12"}
    )
    target, _ = run(source, tmp_path / "out.mp4", start_s=0.8, duration_s=1.0)
    new = [p.pts for p in pictures(target)]
    assert new == [i * 512 for i in range(25)]
    old = [(pts - 38400, data) for pts, _, _, data in packets(source)[1] if 38400 <= pts < 86400]
    assert [(pts, data) for pts, _, _, data in packets(target)[1]] == old


def test_an_interrupted_run_leaves_a_playable_part_with_sound_to_the_same_time(tmp_path):
    source = make(tmp_path / "in.mp4", frames=75, sounds=(Sound(),), options=B_FRAMES)
    target, _ = run(source, tmp_path / "out.mp4", frames=30, complete=False)
    assert target == tmp_path / "out.partial.mp4"
    assert len(pictures(target)) == 30
    last = packets(target)[1][-1]
    assert last[0] < 30 / 25 * 48000 <= last[0] + 2 * last[2]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "out.partial.mp4"]


CHILD = """
import os, sys, resource
from pathlib import Path
sys.path[:0] = {paths!r}
from encoding import FAST, run
from stream.media.encode import FileSink, OutputOptions
mode, source, target = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
if mode == "kill":
    process = FileSink.process
    def killed(self, work):
        if self.frames_out == 200:
            os.kill(os.getpid(), 9)
        return process(self, work)
    FileSink.process = killed
else:
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40000, 40000))
try:
    run(source, target)
except Exception as error:
    print(type(error).__name__, error)
"""


def child(mode: str, source: Path, target: Path) -> subprocess.CompletedProcess:
    paths = [str(folder) for folder in Path(__file__).parents[1:3]]
    code = textwrap.dedent(CHILD).format(paths=paths)
    command = [sys.executable, "-c", code, mode, str(source), str(target)]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "ts"])
def test_a_killed_run_leaves_a_file_that_plays(tmp_path, ending):
    source = make(tmp_path / f"in.{ending}", frames=220, size=(96, 64), sounds=(Sound(),))
    assert child("kill", source, tmp_path / f"out.{ending}").returncode == -signal.SIGKILL
    partial = tmp_path / f".out.partial.{ending}"
    with av.open(str(partial)) as container:
        count = 0
        try:
            for _ in container.decode(video=0):
                count += 1
        except av.FFmpegError:
            pass  # the last fragment may be incomplete
    assert count >= 70


def test_the_finished_mp4_is_a_plain_one(tmp_path):
    source = make(tmp_path / "in.mp4", frames=120, options=B_FRAMES, sounds=(Sound(),))
    target, _ = run(source, tmp_path / "out.mp4")
    data, kinds, position = target.read_bytes(), [], 0
    while position < len(data):
        kinds.append(data[position + 4 : position + 8])
        position += int.from_bytes(data[position : position + 4], "big")
    assert kinds == [b"ftyp", b"free", b"mdat", b"moov"]
    assert b"elst" in data[-4000:] or b"elst" in data


def test_a_file_that_may_not_grow_ends_in_one_line_and_leaves_nothing(tmp_path):
    source = make(tmp_path / "in.mp4", frames=60, noise=20.0)
    result = child("limit", source, tmp_path / "out.mp4")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("EncodeError") and "out.mp4" in result.stdout
    assert len(result.stdout.strip().splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    source = make(tmp_path / "in.mkv", frames=30, noise=20.0)
    folder = tmp_path / "disk"
    folder.mkdir()
    monkeypatch.setattr(PartialFile, "name_to_open", "/dev/full")  # refuses every byte with ENOSPC
    with pytest.raises(EncodeError, match=r"out\.mkv: the disk is full"):
        run(source, folder / "out.mkv")
    assert not list(folder.iterdir())


def test_every_refusal_names_what_is_wrong(tmp_path):
    source = make(tmp_path / "in.mp4", frames=2)
    info = probe(source)

    def refuse(target: Path, pattern: str, config: Encode = FAST, **options) -> None:
        with pytest.raises(EncodeError, match=pattern) as caught:
            sink = FileSink(info, target, config, OutputOptions(**options))
            try:
                sink.open()
            finally:
                sink.discard()
        assert "\n" not in str(caught.value)

    existing = make(tmp_path / "there.mp4", frames=2)
    before = existing.read_bytes()
    refuse(existing, "exists; .*--overwrite")
    assert existing.read_bytes() == before
    refuse(source, "is the input itself", overwrite=True)
    os.link(source, tmp_path / "link.mp4")
    refuse(tmp_path / "link.mp4", "is the input itself", overwrite=True)
    refuse(tmp_path / "none" / "out.mp4", "folder .* does not exist")
    refuse(tmp_path, "is a folder")
    refuse(tmp_path / "out.xyz", "names no video container")
    refuse(tmp_path / "out.webm", "cannot hold h264")
    refuse(tmp_path / "out.mp4", "no encoder is called libx999", Encode(codec="libx999"))
    refuse(tmp_path / "out.mp4", "encodes audio", Encode(codec="aac"))
    refuse(tmp_path / "out.mp4", "encode.crf: mpeg4 knows no", Encode(codec="mpeg4", crf=20))
    refuse(tmp_path / "out.mp4", "encode.crf: libx264 takes 0 to 51, got 60", Encode(crf=60))
    refuse(tmp_path / "out.mp4", "encode.preset: mpeg4 has no presets", Encode(codec="mpeg4", preset="fast"))
    refuse(tmp_path / "out.mp4", "encode.preset: .*quick", Encode(preset="quick"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "link.mp4", "there.mp4"]


def test_a_codec_without_an_encoder_becomes_h264_with_a_note(tmp_path):
    source = make(tmp_path / "in.avi", codec="asv1", options={}, bit_rate=800_000, frames=4)
    target, sink = run(source, tmp_path / "out.avi")
    assert probe(target).codec == "h264"
    assert any("becomes H.264" in note for note in sink.notes)


def test_set_quality_and_codec_are_followed(tmp_path):
    source = make(tmp_path / "in.mp4", frames=20)
    fine, _ = run(source, tmp_path / "fine.mp4", Encode(threads=2, crf=12, preset="veryfast"))
    rough, _ = run(source, tmp_path / "rough.mp4", Encode(threads=2, crf=40, preset="veryfast"))
    assert np.mean(luma_db(source, fine)) > np.mean(luma_db(source, rough)) + 8
    other, _ = run(source, tmp_path / "other.mp4", Encode(threads=2, codec="libx265", preset="ultrafast"))
    assert probe(other).codec == "hevc"
    assert min(luma_db(source, other)) >= 42


@pytest.mark.parametrize(
    ("source", "codec", "ending"),
    [
        ({"codec": "ffv1", "pix_fmt": "bgr0", "options": {}}, "prores_ks", "mov"),
        ({"matrix": 1, "transfer": 1, "primaries": 1, "options": {"crf": "12"}}, "png", "mov"),
        ({"range_full": True, "matrix": 5, "options": {"crf": "12"}}, "mjpeg", "mov"),
    ],
)
def test_a_codec_of_another_colour_model_shows_the_same_colours(tmp_path, source, codec, ending):
    first = make(tmp_path / "in.mkv", frames=3, **source)
    second, _ = run(first, tmp_path / f"out.{ending}", Encode(threads=2, codec=codec))
    for old, new in zip(pictures(first), pictures(second), strict=True):
        a, b = (p.reformat(format="rgb24").to_ndarray().astype(float) for p in (old, new))
        assert abs((a - b).mean(axis=(0, 1))).max() < 1
        assert np.sqrt(((a - b) ** 2).mean()) < 5


def test_the_decoded_picture_types_do_not_steer_the_encoder(tmp_path):
    source = make(tmp_path / "in.mp4", frames=50, options={"preset": "veryfast", "g": "1"})
    target, _ = run(source, tmp_path / "out.mp4")
    assert sum(p.key_frame for p in pictures(target)) < 5


@pytest.mark.parametrize("encoder", ["libx264", "libx265", "libsvtav1", "libvpx-vp9", "mpeg4", "ffv1"])
@pytest.mark.parametrize("effort", ["low", "normal", "high"])
def test_an_effort_suits_every_encoder(tmp_path, encoder, effort):
    source = make(tmp_path / "in.mkv", frames=6, options={"preset": "ultrafast"})
    path, _ = run(source, tmp_path / "out.mkv", Encode(threads=2, codec=encoder, effort=effort))
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 6
