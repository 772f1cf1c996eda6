"""Patches -> frame: the residual is warped to the face's native pixels and added to the planes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import cv2
import numpy as np

from stream.picture import geometry
from stream.picture.face import FrameWork, Patch
from stream.picture.frame import Box, Frame

_MEAN = np.full((1, 3), 1 / 3)
_GUARD_FROM, _GUARD_FULL = 1.2, 1.6
"""Native px for a crop px from which, and fully from which, a face's own detail is guarded."""


class ComposeStage:
    """Stage: writes residuals under the soft mask; pixels outside the masks keep every bit.

    A frame without a patch passes untouched and uncopied. Where masks overlap, residuals are
    weighted so that they never add up to more than one whole. A patch with an opacity takes the
    picture's place instead, with no mask of its own. `upscale` says how many times as wide as the
    decoded frame the composed one is.
    """

    def __init__(self, feather: float, label: str = "", upscale: int = 1) -> None:
        self._feather, self._label, self._upscale = feather, label, upscale

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
        if patch.mask is not None:
            mask = mask * patch.mask
        to_crop = geometry.invert(patch.crop.to_stored)
        to_crop[:, 2] += to_crop[:, :2] @ (x0, y0)
        border = cv2.BORDER_CONSTANT if patch.crop.face is not None else cv2.BORDER_REPLICATE
        layers = [*(cv2.multiply(plane, mask) for plane in cv2.split(patch.residual)), mask]
        *planes, mask = geometry.warp_planes(layers, to_crop, (x1 - x0, y1 - y0), border)
        enlarged = geometry.scale_of(patch.crop.to_stored) / self._upscale
        if enlarged > _GUARD_FROM:
            guard = min(1.0, (enlarged - _GUARD_FROM) / (_GUARD_FULL - _GUARD_FROM))
            keep_detail(planes, frame.to_network(frame.region(box)), guard, self._upscale)
        # Filters reach a little beyond the mask (seen at 16 bits).
        inside = cv2.compare(mask, 0, cv2.CMP_GT)  # type: ignore[call-overload]  # stubs forbid a number
        return box, cv2.copyTo(cv2.merge(planes), inside), mask


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


def keep_detail(residual: Sequence[np.ndarray], face: np.ndarray, guard: float, pixel: int = 1) -> None:
    """Take as much of the residual's fine part out, in place, as the face's detail needs.

    `residual` are its R, G, B f32[h,w], `face` is f32[h,w,3]. The network saw a shrunk picture, so
    what it takes away of the finest scales (above a blur of 1.5 px) may be detail. With f and r the
    fine parts of the luma of face and residual, and means over a neighbourhood, the part of r that
    stays is the largest a in 0..1 with <(f + a r)^2> >= 0.99 <f^2>. Where a soft face only gains,
    a = 1. `guard` in 0..1 scales what is left out. `pixel` is the side of a decoded pixel in px of an
    enlarged frame.
    """
    near_side, sigma = 32 * pixel + 1, 1.5 * pixel

    def near(image: np.ndarray) -> np.ndarray:
        return cv2.boxFilter(image, -1, (near_side, near_side), borderType=cv2.BORDER_REFLECT_101)

    def fine_part(image: np.ndarray) -> np.ndarray:
        return cv2.subtract(image, cv2.GaussianBlur(image, (0, 0), sigma))

    fine = [fine_part(plane) for plane in residual]
    f, r = fine_part(cv2.transform(face, _MEAN)), sum(fine[1:], fine[0]) / np.float32(3)
    own, common = near(cv2.multiply(r, r)), near(cv2.multiply(f, r))
    loss = near(cv2.multiply(f, f, scale=0.01))
    harmless = cv2.compare(cv2.scaleAdd(common, 2, own), -loss, cv2.CMP_GE)
    # The smaller root of own a^2 + 2 common a + loss = 0, all arrays reused.
    root = cv2.sqrt(np.maximum(cv2.multiply(common, common) - cv2.multiply(own, loss), 0))
    root += common
    root /= np.maximum(own, 1e-12, out=own)
    left_out = np.clip(1 + root, 0, 1, out=root)
    left_out[harmless > 0] = 0
    left_out *= np.float32(guard)
    for plane, part in zip(residual, fine, strict=True):
        plane -= cv2.multiply(part, left_out, dst=part)


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
            cv2.divide(residual, cv2.merge([np.maximum(total, 1)] * 3), dst=residual)


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
