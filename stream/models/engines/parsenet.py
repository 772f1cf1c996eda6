"""facexlib's ParseNet, which labels the parts of a face and what surrounds or covers it, on OpenVINO.

Only facexlib's class is used. The weights are parsing_parsenet.pth of its release 0.2.2. A picture takes
469 GFLOP (counted by torch), 1.7 times as many as GPEN-BFR-512 and 107 times as many as gpen-lite-256.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import openvino as ov

from stream.errors import ModelError
from stream.models.engines import cache
from stream.models.engines.openvino_runtime import cached_network, cpu_config, openvino_core, save_network
from stream.models.info import sha256_of

if TYPE_CHECKING:  # a cached network runs without torch
    from torch import nn

SIDE = 512
"""Side of the pictures on which it was trained, px, aligned as "ffhq_512"."""
CLASSES = (
    "background", "skin", "nose", "glasses", "left eye", "right eye", "left brow", "right brow", "left ear",
    "right ear", "mouth", "upper lip", "lower lip", "hair", "hat", "earring", "necklace", "neck", "cloth",
)  # fmt: skip
"""The labels of its output channels, in the order of the dataset CelebAMask-HQ (Lee et al., 2020)."""
FACE = tuple(range(1, 13))
"""Channels of the face itself. facexlib's own table also keeps hair and earrings: in a video they would
move against the hair outside the crop."""
_CONVERTER_VERSION = 1


class ParseNet:
    """ParseNet on the CPU. One thread at a time may call it.

    path: a `.pth`, of which only tensors are unpickled. The converted network is cached by the file's
    digest. side: the picture's, px, a multiple of 16; the time grows with its square. Raises ModelError
    where the file is missing or holds other weights.
    """

    def __init__(self, path: str | Path, threads: int | None = None, side: int = SIDE) -> None:
        path = Path(path)
        try:
            digest = sha256_of(path)
        except OSError as error:
            reason = f"cannot be read ({error.strerror})"
            raise ModelError(f"{path}: {reason}; check compose.mask_weights") from None
        self.side = side
        key = cache.key_of(ov.get_version(), _CONVERTER_VERSION, digest, side)
        folder = cache.cache_folder() / "openvino" / key
        network = cached_network(folder) or _converted(path, folder, side)
        compiled = openvino_core().compile_model(network, "CPU", cpu_config(threads))
        self._request = compiled.create_infer_request()

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The probability of face f32[side,side] at every pixel of RGB f32[side,side,3] in 0..1."""
        if image.shape != (self.side, self.side, 3) or image.dtype != np.float32:
            raise ValueError(f"expected f32[{self.side}, {self.side}, 3], got {image.shape}, {image.dtype}")
        probability: np.ndarray = self._request.infer([image[None]], share_inputs=True)[0][0]
        return probability


def _converted(path: Path, folder: Path, side: int) -> ov.Model:
    """Convert and cache the network from picture to probability of face, without the branch that repaints."""
    import torch

    class FaceProbability(torch.nn.Module):
        def __init__(self, net: torch.nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            labels: torch.Tensor = self.net(image.permute(0, 3, 1, 2) * 2 - 1)[0]
            return labels.softmax(dim=1)[:, FACE[0] : FACE[-1] + 1].sum(dim=1)

    small, shape = [1, 64, 64, 3], [1, side, side, 3]  # tracing at full size would take a minute
    net = FaceProbability(_load(path)).requires_grad_(False).eval()
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates the tracer that OpenVINO uses
        network = ov.convert_model(net, example_input=torch.zeros(small), input=[shape])
    save_network(network, folder)
    return network


def _load(path: Path) -> nn.Module:
    import torch
    from facexlib.parsing.parsenet import ParseNet

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # broken files raise anything: KeyError, IndexError, UnpicklingError
        raise ModelError(f"{path}: not a file of torch weights; fetch parsing_parsenet.pth again") from None
    net: nn.Module = ParseNet(in_size=SIDE, out_size=SIDE, parsing_ch=len(CLASSES))
    try:
        net.load_state_dict(state)
    except (RuntimeError, AttributeError, TypeError):
        raise ModelError(f"{path}: holds other weights than ParseNet's; check compose.mask_weights") from None
    return net
