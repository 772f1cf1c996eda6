"""The faces that a model is judged on: read, told apart by person, and halved for good."""

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
"""Px of a face as it is judged."""
SPLITS = ("choose", "report", "all")
"""The half on which models and settings are chosen, the half on which the chosen one is reported."""
_WITH_MARGIN = 288
"""Px of a face with 16 px round it, which training turns and shifts before it cuts."""
_NUMBER = re.compile(r"_\d+$")


@dataclass(frozen=True, slots=True, eq=False)
class Portrait:
    """One aligned face (FFHQ template)."""

    name: str
    """The file's, without its ending."""
    picture: np.ndarray = field(repr=False)
    """RGB u8[256,256,3]: clean."""


def person_of(name: str) -> str:
    """Whose face it is, by its file's name: what comes before the number of the face in the picture.

    Faces that were found in one picture count as one person: they share light, lens and damage.
    """
    return _NUMBER.sub("", name)


def source_of(name: str) -> str:
    """Where it comes from: the name's first word."""
    return name.partition("_")[0]


def split(names: Iterable[str], which: str) -> list[str]:
    """The names of one half, sorted; no person is in both, and each source is halved.

    Within each source people are ordered by the SHA-256 of their name and dealt in turn, sources one
    after another: halves differ by one person at most. Which half someone is in depends on who else
    is there. Raises ConfigError for an unknown half.
    """
    if which not in SPLITS:
        raise ConfigError(f"--split {which}: unknown; use one of {', '.join(SPLITS)}")
    names = sorted(names)
    if which == "all":
        return names
    people = sorted({(source_of(name), _digest(person_of(name)), person_of(name)) for name in names})
    dealt = {person for _, _, person in people[SPLITS.index(which) :: 2]}
    return [name for name in names if person_of(name) in dealt]


def read_portraits(folder: Path, which: str = "all", limit: int | None = None) -> list[Portrait]:
    """The faces of a folder: pictures of 256x256 px, or of 288x288 of which the middle is taken.

    `limit` takes so many of the half, mixed by the hash of their names, not by alphabet. Raises
    SourceError for what cannot be read, for another size and for an empty half.
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
