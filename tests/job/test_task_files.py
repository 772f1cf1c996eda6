"""Every task on real files: pictures and videos, aligned or not, by the API and by the command."""

from __future__ import annotations

import threading
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from small_models import BLUE, SKIN, UNCHECKED, hole_mask, picture, read, settings, write_model, write_models

from stream import Options, restore_file
from stream.cli import main
from stream.errors import EncodeError, SourceError
from stream.faces.restore import tasks
from stream.faces.restore.tasks import EDGE
from stream.job.folder import restore_folder
from stream.models.nets.loader import load_generator
from stream.picture import pixel_formats


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return write_models(tmp_path_factory.mktemp("models"))


def restored(src, dst, config, **options):
    return restore_file(src, dst, config, options=Options(**options))


def lightness(rgb_u8) -> np.ndarray:
    """L* by OpenCV's own formula."""
    rgb = np.atleast_3d(rgb_u8)
    rgb = np.repeat(rgb, 3, axis=2) if rgb.shape[2] == 1 else rgb
    return cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[..., 0]


@pytest.fixture(scope="module")
def portrait_frames(portrait):
    """Four pictures of one face, 640x480."""
    with av.open(str(portrait)) as container:
        return [f for _, f in zip(range(4), container.decode(video=0), strict=False)]


@pytest.fixture(scope="module")
def portrait_frame(portrait_frames) -> np.ndarray:
    return portrait_frames[0].to_ndarray(format="rgb24")


def write_video(path, pictures, pix_fmt) -> Path:
    """Write pictures as a lossless video at 25 fps."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = pictures[0].width, pictures[0].height, pix_fmt
        for index, given in enumerate(pictures):
            given = given.reformat(format=pix_fmt)
            given.pts, given.time_base, given.pict_type = index, Fraction(1, 25), 0
            output.mux(stream.encode(given))
        output.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def grey_video(portrait_frames, tmp_path_factory):
    folder = tmp_path_factory.mktemp("grey")
    return lambda pix_fmt: write_video(folder / f"{pix_fmt}.mkv", portrait_frames, pix_fmt)


@pytest.fixture(scope="module")
def struck_video(portrait_frames, tmp_path_factory):
    """A magenta stroke over the face of a 4:2:0 video, and its mask."""
    folder = tmp_path_factory.mktemp("struck")
    pictures = [frame.to_ndarray(format="rgb24") for frame in portrait_frames]
    mask = np.zeros(pictures[0].shape[:2], np.uint8)
    cv2.line(mask, (0, 115), (640, 180), 255, 9)
    for rgb in pictures:
        rgb[mask > 0] = (255, 0, 255)
    Image.fromarray(mask).save(folder / "mask.png")
    pictures = [av.VideoFrame.from_ndarray(rgb) for rgb in pictures]
    return write_video(folder / "in.mkv", pictures, "yuv420p"), folder / "mask.png"


def frames(path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_a_grey_picture_comes_out_in_colour_with_its_own_lightness(suffix, models, tmp_path):
    src, dst = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    picture(src, channels=1)
    before = read(src)
    outcome = restored(src, dst, settings(models, "colorize"), aligned=True)
    after = read(dst)
    assert after.shape == (64, 64, 3) and before.shape[2:] in ((), (3,))
    assert (after[..., 0].astype(int) - after[..., 2]).mean() > 30, "skin is more red than blue"
    exact = suffix in (".png", ".tif")
    assert np.abs(lightness(after) - lightness(before)).max() < (0.7 if exact else 9)
    if before.ndim == 2:
        assert any("is grey; the result is in colour" in note for note in outcome.notes)


def test_transparency_and_16_bits_stay_and_a_profile_for_grey_goes(models, tmp_path):
    grey, folder = picture(tmp_path / "l.png", channels=1), tmp_path / "in"
    folder.mkdir()
    alpha = (np.arange(4096).reshape(64, 64) >> 4).astype(np.uint8)
    Image.fromarray(np.dstack([grey, alpha])).save(folder / "la.png")
    profile = b"\0" * 16 + b"GRAY" + b"\0" * 108
    Image.fromarray(grey).save(folder / "icc.png", icc_profile=profile, dpi=(300, 300))
    Image.fromarray(grey).save(folder / "icc.jpg", icc_profile=profile, quality=97, comment="mine")
    cv2.imwrite(str(folder / "deep.png"), grey.astype(np.uint16) * 257)
    config, out = settings(models, "colorize"), tmp_path / "out"
    (outcome,) = restore_folder(folder, out, config, options=Options(aligned=True), stop=threading.Event())
    assert not outcome.failures and len(outcome.notes) == 4
    assert read(out / "la.png").shape == (64, 64, 4)
    np.testing.assert_array_equal(read(out / "la.png")[..., 3], alpha)
    for name in ("icc.png", "icc.jpg"):
        with Image.open(out / name) as image:
            assert image.mode == "RGB" and "icc_profile" not in image.info, name
    with Image.open(out / "icc.png") as image:
        assert round(image.info["dpi"][0]) == 300
    with Image.open(folder / "icc.jpg") as old, Image.open(out / "icc.jpg") as new:
        assert new.quantization[0] == old.quantization[0], "as good as it was"
        assert b"mine" in (out / "icc.jpg").read_bytes()
    deep = cv2.imread(str(out / "deep.png"), cv2.IMREAD_UNCHANGED)
    assert deep.dtype == np.uint16 and deep.shape == (64, 64, 3) and (deep % 257 != 0).any()


def test_only_the_faces_of_a_grey_picture_get_colour(models, tmp_path, portrait_frame):
    grey = cv2.cvtColor(portrait_frame, cv2.COLOR_RGB2GRAY)
    Image.fromarray(grey).save(tmp_path / "in.png")
    outcome = restored(tmp_path / "in.png", tmp_path / "out.png", settings(models, "colorize"))
    after = read(tmp_path / "out.png")
    assert outcome.report["faces_restored"] == 1
    changed = (after != grey[..., None]).any(axis=2)
    assert 0.02 < changed.mean() < 0.4 and (np.ptp(after[changed].astype(int), axis=1) > 0).mean() > 0.9
    apart = np.abs(lightness(after) - lightness(grey))
    assert apart.mean() < 0.3 and np.quantile(apart, 0.99) < 1


@pytest.mark.parametrize("pix_fmt", ["gray", "gray10le"])
def test_a_grey_video_comes_out_in_colour_and_its_luma_stays_where_no_face_is(
    pix_fmt, models, tmp_path, grey_video
):
    src, dst = grey_video(pix_fmt), tmp_path / "out.mkv"
    outcome = restored(src, dst, settings(models, "colorize"))
    assert outcome.notes == (f"{src}: is grey; the result is in colour (yuv420p{pix_fmt[4:]})",)
    before, after = frames(src), frames(dst)
    assert len(before) == len(after) == 4 and outcome.report["faces_restored"] == 4
    for old, new in zip(before, after, strict=True):
        layout = pixel_formats.layout_of(new.format.name)
        assert (layout.kind, layout.depth) == ("yuv", int(pix_fmt[4:6] or 8)) and new.color_range == 2
        luma, red = (
            pixel_formats.view(new, layout, 0).astype(int),
            pixel_formats.view(new, layout, 2).astype(int),
        )
        grey = pixel_formats.view(old, pixel_formats.layout_of(old.format.name), 0).astype(int)
        middle = 1 << (layout.depth - 1)
        assert (red - middle).max() > middle // 8, "skin has red in it"
        far = np.kron(red == middle, np.ones((2, 2), bool))[: luma.shape[0], : luma.shape[1]]
        assert far.mean() > 0.6 and (luma != grey)[far].mean() < 0.002


def test_a_video_of_one_colour_format_may_be_colourised_aligned(models, tmp_path, grey_video):
    config = settings(models, "colorize")
    outcome = restored(grey_video("gray"), tmp_path / "out.mkv", config, aligned=True, duration_s=0.08)
    image = frames(tmp_path / "out.mkv")[0].to_ndarray(format="rgb24").astype(int)
    assert outcome.report["faces_restored"] == 2
    mid = (image.mean(axis=2) > 60) & (image.mean(axis=2) < 190)
    assert ((image[..., 0] - image[..., 2])[mid] > 10).mean() > 0.95


def test_an_encoder_of_grey_alone_is_refused_before_any_work(models, tmp_path, grey_video):
    config = settings(models, "colorize", "encode.codec=pgm")
    with pytest.raises(EncodeError, match=r"encode\.codec: pgm holds grey only.*leave it out"):
        restored(grey_video("gray"), tmp_path / "out.mkv", config)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("hole", ["mask", "key"])
def test_an_aligned_picture_is_filled_in_the_hole_and_keeps_every_other_bit(hole, models, tmp_path):
    image = picture(tmp_path / "in.png")
    image[hole_mask() > 0] = (0, 255, 0)
    Image.fromarray(image).save(tmp_path / "in.png")
    Image.fromarray(hole_mask()).save(tmp_path / "mask.png")
    how = {"mask": f"restore.inpaint_mask={tmp_path / 'mask.png'}", "key": "restore.inpaint_key=00ff00"}
    config = settings(models, "inpaint", how[hole])
    restored(tmp_path / "in.png", tmp_path / "out.png", config, aligned=True)
    after = read(tmp_path / "out.png").astype(int)
    away = cv2.distanceTransform((hole_mask() == 0).astype(np.uint8), cv2.DIST_L2, 5)
    beyond = away > EDGE + 1 + (tasks.KEY_MARGIN if hole == "key" else 0)
    assert np.abs(after[away == 0] - np.array(BLUE) * 255).max() <= 1
    np.testing.assert_array_equal(after[beyond], image[beyond])
    assert (after != image)[~beyond & (away > 1)].any(), "the edge is soft"


def test_what_the_network_sees_in_a_hole_is_white(models, tmp_path):
    """The network's output is its input."""
    picture(tmp_path / "in.png")
    Image.fromarray(hole_mask()).save(tmp_path / "mask.png")
    config = settings(models, "echo", f"restore.inpaint_mask={tmp_path / 'mask.png'}")
    restored(tmp_path / "in.png", tmp_path / "out.png", config, aligned=True)
    after = read(tmp_path / "out.png")
    assert (after[hole_mask() > 0] == 255).all() and after.min() < 100


@pytest.mark.parametrize("enlarged", [0.5, 1, 3])
def test_a_stroke_over_a_face_leaves_no_trace_however_large_the_face(
    enlarged, models, tmp_path, portrait_frame
):
    """The stroke has finer detail than the crop can hold; none of it may be left."""
    big = cv2.resize(portrait_frame, None, fx=enlarged, fy=enlarged, interpolation=cv2.INTER_CUBIC)
    mask = np.zeros(big.shape[:2], np.uint8)
    height, width = mask.shape
    cv2.line(mask, (0, int(height * 0.32)), (width, int(height * 0.5)), 255, max(3, round(8 * enlarged)))
    noise = np.random.default_rng(0).integers(0, 2, big.shape).astype(np.uint8) * 255
    big = np.where(mask[..., None] > 0, noise, big)
    Image.fromarray(big).save(tmp_path / "in.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    config = settings(models, "inpaint", f"restore.inpaint_mask={tmp_path / 'mask.png'}")
    outcome = restored(tmp_path / "in.png", tmp_path / "out.png", config)
    after = read(tmp_path / "out.png").astype(int)
    assert outcome.report["faces_restored"] == 1
    changed = (after != big).any(axis=2)
    away = cv2.distanceTransform((mask == 0).astype(np.uint8), cv2.DIST_L2, 5)
    assert changed[mask > 0].any() and away[changed].max() <= (EDGE + 3) * max(1, 4 * enlarged)
    xs = np.nonzero((changed & (mask > 0)).any(axis=0))[0]
    margin = (xs.max() - xs.min()) // 8
    inner = (mask > 0) & (np.arange(width) > xs.min() + margin) & (np.arange(width) < xs.max() - margin)
    assert np.abs(after[inner] - np.array(BLUE) * 255).max() <= 2


def test_a_stroke_in_a_420_video_is_filled_too(models, tmp_path, struck_video):
    src, mask = struck_video
    config = settings(models, "inpaint", f"restore.inpaint_mask={mask}", "encode.codec=ffv1")
    outcome = restored(src, tmp_path / "out.mkv", config)
    assert outcome.report["faces_restored"] == 4
    hole = cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE) > 0
    away = cv2.distanceTransform((~hole).astype(np.uint8), cv2.DIST_L2, 5)
    for old, new in zip(frames(src), frames(tmp_path / "out.mkv"), strict=True):
        a, b = (pixel_formats.view(f, pixel_formats.layout_of("yuv420p"), 0).astype(int) for f in (old, new))
        changed = a != b
        assert away[changed].max() < 24
        seen = new.to_ndarray(format="rgb24").astype(int)
        columns = np.nonzero((changed & hole).any(axis=0))[0]
        low, high = columns.min() + 16, columns.max() - 16
        filled = seen[:, low:high][hole[:, low:high]]
        assert np.abs(filled - np.array(BLUE) * 255).max() <= 6


def test_a_mask_of_another_size_is_refused_and_a_folder_goes_on_without_that_picture(models, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    picture(folder / "fits.png")
    picture(folder / "wide.png", size=80)
    Image.fromarray(hole_mask()).save(tmp_path / "mask.png")
    config = settings(models, "inpaint", f"restore.inpaint_mask={tmp_path / 'mask.png'}")
    with pytest.raises(SourceError, match=r"mask\.png: is 64x64, but .*wide\.png is 80x80 upright; make"):
        restored(folder / "wide.png", tmp_path / "out.png", config, aligned=True)
    out = tmp_path / "out"
    (outcome,) = restore_folder(folder, out, config, options=Options(aligned=True), stop=threading.Event())
    assert [path.name for path in out.iterdir()] == ["fits.png"] and len(outcome.failures) == 1


def test_a_mask_of_another_size_than_the_video_is_refused_before_any_work(models, tmp_path, portrait):
    Image.fromarray(hole_mask()).save(tmp_path / "mask.png")
    config = settings(models, "inpaint", f"restore.inpaint_mask={tmp_path / 'mask.png'}")
    with pytest.raises(SourceError, match=r"is 64x64, but .*portrait\.mp4 is 640x480 upright"):
        restored(portrait, tmp_path / "out.mp4", config)
    assert not (tmp_path / "out.mp4").exists()


def test_a_label_map_reaches_the_network_in_0_to_1_and_its_face_takes_its_place(models, tmp_path):
    """The network's output is its input, read as -1..1: x in 0..1 becomes (x + 1) / 2."""
    image = picture(tmp_path / "in.png")
    restored(tmp_path / "in.png", tmp_path / "out.png", settings(models, "segment"), aligned=True)
    assert np.abs(read(tmp_path / "out.png") - (image / 2 + 127.5)).max() <= 1


def test_nothing_is_left_of_a_label_map_that_is_larger_than_the_network(models, tmp_path):
    write_model(tmp_path / "flat.safetensors", "segment", answer=SKIN)
    labels = np.random.default_rng(0).integers(0, 2, (256, 256, 3)).astype(np.uint8) * 255
    Image.fromarray(labels).save(tmp_path / "in.png")
    restored(tmp_path / "in.png", tmp_path / "out.png", settings(tmp_path, "flat"), aligned=True)
    assert np.abs(read(tmp_path / "out.png") - np.array(SKIN) * 255).max() <= 1


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_the_sr_variants_output_is_as_large_as_the_model_says(engine, models, tmp_path):
    """Compared with its own network on the mean of each 2x2 block."""
    image = picture(tmp_path / "in.png")
    restored(tmp_path / "in.png", tmp_path / "out.png", settings(models, "sr", engine=engine), aligned=True)
    after = read(tmp_path / "out.png")
    net, info = load_generator(models / "sr.safetensors")
    assert (info.in_size, info.size) == (32, 64)
    small = image.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3)).astype(np.float32) / 255
    with torch.inference_mode():
        answer = net(torch.from_numpy(small).permute(2, 0, 1)[None] * 2 - 1)[0].permute(1, 2, 0).numpy()
    expected = np.clip(answer / 2 + 0.5, 0, 1) * 255
    assert after.shape == (64, 64, 3) and np.abs(after - expected).max() <= 1.01
    assert after.std() > 1, "random weights give more than one colour"


def test_the_sr_variant_restores_the_faces_of_a_video(models, tmp_path, struck_video):
    src, _ = struck_video
    outcome = restored(src, tmp_path / "out.mkv", settings(models, "sr", "encode.codec=ffv1"))
    assert outcome.report["faces_restored"] == 4 and outcome.report["faces_not_finite"] == 0
    for old, new in zip(frames(src), frames(tmp_path / "out.mkv"), strict=True):
        changed = (old.to_ndarray() != new.to_ndarray()).mean()
        assert 0.005 < changed < 0.4


def test_no_strength_no_change_whatever_the_task(models, tmp_path):
    picture(tmp_path / "in.png")
    before = read(tmp_path / "in.png")
    for name, more in (("colorize", ()), ("segment", ()), ("inpaint", ("restore.inpaint_key='808080'",))):
        config = settings(models, name, "restore.strength=0", *more)
        restored(tmp_path / "in.png", tmp_path / "out.png", config, aligned=True, overwrite=True)
        np.testing.assert_array_equal(read(tmp_path / "out.png"), before)


# --- the command ------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs `gpen-stream` in this process, in `tmp_path`: its exit code and what it said on stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["gpen-stream", *arguments])
        with pytest.raises(SystemExit) as ended:
            main.main()
        return ended.value.code, capsys.readouterr().err

    return run


COMMANDS = {
    "restore": "in.png out.png --aligned --task restore --strength 0.5",
    "sr": "in.png out.png --aligned",
    "colorize": "in.png out.png --aligned --task colorize",
    "inpaint": "in.png out.png --aligned --task inpaint --inpaint-key 102030",
    "inpaint ": "in.png out.png --aligned --inpaint-mask mask.png",
    "segment": "in.png out.png --aligned --task segment",
}


@pytest.mark.parametrize("case", COMMANDS)
def test_every_task_has_its_switches(case, models, tmp_path, command):
    image = picture(tmp_path / "in.png")
    image[hole_mask() > 0] = (0x10, 0x20, 0x30)
    Image.fromarray(image).save(tmp_path / "in.png")
    Image.fromarray(hole_mask()).save(tmp_path / "mask.png")
    ours = [f"restore.model={models / case.strip()}.safetensors", "restore.engine=torch", *UNCHECKED]
    code, said = command("restore", *COMMANDS[case].split(), *(p for key in ours for p in ("--set", key)))
    assert code == 0 and said.startswith("out.png: 1 frames, 1 faces")
    assert (read(tmp_path / "out.png") != image).any()


REFUSED = {
    "in.png out.png --task colorize": [
        "restore.task colorize: gpen-lite-256 was trained to restore",
        "model",
    ],
    "in.png out.png --task paint": ["restore.task", "'auto', 'restore', 'colorize', 'inpaint' or 'segment'"],
    "in.png out.png --inpaint-key 00ff00": ["--inpaint-key: gpen-lite-256 was trained to restore"],
    "in.png out.png --inpaint-key green": ["restore.inpaint_key", "RRGGBB"],
    "in.png out.png --strength 1.5": ["restore.strength", "1.5"],
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_switches_that_do_not_fit_are_refused_in_one_line(arguments, tmp_path, command):
    picture(tmp_path / "in.png")
    code, said = command("restore", *arguments.split())
    assert code == 2 and len(said.strip().splitlines()) == 1
    assert all(part in said for part in REFUSED[arguments]), said
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]
