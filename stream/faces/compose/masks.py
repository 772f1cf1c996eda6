"""Patches -> masked patches: hair, hands and microphones in front of a face keep their pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from stream.config import Compose
from stream.errors import ModelError
from stream.faces.compose.occlusion import agreement
from stream.models import registry
from stream.picture.face import FrameWork, Patch
from stream.pipeline.stage import Stage

_EDGE = 0.02
"""Width of a parsed mask's soft edge, as a part of the crop: facexlib blurs by 0.03, outwards too."""
_EASING = 0.3
"""Share of the difference to the mask parsed last that a track's mask closes in each frame."""
_THUMBNAIL = 32
"""Side of the thumbnails by which a change in the crop is detected, px."""
_CHANGE, _CHANGED_SHARE = 0.15, 0.08
"""A crop is parsed again when its colour changes by more than the first (part of full scale) in more than the
second, a share of its middle. At an interval of 25 that adds 6 parser runs to 215 frames of
samples/portrait.mp4."""
_WEIGHTS = "parsenet"
"""Name of the parser's weights in the catalogue."""
_FORGET = 250
"""Frames without a track after which its mask is dropped."""


class Parser(Protocol):
    """A network that finds the face in a crop; see `stream.models.engines.parsenet`."""

    side: int
    """Side of its input and its output, px."""

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """RGB f32[side,side,3] in 0..1 -> the share of face in every pixel, f32[side,side] in 0..1."""


@dataclass(slots=True)
class _TrackMask:
    """The mask of one track."""

    thumbnail: np.ndarray
    """Thumbnail of the crop that was parsed last, see `_thumbnail`."""
    parsed: np.ndarray
    """f32[S,S]: the mask parsed last."""
    shown: np.ndarray
    """f32[S,S]: the mask of the newest frame, which approaches `parsed`."""
    parsed_at: int
    """Index of the frame that was parsed last."""
    seen_at: int
    """Index of the newest frame with the track."""


class MaskStage(Stage[FrameWork, FrameWork]):
    """Stage: fills `Patch.mask` by face parsing, by the occlusion guard, or by both.

    In crop space a face hardly moves, and parsing costs more than restoring. So a track is parsed every
    `interval` frames, and at once where the crop has changed (a hand comes, a head turns). In between the
    mask moves gradually to the one parsed last. The parser sees the crop, not its restoration, in which
    the network may have painted over what is in front of the face.

    `create` makes the parser, in the stage's own thread; None: no parsing. Crops without a track
    (`--aligned`) are not parsed. `guard` says whether masks leave out what `occlusion.agreement` rejects.
    """

    def __init__(self, create: Callable[[], Parser] | None, interval: int = 1, guard: bool = True) -> None:
        self.faces_parsed = 0
        """Crops that were parsed."""
        self.faces_guarded = 0
        """Crops that the guard left unchanged, in part or wholly."""
        self._create, self._interval, self._guard = create, interval, guard
        self._parser: Parser | None = None
        self._tracks: dict[int, _TrackMask] = {}

    def open(self) -> None:
        """Load the parser, in this thread."""
        self._parser = self._create() if self._create is not None else None

    def process(self, work: FrameWork) -> Iterable[FrameWork]:
        """Mask one frame's patches."""
        index = work.frame.index
        if len(self._tracks) > len(work.patches):
            self._tracks = {k: t for k, t in self._tracks.items() if index - t.seen_at <= _FORGET}
        yield replace(work, patches=tuple(self._masked(patch, index) for patch in work.patches))

    def close(self) -> None:
        """Release the parser."""
        self._parser = None

    def _masked(self, patch: Patch, index: int) -> Patch:
        if not patch.residual.any():
            return patch
        mask = None
        if self._parser is not None and patch.crop.face is not None:
            mask = self._face_mask(self._parser, patch.crop.image, patch.crop.face.track_id, index)
        if self._guard and (weight := agreement(patch.crop.image, patch.residual)) is not None:
            self.faces_guarded += 1
            mask = weight if mask is None else mask * weight
        return patch if mask is None else replace(patch, mask=mask)

    def _face_mask(self, parser: Parser, image: np.ndarray, track_id: int, index: int) -> np.ndarray:
        """The mask f32[S,S] of a track in the frame `index`."""
        thumbnail = _thumbnail(image)
        track = self._tracks.get(track_id)
        if track is None or _has_changed(track.thumbnail, thumbnail):
            parsed = self._parse(parser, image)
            self._tracks[track_id] = _TrackMask(thumbnail, parsed, parsed, index, index)
            return parsed
        if index - track.parsed_at >= self._interval:
            track.thumbnail, track.parsed, track.parsed_at = thumbnail, self._parse(parser, image), index
        track.seen_at = index
        track.shown = track.shown + np.float32(_EASING) * (track.parsed - track.shown)
        return track.shown

    def _parse(self, parser: Parser, image: np.ndarray) -> np.ndarray:
        self.faces_parsed += 1
        side, target = image.shape[0], parser.side
        mode = cv2.INTER_AREA if target < side else cv2.INTER_LINEAR
        return soft_mask(parser(cv2.resize(image, (target, target), interpolation=mode)), side)


def face_parser(compose: Compose, threads: int) -> Callable[[], Parser] | None:
    """A function that makes the parser the settings ask for; None: the feathered box is the only mask.

    Raises ModelError where the weights that the settings ask for are missing, or of another SHA-256.
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
    """Mask f32[size,size] from the share of face f32[n,n] in each pixel, both in 0..1.

    The soft edge lies inside the face: the mask is 0 from the contour (a share of one half) outwards.
    """
    mode = cv2.INTER_AREA if size < share.shape[0] else cv2.INTER_LINEAR
    share = cv2.resize(share, (size, size), interpolation=mode)
    share = cv2.GaussianBlur(share, (0, 0), _EDGE * size, borderType=cv2.BORDER_REPLICATE)
    t = np.clip(2 * share - 1, 0, 1)
    return t * t * (3 - 2 * t)


def _thumbnail(image: np.ndarray) -> np.ndarray:
    """The middle of a crop f32[S,S,3], small and blurred."""
    small = cv2.resize(image, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
    margin = _THUMBNAIL // 8
    return cv2.GaussianBlur(small, (0, 0), 1.0)[margin:-margin, margin:-margin]


def _has_changed(before: np.ndarray, now: np.ndarray) -> bool:
    """Whether two thumbnails differ enough for the crop to be parsed again."""
    return float((np.abs(now - before).max(axis=2) > _CHANGE).mean()) > _CHANGED_SHARE
