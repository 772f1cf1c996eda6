"""Patches -> frame: the residual is warped to the face's native pixels and added to the planes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import cv2
import numpy as np

from stream import geometry
from stream.face import FrameWork, Patch
from stream.frame import Box, Frame

_GUARD_FROM, _GUARD_FULL = 1.2, 1.6
"""Native px for a crop px from which, and fully from which, a face's own detail is guarded."""


class ComposeStage:
    """Stage: writes residuals under the soft mask; pixels outside the masks keep every bit.

    A frame without a patch passes untouched and uncopied. Where masks overlap, residuals are
    weighted so that they never add up to more than one whole. A patch with an opacity takes the
    picture's place instead, with no mask of its own.
    """

    def __init__(self, feather: float, label: str = "") -> None:
        self._feather, self._label = feather, label

    def open(self) -> None:
        """Nothing to acquire."""

    def process(self, work: FrameWork) -> Iterable[FrameWork]:
        """Compose one frame; its crops and patches end here."""
        frame = work.frame
        added = [patch for patch in work.patches if patch.opacity is None]
        placed = [p for patch in added if (p := self._place(frame, patch)) is not None]
        filled = [f for patch in work.patches if (f := _fill(frame, patch)) is not None]
        if placed or filled or self._label:
            frame = frame.writable()
            for box, image, opacity in filled:
                frame.blend(box, image, opacity)
            _share(placed)
            for box, residual, _ in placed:
                frame.add(box, residual)
            if self._label:
                draw_label(frame, self._label)
        yield replace(work, frame=frame, crops=(), patches=())

    def flush(self) -> Iterable[FrameWork]:
        """Nothing is held back."""
        return ()

    def close(self) -> None:
        """Nothing to release."""

    def _place(self, frame: Frame, patch: Patch) -> tuple[Box, np.ndarray, np.ndarray] | None:
        """Stored box, masked residual f32[h,w,3] and mask f32[h,w] at the face's own pixels."""
        if not patch.residual.any():
            return None
        size = patch.residual.shape[0]
        bounds = frame.view.width, frame.view.height
        box = geometry.cover(patch.crop.to_stored, size, bounds)
        x0, y0, x1, y1 = box
        if x1 <= x0 or y1 <= y0:
            return None
        mask = np.ones((size, size), np.float32)
        if patch.crop.face is not None:
            mask = geometry.feather_mask(size, self._feather)
        masked = np.dstack([patch.residual * mask[..., None], mask])
        border = cv2.BORDER_CONSTANT if patch.crop.face is not None else cv2.BORDER_REPLICATE
        native = _to_native(masked, patch, box, border)
        residual, mask = native[..., :3], native[..., 3]
        enlarged = geometry.scale_of(patch.crop.to_stored)
        if enlarged > _GUARD_FROM:
            guard = min(1.0, (enlarged - _GUARD_FROM) / (_GUARD_FULL - _GUARD_FROM))
            residual = keep_detail(residual, frame.to_network(frame.region(box)), guard)
        residual[mask <= 0] = 0  # filters reach a little beyond the mask (seen at 16 bits)
        return box, residual, mask


def _fill(frame: Frame, patch: Patch) -> tuple[Box, np.ndarray, np.ndarray] | None:
    """Stored box, what it shall show f32[h,w,3] and how far f32[h,w]; None: nothing is replaced."""
    if patch.opacity is None or not patch.opacity.any() or not patch.residual.any():
        return None
    box = geometry.cover(patch.crop.to_stored, len(patch.opacity), (frame.view.width, frame.view.height))
    if box[2] <= box[0] or box[3] <= box[1]:
        return None
    native = _to_native(patch.crop.image + patch.residual, patch, box, cv2.BORDER_REPLICATE)
    border = cv2.BORDER_CONSTANT if patch.crop.face is not None else cv2.BORDER_REPLICATE
    opacity = np.clip(_to_native(patch.opacity, patch, box, border), 0, 1)
    return box, native, opacity


def _to_native(image: np.ndarray, patch: Patch, box: Box, border: int) -> np.ndarray:
    """An image f32[S,S,...] of crop px at the stored px of a box."""
    to_crop = geometry.invert(patch.crop.to_stored)
    to_crop[:, 2] += to_crop[:, :2] @ box[:2]
    return geometry.warp(image, to_crop, (box[2] - box[0], box[3] - box[1]), border)


def keep_detail(residual: np.ndarray, face: np.ndarray, guard: float) -> np.ndarray:
    """The residual f32[h,w,3] with as much of its fine part left out as the face's detail needs.

    The network saw a shrunk picture, so what it takes away of the finest scales (above a blur of
    1.5 px) may be detail. With f and r the fine parts of the luma of face and residual, and means
    over a neighbourhood, the part of r that stays is the largest a in 0..1 with
    <(f + a r)^2> >= 0.99 <f^2>. Where a soft face only gains, a = 1. `guard` in 0..1 scales what
    is left out.
    """

    def near(image: np.ndarray) -> np.ndarray:
        return cv2.boxFilter(image, -1, (33, 33), borderType=cv2.BORDER_REFLECT_101)

    fine = residual - cv2.GaussianBlur(residual, (0, 0), 1.5)
    luma = face.mean(axis=2)
    f, r = luma - cv2.GaussianBlur(luma, (0, 0), 1.5), fine.mean(axis=2)
    energy, common, own = near(f * f), near(f * r), near(r * r)
    loss = 0.01 * energy
    root = np.sqrt(np.maximum(common * common - own * loss, 0))
    stays = np.where(own + 2 * common >= -loss, 1, (-common - root) / np.maximum(own, 1e-12))
    return residual - ((1 - np.clip(stays, 0, 1)) * guard)[..., None].astype(np.float32) * fine


def _share(placed: list[tuple[Box, np.ndarray, np.ndarray]]) -> None:
    """Scale residuals in place where masks overlap, so that their weights sum to 1 at most."""
    totals = [mask.copy() for _, _, mask in placed]
    for i, (a, _, _) in enumerate(placed):
        for j, (b, _, mask) in enumerate(placed):
            x0, y0, x1, y1 = max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
            if i != j and x0 < x1 and y0 < y1:
                own = totals[i][y0 - a[1] : y1 - a[1], x0 - a[0] : x1 - a[0]]
                own += mask[y0 - b[1] : y1 - b[1], x0 - b[0] : x1 - b[0]]
    for (_, residual, _), total in zip(placed, totals, strict=True):
        if total.max() > 1:
            residual /= np.maximum(total, 1)[..., None]


def draw_label(frame: Frame, text: str) -> None:
    """Write a line of white text on a dark strip into the upright picture's lower left corner."""
    width, height = frame.view.upright_size
    scale = max(0.4, min(width, height) / 900)
    (w, h), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    pad = h // 2
    strip = np.zeros((h + below + 2 * pad, w + 2 * pad), np.float32)
    cv2.putText(strip, text, (pad, pad + h), cv2.FONT_HERSHEY_SIMPLEX, scale, 1.0, 1, cv2.LINE_AA)
    to_upright = np.array([[1, 0, pad], [0, 1, height - strip.shape[0] - pad]], np.float64)
    to_stored = geometry.chain(frame.view.to_stored, to_upright)
    corners = geometry.apply(to_stored, np.array([[0, 0], [strip.shape[1], strip.shape[0]]]))
    low = np.maximum(np.floor(corners.min(axis=0) / 2) * 2, 0).astype(int)
    high = np.minimum(np.ceil(corners.max(axis=0) / 2) * 2, (frame.view.width, frame.view.height)).astype(int)
    box = int(low[0]), int(low[1]), int(high[0]), int(high[1])
    if box[2] <= box[0] or box[3] <= box[1]:
        return
    to_strip = geometry.invert(to_stored)
    to_strip[:, 2] += to_strip[:, :2] @ low
    size = box[2] - box[0], box[3] - box[1]
    layers = np.dstack([strip, np.ones_like(strip)])
    ink, cover = np.moveaxis(geometry.warp(layers, to_strip, size, cv2.BORDER_CONSTANT), 2, 0)
    seen = frame.to_network(frame.region(box))
    wanted = seen * 0.35 + np.clip(ink, 0, 1)[..., None] * 0.6
    frame.add(box, ((wanted - seen) * np.clip(cover, 0, 1)[..., None]).astype(np.float32))
