"""Pixels outside the masks keep every bit, whatever the format, from H.264 with B-frames."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from conftest import SAMPLES

from stream.config import Detect, Select, Track
from stream.faces.compose.compose_stage import ComposeStage
from stream.faces.detect.finder import FaceFinder, choose
from stream.faces.restore.crop import CropStage
from stream.faces.restore.restore_stage import RestoreStage
from stream.faces.track.tracker import Tracker
from stream.media.decode import FileSource
from stream.media.probe import probe
from stream.models.engines import create_engine
from stream.models.info import bundled_model_path
from stream.picture import colour, geometry, pixel_formats
from stream.picture.colour import Colour
from stream.pipeline.pipeline import Pipeline
from stream.pipeline.stage import Stage

SAMPLE = SAMPLES / "portrait.mp4"
FRAMES = 12
FORMATS = {
    "yuv420p": ("libx264", Colour(1, 1, 1, False)),
    "yuv422p10le": ("libx264", Colour(1, 1, 1, False)),
    "yuvj420p": ("libx264", Colour(6, 6, 6, True)),
    "yuv444p": ("libx264", Colour(1, 1, 1, False)),
    "gray10le": ("libx264", Colour(1, 1, 1, True)),
    "pq": ("libx265", Colour(9, colour.PQ, 9, False)),
    "hlg": ("libx265", Colour(9, colour.HLG, 9, False)),
}


class Passer(Stage):
    """A stage that yields its items unchanged and collects the results of `look` on them."""

    def __init__(self, look):
        self.seen, self._look = [], look

    def process(self, item):
        self.seen.append(self._look(item))
        yield item


class Identity:
    """An engine that restores nothing."""

    def restore(self, crops):
        return crops.copy()

    def close(self): ...


def planes(picture) -> list[np.ndarray]:
    layout = pixel_formats.layout_of(picture.format.name)
    return [pixel_formats.view(picture, layout, i).copy() for i in range(len(layout.components))]


def write_clip(path: Path, kind: str) -> Path:
    """The sample's first pictures in another format, with B-frames."""
    codec, tags = FORMATS[kind]
    name = "yuv420p10le" if tags.is_hdr else kind
    layout = pixel_formats.layout_of(name)
    with av.open(str(SAMPLE)) as source, av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25, options={"crf": "20", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = 640, 480, name
        stream.codec_context.max_b_frames = 3
        stream.codec_context.colorspace, stream.codec_context.color_trc = tags.matrix, tags.transfer
        stream.codec_context.color_primaries = tags.primaries
        stream.codec_context.color_range = 2 if tags.range_full else 1
        if codec == "libx265":
            stream.options = {"x265-params": "log-level=none:bframes=3", "preset": "ultrafast", "crf": "20"}
        for index, decoded in enumerate(source.decode(video=0)):
            if index == FRAMES:
                break
            rgb = decoded.to_ndarray(format="rgb24").astype(np.float32) / 255
            if tags.is_hdr:
                rgb = colour.network_to_hdr(rgb, tags)
            picture = av.VideoFrame(640, 480, name)
            y, cb, cr = colour.rgb_to_yuv(rgb, tags.weights(640, 480))
            unit = 1 << (layout.depth - 8)
            top = (1 << layout.depth) - 1
            coded = [y * (top if tags.range_full else 219 * unit) + (0 if tags.range_full else 16 * unit)]
            span = top if tags.range_full else 224 * unit
            coded += [cb * span + 128 * unit, cr * span + 128 * unit]
            for i in range(len(layout.components)):
                target = pixel_formats.view(picture, layout, i)
                target[...] = cv2.resize(coded[i], target.shape[::-1], interpolation=cv2.INTER_AREA).round()
            picture.pts = index
            for packet in stream.encode(picture):
                out.mux(packet)
        for packet in stream.encode():
            out.mux(packet)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Clips by format, written once."""
    folder = tmp_path_factory.mktemp("clips")

    def make(kind: str) -> Path:
        path = folder / f"{kind}.mkv"
        return path if path.exists() else write_clip(path, kind)

    return make


def restored(path: Path, thread_type: str = "AUTO", strength: float = 1.0, engine=None):
    """All stages but the encoder. Returns planes and the crops' affines of every frame."""
    source = FileSource(probe(path), thread_type=thread_type)
    crops = Passer(lambda work: [patch.crop.to_stored for patch in work.patches])
    stages = [
        ("track", Tracker(FaceFinder(Detect(), 2), Detect(), Track())),
        ("crop", CropStage("ffhq_512", 256, lambda faces, size: choose(faces, Select(), size))),
        (
            "restore",
            RestoreStage(engine or (lambda: create_engine("auto", bundled_model_path())), 4, strength),
        ),
        ("look", crops),
        ("compose", ComposeStage(feather=0.12)),
    ]
    result = [planes(work.frame.picture) for work in Pipeline.from_source(source, stages)]
    return result, crops.seen


def decoded(path: Path):
    """An independent decode: its own container, one thread."""
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "NONE"
        return [planes(picture) for picture in container.decode(video=0)]


def outside(affines, shape, size=256) -> np.ndarray:
    """True where no crop, grown by one sample of this plane, covers the sample."""
    scale = np.array([shape[1] / 640, shape[0] / 480])
    covered = np.zeros(shape, np.uint8)
    for affine in affines:
        corners = geometry.apply(affine, np.array([[0, 0], [size, 0], [size, size], [0, size]])) * scale - 0.5
        cv2.fillConvexPoly(covered, np.round(corners).astype(np.int32), 1)
    return cv2.dilate(covered, np.ones((3, 3))) == 0


def check_outside(path: Path, thread_type: str) -> None:
    result, affines = restored(path, thread_type)
    reference = decoded(path)
    assert len(result) == len(reference) == FRAMES
    assert all(affines), "the face was not found in every frame"
    for ours, theirs, found in zip(result, reference, affines, strict=True):
        for plane, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            free = outside(found, a.shape)
            assert 0.2 < free.mean() < 0.95 or not found
            np.testing.assert_array_equal(a[free], b[free], err_msg=f"{plane = }")
        if found:
            assert (ours[0] != theirs[0]).any(), "nothing was restored"


@pytest.mark.parametrize("thread_type", ["NONE", "SLICE", "FRAME"])
@pytest.mark.parametrize("kind", ["yuv420p", "yuv422p10le"])
def test_pixels_outside_the_masks_are_bit_exact_for_every_thread_type(clip, kind, thread_type):
    check_outside(clip(kind), thread_type)


@pytest.mark.parametrize("thread_type", ["NONE", "SLICE", "FRAME"])
@pytest.mark.parametrize("kind", ["yuv420p", "yuv422p10le"])
def test_a_frame_written_at_once_never_reaches_the_decoders_references(clip, kind, thread_type):
    """In a run the decoder is many frames ahead. Here each frame is changed before the next is decoded."""
    source = FileSource(probe(clip(kind)), thread_type=thread_type)
    for frame, reference in zip(source.frames(), decoded(clip(kind)), strict=True):
        for ours, theirs in zip(planes(frame.picture), reference, strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg=f"{frame.index = }")
        frame.writable().add((128, 96, 384, 352), np.full((256, 256, 3), 0.4, np.float32))
        assert (planes(frame.picture)[0] != reference[0]).sum() > 50_000


@pytest.mark.parametrize("kind", ["yuvj420p", "yuv444p", "gray10le", "pq", "hlg"])
def test_pixels_outside_the_masks_are_bit_exact_in_every_format(clip, kind):
    check_outside(clip(kind), "AUTO")


@pytest.mark.parametrize("kind", ["yuv420p", "pq", "gray10le"])
def test_strength_0_changes_no_bit(clip, kind):
    result, affines = restored(clip(kind), strength=0.0)
    assert any(affines)
    assert_same(result, decoded(clip(kind)))


@pytest.mark.parametrize("kind", ["yuv422p10le", "hlg"])
def test_an_identity_network_changes_no_bit(clip, kind):
    result, affines = restored(clip(kind), engine=Identity)
    assert any(affines)
    assert_same(result, decoded(clip(kind)))


def test_frames_without_a_face_change_no_bit_and_are_not_copied(tmp_path):
    path = tmp_path / "empty.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        ramp = np.tile(np.linspace(30, 200, 320, dtype=np.uint8), (240, 1))
        for index in range(FRAMES):
            picture = av.VideoFrame.from_ndarray(np.dstack([np.roll(ramp, index, 1)] * 3), format="rgb24")
            picture = picture.reformat(format="yuv420p")
            picture.pts, picture.time_base = index, Fraction(1, 25)
            out.mux(stream.encode(picture))
        out.mux(stream.encode())
    result, affines = restored(path)
    assert not any(affines)
    assert_same(result, decoded(path))


def test_a_face_in_pq_is_changed_within_its_own_depth(clip):
    result, affines = restored(clip("pq"))
    reference = decoded(clip("pq"))
    index = next(i for i, found in enumerate(affines) if found)
    change = result[index][0].astype(int) - reference[index][0]
    assert np.abs(change).max() > 8
    assert (change % 4 != 0).any(), "the face went through 8 bits"
    assert np.abs(change.mean()) < 4, "the face's light moved"


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        for plane_a, plane_b in zip(a, b, strict=True):
            np.testing.assert_array_equal(plane_a, plane_b)


def test_the_hdr_curve_is_inverted_exactly_where_video_lives():
    signal = np.random.default_rng(0).uniform(0, 0.75, (2000, 3)).astype(np.float32)
    grey = np.repeat(np.linspace(0, 1, 512, dtype=np.float32)[:, None], 3, axis=1)
    for transfer in (colour.PQ, colour.HLG):
        tags = Colour(9, transfer, 1, False)
        for x in (signal, grey):
            seen = colour.hdr_to_network(x, tags)
            assert np.abs(colour.network_to_hdr(seen, tags) - x).max() < 2e-4
        wide = replace(tags, primaries=9)
        assert np.abs(colour.network_to_hdr(colour.hdr_to_network(grey, wide), wide) - grey).max() < 2e-4
