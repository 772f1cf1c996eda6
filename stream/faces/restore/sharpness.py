"""How sharp is a face already? A measure on its aligned crop, and what is left of the restoration.

The measure predicts what restoring would do to the picture, in dB, from the energy that the crop's
luma holds at five scales: in its quiet parts, where there is little but noise, in its middle, and
at its edges. Noise fills the quiet parts, blur empties the edges at fine scales, compression empties
the quiet parts first: so neither a noisy nor a blocky face counts as sharp. docs/sharpness.md shows
the calibration, `tests/bench/bench_sharpness.py` makes it.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import cache
from importlib import resources
from pathlib import Path

import cv2
import numpy as np
from safetensors.numpy import load_file

from stream.picture import geometry

WEIGHTS = Path(str(resources.files("stream"))) / "weights" / "sharpness.safetensors"

SIDE = 256
"""The crop is looked at in this size, px; the calibration holds for it."""
_CELLS = 12
"""The inner three quarters of the crop are divided into so many cells along a side."""
_QUANTILES = (7, 36, 72, 108, 137)
"""Ranks, among the 144 cells, of the energies that are taken: 5, 25, 50, 75, 95 %."""
_FAINT = 3e-8
"""Energy of an 8-bit picture's own rounding, a few times finer: less tells nothing."""
_SCALES = 0.1, 1.0
_LUMA = np.array([[0.299, 0.587, 0.114]], np.float32)
_NOISE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6
"""Second differences both ways (Immerkaer, 1996): blind to edges along the axes."""
_GAIN_DB = 0.3
"""Predicted loss at which the sharpness is 0.73."""
_RAMP = 0.25
"""Sharpness over which the restoration fades out."""
_FRAMES = 12
"""Frames over which a track's sharpness is averaged."""
_SLACK = 0.03
"""The sharpness shown moves only where the average has left it by more."""
_TRACKS = 256


def features(image: np.ndarray, scale: float) -> np.ndarray:
    """What the measure rests on, f64[31], of a crop f32[S,S,3] RGB in 0..1.

    `scale` is native px for a crop px, at the crop's own size. For each of five bands, fine to
    coarse: the logarithm of the energy in the cells at five ranks, and of the squared mean
    magnitude over the energy (0.64 for noise, less for lone edges); last the logarithm of the
    scale, cut to 0.1..1 of a crop of 256 px.
    """
    if image.shape[0] != SIDE:
        scale *= image.shape[0] / SIDE
        kind = cv2.INTER_AREA if image.shape[0] > SIDE else cv2.INTER_CUBIC
        image = cv2.resize(image, (SIDE, SIDE), interpolation=kind)
    luma = cv2.transform(image, _LUMA)
    found: list[float] = []
    found += _stand_out(cv2.filter2D(luma, -1, _NOISE))
    for width, blur, step in ((3, 0.8, 1), (5, 1.2, 1), (5, 1.2, 2), (5, 1.2, 2)):
        if step > 1:
            luma = cv2.resize(luma, None, fx=1 / step, fy=1 / step, interpolation=cv2.INTER_AREA)
        low = cv2.GaussianBlur(luma, (width, width), blur)
        found += _stand_out(cv2.subtract(luma, low))
        luma = low
    return np.array([*found, np.log(np.clip(scale, *_SCALES))])


def _stand_out(band: np.ndarray) -> list[float]:
    edge = len(band) // 8
    inner = band[edge:-edge, edge:-edge]
    cells = cv2.resize(cv2.multiply(inner, inner), (_CELLS, _CELLS), interpolation=cv2.INTER_AREA)
    energy = np.sort(cells, axis=None)
    size = cv2.norm(inner, cv2.NORM_L1) / inner.size
    common = size * size / (float(energy.mean()) + _FAINT)
    return [*np.log(energy[list(_QUANTILES)] + _FAINT), np.log(common + _FAINT)]


@cache
def _weights() -> dict[str, np.ndarray]:
    """Made by `bench_sharpness.py --calibrate`: one layer of a few rectified sums, and their sum."""
    return load_file(str(WEIGHTS))


def predicted_gain(image: np.ndarray, scale: float) -> float:
    """PSNR in dB that restoring the crop with the bundled model should gain; see `features`."""
    w = _weights()
    sums = w["inner"] @ features(image, scale) + w["inner_bias"]
    return float(w["outer"] @ np.maximum(sums, 0) + w["outer_bias"][0])


def sharpness(gain_db: float) -> float:
    """0..1 from the predicted gain: 0.5 where restoring neither gains nor loses, 1 for sharp."""
    return float(1 / (1 + np.exp(np.clip(gain_db / _GAIN_DB, -50, 50))))


def keep(sharp: float, limit: float) -> float:
    """How much of the restoration a face of that sharpness gets, 0..1.

    All of it up to `limit` - 0.25, nothing from `limit` on, a straight line between. A `limit` of
    1 leaves no face alone.
    """
    if limit >= 1:
        return 1.0
    return float(np.clip((limit - sharp) / _RAMP, 0, 1))


class Gauge:
    """Sharpness of crops as they come, steady for each track. Causal; not for several threads.

    The first frames of a track are averaged, later ones run in at a twelfth; what is shown stays
    put within 0.03 of the average, so that it does not flicker.
    """

    def __init__(self, steady: bool) -> None:
        """`steady`: crops of one track belong together; False for unrelated pictures."""
        self._steady = steady
        self._tracks: OrderedDict[int | None, tuple[int, float, float]] = OrderedDict()

    def __call__(self, image: np.ndarray, to_stored: np.ndarray, track_id: int | None) -> float:
        """Sharpness 0..1 of a crop f32[S,S,3] whose px map to stored px by `to_stored`."""
        seen = sharpness(predicted_gain(image, geometry.scale_of(to_stored)))
        if not self._steady:
            return seen
        count, average, shown = self._tracks.pop(track_id, (0, seen, seen))
        count = min(count + 1, _FRAMES)
        average += (seen - average) / count
        shown = min(max(shown, average - _SLACK), average + _SLACK)
        self._tracks[track_id] = count, average, shown
        if len(self._tracks) > _TRACKS:
            self._tracks.popitem(last=False)
        return shown
