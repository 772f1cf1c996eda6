"""Preparing and pasting pictures as a typical restoration script does it before any optimisation.

The steps are those of common scripts. The picture is read with OpenCV, converted to RGB and to a float
array of full size, converted back to bytes for Pillow and resized there by Lanczos' filter. It is then
converted to BGR for OpenCV and to RGB for torchvision, which makes and normalises the tensor, one picture
at a time. Afterwards the whole picture is blended in floating point with a mask of its own size. Nothing
is slowed down on purpose: each call is the library's own, with all threads that it is given.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torchvision.transforms.functional import normalize, to_tensor

from stream.picture import geometry


def read(path: Path) -> np.ndarray:
    """Read a picture as BGR u8[h,w,3]."""
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert bgr is not None, path  # the bench wrote it
    return bgr


def prepare(bgr: np.ndarray, to_picture: np.ndarray | None, size: int) -> torch.Tensor:
    """The network's input f32[1,3,size,size] in -1..1: a crop, or the whole picture.

    `to_picture`, f64[2,3], maps px of the crop to px of the picture; None selects the whole picture.
    """
    rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    picture = rgb.astype(np.float32) / 255.0
    if to_picture is not None:
        picture = _cropped(picture, to_picture, size)
    image = Image.fromarray((picture * 255.0).round().astype(np.uint8))
    image = image.resize((size, size), Image.Resampling.LANCZOS)
    aligned = cv2.cvtColor(np.array(image), cv2.COLOR_RGB2BGR)
    face = cv2.cvtColor(aligned, cv2.COLOR_BGR2RGB)
    tensor: torch.Tensor = normalize(to_tensor(face), [0.5, 0.5, 0.5], [0.5, 0.5, 0.5])
    return tensor.unsqueeze(0)


def finish(output: torch.Tensor) -> np.ndarray:
    """The network's output f32[1,3,S,S] in -1..1 as BGR u8[S,S,3]."""
    image = output[0].permute(1, 2, 0).float().cpu().numpy() * 0.5 + 0.5
    image = (np.clip(image, 0, 1) * 255.0).round().astype(np.uint8)
    return cv2.cvtColor(image, cv2.COLOR_RGB2BGR)


def paste(bgr: np.ndarray, face: np.ndarray, to_picture: np.ndarray) -> np.ndarray:
    """The picture BGR u8[h,w,3] with the face BGR u8[S,S,3] blended into it by a soft mask."""
    height, width = bgr.shape[:2]
    to_crop = _pixel_centres(geometry.invert(to_picture))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    soft = np.array(geometry.feather_mask(len(face), 0.16))
    mask = cv2.warpAffine(soft, to_crop, (width, height), flags=flags)[..., None]
    layer = cv2.warpAffine(face.astype(np.float32), to_crop, (width, height), flags=flags)
    return cv2.convertScaleAbs(bgr.astype(np.float32) * (1 - mask) + layer * mask)


def _cropped(picture: np.ndarray, to_picture: np.ndarray, size: int) -> np.ndarray:
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    affine = _pixel_centres(to_picture)
    return cv2.warpAffine(picture, affine, (size, size), flags=flags, borderMode=cv2.BORDER_REFLECT_101)


def _pixel_centres(affine: np.ndarray) -> np.ndarray:
    """The affine for OpenCV, in whose coordinates whole numbers are the centres of pixels."""
    shifted = affine.copy()
    shifted[:, 2] += shifted[:, :2] @ (0.5, 0.5) - 0.5
    return shifted
