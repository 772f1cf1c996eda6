"""Patches -> masked patches: hair, hands and microphones before a face are left alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from stream.config import Compose
from stream.errors import ModelError
from stream.faces.compose.occlusion import trust
from stream.models import registry
from stream.picture.face import FrameWork, Patch

_EDGE = 0.02
"""Width of a parsed mask's soft edge, as a part of the crop: facexlib blurs by 0.03, outwards too."""
_EASE = 0.3
"""Part of the way from the mask shown to the one parsed last that each frame goes."""
_GLANCE = 32
"""Side of the small crops by which a change before the face is noticed, px."""
_MOVED, _MOVED_SHARE = 0.15, 0.08
"""A change of colour (part of full scale) over this share of the face's middle calls the parser: with
an interval of 25 it adds 6 calls in 215 frames of samples/portrait.mp4."""
_WEIGHTS = "parsenet"
"""In the catalogue."""
_FORGET = 250
"""Frames after which a track that is not seen any more is forgotten."""


class Parser(Protocol):
    """What finds the face in a crop; see `stream.models.engines.parsenet`."""

    side: int

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """RGB f32[side,side,3] of 0..1 -> the share of face at every pixel, f32[side,side] of 0..1."""


@dataclass(slots=True)
class _KnownMask:
    """What was parsed of a track last."""

    glance: np.ndarray
    parsed: np.ndarray
    shown: np.ndarray
    parsed_at: int
    seen_at: int


class MaskStage:
    """Stage: fills `Patch.mask` by face parsing, by the guard, or both.

    In crop space a face hardly moves, and parsing costs more than restoring: a track is parsed
    every `interval` frames, and at once where the crop has changed since (a hand comes, a head
    turns). In between the mask eases towards the one parsed last. What is parsed is the crop, not
    its restoration, in which the network may have painted over what stood before the face.

    `create` makes the parser, None: no parsing. Faces without a track (`--aligned`) are not parsed.
    """

    def __init__(self, create: Callable[[], Parser] | None, interval: int = 1, guard: bool = True) -> None:
        self.parsed = 0
        """Crops that were parsed."""
        self.guarded = 0
        """Crops of which the guard kept a part, or all, as it was."""
        self._create, self._interval, self._guard = create, interval, guard
        self._parser: Parser | None = None
        self._tracks: dict[int, _KnownMask] = {}

    def open(self) -> None:
        """Load the parser, in this thread."""
        self._parser = self._create() if self._create is not None else None

    def process(self, work: FrameWork) -> Iterable[FrameWork]:
        """Mask one frame's patches."""
        index = work.frame.index
        if len(self._tracks) > len(work.patches):
            self._tracks = {k: t for k, t in self._tracks.items() if index - t.seen_at <= _FORGET}
        yield replace(work, patches=tuple(self._masked(patch, index) for patch in work.patches))

    def flush(self) -> Iterable[FrameWork]:
        """Nothing is held back."""
        return ()

    def close(self) -> None:
        """Release the parser."""
        self._parser = None

    def _masked(self, patch: Patch, index: int) -> Patch:
        if not patch.residual.any():
            return patch
        mask = None
        if self._parser is not None and patch.crop.face is not None:
            mask = self._face_mask(self._parser, patch.crop.image, patch.crop.face.track_id, index)
        if self._guard and (weight := trust(patch.crop.image, patch.residual)) is not None:
            self.guarded += 1
            mask = weight if mask is None else mask * weight
        return patch if mask is None else replace(patch, mask=mask)

    def _face_mask(self, parser: Parser, image: np.ndarray, track_id: int, index: int) -> np.ndarray:
        glance = _glance(image)
        known = self._tracks.get(track_id)
        if known is None or _changed(known.glance, glance):
            parsed = self._parse(parser, image)
            known = self._tracks[track_id] = _KnownMask(glance, parsed, parsed, index, index)
            return parsed
        if index - known.parsed_at >= self._interval:
            known.glance, known.parsed, known.parsed_at = glance, self._parse(parser, image), index
        known.seen_at = index
        known.shown = known.shown + np.float32(_EASE) * (known.parsed - known.shown)
        return known.shown

    def _parse(self, parser: Parser, image: np.ndarray) -> np.ndarray:
        self.parsed += 1
        side, target = image.shape[0], parser.side
        way = cv2.INTER_AREA if target < side else cv2.INTER_LINEAR
        return soft_mask(parser(cv2.resize(image, (target, target), interpolation=way)), side)


def face_parser(compose: Compose, threads: int) -> Callable[[], Parser] | None:
    """What makes the parser that the settings ask for, or None: the feathered box is the mask.

    Raises ModelError where the weights are asked for and not there, or not the ones meant.
    """
    if compose.mask == "box":
        return None
    if compose.mask_weights:
        path = Path(compose.mask_weights)
        if not path.is_file():
            raise ModelError(f"{path}: no such file; check compose.mask_weights, or set compose.mask to box")
    elif compose.mask == "auto" and not registry.is_present(_WEIGHTS):
        return None
    else:
        path = registry.resolve(_WEIGHTS)

    def create() -> Parser:
        from stream.models.engines import parsenet  # OpenVINO is not needed otherwise

        return parsenet.ParseNet(path, threads)

    return create


def soft_mask(share: np.ndarray, size: int) -> np.ndarray:
    """Mask f32[size,size] of a share of face f32[n,n], both in 0..1.

    Its soft edge lies inside: 0 from the contour (a share of one half) outwards.
    """
    way = cv2.INTER_AREA if size < share.shape[0] else cv2.INTER_LINEAR
    share = cv2.resize(share, (size, size), interpolation=way)
    share = cv2.GaussianBlur(share, (0, 0), _EDGE * size, borderType=cv2.BORDER_REPLICATE)
    t = np.clip(2 * share - 1, 0, 1)
    return t * t * (3 - 2 * t)


def _glance(image: np.ndarray) -> np.ndarray:
    small = cv2.resize(image, (_GLANCE, _GLANCE), interpolation=cv2.INTER_AREA)
    margin = _GLANCE // 8
    return cv2.GaussianBlur(small, (0, 0), 1.0)[margin:-margin, margin:-margin]


def _changed(before: np.ndarray, now: np.ndarray) -> bool:
    return float((np.abs(now - before).max(axis=2) > _MOVED).mean()) > _MOVED_SHARE
