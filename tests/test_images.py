"""Still pictures: whatever is not a face goes out as it came in, with all that describes it."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps

from stream import Status, load_config, restore_file
from stream.api import restore_images
from stream.errors import EncodeError, SourceError
from stream.images import read_image

ORIENTATION, ICC = 274, 34675
MARGIN = 96
"""px of noise round the face, which no mask may touch."""


@pytest.fixture(scope="module")
def rgb(face):
    """u8[384,448,3]: a face off the middle, in a frame of noise that shows every change."""
    portrait = np.asarray(Image.open(face).convert("RGB"))
    noise = np.random.default_rng(1).integers(0, 256, (384, 448, 3), np.uint8)
    noise[48 : 48 + 288, 64 : 64 + 288] = portrait
    return noise


@pytest.fixture(scope="module")
def deep(rgb):
    """The same with 16 bits, whose lower ones carry something."""
    low = np.random.default_rng(2).integers(0, 256, rgb.shape, np.uint16)
    return rgb.astype(np.uint16) * 256 + low


@pytest.fixture(scope="module")
def alpha(rgb):
    return np.random.default_rng(3).integers(0, 256, rgb.shape[:2], np.uint8)


@pytest.fixture(scope="module")
def profile():
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def restored(src, dst, faces=1):
    outcome = restore_file(src, dst)
    assert outcome.status is Status.COMPLETE
    assert outcome.report["faces_restored"] == faces
    return dst


def only_the_face_changed(before, after):
    """True where the picture changed, but nowhere in the frame of noise."""
    assert before.shape == after.shape and before.dtype == after.dtype
    changed = (before != after).reshape(*before.shape[:2], -1).any(axis=2)
    frame = np.ones(changed.shape, bool)
    frame[32 : 32 + 320, 48 : 48 + 320] = False
    assert not changed[frame].any(), f"{changed[frame].sum()} px changed outside the face"
    return changed.any()


def deep_png(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_jpeg_keeps_its_tag_and_its_stored_orientation(orientation, rgb, tmp_path):
    turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # Image.Transpose that undoes the viewer's turn
    upright = Image.fromarray(rgb)
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(turn[orientation]))
    exif = Image.Exif()
    exif[ORIENTATION], exif[271] = orientation, "a maker"
    src = tmp_path / "in.jpg"
    stored.save(src, exif=exif, quality=97, subsampling=0)
    assert np.abs(np.asarray(ImageOps.exif_transpose(Image.open(src))).astype(int) - rgb).mean() < 6
    with Image.open(restored(src, tmp_path / "out.jpg")) as out:
        assert out.size == stored.size
        assert out.getexif()[ORIENTATION] == orientation and out.getexif()[271] == "a maker"
        before, after = np.asarray(Image.open(src)).astype(int), np.asarray(out).astype(int)
        difference = np.abs(after - before).max(axis=2)
    face = np.zeros(rgb.shape[:2], np.uint8)
    face[48 : 48 + 288, 64 : 64 + 288] = 1
    face = Image.fromarray(face)
    face = np.asarray(face if orientation == 1 else face.transpose(Image.Transpose(turn[orientation])))
    assert difference[face == 1].mean() > 2 * difference[face == 0].mean()


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 8])
def test_a_turned_tiff_keeps_its_tag_and_its_stored_orientation(orientation, bits, rgb, deep, tmp_path):
    turn = {1: 0, 3: 2, 5: None, 6: 1, 8: 3}[orientation]
    upright = rgb if bits == 8 else deep
    stored = upright.swapaxes(0, 1) if turn is None else np.rot90(upright, turn)
    src, dst = tmp_path / "in.tif", tmp_path / "out.tif"
    tags = [(ORIENTATION, 3, 1, orientation, True), (315, 2, 0, "an artist", True)]
    tifffile.imwrite(src, np.ascontiguousarray(stored), photometric="rgb", extratags=tags)
    restored(src, dst)
    with tifffile.TiffFile(dst) as file:
        tags, after = file.pages[0].tags, file.asarray()
        assert tags[ORIENTATION].value == orientation and tags[315].value == "an artist"
    after = after.swapaxes(0, 1) if turn is None else np.rot90(after, -turn)
    assert only_the_face_changed(upright, after)


@pytest.mark.parametrize("name", ["in.jpg", "in.png", "in.tif", "in.webp"])
def test_a_colour_profile_is_kept_to_the_byte(name, rgb, profile, tmp_path):
    src = tmp_path / name
    options = {"lossless": True} if name == "in.webp" else {"quality": 95} if name == "in.jpg" else {}
    Image.fromarray(rgb).save(src, icc_profile=profile, **options)
    with Image.open(restored(src, tmp_path / f"out{src.suffix}")) as out:
        assert out.info["icc_profile"] == profile
        if name != "in.jpg":
            assert only_the_face_changed(rgb, np.asarray(out))


@pytest.mark.parametrize("channels", [3, 4])
def test_a_16_bit_png_keeps_depth_profile_and_transparency(channels, deep, alpha, profile, tmp_path):
    pixels = deep[..., ::-1] if channels == 3 else np.dstack([deep[..., ::-1], alpha.astype(np.uint16) * 257 ^ 3])
    src = tmp_path / "in.png"
    cv2.imwriteWithMetadata(str(src), pixels, [cv2.IMAGE_METADATA_ICCP], [np.frombuffer(profile, np.uint8)])
    dst = restored(src, tmp_path / "out.png")
    after = deep_png(dst)
    assert after.dtype == np.uint16
    assert only_the_face_changed(pixels[..., :3], after[..., :3])
    assert (after[..., 3:] == pixels[..., 3:]).all()
    assert Image.open(dst).info["icc_profile"] == profile


def test_a_16_bit_tiff_keeps_depth_profile_and_transparency(deep, alpha, profile, tmp_path):
    pixels = np.dstack([deep, alpha.astype(np.uint16) * 257 ^ 3])
    src, dst = tmp_path / "in.tiff", tmp_path / "out.tiff"
    tag = [(ICC, 7, len(profile), profile, True)]
    tifffile.imwrite(src, pixels, photometric="rgb", extrasamples=["unassalpha"], extratags=tag, resolution=(300, 300))
    restored(src, dst)
    after = tifffile.imread(dst)
    assert only_the_face_changed(pixels[..., :3], after[..., :3])
    assert (after[..., 3] == pixels[..., 3]).all()
    with tifffile.TiffFile(dst) as file:
        assert bytes(file.pages[0].tags[ICC].value) == profile
        assert file.pages[0].tags["XResolution"].value == (300, 1)


@pytest.mark.parametrize("name", ["in.png", "in.tif", "in.webp"])
def test_transparency_is_kept_to_the_bit(name, rgb, alpha, tmp_path):
    src = tmp_path / name
    options = {"lossless": True, "exact": True} if name == "in.webp" else {}
    Image.fromarray(np.dstack([rgb, alpha])).save(src, **options)
    out = Image.open(restored(src, tmp_path / f"out{src.suffix}"))
    assert out.mode == "RGBA"
    after = np.asarray(out)
    assert (after[..., 3] == alpha).all()
    assert only_the_face_changed(rgb, after[..., :3])


@pytest.mark.parametrize("name", ["in.png", "in.tif"])
@pytest.mark.parametrize("bits", [8, 16])
def test_grey_stays_grey_and_keeps_its_depth(bits, name, deep, tmp_path):
    grey = deep.mean(axis=2).astype(np.uint16)
    grey = grey if bits == 16 else (grey >> 8).astype(np.uint8)
    src, dst = tmp_path / name, tmp_path / f"out{name[2:]}"
    cv2.imwrite(str(src), grey)
    restored(src, dst)
    after = cv2.imread(str(dst), cv2.IMREAD_UNCHANGED)
    assert after.ndim == 2
    assert only_the_face_changed(grey, after)


def test_grey_with_transparency_keeps_both(rgb, alpha, tmp_path):
    grey = np.asarray(Image.fromarray(rgb).convert("L"))
    src = tmp_path / "in.png"
    Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)]).save(src)
    out = Image.open(restored(src, tmp_path / "out.png"))
    assert out.mode == "LA"
    after = np.asarray(out)
    assert (after[..., 1] == alpha).all()
    assert only_the_face_changed(grey, after[..., 0])


def test_a_palette_becomes_colours_of_which_only_the_face_changes(rgb, tmp_path):
    src = tmp_path / "in.png"
    few = Image.fromarray(rgb).quantize(256)
    few.save(src)
    out = Image.open(restored(src, tmp_path / "out.png"))
    assert out.mode == "RGB"
    assert only_the_face_changed(np.asarray(few.convert("RGB")), np.asarray(out))


def test_a_colour_that_stands_for_transparent_becomes_real_transparency(rgb, tmp_path):
    src = tmp_path / "in.png"
    Image.fromarray(rgb).save(src, transparency=tuple(int(v) for v in rgb[0, 0]))
    out = Image.open(restored(src, tmp_path / "out.png")).convert("RGBA")
    after = np.asarray(out)
    assert after[0, 0, 3] == 0 and after[1:, 1:, 3].mean() > 254
    assert only_the_face_changed(rgb, after[..., :3])


def test_cmyk_comes_out_as_rgb_of_the_same_look_and_says_so(rgb, tmp_path):
    src = tmp_path / "in.jpg"
    Image.fromarray(rgb).convert("CMYK").save(src, quality=97, subsampling=0)
    outcome = restore_file(src, tmp_path / "out.jpg")
    assert any("CMYK" in note for note in outcome.notes)
    out = Image.open(outcome.path)
    assert out.mode == "RGB"
    expected = np.asarray(Image.open(src).convert("RGB")).astype(int)
    assert np.abs(np.asarray(out) - expected)[:, :40].mean() < 6


def test_a_jpeg_keeps_its_quantisation_subsampling_and_all_that_describes_it(face, tmp_path):
    src = tmp_path / "in.jpg"
    exif = Image.Exif()
    exif[306] = "2020:01:02 03:04:05"
    options = {"exif": exif, "comment": "mine", "dpi": (240, 240), "xmp": b"<x:xmpmeta/>"}
    Image.open(face).save(src, quality=61, subsampling=1, progressive=True, **options)
    with Image.open(src) as before, Image.open(restored(src, tmp_path / "out.jpg")) as after:
        assert after.quantization == before.quantization
        assert after.layer == before.layer  # sampling factors
        assert after.info["progressive"]
        assert after.info["dpi"] == before.info["dpi"]
        assert after.info["xmp"] == before.info["xmp"]
        assert after.getexif()[306] == exif[306]
        data = (tmp_path / "out.jpg").read_bytes()
    assert b"mine" in data and b"restored by gpen-stream" in data


def test_a_png_keeps_its_text_and_says_that_it_was_restored(rgb, tmp_path):
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("Title", "a title")
    text.add(b"gAMA", (45455).to_bytes(4, "big"))
    src = tmp_path / "in.png"
    Image.fromarray(rgb).save(src, pnginfo=text, dpi=(300, 300))
    out = Image.open(restored(src, tmp_path / "out.png"))
    out.load()
    assert out.text["Title"] == "a title" and "gpen-stream" in out.text["Comment"]
    assert out.info["gamma"] == pytest.approx(0.45455) and out.info["dpi"][0] == pytest.approx(300, abs=0.1)


def test_another_format_may_be_asked_for(rgb, profile, tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 1
    exif[271] = "a maker"
    src = tmp_path / "in.jpg"
    Image.fromarray(rgb).save(src, quality=95, icc_profile=profile, exif=exif)
    for name in ("out.png", "out.tif", "out.webp"):
        with Image.open(restored(src, tmp_path / name)) as out:
            assert out.info["icc_profile"] == profile and out.getexif()[271] == "a maker", name


def test_a_picture_without_a_face_keeps_every_pixel(rgb, tmp_path):
    src = tmp_path / "in.png"
    blank = np.full_like(rgb, 128)
    Image.fromarray(blank).save(src)
    assert (np.asarray(Image.open(restored(src, tmp_path / "out.png", faces=0))) == blank).all()


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (700, 4)])
def test_the_smallest_pictures_pass(size, tmp_path):
    src = tmp_path / "in.png"
    Image.new("RGB", size, (10, 20, 30)).save(src)
    assert Image.open(restored(src, tmp_path / "out.png", faces=0)).size == size


def two_pages(path):
    Image.new("RGB", (8, 8)).save(path, save_all=True, append_images=[Image.new("RGB", (8, 8), 255)])


def cut_short(path):
    file = io.BytesIO()
    Image.effect_noise((200, 200), 90).save(file, path.suffix[1:].replace("jpg", "jpeg"))
    path.write_bytes(file.getvalue()[: len(file.getvalue()) // 2])


REFUSED = {
    "empty.jpg": (lambda path: path.write_bytes(b""), "is empty"),
    "garbage.png": (lambda path: path.write_bytes(bytes(range(256)) * 20), "not a picture"),
    "cut.jpg": (cut_short, "is it whole"),
    "cut.png": (cut_short, "is it whole"),
    "cut.webp": (cut_short, "is it whole"),
    "pages.tif": (two_pages, "holds 2 pictures"),
    "float.tif": (lambda path: tifffile.imwrite(path, np.ones((9, 9), np.float32)), "32-bit"),
    "folder.png": (lambda path: path.mkdir(), "cannot be read"),
    "missing.png": (lambda path: None, "no such file"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_picture_that_cannot_be_read_is_refused_in_one_line_that_names_it(name, tmp_path):
    make, expected = REFUSED[name]
    make(tmp_path / name)
    with pytest.raises(SourceError) as caught:
        read_image(tmp_path / name)
    message = str(caught.value)
    assert name in message and expected in message and "\n" not in message


def test_a_destination_that_cannot_hold_the_picture_is_refused_and_nothing_is_left(deep, rgb, alpha, tmp_path):
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    Image.fromarray(np.dstack([rgb, alpha])).save(tmp_path / "alpha.png")
    for name, dst, reason in (("deep", "o.jpg", "16 bits"), ("alpha", "o.jpg", "transparency"), ("deep", "o.mp4", "mp4")):
        with pytest.raises(EncodeError, match=reason):
            restore_file(tmp_path / f"{name}.png", tmp_path / dst)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alpha.png", "deep.png"]


def test_one_picture_that_fails_does_not_keep_the_others_back(rgb, tmp_path):
    Image.fromarray(rgb).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no")
    jobs = [(tmp_path / "bad.png", tmp_path / "1.png"), (tmp_path / "good.png", tmp_path / "no" / "2.png")]
    jobs.append((tmp_path / "good.png", tmp_path / "3.png"))
    outcome = restore_images(jobs, load_config())
    assert [type(error) for error in outcome.failures] == [SourceError, EncodeError]
    assert (tmp_path / "3.png").exists() and not (tmp_path / "1.png").exists()
