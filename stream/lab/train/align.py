"""Photos and videos to a folder of aligned faces for training. Unsuitable faces are left out."""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from stream.config import Detect
from stream.errors import ConfigError, EncodeError, SourceError
from stream.faces.detect.finder import FaceFinder
from stream.faces.restore.crop import cut
from stream.faces.restore.sharpness import SIDE, predicted_gain, sharpness_of_gain
from stream.lab.train.training_pairs import MARGIN, inner
from stream.media.container import VIDEO_SUFFIXES
from stream.media.decode import FileSource
from stream.media.images import is_image, read_image
from stream.media.probe import probe
from stream.picture import geometry
from stream.picture.face import Detection
from stream.picture.frame import Frame

JOURNAL = "align.jsonl"
"""File in the folder of faces: the first line holds the settings, each further line a finished file."""
TURNED = 0.22
"""A face looks away if its five landmarks, aligned by a similarity, lie farther than this from the template
(mean distance, in eye distances). Those of a frontal face lie within 0.1."""
OUTSIDE = 0.1
"""Largest share of the square outside the picture, where the picture is mirrored."""
_TILE, _LARGEST = 1024, 8192
"""Side of the detector's tiles, and longest side of a picture that is searched unreduced, px."""
_JPEG_QUALITY = 95


@dataclass(frozen=True, slots=True)
class AlignSettings:
    """Which faces are kept, and how they are written."""

    size: int = 256
    """Side of the face, px, 256 or more. The file has a margin of 1/16 of it on each side."""
    min_scale: float = 0.9
    """Least number of picture px for a px of the face. 1 keeps only faces that need no enlarging."""
    min_sharpness: float = 0.75
    """Least sharpness by `stream.faces.restore.sharpness`, 0..1. The default keeps 98 % of a set of clean
    faces, and 30 % and 1 % of the same faces blurred by 1 and 1.5 px (measured)."""
    every_s: float = 1.0
    """Seconds between the frames of a video that are searched."""
    format: str = "jpeg"
    """File format: jpeg (quality 95, 4:4:4) or png."""

    def __post_init__(self) -> None:
        if self.size < SIDE:
            raise ConfigError(f"--size {self.size}: sharpness is measured at {SIDE} px; write {SIDE} or more")
        if self.format not in ("jpeg", "png"):
            raise ConfigError(f"--format {self.format}: unknown; use jpeg or png")


@dataclass(slots=True)
class AlignCounts:
    """Counts of a run."""

    files: int = 0
    """Files that this run read."""
    skipped: int = 0
    """Files that an earlier run had finished."""
    kept: int = 0
    """Faces that were written."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Faces left out, by reason: small, blurred, turned away, cut off."""
    empty: int = 0
    """Pictures without a face."""
    problems: list[str] = field(default_factory=list)
    """One line of text for each file that could not be read."""


def align(
    source: str | Path,
    target: str | Path,
    settings: AlignSettings | None = None,
    on_file: Callable[[str], None] = lambda path: None,
) -> AlignCounts:
    """Write the aligned faces of a picture, a video or a folder of either into `target`.

    The files are called NAME_N.jpg. N counts the faces of a photo; for a video N begins with the frame's
    number. All faces from one file therefore count as one person, see `stream.lab.quality.portraits`. A
    file that an earlier run finished is skipped unless it has changed. `on_file` is called with each
    file's path before it is read.

    Raises StreamError if the run cannot start at all.
    """
    source, target, settings = Path(source), Path(target), settings or AlignSettings()
    files = _files(source, target)
    journal = _Journal(target, settings)
    aligner = Aligner(settings)
    total = AlignCounts()
    for path, name in files:
        if journal.has(path, name):
            total.skipped += 1
            continue
        on_file(str(path))
        counts = AlignCounts(files=1)
        try:
            for number, frame in _frames(path, settings.every_s):
                counts.empty += not _write_faces(frame, f"{name}_{number}", target, aligner, counts)
        except SourceError as error:
            total.problems.append(str(error))
            continue
        journal.add(path, name, counts)
        total.files += counts.files
        total.kept += counts.kept
        total.empty += counts.empty
        total.left_out += counts.left_out
    return total


class Aligner:
    """Cuts the aligned faces out of a frame. Only one thread may use it at a time."""

    def __init__(self, settings: AlignSettings) -> None:
        self._settings = settings
        self.format = settings.format
        self._find = FaceFinder(Detect(max_side=_LARGEST, tile=_TILE))
        margin = round(settings.size * MARGIN)
        self.landmarks = geometry.template("ffhq_512", settings.size) + margin
        """f64[5,2]: position of a face's landmarks in the file, px."""
        self.side = settings.size + 2 * margin
        """Side of the file's picture, px."""

    def __call__(self, frame: Frame) -> Iterator[np.ndarray | str]:
        """The picture of each face, RGB u8[side,side,3], or the reason why the face is left out.

        Faces come in order of falling score.
        """
        for hit in self._find.certain(frame):
            yield self._aligned(frame, hit)

    def _aligned(self, frame: Frame, hit: Detection) -> np.ndarray | str:
        to_upright = geometry.similarity(self.landmarks, hit.landmarks)
        scale = geometry.scale_of(to_upright)
        if scale < self._settings.min_scale:
            return "small"
        aligned = geometry.apply(geometry.invert(to_upright), hit.landmarks)
        eyes = np.linalg.norm(self.landmarks[1] - self.landmarks[0])
        if np.linalg.norm(aligned - self.landmarks, axis=1).mean() > TURNED * eyes:
            return "turned away"
        if _outside(to_upright, self.side, frame.view.upright_size) > OUTSIDE:
            return "cut off"
        crop = cut(frame, geometry.chain(frame.view.to_stored, to_upright), self.side)
        if crop is None:
            return "cut off"
        if sharpness_of_gain(predicted_gain(inner(crop), scale)) < self._settings.min_sharpness:
            return "blurred"
        levels: npt.NDArray[np.float32] = crop * 255
        return np.rint(levels).astype(np.uint8)


def _outside(to_upright: np.ndarray, side: int, size: tuple[float, float]) -> float:
    """Share of the crop's square that lies outside an upright picture of (width, height) `size`."""
    at = (np.arange(32) + 0.5) * side / 32
    points = geometry.apply(to_upright, np.stack(np.meshgrid(at, at), axis=-1).reshape(-1, 2))
    return 1 - float(np.mean(((points >= 0) & (points <= size)).all(axis=1)))


def _write_faces(frame: Frame, stem: str, target: Path, aligner: Aligner, counts: AlignCounts) -> bool:
    """Write the suitable faces of a frame and count all others; returns whether there was any face."""
    count = 0
    for count, face in enumerate(aligner(frame), 1):
        if isinstance(face, str):
            counts.left_out[face] += 1
            continue
        _save(face, target, f"{stem}{count - 1}", aligner.format)
        counts.kept += 1
    return count > 0


def _save(face: np.ndarray, target: Path, stem: str, kind: str) -> None:
    file = io.BytesIO()
    options = {"quality": _JPEG_QUALITY, "subsampling": 0} if kind == "jpeg" else {}
    Image.fromarray(face).save(file, kind, **options)
    path = target / f"{stem}{'.jpg' if kind == 'jpeg' else '.png'}"
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(file.getvalue())
        os.replace(partial, path)
    except OSError as error:
        raise EncodeError(f"{path}: cannot be written ({error.strerror}); check the disk") from None


def _frames(path: Path, every_s: float) -> Iterator[tuple[str, Frame]]:
    """The frames to search, each with the text that its faces' numbers begin with."""
    if is_image(path):
        yield "", read_image(path).frame(0)
        return
    due_s = 0.0
    info = probe(path)
    for frame in FileSource(info).frames():
        at_s = float((frame.time.pts - info.start_pts) * frame.time.time_base)
        if at_s >= due_s - 1e-6:
            due_s = at_s + every_s
            yield f"{frame.index:06d}", frame


def _files(source: Path, target: Path) -> list[tuple[Path, str]]:
    """The files to read, each with the name of its faces: its path within the folder, without the suffix."""
    if not source.exists():
        raise SourceError(f"{source}: no such file; check the path")
    if source.is_dir() and target.resolve() == source.resolve():
        raise EncodeError(f"{target}: is IN itself; name another folder")
    if not source.is_dir():
        return [(source, source.stem)]
    paths = [
        path
        for path in sorted(source.rglob("*"))
        if (is_image(path) or path.suffix.lower() in VIDEO_SUFFIXES)
        and path.is_file()
        and target.resolve() not in path.resolve().parents
        and not any(part.startswith(".") for part in path.relative_to(source).parts)
    ]
    if not paths:
        raise SourceError(f"{source}: holds no picture and no video; check the path")
    names = ["-".join(path.relative_to(source).with_suffix("").parts) for path in paths]
    shared = {name for name, count in Counter(names).items() if count > 1}
    return [
        (path, "-".join(path.relative_to(source).parts) if name in shared else name)
        for path, name in zip(paths, names, strict=True)
    ]


class _Journal:
    """The finished files, recorded in the folder of faces so that a stopped run can continue."""

    def __init__(self, target: Path, settings: AlignSettings) -> None:
        self._path = target / JOURNAL
        self._done: dict[str, list[int]] = {}
        try:
            target.mkdir(parents=True, exist_ok=True)
            text = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
            if not text:
                self._append({"rules": asdict(settings)})
            elif not text.endswith("\n"):  # a run was killed while writing a line
                self._path.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise EncodeError(f"{target}: cannot be written ({error.strerror}); check OUT") from None
        for line in text.splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue  # the file of an incomplete line is read again
            if entry.get("rules", asdict(settings)) != asdict(settings):
                raise ConfigError(f"{target}: was made with other settings; name another folder")
            if "name" in entry:
                self._done[entry["name"]] = entry["state"]

    def has(self, path: Path, name: str) -> bool:
        """Whether the file is finished and has not changed since."""
        return self._done.get(name) == _state(path)

    def add(self, path: Path, name: str, counts: AlignCounts) -> None:
        """Record a finished file."""
        entry = {"name": name, "source": str(path), "state": _state(path), "kept": counts.kept}
        self._append(entry | {"left_out": dict(counts.left_out)})

    def _append(self, entry: dict[str, object]) -> None:
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise EncodeError(f"{self._path}: cannot be written ({error.strerror}); check the disk") from None


def _state(path: Path) -> list[int]:
    """Size in bytes and time of the last change in ns."""
    facts = path.stat()
    return [facts.st_size, facts.st_mtime_ns]
