"""Still pictures: everything except the face stays as it was, with all metadata."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps
from PIL.PngImagePlugin import PngInfo

from stream import Status, load_config, restore_file
from stream.errors import EncodeError, SourceError
from stream.job.api import restore_images
from stream.media.images import read_image

ORIENTATION, ICC = 274, 34675


@pytest.fixture(scope="module")
def rgb(face):
    """u8[384,448,3]: a face beside the middle, in a frame of noise that shows every change."""
    portrait = np.asarray(Image.open(face).convert("RGB"))
    noise = np.random.default_rng(1).integers(0, 256, (384, 448, 3), np.uint8)
    noise[48 : 48 + 288, 64 : 64 + 288] = portrait
    return noise


@pytest.fixture(scope="module")
def deep(rgb):
    """The same picture with 16 bits, whose lower bits are noise."""
    low = np.random.default_rng(2).integers(0, 256, rgb.shape, np.uint16)
    return rgb.astype(np.uint16) * 256 + low


@pytest.fixture(scope="module")
def alpha(rgb):
    return np.random.default_rng(3).integers(0, 256, rgb.shape[:2], np.uint8)


@pytest.fixture(scope="module")
def profile():
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def oriented(upright, orientation):
    """The stored pixels that a viewer with this orientation shows as `upright`."""
    if orientation in (5, 7):
        upright = upright[::-1, ::-1] if orientation == 7 else upright
        return upright.swapaxes(0, 1)
    upright = upright[:, ::-1] if orientation in (2, 4) else upright
    return np.rot90(upright, {3: 2, 4: 2, 6: 1, 8: 3}.get(orientation, 0))


def upright(stored, orientation):
    return oriented(stored, {6: 8, 8: 6}.get(orientation, orientation))


def save(pixels, path, **options):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.ascontiguousarray(pixels))
    image.save(path, **options)


def exif_of(**tags):
    exif = Image.Exif()
    for key, value in tags.items():
        exif[int(key[1:])] = value
    return exif


FINE = {"quality": 97, "subsampling": 0}
DESCRIBED_JPEG = {"comment": "mine", "dpi": (240, 240), "xmp": b"<x:xmpmeta/>", "progressive": True}


@pytest.fixture(scope="module")
def gallery(rgb, deep, alpha, profile, face, tmp_path_factory):
    """Pictures of every kind, restored as one batch: the folders before and after."""
    src, dst = tmp_path_factory.mktemp("in"), tmp_path_factory.mktemp("out")
    grey16 = deep.mean(axis=2).astype(np.uint16)
    grey8 = (grey16 >> 8).astype(np.uint8)
    alpha16 = alpha.astype(np.uint16) * 257 ^ 3
    icc_tag = (ICC, 7, len(profile), profile, True)
    for n in range(1, 9):
        save(oriented(rgb, n), src / f"turned{n}.jpg", exif=exif_of(_274=n, _271="a maker"), **FINE)
        tags = [(ORIENTATION, 3, 1, n, True), (315, 2, 0, "an artist", True)]
        for bits, pixels in ((8, rgb), (16, deep)):
            stored = np.ascontiguousarray(oriented(pixels, n))
            tifffile.imwrite(src / f"turned{n}-{bits}.tif", stored, photometric="rgb", extratags=tags)
    for name, options in (("jpg", FINE), ("png", {}), ("tif", {}), ("webp", {"lossless": True})):
        save(rgb, src / f"profile.{name}", icc_profile=profile, **options)
    for name, options in (("png", {}), ("tif", {}), ("webp", {"lossless": True, "exact": True})):
        save(np.dstack([rgb, alpha]), src / f"alpha.{name}", **options)
    icc = [cv2.IMAGE_METADATA_ICCP], [np.frombuffer(profile, np.uint8)]
    cv2.imwriteWithMetadata(str(src / "deep3.png"), deep, *icc)
    cv2.imwriteWithMetadata(str(src / "deep4.png"), np.dstack([deep, alpha16]), *icc)
    tifffile.imwrite(
        src / "deep4.tiff", np.dstack([deep, alpha16]), photometric="rgb", extrasamples=["unassalpha"],
        extratags=[icc_tag], resolution=(300, 300),
    )  # fmt: skip
    for name in ("png", "tif"):
        cv2.imwrite(str(src / f"grey8.{name}"), grey8)
        cv2.imwrite(str(src / f"grey16.{name}"), grey16)
    save(Image.merge("LA", [Image.fromarray(grey8), Image.fromarray(alpha)]), src / "la.png")
    save(Image.fromarray(rgb).quantize(256), src / "palette.png")
    save(rgb, src / "colourkey.png", transparency=tuple(int(v) for v in rgb[0, 0]))
    save(Image.fromarray(rgb).convert("CMYK"), src / "cmyk.jpg", **FINE)
    described = DESCRIBED_JPEG | {"exif": exif_of(_306="2020:01:02 03:04:05")}
    save(Image.open(face), src / "described.jpg", quality=61, subsampling=1, **described)
    text = PngInfo()
    text.add_text("Title", "a title")
    text.add(b"gAMA", (45455).to_bytes(4, "big"))
    save(rgb, src / "text.png", pnginfo=text, dpi=(300, 300))
    save(rgb, src / "plain.bmp")
    jobs = [(path, dst / path.name) for path in sorted(src.iterdir())]
    other = exif_of(_274=1, _271="a maker")
    save(rgb, src / "other.jpg", icc_profile=profile, exif=other, **FINE)
    jobs += [(src / "other.jpg", dst / f"other.{name}") for name in ("png", "tif", "webp")]
    outcome = restore_images(jobs, load_config(overrides=["restore.skip_sharp=1"]))  # this face is sharp
    assert not outcome.failures and outcome.status is Status.COMPLETE
    assert outcome.report["faces_restored"] == outcome.report["frames_out"] == len(jobs)
    assert any("cmyk.jpg" in note and "RGB" in note for note in outcome.notes)
    return src, dst


def only_the_face_changed(before, after):
    """Whether the picture changed. It must not have changed in the frame of noise."""
    assert before.shape == after.shape and before.dtype == after.dtype
    changed = (before != after).reshape(*before.shape[:2], -1).any(axis=2)
    frame = np.ones(changed.shape, bool)
    frame[32 : 32 + 320, 48 : 48 + 320] = False
    assert not changed[frame].any(), f"{changed[frame].sum()} px changed outside the face"
    return changed.any()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_jpeg_keeps_its_tag_and_its_stored_orientation(orientation, rgb, gallery):
    src, dst = (folder / f"turned{orientation}.jpg" for folder in gallery)
    seen = np.asarray(ImageOps.exif_transpose(Image.open(src))).astype(int)
    assert np.abs(seen - rgb).mean() < 6, "the test's own picture is turned wrongly"
    with Image.open(src) as before, Image.open(dst) as after:
        assert after.size == before.size
        assert after.getexif()[ORIENTATION] == orientation and after.getexif()[271] == "a maker"
        difference = np.abs(np.asarray(after).astype(int) - np.asarray(before)).max(axis=2)
    face = np.zeros(rgb.shape[:2], bool)
    face[96:288, 112:304] = True
    face = oriented(face, orientation)
    assert difference[face].mean() > 3 * difference[~face].mean()


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_tiff_keeps_its_tag_and_its_stored_orientation(orientation, bits, rgb, deep, gallery):
    with tifffile.TiffFile(gallery[1] / f"turned{orientation}-{bits}.tif") as file:
        tags, after = file.pages[0].tags, file.asarray()
        assert tags[ORIENTATION].value == orientation and tags[315].value == "an artist"
    assert only_the_face_changed(rgb if bits == 8 else deep, upright(after, orientation))


@pytest.mark.parametrize("name", ["jpg", "png", "tif", "webp"])
def test_a_colour_profile_is_kept_to_the_byte(name, rgb, profile, gallery):
    with Image.open(gallery[1] / f"profile.{name}") as out:
        assert out.info["icc_profile"] == profile
        assert name == "jpg" or only_the_face_changed(rgb, np.asarray(out))


@pytest.mark.parametrize("name", ["deep3.png", "deep4.png"])
def test_a_16_bit_png_keeps_depth_profile_and_transparency(name, profile, gallery):
    before, after = (cv2.imread(str(folder / name), cv2.IMREAD_UNCHANGED) for folder in gallery)
    assert after.dtype == np.uint16
    assert only_the_face_changed(before[..., :3], after[..., :3])
    assert (after[..., 3:] == before[..., 3:]).all()
    assert Image.open(gallery[1] / name).info["icc_profile"] == profile


def test_a_16_bit_tiff_keeps_depth_profile_density_and_transparency(profile, gallery):
    before, after = (tifffile.imread(folder / "deep4.tiff") for folder in gallery)
    assert only_the_face_changed(before[..., :3], after[..., :3])
    assert (after[..., 3] == before[..., 3]).all()
    with tifffile.TiffFile(gallery[1] / "deep4.tiff") as file:
        assert bytes(file.pages[0].tags[ICC].value) == profile
        assert file.pages[0].tags["XResolution"].value == (300, 1)


@pytest.mark.parametrize("name", ["png", "tif", "webp"])
def test_transparency_is_kept_to_the_bit(name, rgb, alpha, gallery):
    with Image.open(gallery[1] / f"alpha.{name}") as out:
        assert out.mode == "RGBA"
        after = np.asarray(out)
    assert (after[..., 3] == alpha).all()
    assert only_the_face_changed(rgb, after[..., :3])


@pytest.mark.parametrize("name", ["grey8.png", "grey8.tif", "grey16.png", "grey16.tif"])
def test_grey_stays_grey_and_keeps_its_depth(name, gallery):
    before, after = (cv2.imread(str(folder / name), cv2.IMREAD_UNCHANGED) for folder in gallery)
    assert after.ndim == 2
    assert only_the_face_changed(before, after)


def test_grey_with_transparency_keeps_both(gallery):
    before, after = (Image.open(folder / "la.png") for folder in gallery)
    assert after.mode == "LA"
    before, after = np.asarray(before), np.asarray(after)
    assert (after[..., 1] == before[..., 1]).all()
    assert only_the_face_changed(before[..., 0], after[..., 0])


def test_a_palette_becomes_colours_of_which_only_the_face_changes(gallery):
    before, after = (Image.open(folder / "palette.png") for folder in gallery)
    assert after.mode == "RGB"
    assert only_the_face_changed(np.asarray(before.convert("RGB")), np.asarray(after))


def test_a_colour_that_stands_for_transparent_becomes_real_transparency(rgb, gallery):
    after = np.asarray(Image.open(gallery[1] / "colourkey.png").convert("RGBA"))
    assert after[0, 0, 3] == 0 and after[1:, 1:, 3].mean() > 254
    assert only_the_face_changed(rgb, after[..., :3])


def test_cmyk_comes_out_as_rgb_of_the_same_look(gallery):
    before, after = (Image.open(folder / "cmyk.jpg") for folder in gallery)
    assert after.mode == "RGB"
    expected = np.asarray(before.convert("RGB")).astype(int)
    assert np.abs(np.asarray(after) - expected)[:, :40].mean() < 6


def test_a_jpeg_keeps_its_quantisation_subsampling_and_all_that_describes_it(gallery):
    before, after = (Image.open(folder / "described.jpg") for folder in gallery)
    assert after.quantization == before.quantization
    assert after.layer == before.layer  # sampling factors
    assert after.info["progressive"]
    assert after.info["dpi"] == before.info["dpi"]
    assert after.info["xmp"] == before.info["xmp"]
    assert after.getexif()[306] == before.getexif()[306]
    data = (gallery[1] / "described.jpg").read_bytes()
    assert b"mine" in data and b"restored by gpen-stream" in data


def test_a_png_keeps_its_text_and_says_that_it_was_restored(rgb, gallery):
    after = Image.open(gallery[1] / "text.png")
    assert only_the_face_changed(rgb, np.asarray(after))
    assert after.text["Title"] == "a title" and "gpen-stream" in after.text["Comment"]
    assert after.info["gamma"] == pytest.approx(0.45455)
    assert after.info["dpi"][0] == pytest.approx(300, abs=0.1)


def test_a_bitmap_keeps_every_other_pixel(rgb, gallery):
    assert only_the_face_changed(rgb, np.asarray(Image.open(gallery[1] / "plain.bmp")))


@pytest.mark.parametrize("name", ["png", "tif", "webp"])
def test_another_format_may_be_asked_for_and_keeps_profile_and_exif(name, profile, gallery):
    with Image.open(gallery[1] / f"other.{name}") as out:
        assert out.info["icc_profile"] == profile and out.getexif()[271] == "a maker"


def test_pictures_without_a_face_keep_every_pixel_down_to_the_smallest(tmp_path):
    sizes, jobs = [(1, 1), (3, 2), (700, 4), (300, 200)], []
    for size in sizes:
        path = tmp_path / f"{size[0]}x{size[1]}.png"
        Image.effect_noise(size, 60).convert("RGB").save(path)
        jobs.append((path, tmp_path / f"out-{path.name}"))
    outcome = restore_images(jobs, load_config())
    assert not outcome.failures and outcome.report["faces_restored"] == 0
    for before, after in jobs:
        assert (np.asarray(Image.open(before)) == np.asarray(Image.open(after))).all()


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


def test_a_destination_that_cannot_hold_the_picture_is_refused_and_nothing_is_left(
    deep, rgb, alpha, tmp_path
):
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    Image.fromarray(np.dstack([rgb, alpha])).save(tmp_path / "alpha.png")
    for name, dst, reason in (
        ("deep", "o.jpg", "16 bits"),
        ("alpha", "o.jpg", "transparency"),
        ("deep", "o.mp4", "mp4"),
    ):
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
