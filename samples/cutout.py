"""Cut-outs of people from pictures, and their drawn clothes.

Images are float32 RGB or RGBA in 0..1; a `Layer` is premultiplied by its alpha.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

CANVAS_HW = (620, 560)
"""Height and width of a person's canvas: the portrait at the top, drawn clothes below."""
CANVAS_ORIGIN = (-136.0, -40.0)
"""Corner of that canvas in pixels of the portrait (x, y)."""


@dataclass(slots=True)
class Layer:
    """A picture to draw: premultiplied RGBA and the position of its corner."""

    rgba: np.ndarray
    origin: tuple[float, float] = (0.0, 0.0)
    """Position of the corner in pixels of the picture (x, y)."""
    halves: list[np.ndarray] = field(init=False)
    """The image at 1, 1/2 and 1/4 of its size, against aliasing when it is drawn small."""

    def __post_init__(self) -> None:
        self.halves = [np.ascontiguousarray(self.rgba, np.float32)]
        while len(self.halves) < 3 and min(self.halves[-1].shape[:2]) > 64:
            height, width = (n // 2 * 2 for n in self.halves[-1].shape[:2])
            half = self.halves[-1][:height, :width].reshape(height // 2, 2, width // 2, 2, 4)
            self.halves.append(np.ascontiguousarray(half.mean((1, 3))))

    def sample(self, source: np.ndarray, scale: float) -> np.ndarray:
        """The layer at picture points (h, w, 2), drawn with `scale` frame pixels for each of its pixels."""
        level = min(int(max(0.0, np.log2(1 / scale) + 0.3)), len(self.halves) - 1)
        at = ((source - self.origin) / 2**level - 0.5).astype(np.float32)
        how = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_LINEAR
        painted = cv2.remap(self.halves[level], at, None, how, borderValue=(0, 0, 0, 0))
        return np.clip(painted, 0, 1)


def fill(image: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The image with its unknown parts, where `known` (h, w) is 0, filled by smooth colour from their rim."""
    if min(image.shape[:2]) < 4:
        mean = (image * known[..., None]).sum((0, 1)) / max(known.sum(), 1e-6)
        return image * known[..., None] + mean * (1 - known[..., None])
    height, width = image.shape[:2]
    weight = cv2.pyrDown(known)
    small = cv2.pyrDown(image * known[..., None]) / np.maximum(weight, 1e-4)[..., None]
    small = fill(small.astype(np.float32), np.clip(weight * 4, 0, 1))
    coarse = cv2.pyrUp(small, dstsize=(width, height))
    return image * known[..., None] + coarse * (1 - known[..., None])


def polygon_matte(shape: tuple[int, int], corners: list, feather_px: float) -> np.ndarray:
    """A matte (h, w) of a smoothed polygon: 1 inside, 0 outside."""
    matte = np.zeros(shape, np.uint8)
    fixed = np.round((np.array(corners, np.float64) - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(matte, [fixed], 255, cv2.LINE_AA, shift=4)
    matte = cv2.GaussianBlur(matte.astype(np.float32) / 255, (0, 0), 2.0)
    matte = smooth(matte, 0.3, 0.7)
    return cv2.GaussianBlur(matte, (0, 0), feather_px)


def smooth(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """A smooth step from 0 at `low` to 1 at `high`; it falls if `low` > `high`."""
    x = np.clip((x - low) / (high - low), 0, 1)
    return (x * x * (3 - 2 * x)).astype(np.float32)


def premultiplied(image: np.ndarray, matte: np.ndarray) -> np.ndarray:
    """RGBA of a cut-out. Its rim gets its colour from inside, so that no old backdrop remains."""
    inside = cv2.erode(matte, np.ones((3, 3)), iterations=2)
    colour = fill(image, smooth(inside, 0.7, 0.98))
    return np.dstack([colour * matte[..., None], matte]).astype(np.float32)


def portrait_matte(rgb: np.ndarray) -> np.ndarray:
    """Matte (288, 288) of head and shoulders in front of a plain backdrop, by GrabCut."""
    height, width = rgb.shape[:2]
    y, x = np.mgrid[:height, :width] / (height / 288)
    hint = np.full((height, width), cv2.GC_PR_BGD, np.uint8)
    hint[((x - 144) / 95) ** 2 + ((y - 150) / 125) ** 2 < 1] = cv2.GC_PR_FGD
    hint[((x - 144) / 55) ** 2 + ((y - 160) / 85) ** 2 < 1] = cv2.GC_FGD
    hint[(y > 245) & (np.abs(x - 144) < 85)] = cv2.GC_PR_FGD
    hint[(y < 8) | ((y < 215) & ((x < 28) | (x > 283)))] = cv2.GC_BGD
    cv2.setRNGSeed(1)
    model = np.zeros((2, 1, 65))
    cv2.grabCut(rgb, hint, None, model[0], model[1], 6, cv2.GC_INIT_WITH_MASK)
    inside = np.isin(hint, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    inside = cv2.morphologyEx(inside, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(inside)
    biggest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA])) if count > 1 else 0
    soft = cv2.GaussianBlur((labels == biggest).astype(np.float32), (0, 0), 1.6)
    return smooth(soft, 0.4, 0.95)


def _curve(*points: tuple[float, float]) -> list[tuple[float, float]]:
    """The corners of a smooth line through points, by Chaikin's corner cutting."""
    line = np.array(points, np.float64)
    for _ in range(3):
        cut = np.stack([0.75 * line[:-1] + 0.25 * line[1:], 0.25 * line[:-1] + 0.75 * line[1:]], 1)
        line = np.concatenate([line[:1], cut.reshape(-1, 2), line[-1:]])
    return [tuple(p) for p in line]


def person(rgb: np.ndarray, cloth: tuple, front: tuple, tie: tuple | None) -> Layer:
    """A cut-out of a portrait (288, 288) u8 on a drawn torso.

    `cloth` is the jacket's colour (r, g, b) in 0..255. `front` (shirt or neckline) and `tie` are
    ((x0, x1), colour): their edges in the picture's last row, where the drawing continues them.
    """
    matte, image = portrait_matte(rgb), rgb.astype(np.float32) / 255
    y, x = np.mgrid[:288, :288].astype(np.float32)
    tops = [max(238, int(np.argmax(matte[:, column] > 0.5))) for column in (48, 240)]
    corner = -np.array(CANVAS_ORIGIN)

    def mask(points: list, feather_px: float = 1.2) -> np.ndarray:
        return polygon_matte(CANVAS_HW, (np.array(points) + corner).tolist(), feather_px)

    left = _curve((124, tops[0] - 8), (48, tops[0] + 8), (-8, tops[0] + 38), (-48, 345),
                  (-66, 450), (-72, 600))  # fmt: skip
    right = _curve((360, 600), (354, 450), (336, 345), (296, tops[1] + 38), (240, tops[1] + 8),
                   (164, tops[1] - 8))  # fmt: skip
    torso = mask(left + right)
    rows, columns = np.mgrid[: CANVAS_HW[0], : CANVAS_HW[1]].astype(np.float32)
    rng = np.random.default_rng(7)
    folds = cv2.GaussianBlur(rng.standard_normal(CANVAS_HW).astype(np.float32), (0, 0), 16) * 16
    light = 1.08 - 0.25 * np.abs(columns - 280) / 280 - 0.12 * rows / 620 + 0.1 * folds
    weave = cv2.GaussianBlur(rng.standard_normal(CANVAS_HW).astype(np.float32), (0, 0), 0.8)
    body = (np.array(cloth) / 255) * (light * (1 + 0.13 * weave))[..., None]
    # A soft, dark crease below each armpit separates the arms.
    for x0, x1 in ((14, -6), (274, 294)):
        crease = mask([(x0, 400), (x0 + 5, 400), (x1 + 9, 590), (x1, 590)], 4.0)
        body *= 1 - 0.45 * crease[..., None]
    (x0, x1), colour = front
    middle = (x0 + x1) / 2
    lapels = mask([(x0 - 26, 270), (x1 + 26, 270), (middle + 26, 350), (middle, 455),
                   (middle - 26, 350)], 2.0)  # fmt: skip
    edge = cv2.GaussianBlur(lapels, (0, 0), 3) - cv2.GaussianBlur(lapels, (0, 0), 9)
    body = body * (1 + 0.25 * lapels + 0.8 * edge)[..., None]
    opening = [(middle, 440), (middle + 3, 440), (middle + 8, 600), (middle + 4, 600)]
    body *= 1 - 0.5 * mask(opening)[..., None]
    neckline = mask([(x0, 270), (x1, 270), (middle + 16, 350), (middle, 410), (middle - 16, 350)])
    body += neckline[..., None] * (np.array(colour) / 255 * light[..., None] - body)
    if tie:
        (x0, x1), colour = tie
        knot = mask([(x0, 275), (x1, 275), (x1 + 5, 345), (x1 - 2, 420), (x0 + 2, 420),
                     (x0 - 5, 345)])  # fmt: skip
        body += knot[..., None] * (np.array(colour) / 255 * light[..., None] - body)
    low = np.dstack([body * torso[..., None], torso]).astype(np.float32)

    # The corners of these portraits are filled by mirroring; there they fade into the drawn cloth.
    real = matte * smooth(y, 287, 268)
    real *= 1 - smooth(y, 225, 250) * np.maximum(smooth(x, 62, 46), smooth(x, 226, 242))
    high = np.zeros((*CANVAS_HW, 4), np.float32)
    top, start = int(corner[1]), int(corner[0])
    inside = premultiplied(image, matte)
    ratio = real / np.maximum(matte, 1e-4)
    high[top : top + 288, start : start + 288] = inside * ratio[..., None]
    return Layer(np.clip(high + low * (1 - high[..., 3:]), 0, 1), CANVAS_ORIGIN)
