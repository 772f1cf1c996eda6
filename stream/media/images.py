"""Still pictures, read and written with their orientation, colour profile, transparency and depth."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TypedDict

import av
import cv2
import numpy as np
from PIL import Image, ImageFile, JpegImagePlugin, UnidentifiedImageError

from stream.errors import EncodeError, SourceError
from stream.media.partial_file import write_whole
from stream.picture.colour import Colour
from stream.picture.frame import Frame, Timestamp, View

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
_DEEP_SUFFIXES = (".png", ".tif", ".tiff")
_PHOTOMETRIC, _DESCRIPTION, _ORIENTATION, _ICC_TAG = 262, 270, 274, 34675
_TIFF_TEXTS = {271, 272, 305, 306, 315, 33432}
"""Make, model, software, date, artist, copyright."""
_TIFF_TAGS = _TIFF_TEXTS | {_DESCRIPTION, _ORIENTATION, 282, 283, 296, 700, 33723, 34665, 34853}
"""The texts, and density, XMP, IPTC, Exif and GPS."""
_PNG_CHUNKS = (b"cHRM", b"gAMA", b"iCCP", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"pHYs", b"tIME", b"eXIf",
               b"tEXt", b"zTXt", b"iTXt")  # fmt: skip
_BROKEN = (OSError, SyntaxError, ValueError, KeyError, EOFError, struct.error, zlib.error, cv2.error,
           Image.DecompressionBombError)  # fmt: skip
"""Exceptions that libraries raise for broken files and full disks."""
_TURNS = {
    1: ((1, 0), (0, 1)), 2: ((-1, 0), (0, 1)), 3: ((-1, 0), (0, -1)), 4: ((1, 0), (0, -1)),
    5: ((0, 1), (1, 0)), 6: ((0, -1), (1, 0)), 7: ((0, -1), (-1, 0)), 8: ((0, 1), (-1, 0)),
}  # fmt: skip
_FORMATS = {("u1", 1): "gray", ("u1", 3): "rgb24", ("u1", 4): "rgba",
            ("u2", 1): "gray16le", ("u2", 3): "rgb48le", ("u2", 4): "rgba64le"}  # fmt: skip
_SRGB = Colour(matrix=0, transfer=13, primaries=1, range_full=True)


def is_image(path: Path) -> bool:
    """Whether the file's name has the ending of a still picture."""
    return path.suffix.lower() in SUFFIXES


class FormatDetails(TypedDict, total=False):
    """Data that only the same format can store: options of Pillow's encoder, or a PNG's `chunks`."""

    dpi: tuple[float, float]
    qtables: dict[int, list[int]]
    extra: bytes
    subsampling: int
    progressive: bool
    lossless: bool
    xmp: bytes
    chunks: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Still:
    """A picture as it was read."""

    path: Path
    pixels: np.ndarray
    """u8 or u16 [h,w,c] in the stored orientation; c is 1 (grey), 3 (RGB) or 4 (RGBA)."""
    mode: str
    """Pillow's mode to write in, such as "LA"; "" for 16 bits."""
    turn: tuple[tuple[int, int], tuple[int, int]]
    """Rotation from the stored to the upright orientation, as `View.turn`."""
    icc: bytes | None
    exif: bytes | None
    format: str
    """Pillow's name, such as "JPEG"."""
    details: FormatDetails
    note: str = ""
    """One line on what could not be kept; empty: all was."""

    def frame(self, index: int) -> Frame:
        """The picture as a frame with its own planes."""
        height, width, channels = self.pixels.shape
        name = _FORMATS[self.pixels.dtype.str[1:], channels]
        array = self.pixels[..., 0] if channels == 1 else self.pixels
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format=name)
        view = View(width, height, Fraction(1), self.turn)
        return Frame(index, Timestamp(index, Fraction(1, 25)), picture, view, _SRGB)


def read_image(path: Path) -> Still:
    """Read a picture. Raises SourceError, in one line."""
    try:
        data = path.read_bytes()
        if not data:
            raise SourceError(f"{path}: is empty; copy it again")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return _read(path, data)
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file; check the path") from None
    except UnidentifiedImageError:
        raise SourceError(f"{path}: not a picture that can be read; is it whole?") from None
    except _BROKEN as error:
        raise SourceError(f"{path}: cannot be read ({_one_line(error)}); is it whole?") from None


def _read(path: Path, data: bytes) -> Still:
    with Image.open(io.BytesIO(data)) as file:
        kind = "JPEG" if file.format == "MPO" else file.format or ""  # a JPEG with previews behind it
        if (count := getattr(file, "n_frames", 1)) > 1 and file.format != "MPO":
            raise SourceError(f"{path}: holds {count} pictures; give them one by one")
        deep = any(";16" in str(tile.args) for tile in file.tile) or file.mode.startswith("I;16")
        tags = file.getexif()  # may load the pixels, after which the tiles are gone
        turn = _TURNS.get(tags.get(_ORIENTATION, 1), _TURNS[1])
        icc, exif = file.info.get("icc_profile"), file.info.get("exif")
        white_is_zero = kind == "TIFF" and tags.get(_PHOTOMETRIC) == 0
        if kind == "TIFF":
            exif = _without_layout(tags).tobytes()
            data = _without_orientation(data)  # Pillow and OpenCV would turn the pixels
        details, note = _format_details(file, data), ""
        if deep:
            return Still(path, _deep_pixels(path, data, white_is_zero), "", turn, icc, exif, kind, details)
    with Image.open(io.BytesIO(data)) as file:
        image: Image.Image = file
        image.load()
        if image.mode in ("F", "I"):
            raise SourceError(f"{path}: has 32-bit samples; save it with 8 or 16")
        if "transparency" in image.info or image.mode == "PA":
            image = image.convert("RGBA")
        if image.mode == "CMYK":
            icc, details, note = None, {}, f"{path}: is CMYK; the result is RGB"
        if image.mode not in ("L", "LA", "RGB", "RGBA"):
            image = image.convert("L" if image.mode == "1" else "RGB")
        working = image.convert("RGBA") if image.mode == "LA" else image
        pixels = np.atleast_3d(np.asarray(working))
        return Still(path, pixels, image.mode, turn, icc, exif, kind, details, note)


def _deep_pixels(path: Path, data: bytes, white_is_zero: bool) -> np.ndarray:
    """Pixels of 16 bits a sample, u16[h,w,c]. Pillow does not read them in colour."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16:
        raise SourceError(f"{path}: its kind of 16-bit pixels is not supported; save it as RGB or grey")
    if white_is_zero:
        pixels = 65535 - pixels
    return np.atleast_3d(_swapped(pixels))


def _swapped(pixels: np.ndarray) -> np.ndarray:
    """The same pixels with red and blue exchanged: OpenCV's order for ours, and back."""
    return pixels if pixels.ndim == 2 else pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]


def _format_details(image: ImageFile.ImageFile, data: bytes) -> FormatDetails:
    details: FormatDetails = {}
    if image.format == "PNG":
        details["chunks"] = _descriptive_chunks(data)
    elif image.format == "WEBP":
        if b"VP8L" in data:
            details["lossless"] = True
        if "xmp" in image.info:
            details["xmp"] = image.info["xmp"]
    elif "dpi" in image.info:
        details["dpi"] = image.info["dpi"]
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        details["qtables"], details["extra"] = image.quantization, _descriptive_segments(data)
        if (sampling := JpegImagePlugin.get_sampling(image)) >= 0:
            details["subsampling"] = sampling
        if image.info.get("progressive"):
            details["progressive"] = True
    return details


def _jpeg_segments(data: bytes, at: int = 0) -> Iterator[tuple[int, bytes]]:
    """Markers and whole segments, from offset `at` up to the picture's data or the end."""
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        yield data[at + 1], data[at:end]
        at = end


def _png_chunks(data: bytes, at: int = 0) -> Iterator[tuple[bytes, bytes]]:
    """Names and whole chunks, from offset `at` on."""
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], data[at:end]
        at = end


def _descriptive_segments(data: bytes) -> bytes:
    """The segments with Exif, XMP, colour profile, IPTC and comments."""
    return b"".join(
        segment
        for marker, segment in _jpeg_segments(data, 2)
        if (0xE1 <= marker <= 0xED or marker in (0xEF, 0xFE)) and segment[4:8] != b"MPF\0"
    )


def _descriptive_chunks(data: bytes) -> bytes:
    """The chunks that describe the picture as a whole: colour, density, text, Exif."""
    return b"".join(chunk for name, chunk in _png_chunks(data, 8) if name in _PNG_CHUNKS)


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


def _without_layout(exif: Image.Exif) -> Image.Exif:
    """A TIFF's tags without those for the layout of its pixels."""
    for key in set(exif) - _TIFF_TAGS:
        del exif[key]
    return exif


def _without_orientation(data: bytes) -> bytes:
    """A TIFF whose tag says that it is upright."""
    import tifffile  # takes 30 ms, which videos do not need

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        tag = file.pages.first.tags.get(_ORIENTATION)
        if tag is None:
            return data
        upright = (1).to_bytes(2, "little" if file.byteorder == "<" else "big")
        return data[: tag.valueoffset] + upright + data[tag.valueoffset + 2 :]


def coloured_still(still: Still) -> Still:
    """A grey picture as an RGB one, without its profile, which holds for grey only; others as they are."""
    channels = still.pixels.shape[2]
    if still.mode not in ("L", "LA") and channels > 1:
        return still
    details = still.details.copy()
    if still.format == "JPEG":
        details["extra"] = b"".join(
            segment for _, segment in _jpeg_segments(details["extra"]) if segment[4:16] != b"ICC_PROFILE\0"
        )
        details["subsampling"] = 0
    elif still.format == "PNG":
        chunks = _png_chunks(details["chunks"])
        details["chunks"] = b"".join(chunk for name, chunk in chunks if name != b"iCCP")
    return replace(
        still,
        pixels=np.repeat(still.pixels, 3, axis=2) if channels == 1 else still.pixels,
        mode={"L": "RGB", "LA": "RGBA"}.get(still.mode, still.mode),
        icc=None,
        details=details,
        note=f"{still.path}: is grey; the result is in colour",
    )


def write_image(still: Still, frame: Frame, destination: Path, note: str) -> None:
    """Write a frame in the format of the destination's name, whole or not at all. Raises EncodeError.

    The caller holds the destination's claim.

    still: the picture that the frame was made from. note: text for the file's comment.
    """
    pixels = frame.picture.to_ndarray()
    suffix = destination.suffix.lower()
    if suffix not in SUFFIXES:
        ending = suffix or "(none)"
        raise EncodeError(f"{destination}: the ending {ending} names no picture; use .png or .jpg")
    if not still.mode and suffix not in _DEEP_SUFFIXES:
        raise EncodeError(f"{destination}: {suffix} holds no 16 bits; name a .png or .tif")
    if still.mode in ("RGBA", "LA") and suffix in (".jpg", ".jpeg"):
        raise EncodeError(f"{destination}: JPEG holds no transparency; name a .png")
    try:
        if still.mode or suffix == ".png":
            data = _encode(still, pixels, suffix, note)
        else:
            data = _deep_tiff(still, pixels, note)
        write_whole(destination, data)
    except _BROKEN as error:
        raise EncodeError(f"{destination}: cannot be written ({_one_line(error)}); check the disk") from None


def _encode(still: Still, pixels: np.ndarray, suffix: str, note: str) -> bytes:
    if not still.mode:
        plain = cv2.imencode(".png", np.ascontiguousarray(_swapped(pixels)))[1].tobytes()
        return _with_chunks(plain, still, note)
    image = Image.fromarray(pixels)
    if image.mode != still.mode:
        image = image.convert(still.mode)
    kind = Image.registered_extensions()[suffix]
    options: dict[str, object] = dict(still.details) if still.format == kind else {}
    described = {key: value for key, value in (("icc_profile", still.icc), ("exif", still.exif)) if value}
    if kind == "JPEG":
        options = (options or {"quality": 95, "subsampling": 0, **described}) | {"comment": note}
    elif kind == "WEBP":
        options |= {"quality": 95, "exact": True, **described}
    elif kind == "TIFF":
        options |= {"compression": "tiff_deflate", **described}
        options |= {} if still.exif and _has_description(still.exif) else {"description": note}
    elif kind == "PNG":
        options = {}
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return _with_chunks(file.getvalue(), still, note) if kind == "PNG" else file.getvalue()


def _with_chunks(png: bytes, still: Still, note: str) -> bytes:
    """A PNG with the source's descriptive chunks and the note behind its header."""
    header = 8 + 25
    chunks = still.details.get("chunks")
    if chunks is None:
        chunks = _png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(still.icc)) if still.icc else b""
        chunks += _png_chunk(b"eXIf", still.exif.removeprefix(b"Exif\0\0")) if still.exif else b""
    return png[:header] + chunks + _png_chunk(b"tEXt", b"Comment\0" + note.encode("latin-1")) + png[header:]


def _deep_tiff(still: Still, pixels: np.ndarray, note: str) -> bytes:
    exif = Image.Exif()
    exif.load(still.exif or b"")
    tags = [(_ICC_TAG, 7, len(still.icc), still.icc, True)] if still.icc else []
    tags.append((_ORIENTATION, 3, 1, exif.get(_ORIENTATION, 1), True))
    tags += [(key, 2, 0, exif[key], True) for key in _TIFF_TEXTS & set(exif)]
    colour = pixels.ndim == 3
    file = io.BytesIO()
    import tifffile

    tifffile.imwrite(
        file, pixels, photometric="rgb" if colour else "minisblack", compression="zlib", metadata=None,
        description=exif.get(_DESCRIPTION, note), resolution=still.details.get("dpi"), resolutionunit="inch",
        extrasamples=["unassalpha"] if colour and pixels.shape[2] == 4 else None, extratags=tags,
    )  # fmt: skip
    return file.getvalue()


def _has_description(exif: bytes) -> bool:
    tags = Image.Exif()
    tags.load(exif)
    return _DESCRIPTION in tags


def _one_line(error: BaseException) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
