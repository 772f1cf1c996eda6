"""A check on the first use of half precision on a device: its result is compared with FP32's."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from stream.models.engines import cache
from stream.models.engines.engine import Engine

LEAST_PSNR_DB = 40.0
"""Least PSNR between the two outputs. Correct FP16 and BF16 reach about 60 and 50 dB; a wrong kernel
stays far below 30."""

_log = logging.getLogger(__name__)


class Agreement(BaseModel, frozen=True):
    """The result of the check, as it is stored in the cache."""

    psnr_db: float
    """PSNR between the outputs; infinite if they are equal, minus infinity if one is not finite."""
    trusted: bool
    """Whether half precision may be used."""
    engine: str = ""
    """Name of the engine in half precision."""


def agrees(fast: Engine, open_reference: Callable[[], Engine], record: Path) -> bool:
    """Whether `fast` and the reference engine agree by LEAST_PSNR_DB or more.

    The answer is stored at `record`. Later runs read it and do not open the reference.
    """
    result = cache.read_record(record, Agreement)
    if result is None:
        reference = open_reference()
        try:
            psnr_db = agreement_db(fast, reference)
        finally:
            reference.close()
        result = Agreement(psnr_db=psnr_db, trusted=psnr_db >= LEAST_PSNR_DB, engine=fast.name)
        cache.write_record(record, result)
    if not result.trusted:
        _log.warning(
            "%s: half precision is only %.1f dB from single precision: going on in FP32",
            fast.name,
            result.psnr_db,
        )
    return result.trusted


def agreement_db(first: Engine, second: Engine) -> float:
    """PSNR between two engines' clipped outputs on a fixed crop, dB; -inf if one is not finite."""
    crop = fixed_crop(first.model.in_size)
    outputs = [engine.restore(crop) for engine in (first, second)]
    if not all(np.isfinite(output).all() for output in outputs):
        return -math.inf
    error = np.square(np.clip(outputs[0], 0, 1) - np.clip(outputs[1], 0, 1)).mean()
    return math.inf if error == 0 else float(-10 * np.log10(error))


def fixed_crop(side: int) -> np.ndarray:
    """f32[1, side, side, 3] with smooth shading, edges and noise, the same on every machine."""
    random = np.random.default_rng(20240607)
    v, u = np.mgrid[0:side, 0:side].astype(np.float32) / side
    shade = np.stack((u, v, 1 - u), -1) * 0.6 + 0.2
    oval = (u - 0.5) ** 2 + ((v - 0.5) / 1.3) ** 2 < 0.09
    shade[oval] = shade[oval] * 0.5 + np.array([0.45, 0.3, 0.25], np.float32)
    noise = random.standard_normal((side, side, 3)).astype(np.float32) * 0.02
    return np.clip(shade + noise, 0, 1)[None].astype(np.float32)
