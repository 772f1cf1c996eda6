"""Artefacts of analogue tape and interlaced cameras. Pictures are RGB f32[H,W,3] of 0..255."""

from __future__ import annotations

import cv2
import numpy as np


def combed(image: np.ndarray, later: np.ndarray) -> np.ndarray:
    """Two fields woven into one frame: even rows of `image`, odd rows of the picture one field later."""
    woven = image.copy()
    woven[1::2] = later[1::2]
    return woven


def bobbed(image: np.ndarray) -> np.ndarray:
    """One field alone, its odd rows interpolated from their neighbours as by a bob deinterlacer."""
    single = image.copy()
    below = np.concatenate((image[2::2], image[-2:-1] if len(image) % 2 == 0 else image[:0]))
    odd = single[1::2]
    odd[...] = 0.5 * (image[::2][: len(odd)] + below[: len(odd)])
    return single


def chroma_shifted(image: np.ndarray, dx: float, dy: float, blur: float) -> np.ndarray:
    """Chroma shifted by (`dx`, `dy`) px against luma and blurred sideways by a Gaussian of `blur` px."""
    ycc = cv2.cvtColor(image / np.float32(255), cv2.COLOR_RGB2YCrCb)
    move = np.array([[1, 0, dx], [0, 1, dy]], np.float64)
    chroma = cv2.warpAffine(
        np.ascontiguousarray(ycc[..., 1:]),
        move,
        ycc.shape[1::-1],
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    if blur >= 0.05:
        chroma = cv2.GaussianBlur(chroma, (0, 0), sigmaX=blur, sigmaY=0.3)
    return cv2.cvtColor(np.dstack((ycc[..., :1], chroma)), cv2.COLOR_YCrCb2RGB) * np.float32(255)
