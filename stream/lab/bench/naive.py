"""How a restoration script prepares and pastes pictures before anyone has looked at its time.

Rebuilt from what such scripts commonly do, step for step: the picture is read with OpenCV, turned
to RGB and made a float array of full size, turned back to bytes for Pillow, resized there with
Lanczos' filter, turned to BGR for OpenCV's sake and to RGB again for torchvision, which makes the
tensor and normalises it, one picture at a time. Afterwards the whole picture is blended in floating
point under a mask of its own size. Nothing is slowed down on purpose: each call is the library's
own, on all threads that it is given.
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
    """BGR u8[h,w,3]."""
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert bgr is not None, path  # the bench wrote it
    return bgr


def prepare(bgr: np.ndarray, to_picture: np.ndarray | None, size: int) -> torch.Tensor:
    """f32[1,3,size,size] of -1..1, of the crop that `to_picture` places, or of the whole picture."""
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
    """f32[1,3,S,S] of -1..1 -> BGR u8[S,S,3]."""
    image = output[0].permute(1, 2, 0).float().cpu().numpy() * 0.5 + 0.5
    image = (np.clip(image, 0, 1) * 255.0).round().astype(np.uint8)
    return cv2.cvtColor(image, cv2.COLOR_RGB2BGR)


def paste(bgr: np.ndarray, face: np.ndarray, to_picture: np.ndarray) -> np.ndarray:
    """The picture BGR u8[h,w,3] with the face BGR u8[S,S,3] blended in under a soft mask."""
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
    """For OpenCV, which counts pixels from their centres."""
    shifted = affine.copy()
    shifted[:, 2] += shifted[:, :2] @ (0.5, 0.5) - 0.5
    return shifted
