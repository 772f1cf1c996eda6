"""The faces on which models are evaluated: reading them, and splitting them by person into fixed halves."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from stream.errors import ConfigError, SourceError
from stream.media.images import is_image

SIDE = 256
"""Side of an evaluated face, px."""
SPLITS = ("choose", "report", "all")
"""choose: the half on which models and settings are chosen; report: the half on which they are reported."""
_WITH_MARGIN = 288
"""Side of a face with a margin of 16 px, as training uses it."""
_NUMBER = re.compile(r"_\d+$")


@dataclass(frozen=True, slots=True, eq=False)
class Portrait:
    """One face, aligned to the FFHQ template."""

    name: str
    """Name of the file without its suffix."""
    picture: np.ndarray = field(repr=False)
    """The clean face, RGB u8[256,256,3]."""


def person_of(name: str) -> str:
    """The person whose face it is: the file's name without the number of the face in its photo.

    All faces from one photo count as one person, because they share light, lens and damage.
    """
    return _NUMBER.sub("", name)


def source_of(name: str) -> str:
    """The source of a face: the first word of its name."""
    return name.partition("_")[0]


def split(names: Iterable[str], which: str) -> list[str]:
    """The names of one half, sorted. No person is in both halves, and every source is divided.

    Within each source, people are ordered by the SHA-256 of their name. They are then assigned to the
    halves in turn, across all sources, so that the halves differ by at most one person. The assignment of
    a person depends on who else is there. Raises ConfigError for an unknown half.
    """
    if which not in SPLITS:
        raise ConfigError(f"--split {which}: unknown; use one of {', '.join(SPLITS)}")
    names = sorted(names)
    if which == "all":
        return names
    people = sorted({(source_of(name), _digest(person_of(name)), person_of(name)) for name in names})
    chosen = {person for _, _, person in people[SPLITS.index(which) :: 2]}
    return [name for name in names if person_of(name) in chosen]


def read_portraits(folder: Path, which: str = "all", limit: int | None = None) -> list[Portrait]:
    """The faces of a folder: pictures of 256x256 px, or the middle of pictures of 288x288 px.

    `limit` is the largest number of faces; they are chosen by the hash of their names. Raises SourceError
    if a picture cannot be read or has another size, or if the half is empty.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder; check the path")
    paths = {path.stem: path for path in sorted(folder.iterdir()) if is_image(path)}
    chosen = split(paths, which)
    if limit is not None:
        chosen = sorted(sorted(chosen, key=_digest)[:limit])
    if not chosen:
        raise SourceError(f"{folder}: holds no faces for the half {which!r}; name a folder of aligned faces")
    return [Portrait(name, _read(paths[name])) for name in chosen]


def _read(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            picture = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise SourceError(f"{path}: cannot be read ({' '.join(str(error).split())}); is it whole?") from None
    height, width = picture.shape[:2]
    if (width, height) == (_WITH_MARGIN, _WITH_MARGIN):
        margin = (_WITH_MARGIN - SIDE) // 2
        return np.ascontiguousarray(picture[margin:-margin, margin:-margin])
    if (width, height) != (SIDE, SIDE):
        raise SourceError(
            f"{path}: is {width}x{height}; aligned faces are {SIDE}x{SIDE} or {_WITH_MARGIN}x{_WITH_MARGIN} "
            "px: make them with gpen-stream align"
        )
    return picture


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
