"""Default quality: what 42 dB and 2.5 times mean for every codec, and how the trial finds it."""

from __future__ import annotations

from dataclasses import replace

import av
import pytest
from clips import make
from encoding import luma_db, run

from stream.config import Encode
from stream.media import codecs, quality_trial
from stream.media.encoder_traits import traits
from stream.media.probe import probe

LOSSY = {
    "h264": ("mp4", {"options": {"crf": "23", "preset": "veryfast"}}),
    "h264 10 bit": ("mkv", {"pix_fmt": "yuv422p10le", "options": {"crf": "20", "preset": "veryfast"}}),
    "hevc": (
        "mp4",
        {"codec": "libx265", "options": {"crf": "24", "preset": "veryfast", "x265-params": "log-level=0"}},
    ),
    "hevc 10 bit": (
        "mkv",
        {
            "codec": "libx265",
            "pix_fmt": "yuv420p10le",
            "options": {"crf": "24", "x265-params": "log-level=0"},
        },
    ),
    "vp8": ("webm", {"codec": "libvpx", "bit_rate": 3_000_000, "options": {"cpu-used": "4"}}),
    "vp9": ("webm", {"codec": "libvpx-vp9", "options": {"crf": "30", "cpu-used": "5"}}),
    "av1": ("mp4", {"codec": "libsvtav1", "options": {"crf": "32", "preset": "10"}}),
    "mpeg4": ("avi", {"codec": "mpeg4", "options": {}, "quantiser": 4}),
    "mpeg2": ("ts", {"codec": "mpeg2video", "options": {}, "quantiser": 4}),
    "mjpeg": ("avi", {"codec": "mjpeg", "pix_fmt": "yuvj422p", "options": {}, "quantiser": 4}),
    "prores": ("mov", {"codec": "prores_ks", "pix_fmt": "yuv422p10le", "options": {"profile": "standard"}}),
    "dnxhr": (
        "mov",
        {"codec": "dnxhd", "pix_fmt": "yuv422p", "size": (256, 128), "options": {"profile": "dnxhr_sq"}},
    ),
}


@pytest.mark.parametrize("noise", [0.0, 6.0])
@pytest.mark.parametrize("name", LOSSY)
def test_faceless_frames_keep_42_db_and_the_file_stays_small(tmp_path, name, noise):
    ending, clip = LOSSY[name]
    changes = {"size": (192, 128), "frames": 30, "noise": noise} | clip
    source = make(tmp_path / f"in.{ending}", **changes)
    target, sink = run(source, tmp_path / f"out.{ending}", Encode(threads=2))
    assert min(luma_db(source, target)) >= 42
    assert target.stat().st_size <= 2.5 * source.stat().st_size
    old, new = probe(source), probe(target)
    assert (new.codec, new.pix_fmt, new.view, new.time_base) == (
        old.codec,
        old.pix_fmt,
        old.view,
        old.time_base,
    )
    assert not sink.notes


@pytest.mark.parametrize("profile", ["baseline", "main", "high"])
def test_the_profile_stays_so_that_old_players_play_on(tmp_path, profile):
    source = make(tmp_path / "in.mp4", frames=6, options={"preset": "veryfast", "profile": profile})
    target, _ = run(source, tmp_path / "out.mp4", Encode(threads=2))
    with av.open(str(source)) as old, av.open(str(target)) as new:
        assert new.streams.video[0].profile == old.streams.video[0].profile


def test_a_noisy_and_a_poor_input_get_different_qualities(tmp_path):
    size, options = (192, 128), {"preset": "veryfast"}
    noisy = make(tmp_path / "noisy.mp4", size=size, noise=9.0, options=options | {"crf": "18"})
    poor = make(tmp_path / "poor.mp4", size=size, options=options | {"crf": "34"})
    found = []
    for source in (noisy, poor):
        info = probe(source)
        plan = quality_trial.settle(info, codecs.recipe(info, Encode()), 2, (None, None))
        assert plan.is_settled
        found.append(plan.quality)
    assert found[0] + 2 <= found[1] == traits("libx264").qualities[2]


def test_a_set_crf_is_not_tried(tmp_path):
    info = probe(make(tmp_path / "in.mp4", frames=3))
    plan = codecs.recipe(info, Encode(crf=31.0, preset="fast"))
    assert quality_trial.settle(info, plan, 2, (None, None)) is plan
    assert plan.quality == 31 and plan.options["preset"] == "fast"


def test_ten_bit_vp9_keeps_its_depth_in_av1(tmp_path):
    info = replace(probe(make(tmp_path / "in.mp4", frames=2)), codec="vp9", pix_fmt="yuv420p10le")
    plan = codecs.recipe(info, Encode())
    assert (plan.encoder, plan.pix_fmt) == ("libsvtav1", "yuv420p10le")
    assert any("10 bits kept" in note for note in plan.notes)


def test_the_tried_part_starts_on_the_grid_of_blocks(tmp_path):
    source = make(tmp_path / "in.mp4", size=(1000, 500), frames=2)
    sample = quality_trial._sample(probe(source), (None, None))
    assert {(p.width, p.height) for p in sample.pictures} == {(640, 384)}
    assert sample.size < source.stat().st_size
