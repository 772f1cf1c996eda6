"""The video that `compare` writes: both halves, with A's times and sound, for all kinds of input."""

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from clips import Sound, make
from comparison import apart, changed, film, pictures, read, sound_packets

from stream.errors import EncodeError
from stream.lab.compare import side_by_side
from stream.lab.compare.comparison import ComparisonOutputs, compare
from stream.lab.compare.medium import open_medium
from stream.media.probe import probe

TIMES = [0, 40, 90, 100, 200, 240, 280, 330, 360, 400, 520, 560]
"""Times in ms with a varying frame rate."""
KEPT_DB = 38


@pytest.fixture(scope="module")
def films(portrait, tmp_path_factory):
    """A with sound, B, and their pictures; the frames of both have irregular times."""
    folder = tmp_path_factory.mktemp("films")
    frames = pictures(portrait)
    others = [changed(rgb) for rgb in frames]
    a = film(folder / "a.mp4", frames, TIMES, sound_of=portrait)
    return a, film(folder / "b.mp4", others, TIMES), frames, others


def write(a, b, path, layout="split", **part):
    """Join two videos as the command does; returns the notes."""
    media = open_medium(a, **part), open_medium(b, **part)
    return side_by_side.write(*media, max(media[0].size, media[1].size), path, layout, overwrite=False)


@pytest.fixture(scope="module")
def split(films, tmp_path_factory):
    path = tmp_path_factory.mktemp("split") / "both.mp4"
    return path, write(films[0], films[1], path)


def test_the_left_half_is_a_s_and_the_right_half_b_s(split, films):
    shown = read(split[0])
    assert len(shown) == len(films[2])
    for (_, rgb), a, b in zip(shown, films[2], films[3], strict=True):
        assert rgb.shape == a.shape
        assert apart(rgb[:, :312], a[:, :312]) > KEPT_DB
        assert apart(rgb[:, 328:], b[:, 328:]) > KEPT_DB
        # Each half is far from the other video where they differ.
        assert apart(rgb[330:406, 510:586], a[330:406, 510:586]) < 20
        assert apart(rgb[330:406, 70:146], b[330:406, 70:146]) < 20
        assert rgb[:, 319:321].mean() > 215  # the white line between them


def test_every_time_stamp_is_a_s(split):
    assert [round(1000 * time) for time, _ in read(split[0])] == TIMES


def test_the_sound_is_a_s_bit_by_bit(split, films):
    ours, theirs = sound_packets(split[0]), sound_packets(films[0])
    assert len(ours) > 20 and ours == theirs


def test_anything_plays_it(split):
    info = probe(split[0])
    assert (info.codec, info.view.upright_size) == ("h264", (640, 480))
    assert info.pix_fmt in ("yuv420p", "yuvj420p")


def test_side_by_side_shows_both_whole(films, tmp_path):
    write(films[0], films[1], tmp_path / "side.mp4", "side")
    shown = read(tmp_path / "side.mp4")
    assert [round(1000 * time) for time, _ in shown] == TIMES
    for (_, rgb), a, b in zip(shown, films[2], films[3], strict=True):
        assert rgb.shape == (480, 1280, 3)
        assert apart(rgb[:, :640], a) > KEPT_DB and apart(rgb[:, 640:], b) > KEPT_DB


def test_where_b_lacks_a_frame_its_last_one_stands_and_that_is_said(films, tmp_path):
    _, _, frames, others = films
    kept = [n for n in range(len(TIMES)) if n not in (0, 5)]
    b = film(tmp_path / "b.mp4", [others[n] for n in kept], [TIMES[n] for n in kept])
    media = open_medium(films[0]), open_medium(b, offset_s=0.04)
    notes = side_by_side.write(*media, (640, 480), tmp_path / "both.mp4", "split", overwrite=False)
    shown = [rgb for _, rgb in read(tmp_path / "both.mp4")]
    assert len(shown) == len(frames)
    assert shown[0][:, 328:].max() < 30  # B has no frame yet
    assert apart(shown[5][:, 328:], others[4][:, 328:]) > KEPT_DB
    assert apart(shown[6][:, 328:], others[6][:, 328:]) > KEPT_DB
    assert any("2 frames of A have no frame of B at their time" in note for note in notes)


def test_a_part_begins_at_nought_and_keeps_its_distances(films, tmp_path):
    write(films[0], films[1], tmp_path / "part.mp4", start_s=0.1, duration_s=0.25)
    shown = read(tmp_path / "part.mp4")
    assert [round(1000 * time) for time, _ in shown] == [0, 100, 140, 180, 230]
    assert apart(shown[0][1][:, :312], films[2][3][:, :312]) > KEPT_DB


def test_a_larger_b_sets_the_size(films, tmp_path):
    large = [cv2.resize(rgb, (962, 722), interpolation=cv2.INTER_CUBIC) for rgb in films[3][:3]]
    b = film(tmp_path / "large.mp4", large, TIMES[:3])
    write(films[0], b, tmp_path / "both.mp4", duration_s=0.1)
    _, rgb = read(tmp_path / "both.mp4")[0]
    assert rgb.shape == (722, 962, 3)
    enlarged = cv2.resize(films[2][0], (962, 722), interpolation=cv2.INTER_LANCZOS4)
    assert apart(rgb[:, :470], enlarged[:, :470]) > KEPT_DB
    assert apart(rgb[:, 492:], large[0][:, 492:]) > KEPT_DB


@pytest.mark.parametrize("degrees", (90, 180, 270))
def test_a_turned_video_comes_out_upright(tmp_path, degrees):
    a = make(tmp_path / "a.mp4", frames=4, rotation=degrees, sounds=(Sound(),))
    write(a, a, tmp_path / "both.mp4")
    medium = open_medium(tmp_path / "both.mp4")
    assert medium.info.display_matrix == b"" and medium.size == open_medium(a).size
    ours, theirs = (next(one.pictures()).rgb(one.size) for one in (medium, open_medium(a)))
    half = ours.shape[1] // 2 - 4
    assert apart(ours[:, :half], theirs[:, :half]) > 30
    assert sound_packets(tmp_path / "both.mp4") == sound_packets(a)


def test_pixels_that_are_not_square_become_square(tmp_path):

    a = make(tmp_path / "a.mp4", frames=3, sar=Fraction(4, 3))
    write(a, a, tmp_path / "both.mp4")
    info = probe(tmp_path / "both.mp4")
    assert info.view.sar == 1 and (info.view.width, info.view.height) == (214, 120)


def test_hdr_stays_hdr(tmp_path):
    a = make(
        tmp_path / "a.mp4", codec="libx265", pix_fmt="yuv420p10le", frames=4, matrix=9, transfer=16,
        primaries=9, options={"preset": "ultrafast", "x265-params": "log-level=error"},
    )  # fmt: skip
    write(a, a, tmp_path / "both.mp4")
    info = probe(tmp_path / "both.mp4")
    assert info.colour.is_hdr and info.pix_fmt == "yuv420p10le"
    ours, theirs = (next(open_medium(path).pictures()).frame.picture for path in (tmp_path / "both.mp4", a))
    left = [picture.to_ndarray()[:120, :76].astype(float) / 1023 for picture in (ours, theirs)]
    assert -10 * np.log10(np.mean((left[0] - left[1]) ** 2)) > KEPT_DB


def test_the_command_leaves_no_part_of_a_video_that_failed(films, tmp_path):
    with pytest.raises(EncodeError, match=r"\.xyz names no video container"):
        compare(films[0], films[1], outputs=ComparisonOutputs(video=tmp_path / "both.xyz"), duration_s=0.05)
    assert list(tmp_path.iterdir()) == []


def test_all_outputs_come_at_once(films, run_cli, tmp_path):
    outputs = ("--html", "--sheet", "s.png", "--video", "v.mp4", "--json", "f.json", "--layout", "side")
    done = run_cli("compare", films[0], films[1], *outputs, "--duration", "0.1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"a-vs-b.html", "s.png", "v.mp4", "f.json"}
    with av.open(str(tmp_path / "v.mp4")) as container:
        assert [frame.width for frame in container.decode(video=0)] == [1280] * 3
