"""Sharpness of a face in its aligned crop, and how much of the restoration a face that sharp gets.

The measure predicts how many dB restoring would gain, from the energy of the crop's luma at five scales:
in its quiet parts, which hold little but noise, in its middle and at its edges. Noise adds energy to the
quiet parts, blur removes fine energy from the edges, and compression removes energy from the quiet parts
first. So neither a noisy nor a blocky face counts as sharp. docs/sharpness.md shows the calibration;
`tests/bench/bench_sharpness.py` makes it.
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
"""Weights of the measure's small network, made by the calibration."""

SIDE = 256
"""Side of the crop that is measured, px. The calibration holds for this size; others are resized."""
_CELLS = 12
"""Cells along a side, into which the inner three quarters of the crop are divided."""
_RANKS = (7, 36, 72, 108, 137)
"""Ranks of the energies used as features, among the 144 cells: 5, 25, 50, 75, 95 %."""
_ROUNDING_ENERGY = 3e-8
"""A few times less than the energy of an 8-bit picture's rounding; it keeps the logarithms finite."""
_SCALES = 0.1, 1.0
"""Bounds of the scale used as a feature, native px for a px of a crop of 256."""
_LUMA = np.array([[0.299, 0.587, 0.114]], np.float32)
_NOISE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6
"""Second differences along both axes (Immerkaer, 1996): no response to edges along the axes."""
_GAIN_DB = 0.3
"""Predicted loss at which the sharpness is 0.73."""
_RAMP = 0.25
"""Range of sharpness in which the restoration fades out."""
_FRAMES = 12
"""Frames over which a track's sharpness is averaged."""
_DEAD_BAND = 0.03
"""The reported sharpness changes only where the average differs from it by more."""
_MAX_TRACKS = 256
"""Tracks that are remembered; the one seen least recently is dropped."""


def features(image: np.ndarray, scale: float) -> np.ndarray:
    """Features f64[31] of a crop f32[S,S,3] RGB in 0..1, from which the gain is predicted.

    `scale` is native px for a crop px, at the crop's own size. The features of each of five bands, fine
    to coarse, are the logarithm of the energy in the cells at five ranks, and that of the squared mean
    magnitude over the energy (0.64 for noise, less for lone edges). The last feature is the logarithm of
    the scale, clipped to 0.1..1 for a crop of 256 px.
    """
    if image.shape[0] != SIDE:
        scale *= image.shape[0] / SIDE
        kind = cv2.INTER_AREA if image.shape[0] > SIDE else cv2.INTER_CUBIC
        image = cv2.resize(image, (SIDE, SIDE), interpolation=kind)
    luma = cv2.transform(image, _LUMA)
    found: list[float] = []
    found += _band_features(cv2.filter2D(luma, -1, _NOISE))
    for width, blur, step in ((3, 0.8, 1), (5, 1.2, 1), (5, 1.2, 2), (5, 1.2, 2)):
        if step > 1:
            luma = cv2.resize(luma, None, fx=1 / step, fy=1 / step, interpolation=cv2.INTER_AREA)
        low = cv2.GaussianBlur(luma, (width, width), blur)
        found += _band_features(cv2.subtract(luma, low))
        luma = low
    return np.array([*found, np.log(np.clip(scale, *_SCALES))])


def _band_features(band: np.ndarray) -> list[float]:
    """Six features of one band f32[n,n]; see `features`."""
    edge = len(band) // 8
    inner = band[edge:-edge, edge:-edge]
    cells = cv2.resize(cv2.multiply(inner, inner), (_CELLS, _CELLS), interpolation=cv2.INTER_AREA)
    energy = np.sort(cells, axis=None)
    magnitude = cv2.norm(inner, cv2.NORM_L1) / inner.size
    evenness = magnitude * magnitude / (float(energy.mean()) + _ROUNDING_ENERGY)
    return [*np.log(energy[list(_RANKS)] + _ROUNDING_ENERGY), np.log(evenness + _ROUNDING_ENERGY)]


@cache
def _weights() -> dict[str, np.ndarray]:
    """Weights of a network with one hidden layer, made by `bench_sharpness.py --calibrate`."""
    return load_file(str(WEIGHTS))


def predicted_gain(image: np.ndarray, scale: float) -> float:
    """Predicted gain of PSNR, dB, from restoring a crop with the bundled model; see `features`."""
    w = _weights()
    hidden = w["inner"] @ features(image, scale) + w["inner_bias"]
    return float(w["outer"] @ np.maximum(hidden, 0) + w["outer_bias"][0])


def sharpness_of_gain(gain_db: float) -> float:
    """Sharpness 0..1 of a crop from its predicted gain: 0.5 where restoring neither gains nor loses."""
    return float(1 / (1 + np.exp(np.clip(gain_db / _GAIN_DB, -50, 50))))


def restoration_weight(sharpness: float, limit: float) -> float:
    """How much of the restoration a face of that sharpness gets, 0..1.

    1 up to `limit` - 0.25, 0 from `limit` on, linear between. With a `limit` of 1 every face gets all of
    it.
    """
    if limit >= 1:
        return 1.0
    return float(np.clip((limit - sharpness) / _RAMP, 0, 1))


class SharpnessMeter:
    """Measures the sharpness of crops as they come, averaged over each track; for one thread.

    The first frames of a track count alike; from the twelfth on, each new frame weighs a twelfth. The
    reported value stays where it is while the average is within 0.03 of it, so that it does not flicker.
    Nothing depends on later frames.
    """

    def __init__(self, by_track: bool) -> None:
        """`by_track` False: the crops are of unrelated pictures, and each is measured alone."""
        self._by_track = by_track
        self._tracks: OrderedDict[int | None, tuple[int, float, float]] = OrderedDict()

    def __call__(self, image: np.ndarray, to_stored: np.ndarray, track_id: int | None) -> float:
        """Sharpness 0..1 of a crop f32[S,S,3] whose px map to stored px by `to_stored`."""
        measured = sharpness_of_gain(predicted_gain(image, geometry.scale_of(to_stored)))
        if not self._by_track:
            return measured
        count, average, reported = self._tracks.pop(track_id, (0, measured, measured))
        count = min(count + 1, _FRAMES)
        average += (measured - average) / count
        reported = min(max(reported, average - _DEAD_BAND), average + _DEAD_BAND)
        self._tracks[track_id] = count, average, reported
        if len(self._tracks) > _MAX_TRACKS:
            self._tracks.popitem(last=False)
        return reported
