"""Still pictures: orientation, colour profile, transparency and depth go out as they came in."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import tifffile
from PIL import Image, JpegImagePlugin, PngImagePlugin, UnidentifiedImageError

from stream.colour import Colour
from stream.errors import EncodeError, SourceError
from stream.face import Detection, Face, FrameWork
from stream.frame import Frame, Timestamp, View

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
_DEEP_SUFFIXES = (".png", ".tif", ".tiff")
_ORIENTATION, _ICC_TAG = 274, 34675
_TURNS = {
    1: ((1, 0), (0, 1)), 2: ((-1, 0), (0, 1)), 3: ((-1, 0), (0, -1)), 4: ((1, 0), (0, -1)),
    5: ((0, 1), (1, 0)), 6: ((0, -1), (1, 0)), 7: ((0, -1), (-1, 0)), 8: ((0, 1), (-1, 0)),
}  # fmt: skip
_FORMATS = {("u1", 1): "gray", ("u1", 3): "rgb24", ("u1", 4): "rgba",
            ("u2", 1): "gray16le", ("u2", 3): "rgb48le", ("u2", 4): "rgba64le"}  # fmt: skip
_SRGB = Colour(matrix=0, transfer=13, primaries=1, range_full=True)


def is_image(path: Path) -> bool:
    """Whether the name ends like a still picture's."""
    return path.suffix.lower() in SUFFIXES


@dataclass(frozen=True, slots=True, eq=False)
class Still:
    """A picture as read: u8 or u16 [h,w,c], c 1, 3 or 4 (RGB, RGBA), stored orientation."""

    path: Path
    pixels: np.ndarray
    mode: str
    """Pillow's mode to write in, such as "LA"; "" for 16 bits in colour."""
    turn: tuple[tuple[int, int], tuple[int, int]]
    icc: bytes | None
    exif: bytes | None
    jpeg: dict
    """Quantisation and subsampling of a JPEG, to encode it again alike; empty otherwise."""

    def frame(self, index: int) -> Frame:
        """The picture as a frame with its own planes."""
        height, width, channels = self.pixels.shape
        name = _FORMATS[self.pixels.dtype.str[1:], channels]
        array = self.pixels[..., 0] if channels == 1 else self.pixels
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format=name)
        view = View(width, height, Fraction(1), self.turn)
        return Frame(index, Timestamp(index, Fraction(1, 25)), picture, view, _SRGB)


def read_image(path: Path) -> Still:
    """Read a picture; SourceError, in one line, when that fails."""
    try:
        with Image.open(path) as image:
            return _read(path, image)
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file; check the path") from None
    except UnidentifiedImageError:
        raise SourceError(f"{path}: not a picture that can be read; is it whole?") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, cv2.error) as error:
        raise SourceError(f"{path}: cannot be read ({_line(error)}); is it whole?") from None


def _read(path: Path, image: Image.Image) -> Still:
    facts = {
        "turn": _TURNS.get(image.getexif().get(_ORIENTATION, 1), _TURNS[1]),
        "icc": image.info.get("icc_profile"),
        "exif": image.info.get("exif"),
        "jpeg": {},
    }
    deep = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if image.format in ("PNG", "TIFF") else None
    if deep is not None and deep.dtype == np.uint16:
        order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[1 if deep.ndim == 2 else deep.shape[2]]
        return Still(path, np.atleast_3d(deep)[..., order], "", **facts)
    if image.format == "JPEG":
        sampling = JpegImagePlugin.get_sampling(image)
        facts["jpeg"] = {"qtables": image.quantization} | ({"subsampling": sampling} if sampling >= 0 else {})
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        image = image.convert("L" if image.mode == "1" else "RGB")
        facts["jpeg"], facts["icc"] = {}, None if image.mode == "CMYK" else facts["icc"]
    working = image.convert("RGBA") if image.mode == "LA" else image
    return Still(path, np.atleast_3d(np.asarray(working)), image.mode, **facts)


def write_image(still: Still, frame: Frame, destination: Path, note: str) -> None:
    """Write a frame in the format of the destination's name; atomically, in one rename."""
    pixels = frame.picture.to_ndarray()
    partial = destination.with_name(f".{destination.stem}.partial{destination.suffix}")
    suffix = destination.suffix.lower()
    if not still.mode and suffix not in _DEEP_SUFFIXES:
        raise EncodeError(f"{destination}: {suffix} holds no 16 bits; name a .png or .tif")
    try:
        if still.mode:
            _write_shallow(still, pixels, partial, note)
        elif suffix == ".png":
            _write_deep_png(still, pixels, partial)
        else:
            _write_deep_tiff(still, pixels, partial, note)
        os.replace(partial, destination)
    except (OSError, ValueError, KeyError, cv2.error) as error:
        partial.unlink(missing_ok=True)
        raise EncodeError(f"{destination}: cannot be written ({_line(error)})") from None


def _write_shallow(still: Still, pixels: np.ndarray, path: Path, note: str) -> None:
    image = Image.fromarray(pixels)
    if image.mode != still.mode:
        image = image.convert(still.mode)
    options: dict = {"icc_profile": still.icc} if still.icc else {}
    if still.exif:
        options["exif"] = still.exif
    suffix = path.suffix.lower()
    if suffix in (".jpg", ".jpeg"):
        if image.mode in ("RGBA", "LA"):
            raise ValueError("JPEG holds no transparency; name a .png")
        options |= {"comment": note} | (still.jpeg or {"quality": 95, "subsampling": 0})
    elif suffix == ".png":
        text = PngImagePlugin.PngInfo()
        text.add_text("Comment", note)
        options["pnginfo"] = text
    elif suffix == ".webp":
        options |= {"quality": 95, "exact": True}
    elif suffix in (".tif", ".tiff"):
        options |= {"compression": "tiff_deflate", "description": note}
    image.save(path, **options)


def _write_deep_png(still: Still, pixels: np.ndarray, path: Path) -> None:
    bgr = pixels if pixels.ndim == 2 else pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    kinds, values = [], []
    if still.exif:
        kinds.append(cv2.IMAGE_METADATA_EXIF)
        values.append(np.frombuffer(still.exif.removeprefix(b"Exif\0\0"), np.uint8))
    if still.icc:
        kinds.append(cv2.IMAGE_METADATA_ICCP)
        values.append(np.frombuffer(still.icc, np.uint8))
    if not cv2.imwriteWithMetadata(str(path), np.ascontiguousarray(bgr), kinds, values):
        raise ValueError("the PNG encoder refused it")


def _write_deep_tiff(still: Still, pixels: np.ndarray, path: Path, note: str) -> None:
    tags = [(_ICC_TAG, 7, len(still.icc), still.icc, True)] if still.icc else []
    orientation = next(key for key, turn in _TURNS.items() if turn == still.turn)
    tags.append((_ORIENTATION, 3, 1, orientation, True))
    colour = pixels.ndim == 3
    tifffile.imwrite(
        path, pixels, photometric="rgb" if colour else "minisblack", compression="zlib", description=note,
        extrasamples=["unassalpha"] if colour and pixels.shape[2] == 4 else None, extratags=tags,
    )  # fmt: skip


def _line(error: BaseException) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:200]


class ImageSource:
    """Frames of several pictures, each with its own size; a broken one is told and left out."""

    def __init__(self, jobs: Sequence[tuple[Path, Path]]) -> None:
        self.stills: dict[int, tuple[Still, Path]] = {}
        """Pictures that are on their way, by the frame's index; `ImageSink` takes them out."""
        self.failures: list[SourceError] = []
        self.frames_in, self.corrupt_packets, self.truncated, self.notes = 0, 0, False, []
        self._jobs = jobs

    def frames(self) -> Iterator[Frame]:
        """Read the pictures in order."""
        for path, destination in self._jobs:
            try:
                still = read_image(path)
            except SourceError as error:
                self.failures.append(error)
                continue
            self.stills[self.frames_in] = still, destination
            self.frames_in += 1
            yield still.frame(self.frames_in - 1)


class ImageSink:
    """Stage: writes every frame to its own file."""

    def __init__(self, source: ImageSource, note: str) -> None:
        self.frames_out, self.notes = 0, []
        self._source, self._note = source, note

    def open(self) -> None:
        """Nothing to acquire."""

    def process(self, work: FrameWork) -> Iterable[None]:
        """Write one picture."""
        still, destination = self._source.stills.pop(work.frame.index)
        destination.parent.mkdir(parents=True, exist_ok=True)
        write_image(still, work.frame, destination, self._note)
        self.frames_out += 1
        return ()

    def flush(self) -> Iterable[None]:
        """Nothing is held back."""
        return ()

    def close(self) -> None:
        """Nothing to release."""


class DetectStage:
    """Stage: finds the faces of pictures that have nothing to do with one another."""

    def __init__(self, find: Callable[[Frame], list[Detection]]) -> None:
        self.detections_run = 0
        self._find = find

    def open(self) -> None:
        """Nothing to acquire."""

    def process(self, work: FrameWork) -> Iterable[FrameWork]:
        """Fill `faces`."""
        self.detections_run += 1
        faces = (
            Face(i, hit.box_xyxy, hit.landmarks, hit.score, coasted=False, confidence=1.0)
            for i, hit in enumerate(self._find(work.frame))
        )
        yield replace(work, faces=tuple(faces))

    def flush(self) -> Iterable[FrameWork]:
        """Nothing is held back."""
        return ()

    def close(self) -> None:
        """Nothing to release."""
