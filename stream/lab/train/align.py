"""Photos or a video -> a folder of aligned faces to train on; what is not worth it is left out."""

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

LEDGER = "align.jsonl"
"""In the folder of faces: the settings, then a line for each file that is done."""
TURNED = 0.22
"""Mean distance of a face's five landmarks from the template's, in eye distances, above which it looks
away: what a similarity cannot bring to the template. The five of a frontal face lie within 0.1."""
OUTSIDE = 0.1
"""Share of the square that may lie outside the picture, where it is mirrored."""
_TILE, _LARGEST = 1024, 8192
_QUALITY = 95
Tick = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Rules:
    """What is kept, and how."""

    size: int = 256
    """Side of the face, px, 256 or more; the file has a margin of a sixteenth of it on each side."""
    min_scale: float = 0.9
    """Px of the picture for a px of the face at least: 1 keeps what need not be enlarged at all."""
    min_sharpness: float = 0.75
    """By `stream.faces.restore.sharpness`, 0..1. It keeps 98 % of a set of clean faces, and 30 % and
    1 % of the same blurred by 1 and 1.5 px (measured)."""
    every_s: float = 1.0
    """Of a video: seconds from one frame looked at to the next."""
    format: str = "jpeg"
    """jpeg (quality 95, 4:4:4) or png."""

    def __post_init__(self) -> None:
        if self.size < SIDE:
            raise ConfigError(f"--size {self.size}: sharpness is measured at {SIDE} px; write {SIDE} or more")
        if self.format not in ("jpeg", "png"):
            raise ConfigError(f"--format {self.format}: unknown; use jpeg or png")


@dataclass(slots=True)
class Tally:
    """What came of a run."""

    files: int = 0
    """Looked at now."""
    skipped: int = 0
    """Done by an earlier run."""
    kept: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    """Faces by reason: small, blurred, turned away, cut off."""
    empty: int = 0
    """Pictures without a face."""
    problems: list[str] = field(default_factory=list)
    """One line for each file that could not be read."""


def align(
    source: str | Path, target: str | Path, rules: Rules | None = None, tick: Tick = lambda path: None
) -> Tally:
    """Write the faces of a picture, a video or a folder of either into `target`, aligned.

    Each becomes NAME_N.jpg: N counts the faces of a photo; of a video it starts with the frame. So all
    that comes of one file counts as one person, see `stream.lab.quality`. A file that was done by an
    earlier run is skipped where it has not changed. `tick` hears each file before it is read.
    Raises StreamError where nothing can be done at all.
    """
    source, target, rules = Path(source), Path(target), rules or Rules()
    files = _files(source, target)
    ledger = _Ledger(target, rules)
    aligner = Aligner(rules)
    tally = Tally()
    for path, name in files:
        if ledger.holds(path, name):
            tally.skipped += 1
            continue
        tick(str(path))
        found = Tally(files=1)
        try:
            for number, frame in _frames(path, rules.every_s):
                found.empty += not _write_faces(frame, f"{name}_{number}", target, aligner, found)
        except SourceError as error:
            tally.problems.append(str(error))
            continue
        ledger.add(path, name, found)
        for key in ("files", "kept", "empty"):
            setattr(tally, key, getattr(tally, key) + getattr(found, key))
        tally.left_out += found.left_out
    return tally


class Aligner:
    """Frame -> aligned faces, or why not. One thread at a time may use it."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.format = rules.format
        self._find = FaceFinder(Detect(max_side=_LARGEST, tile=_TILE))
        margin = round(rules.size * MARGIN)
        self.landmarks = geometry.template("ffhq_512", rules.size) + margin
        """f64[5,2]: where a face's landmarks lie in the file."""
        self.side = rules.size + 2 * margin

    def __call__(self, frame: Frame) -> Iterator[np.ndarray | str]:
        """RGB u8[side,side,3] of each face, or the reason why it is left out; best first."""
        for hit in self._find.certain(frame):
            yield self._aligned(frame, hit)

    def _aligned(self, frame: Frame, hit: Detection) -> np.ndarray | str:
        to_upright = geometry.similarity(self.landmarks, hit.landmarks)
        scale = geometry.scale_of(to_upright)
        if scale < self._rules.min_scale:
            return "small"
        there = geometry.apply(geometry.invert(to_upright), hit.landmarks)
        eyes = np.linalg.norm(self.landmarks[1] - self.landmarks[0])
        if np.linalg.norm(there - self.landmarks, axis=1).mean() > TURNED * eyes:
            return "turned away"
        if _outside(to_upright, self.side, frame.view.upright_size) > OUTSIDE:
            return "cut off"
        crop = cut(frame, geometry.chain(frame.view.to_stored, to_upright), self.side)
        if crop is None:
            return "cut off"
        if sharpness_of_gain(predicted_gain(inner(crop), scale)) < self._rules.min_sharpness:
            return "blurred"
        levels: npt.NDArray[np.float32] = crop * 255
        return np.rint(levels).astype(np.uint8)


def _outside(to_upright: np.ndarray, side: int, size: tuple[float, float]) -> float:
    """Share of the square that lies outside an upright picture of (width, height) `size`."""
    at = (np.arange(32) + 0.5) * side / 32
    points = geometry.apply(to_upright, np.stack(np.meshgrid(at, at), axis=-1).reshape(-1, 2))
    return 1 - float(np.mean(((points >= 0) & (points <= size)).all(axis=1)))


def _write_faces(frame: Frame, stem: str, target: Path, aligner: Aligner, tally: Tally) -> bool:
    """Write what is worth it and count the rest; whether there was a face at all."""
    count = 0
    for count, face in enumerate(aligner(frame), 1):
        if isinstance(face, str):
            tally.left_out[face] += 1
            continue
        _save(face, target, f"{stem}{count - 1}", aligner.format)
        tally.kept += 1
    return count > 0


def _save(face: np.ndarray, target: Path, stem: str, kind: str) -> None:
    file = io.BytesIO()
    options = {"quality": _QUALITY, "subsampling": 0} if kind == "jpeg" else {}
    Image.fromarray(face).save(file, kind, **options)
    path = target / f"{stem}{'.jpg' if kind == 'jpeg' else '.png'}"
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(file.getvalue())
        os.replace(partial, path)
    except OSError as error:
        raise EncodeError(f"{path}: cannot be written ({error.strerror}); check the disk") from None


def _frames(path: Path, every_s: float) -> Iterator[tuple[str, Frame]]:
    """Frames to look at, and what their faces' numbers begin with."""
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
    """Files to look at, and what their faces are called: the path in the folder, without its ending."""
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


class _Ledger:
    """What is done, kept in the folder of faces, so that a run that was stopped goes on."""

    def __init__(self, target: Path, rules: Rules) -> None:
        self._path = target / LEDGER
        self._done: dict[str, list[int]] = {}
        try:
            target.mkdir(parents=True, exist_ok=True)
            text = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
            if not text:
                self._append({"rules": asdict(rules)})
            elif not text.endswith("\n"):  # a run was killed while it wrote
                self._path.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise EncodeError(f"{target}: cannot be written ({error.strerror}); check OUT") from None
        for line in text.splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue  # that file is done again
            if entry.get("rules", asdict(rules)) != asdict(rules):
                raise ConfigError(f"{target}: was made with other settings; name another folder")
            if "name" in entry:
                self._done[entry["name"]] = entry["state"]

    def holds(self, path: Path, name: str) -> bool:
        """Whether the file is done, and as it was then."""
        return self._done.get(name) == _state(path)

    def add(self, path: Path, name: str, found: Tally) -> None:
        """Note that a file is done."""
        entry = {"name": name, "source": str(path), "state": _state(path), "kept": found.kept}
        self._append(entry | {"left_out": dict(found.left_out)})

    def _append(self, entry: dict[str, object]) -> None:
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise EncodeError(f"{self._path}: cannot be written ({error.strerror}); check the disk") from None


def _state(path: Path) -> list[int]:
    facts = path.stat()
    return [facts.st_size, facts.st_mtime_ns]
