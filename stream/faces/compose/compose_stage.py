"""Patches -> frame: warps residuals to the frame's own pixels and adds them to its planes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from stream.picture import geometry
from stream.picture.face import FrameWork, Patch
from stream.picture.frame import Box, Frame
from stream.pipeline.stage import Stage

_MEAN = np.full((1, 3), 1 / 3)
_PRESERVE_FROM, _PRESERVE_FULLY = 1.2, 1.6
"""Native px for a crop px from which a face's own detail is preserved, and from which it is wholly."""


class ComposeStage(Stage[FrameWork, FrameWork]):
    """Stage: adds patches to the frame under their soft masks; pixels outside the masks keep every bit.

    A frame without a patch passes unchanged and uncopied. Where masks overlap, residuals are scaled so
    that their weights sum to 1 at most. A patch with an opacity replaces the picture instead, and needs
    no mask.
    """

    def __init__(self, feather: float, label: str = "", upscale: int = 1) -> None:
        """Settings of composition.

        `feather` is the width of the masks' edge, as a part of the crop's side. `label` is drawn on every
        frame; empty: none. `upscale` is the factor by which frames have been enlarged since decoding.
        """
        self._feather, self._label, self._upscale = feather, label, upscale

    def process(self, work: FrameWork) -> Iterable[FrameWork]:
        """Compose one frame; drop its crops and patches."""
        frame = work.frame
        added = [patch for patch in work.patches if patch.opacity is None]
        placed = [p for patch in added if (p := self._place(frame, patch)) is not None]
        filled = [f for patch in work.patches if (f := _fill(frame, patch)) is not None]
        if placed or filled or self._label:
            frame = frame.writable()
            for box, image, opacity in filled:
                frame.blend(box, image, opacity)
            _normalise_overlaps(placed)
            for box, residual, _ in placed:
                frame.add(box, residual)
            if self._label:
                draw_label(frame, self._label)
        yield replace(work, frame=frame, crops=(), patches=())

    def _place(self, frame: Frame, patch: Patch) -> tuple[Box, np.ndarray, np.ndarray] | None:
        """Stored box, masked residual f32[h,w,3] and mask f32[h,w], px of the frame; None: no change."""
        box = _changed_box(frame, patch)
        if box is None:
            return None
        size = patch.residual.shape[0]
        mask = np.ones((size, size), np.float32)
        if patch.crop.face is not None:
            mask = geometry.feather_mask(size, self._feather)
        if patch.mask is not None:
            mask = mask * patch.mask
        layers = [*(cv2.multiply(plane, mask) for plane in cv2.split(patch.residual)), mask]
        *planes, mask = geometry.warp_planes(layers, _to_crop(patch, box), _size(box), _border(patch))
        native = geometry.scale_of(patch.crop.to_stored) / self._upscale
        if native > _PRESERVE_FROM:
            amount = min(1.0, (native - _PRESERVE_FROM) / (_PRESERVE_FULLY - _PRESERVE_FROM))
            preserve_detail(planes, frame.to_network(frame.region(box)), amount, self._upscale)
        # Filters reach a little beyond the mask; at 16 bits it shows.
        inside = cv2.compare(mask, 0, cv2.CMP_GT)  # type: ignore[call-overload]  # stubs forbid a number
        return box, cv2.copyTo(cv2.merge(planes), inside), mask


def _fill(frame: Frame, patch: Patch) -> tuple[Box, np.ndarray, np.ndarray] | None:
    """Stored box, picture f32[h,w,3] and opacity f32[h,w], px of the frame; None: nothing is replaced."""
    if patch.opacity is None or not patch.opacity.any():
        return None
    box = _changed_box(frame, patch)
    if box is None:
        return None
    to_crop, size = _to_crop(patch, box), _size(box)
    picture = geometry.warp(patch.crop.image + patch.residual, to_crop, size, cv2.BORDER_REPLICATE)
    opacity = np.clip(geometry.warp(patch.opacity, to_crop, size, _border(patch)), 0, 1)
    return box, picture, opacity


def _changed_box(frame: Frame, patch: Patch) -> Box | None:
    """The stored box that a patch covers; None where it changes nothing or misses the picture."""
    if not patch.residual.any():
        return None
    bounds = frame.view.width, frame.view.height
    box = geometry.cover(patch.crop.to_stored, patch.residual.shape[0], bounds)
    return box if box[2] > box[0] and box[3] > box[1] else None


def _to_crop(patch: Patch, box: Box) -> npt.NDArray[np.float64]:
    """The affine f64[2,3] from px of a stored box to px of the crop."""
    to_crop = geometry.invert(patch.crop.to_stored)
    to_crop[:, 2] += to_crop[:, :2] @ box[:2]
    return to_crop


def _size(box: Box) -> tuple[int, int]:
    """Width and height of a box."""
    return box[2] - box[0], box[3] - box[1]


def _border(patch: Patch) -> int:
    """OpenCV's border mode for a mask: 0 beyond a face's crop, the edge repeated beyond a whole frame."""
    return cv2.BORDER_CONSTANT if patch.crop.face is not None else cv2.BORDER_REPLICATE


def preserve_detail(residual: Sequence[np.ndarray], face: np.ndarray, amount: float, pixel: int = 1) -> None:
    """Reduce the fine part of a residual, in place, where it would remove the face's own detail.

    `residual` holds the R, G and B planes f32[h,w]; `face` f32[h,w,3] is what they are added to. The
    network saw a downscaled picture, so the finest scales that it removes (what a blur of 1.5 px removes)
    may be detail. With f and r the fine parts of the luma of face and residual, and means < > over a
    neighbourhood, the part of r that stays is the largest a in 0..1 with <(f + a r)^2> >= 0.99 <f^2>.
    Where a soft face only gains, a is 1. `amount` in 0..1 scales the reduction. `pixel` is the side of a
    decoded pixel, px of the enlarged frame.
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
    # The smaller root of own a^2 + 2 common a + loss = 0; arrays are reused.
    root = cv2.sqrt(np.maximum(cv2.multiply(common, common) - cv2.multiply(own, loss), 0))
    root += common
    root /= np.maximum(own, 1e-12, out=own)
    removed = np.clip(1 + root, 0, 1, out=root)
    removed[harmless > 0] = 0
    removed *= np.float32(amount)
    for plane, part in zip(residual, fine, strict=True):
        plane -= cv2.multiply(part, removed, dst=part)


def _normalise_overlaps(placed: list[tuple[Box, np.ndarray, np.ndarray]]) -> None:
    """Scale residuals in place where masks overlap, so that the masks sum to 1 at most."""
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
    """Draw white text on a dark strip in the upright picture's lower left corner, in place."""
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
