"""Enlarged results: positions of samples, copied pixels, and faces at the new size."""

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import av
import cv2
import numpy as np
import pytest
import torch
from clips import make
from drawn_faces import frame
from drawn_faces import portrait as face_picture
from PIL import Image
from spandrel.architectures.Compact import CompactArch
from spandrel.architectures.ESRGAN import ESRGANArch

from stream import load_config, restore_file, restored_frames
from stream.config import Compose, Encode
from stream.errors import EncodeError, ModelError, SourceError
from stream.faces.compose.upscale import UpscaleStage, background_net, enlarge
from stream.faces.restore.crop import cut
from stream.job.interface import Options
from stream.media import codecs
from stream.media.probe import probe
from stream.models.engines import upscaler
from stream.models.engines.upscaler import Upscaler
from stream.picture import pixel_formats, resample
from stream.picture.colour import Colour
from stream.picture.face import Crop, FrameWork, Patch
from stream.picture.frame import View

reformatter = av.video.reformatter.VideoReformatter()


def settings(factor, *more):
    return load_config(overrides=[f"compose.upscale={factor}", *more])


def lanczos(count, factor, centre, wanted):
    """The resampling as a dense matrix f64[wanted,count], computed slowly from the definition."""
    matrix = np.zeros((wanted, count))
    for j in range(wanted):
        at = (j + centre) / factor - centre
        near = np.arange(int(np.floor(at)) - 3, int(np.floor(at)) + 5)
        weights = np.sinc(at - near) * np.sinc((at - near) / 4)
        for k, weight in zip(near, weights / weights.sum(), strict=True):
            matrix[j, min(max(k, 0), count - 1)] += weight
    return matrix


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("centres", [(0.5, 0.5), (0.25, 0.5), (0.25, 0.25), (0.25, 0.75)])
@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 1023)])
def test_planes_are_enlarged_by_lanczos_at_their_samples_places(factor, centres, dtype, top):
    plane = np.random.default_rng(0).integers(0, top + 1, (17, 23)).astype(dtype)
    size = 23 * factor - 1, 17 * factor - 1
    got = resample.enlarge(plane, factor, centres, size, top)
    down = lanczos(17, factor, centres[1], size[1])
    across = lanczos(23, factor, centres[0], size[0])
    expected = np.clip(down @ plane @ across.T, 0, top)
    assert got.dtype == dtype and got.shape == size[::-1]
    assert np.abs(got - expected).max() <= 1.01


def test_luma_is_opencvs_lanczos_to_the_bit():
    plane = np.random.default_rng(0).integers(0, 256, (40, 50), np.uint8)
    expected = cv2.resize(plane, (150, 120), interpolation=cv2.INTER_LANCZOS4)
    np.testing.assert_array_equal(resample.enlarge(plane, 3, (0.5, 0.5), (150, 120), 255), expected)


SITES = {"left": (0.0, 0.5), "center": (0.5, 0.5), "topleft": (0.0, 0.0), "bottom": (0.5, 1.0)}


@pytest.mark.parametrize("site", SITES.values(), ids=SITES)
@pytest.mark.parametrize("factor", [2, 3])
def test_chroma_stays_where_it_lies_between_the_luma_samples(site, factor):
    """All planes hold the same ramp over the picture's coordinates, and still do when enlarged."""
    slope = 256.0  # of 65536 levels, for a px
    source = replace(frame(np.zeros((48, 64, 3), np.uint8), pix_fmt="yuv420p16le"), chroma_site=site)

    def ramp(picture, scale):
        for i, part in enumerate(source.layout.components):
            view = pixel_formats.view(picture, source.layout, i)
            y, x = np.mgrid[: view.shape[0], : view.shape[1]].astype(float)
            sites = site if part.log2_w else (0, 0)
            px = (x * (1 << part.log2_w) + sites[0] + 0.5) / scale
            py = (y * (1 << part.log2_h) + sites[1] + 0.5) / scale
            yield view, slope * (px + 0.5 * py) + 20

    for view, values in ramp(source.picture, 1):
        view[...] = np.rint(values)
    large = enlarge(source, factor, reformatter)
    for view, values in ramp(large.picture, factor):
        inner = tuple(slice(4 * factor, -4 * factor) for _ in range(2))
        error = view[inner] - values[inner]
        assert abs(error.mean()) < 0.005 * slope and np.abs(error).max() < 0.05 * slope


@pytest.mark.parametrize(
    "pix_fmt", ["yuv420p", "yuv422p10le", "yuva420p", "p010le", "nv12", "rgba", "gbrap", "gray16le"]
)
def test_every_component_and_the_transparency_of_odd_pictures_are_enlarged(pix_fmt):
    rng = np.random.default_rng(0)
    picture = av.VideoFrame(33, 21, pix_fmt)
    layout, alpha = pixel_formats.layout_of(pix_fmt), pixel_formats.alpha_of(pix_fmt)
    parts = [*layout.components, *([alpha] if alpha else [])]
    for part in parts:
        view = pixel_formats.view_of(picture, part, layout.dtype)
        view[...] = rng.integers(0, 1 << layout.depth, view.shape).astype(layout.dtype) << layout.shift
    base = frame(np.zeros((2, 2, 3), np.uint8))
    source = replace(base, picture=picture, view=View(33, 21), chroma_site=(0.5, 0.5))
    large = enlarge(source, 2, reformatter)
    assert (large.picture.width, large.picture.height, large.picture.format.name) == (66, 42, pix_fmt)
    for part in parts:
        small = pixel_formats.view_of(picture, part, layout.dtype) >> layout.shift
        whole = cv2.resize(small, None, fx=2, fy=2, interpolation=cv2.INTER_LANCZOS4)
        view = pixel_formats.view_of(large.picture, part, layout.dtype)
        expected = np.minimum(whole, (1 << layout.depth) - 1)[: view.shape[0], : view.shape[1]]
        np.testing.assert_array_equal(view, expected << layout.shift)


def decoded(path):
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


@pytest.mark.parametrize(
    ("pix_fmt", "size", "factor"),
    [("yuv420p", (96, 80), 2), ("yuv420p", (97, 81), 3), ("yuv420p10le", (96, 64), 4), ("bgr0", (64, 48), 2)],
)  # fmt: skip
def test_a_video_without_faces_is_its_planes_enlarged(tmp_path, pix_fmt, size, factor):
    source = make(tmp_path / "in.mkv", codec="ffv1", options={}, pix_fmt=pix_fmt, size=size, frames=3)
    outcome = restore_file(source, tmp_path / "out.mkv", settings(factor))
    layout = pixel_formats.layout_of(pix_fmt)
    top = (1 << layout.depth) - 1
    for old, new in zip(decoded(source), decoded(outcome.path), strict=True):
        assert (new.width, new.height, new.format.name) == (size[0] * factor, size[1] * factor, pix_fmt)
        assert new.time == old.time
        for i, part in enumerate(layout.components):
            small, large = pixel_formats.view(old, layout, i), pixel_formats.view(new, layout, i)
            centres = (0.25 if part.log2_w else 0.5), 0.5
            expected = resample.enlarge(small, factor, centres, large.shape[::-1], top)
            np.testing.assert_array_equal(large, expected)


def test_tags_hdr_data_rotation_and_aspect_go_along(tmp_path):
    hdr = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
    source = make(
        tmp_path / "in.mp4", codec="libx264", pix_fmt="yuv420p10le", matrix=9, transfer=16, primaries=9,
        options={"preset": "veryfast", "x264-params": f"mastering-display={hdr}:cll=1000,400"},
        chroma_location="topleft", rotation=90, sar=Fraction(4, 3), frames=4,
    )  # fmt: skip
    outcome = restore_file(source, tmp_path / "out.mp4", settings(2, "encode.crf=20"))
    old, new = probe(source), probe(outcome.path)
    assert old.view.turn != ((1, 0), (0, 1)) and len(old.mastering_display) >= 88
    assert new.view == old.view.enlarged(2)
    for name in (
        "colour",
        "chroma_location",
        "mastering_display",
        "content_light",
        "display_matrix",
        "pix_fmt",
    ):
        assert getattr(new, name) == getattr(old, name), name


def test_a_matrix_that_players_took_by_the_size_is_stated(tmp_path):
    source = make(tmp_path / "in.mp4", size=(320, 300), frames=2)
    outcome = restore_file(source, tmp_path / "out.mp4", settings(2, "encode.crf=20"))
    old, new = probe(source), probe(outcome.path)
    assert (old.colour.matrix, new.colour.matrix) == (2, 6)
    assert old.colour.weights(320, 300) == new.colour.weights(640, 600)
    assert Colour(2, 2, 2, False).enlarged((1280, 720), (2560, 1440)).matrix == 2


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A noisy portrait in a noisy scene, RGB; and its path."""
    rng = np.random.default_rng(0)
    canvas = np.full((301, 401, 3), 90.0)
    canvas[60:240, 110:290] = face_picture(180)
    canvas = cv2.GaussianBlur(canvas, (0, 0), 1.0) + rng.normal(0, 8, canvas.shape)
    path = tmp_path_factory.mktemp("scene") / "scene.png"
    Image.fromarray(np.uint8(np.clip(canvas, 0, 255))).save(path)
    return np.asarray(Image.open(path)), path


@pytest.fixture(scope="module")
def results(scene, tmp_path_factory):
    """The scene restored at 1, 2 and 3 times its size, f32."""
    folder = tmp_path_factory.mktemp("results")
    outcomes = {n: restore_file(scene[1], folder / f"{n}.png", settings(n)) for n in (1, 2, 3)}
    assert all(outcome.report["faces_restored"] == 1 for outcome in outcomes.values())
    return {n: np.asarray(Image.open(outcome.path)).astype(np.float32) for n, outcome in outcomes.items()}


def changed(before, after):
    """Box (x0, y0, x1, y1) around the pixels that differ."""
    rows, columns = np.nonzero((before != after).any(axis=2))
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


@pytest.mark.parametrize("factor", [2, 3])
def test_outside_the_mask_a_picture_is_lanczos_to_the_bit(scene, results, factor):
    whole = cv2.resize(scene[0], None, fx=factor, fy=factor, interpolation=cv2.INTER_LANCZOS4)
    assert results[factor].shape == whole.shape
    small = changed(scene[0], results[1])
    assert np.abs(changed(whole, results[factor]) / factor - small).max() <= 2


@pytest.mark.parametrize("factor", [2, 3])
def test_the_restored_face_lies_where_it_lay_to_a_fraction_of_a_pixel(results, factor):
    one = results[1]
    small = cv2.resize(results[factor], (401, 301), interpolation=cv2.INTER_AREA)
    parts = [cv2.GaussianBlur(i.mean(axis=2), (0, 0), 1)[70:230, 120:280].astype(float) for i in (one, small)]
    window = cv2.createHanningWindow((160, 160), cv2.CV_64F)
    shift, _ = cv2.phaseCorrelate(*parts, window)
    assert np.hypot(*shift) < 0.05
    assert np.abs(parts[0] - parts[1]).mean() < 0.5


def test_a_real_videos_frames_are_lanczos_but_for_the_faces(portrait):
    """No encoder is used, so that every bit can be compared."""
    options = Options(duration_s=0.3)
    works = [list(restored_frames(portrait, settings(n), options=options)) for n in (1, 2)]
    assert len(works[0]) == len(works[1]) > 5
    for small, large, raw in zip(*works, decoded(portrait), strict=False):
        (face,), (same,) = small.faces, large.faces
        np.testing.assert_allclose(same.landmarks, 2 * face.landmarks, rtol=1e-6)
        before = pixel_formats.view(raw, small.frame.layout, 0)
        one, two = (pixel_formats.view(work.frame.picture, work.frame.layout, 0) for work in (small, large))
        whole = cv2.resize(before, None, fx=2, fy=2, interpolation=cv2.INTER_LANCZOS4)
        boxes = [changed(*(i[..., None] for i in pair)) for pair in ((before, one), (whole, two))]
        assert np.abs(boxes[0] - boxes[1] / 2).max() <= 2
        assert large.frame.time == small.frame.time


def test_a_face_that_is_restored_in_part_is_so_in_an_enlarged_frame_too(portrait):
    (work, *_) = restored_frames(portrait, settings(1), options=Options(duration_s=0.1))
    to_stored = np.array([[0.8, 0, 200], [0, 0.8, 100]])
    image = cut(work.frame, to_stored, 256)
    wanted = np.random.default_rng(0).random(image.shape, np.float32)
    crop = Crop(None, image, to_stored, work.frame.view)
    stage = UpscaleStage(2, cut)
    stage.open()
    for weight in (1.0, 0.4):
        patch = Patch(crop, (wanted - image) * np.float32(weight), weight=weight)
        (large,) = stage.process(FrameWork(work.frame, patches=(patch,)))
        (found,) = large.patches
        assert np.abs(found.crop.image - image).max() > 1e-3, "another crop"
        np.testing.assert_allclose(found.crop.image + found.residual / weight, wanted, atol=1e-4)


def test_no_strength_leaves_lanczos_in_the_face_too(tmp_path, scene):
    outcome = restore_file(scene[1], tmp_path / "out.png", settings(2, "restore.strength=0.0"))
    whole = cv2.resize(scene[0], None, fx=2, fy=2, interpolation=cv2.INTER_LANCZOS4)
    np.testing.assert_array_equal(np.asarray(Image.open(outcome.path)), whole)


def test_interlaced_video_is_refused(tmp_path):
    source = make(tmp_path / "in.mp4", interlaced="tt", frames=3)
    with pytest.raises(SourceError, match=r"interlaced.*deinterlace"):
        restore_file(source, tmp_path / "out.mp4", settings(2))


@pytest.mark.parametrize(
    ("codec", "good", "bad"),
    [
        ("h264", (8192, 4352), (9000, 5000)),
        ("hevc", (8192, 4352), (17000, 99)),
        ("av1", (8192, 4352), (99, 9000)),
    ],
)
def test_pictures_that_no_level_allows_are_refused(tmp_path, codec, good, bad):
    info = replace(probe(make(tmp_path / "in.mp4", frames=1)), codec=codec)
    plan = codecs.recipe(info, Encode())
    codecs.check_size(replace(info, view=View(*good)), plan)
    with pytest.raises(EncodeError, match=f"{bad[0]}x{bad[1]}.*{codec}.*--upscale"):
        codecs.check_size(replace(info, view=View(*bad)), plan)


def test_an_encoder_of_fixed_sizes_says_so(tmp_path):
    source = make(tmp_path / "in.avi", codec="dvvideo", options={}, size=(720, 576), frames=2)
    with pytest.raises(EncodeError, match=r"dvvideo failed.*smaller --upscale"):
        restore_file(source, tmp_path / "out.avi", settings(2))
    assert not list(tmp_path.glob("*out*"))


def test_the_switch(tmp_path, run_cli, scene):
    result = run_cli("restore", scene[1], tmp_path / "out.png", "--upscale", 2)
    assert result.returncode == 0, result.stderr
    assert Image.open(tmp_path / "out.png").size == (802, 602)
    result = run_cli("restore", scene[1], tmp_path / "other.png", "--upscale", 5)
    assert (
        result.returncode == 2
        and result.stderr.count("\n") == 1
        and "less than or equal to 4" in result.stderr
    )


def compact(path, scale=2):
    """Random weights of Real-ESRGAN's compact network, under the key of its own scripts.

    All pixels that one pixel becomes have equal weights; otherwise the picture would be a chequerboard.
    """
    torch.manual_seed(0)
    shapes = {
        "body.0.weight": (16, 3, 3, 3), "body.0.bias": (16,), "body.1.weight": (16,),
        "body.2.weight": (16, 16, 3, 3), "body.2.bias": (16,), "body.3.weight": (16,),
    }  # fmt: skip
    state = {name: torch.randn(*shape) * 0.08 for name, shape in shapes.items()}
    last = torch.randn(3, 16, 3, 3) * 0.08
    state["body.4.weight"] = last.repeat_interleave(scale * scale, dim=0)
    state["body.4.bias"] = torch.full((3 * scale * scale,), 0.05)
    CompactArch().load(state)
    torch.save({"params": state}, path)
    return path


def esrgan(path):
    """Random weights of an ESRGAN network of one block, 4 times."""
    torch.manual_seed(0)
    shapes = {"model.0": (3, 16), "model.1.sub.1": (16, 16), "model.3": (16, 16), "model.6": (16, 16),
              "model.8": (16, 16), "model.10": (16, 3)}  # fmt: skip
    for dense in (1, 2, 3):
        block = f"model.1.sub.0.RDB{dense}.conv"
        shapes |= {f"{block}{i}.0": (16 + 32 * (i - 1), 32 if i < 5 else 16) for i in (1, 2, 3, 4, 5)}
    state = {}
    for name, (inputs, outputs) in shapes.items():
        state[f"{name}.weight"] = torch.randn(outputs, inputs, 3, 3) * 0.05
        state[f"{name}.bias"] = torch.randn(outputs) * 0.05
    ESRGANArch().load(state)
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def photo():
    """A photo, f32[130,150,3]."""
    return face_picture(150)[:130].astype(np.float32) / 255


@pytest.mark.parametrize("make_weights", [compact, esrgan])
def test_tiles_leave_no_seam(tmp_path, photo, make_weights, monkeypatch):
    net = Upscaler(make_weights(tmp_path / "net.pth"), device="cpu", threads=2)
    whole = net(photo)
    assert whole.shape == (130 * net.scale, 150 * net.scale, 3) and whole.std() > 0.02
    monkeypatch.setattr(upscaler, "TILE", 112)
    assert len(upscaler.spans(130)) == 2
    np.testing.assert_allclose(net(photo), whole, atol=2e-4)


def test_every_pixel_lies_in_a_tile():
    for length in (1, 40, 319, 320, 321, 576, 577, 1080, 4000):
        parts = upscaler.spans(length)
        assert parts[0][0] == 0 and parts[-1][1] == length
        overlaps = [end - start for (_, end), (start, _) in pairwise(parts)]
        assert all(end - start <= upscaler.TILE for start, end in parts) and all(o >= 64 for o in overlaps)


def test_a_network_paints_the_background_and_the_face_stays_the_restored_one(tmp_path, scene, results):
    weights = compact(tmp_path / "net.pth", scale=4)
    outcome = restore_file(scene[1], tmp_path / "out.png", settings(2, f"compose.upscale_weights={weights}"))
    painted = np.asarray(Image.open(outcome.path)).astype(np.float32)
    made = Upscaler(weights, device="cpu")(scene[0].astype(np.float32) / 255)
    made = cv2.resize(made, (802, 602), interpolation=cv2.INTER_AREA) * 255
    assert np.abs(painted - made)[:100].max() <= 1, "the background is the network's"
    face = (
        slice(240, 400),
        slice(330, 470),
    )  # where the mask is 1; detail finer than the crop is not removed
    lanczos_face, own_face, network_face = (
        cv2.GaussianBlur(i, (0, 0), 2)[face] for i in (results[2], painted, made)
    )
    assert np.abs(network_face - lanczos_face).mean() > 4 > 1 > np.abs(own_face - lanczos_face).mean()


def test_what_is_no_upscaler_is_refused_in_one_line(tmp_path):
    torch.save({"a": torch.zeros(3)}, tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    compact(tmp_path / "one.pth", scale=1)
    for name, reason in {
        "other.pth": "no network that spandrel knows",
        "text.pth": "not a file of weights",
        "text.safetensors": "not a file of weights",
        "one.pth": "does not enlarge RGB",
    }.items():
        with pytest.raises(ModelError, match=reason) as error:
            Upscaler(tmp_path / name)
        assert name in str(error.value) and "\n" not in str(error.value)
    assert background_net(Compose(), "cpu", 1) is None
    with pytest.raises(ModelError, match=r"none\.pth: no such file"):
        background_net(Compose(upscale_weights=str(tmp_path / "none.pth")), "cpu", 1)


def test_without_spandrel_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "spandrel", None)
    with pytest.raises(ModelError, match=r"gpen-stream\[upscale\]"):
        Upscaler(tmp_path / "net.pth")
