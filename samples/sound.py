"""Synthesis of the music of the sample clips."""

from __future__ import annotations

import numpy as np

SAMPLE_RATE_HZ = 48_000


def chord_music(seconds: float, roots_hz: list[float]) -> np.ndarray:
    """A soft pad of major chords with a slow melody, stereo float32 (2, n)."""
    t = np.arange(int(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    sound, each = np.zeros((2, t.size)), seconds / len(roots_hz)
    for i, root in enumerate(roots_hz):
        swell = np.clip(np.minimum((t - i * each) / 0.5, ((i + 1.15) * each - t) / 0.6), 0, 1)
        swell = swell * swell * (3 - 2 * swell)
        for ratio, pan in ((1, 0.5), (5 / 4, 0.3), (3 / 2, 0.7), (2, 0.5)):
            for overtone in (1, 2, 3):
                tone = np.sin(2 * np.pi * root * ratio * overtone * (1 + 0.0006 * pan) * t)
                sound += np.outer([1 - pan, pan], swell * tone * 0.06 / overtone**2)
        for k, ratio in enumerate((2, 5 / 2, 3, 5 / 2)):
            since = t - i * each - k * each / 4
            pluck = np.where(since > 0, np.exp(-3 * since) * np.minimum(since / 0.01, 1), 0)
            sound += pluck * np.sin(2 * np.pi * root * ratio * since) * 0.05
    fade = np.clip(np.minimum(t / 0.3, (seconds - t) / 0.8), 0, 1)
    return (2.5 * sound * fade).astype(np.float32)
