"""facexlib's RetinaFace (ResNet50) on torch. Only facexlib's classes are used."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from stream.errors import ModelError

_MEAN_BGR = (104.0, 117.0, 123.0)
_CACHED_SIZES = 8
"""Number of picture sizes whose anchors are cached: a pyramid uses several sizes by turns."""

RawDetections = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Boxes f32[n,4] and landmarks f32[n,5,2] in px, scores f32[n], before non-maximum suppression."""


def load_retinaface(
    path: str | Path | None, least_score: float, threads: int | None = None
) -> Callable[[np.ndarray], RawDetections]:
    """Load the detector: a function from RGB f32[h,w,3] in 0..1 to its raw detections.

    path: detection_Resnet50_Final.pth of facexlib's release 0.1.0, of which only tensors are unpickled.
    least_score: detections with lower scores are left out. threads: the size of torch's thread pool, which
    belongs to the whole process: a torch engine that is created later changes it.
    Raises ModelError where the file is missing or holds other weights.
    """
    if path is None:
        raise ModelError("detect.weights: RetinaFace needs the path of detection_Resnet50_Final.pth")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); check detect.weights") from None
    except Exception:  # broken files raise anything: KeyError, IndexError, UnpicklingError
        raise ModelError(f"{path}: not a file of torch weights; fetch detection_Resnet50_Final.pth") from None
    if threads is not None:
        torch.set_num_threads(threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision deprecates the argument that facexlib uses
        from facexlib.detection.retinaface import RetinaFace

        net = RetinaFace(network_name="resnet50", device="cpu")
    try:
        net.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
    except (RuntimeError, AttributeError, TypeError):
        raise ModelError(f"{path}: holds other weights than RetinaFace's; check detect.weights") from None
    return _RetinaFace(net.eval().requires_grad_(False), net.cfg, least_score)


class _RetinaFace:
    def __init__(self, net: torch.nn.Module, settings: Mapping[str, object], least_score: float) -> None:
        """`settings`: facexlib's for the network, such as its anchors."""
        self._net, self._settings, self._least = net, settings, least_score
        self._priors: dict[tuple[int, int], torch.Tensor] = {}

    @torch.inference_mode()
    def __call__(self, rgb: np.ndarray) -> RawDetections:
        from facexlib.detection.retinaface_utils import PriorBox, decode, decode_landm

        size = rgb.shape[:2]
        bgr = np.ascontiguousarray(rgb[..., ::-1].transpose(2, 0, 1)[None] * 255, np.float32)
        picture = torch.from_numpy(bgr) - torch.tensor(_MEAN_BGR)[None, :, None, None]
        boxes, scores, marks = (part[0] for part in self._net(picture))
        if size not in self._priors:
            if len(self._priors) == _CACHED_SIZES:
                self._priors.pop(next(iter(self._priors)))
            self._priors[size] = PriorBox(self._settings, image_size=size).forward()
        keep = scores[:, 1] >= self._least
        priors, variance = self._priors[size][keep], self._settings["variance"]
        scale = np.array([size[1], size[0]], np.float32)
        return (
            decode(boxes[keep], priors, variance).numpy() * np.tile(scale, 2),
            decode_landm(marks[keep], priors, variance).numpy().reshape(-1, 5, 2) * scale,
            scores[keep, 1].numpy(),
        )
