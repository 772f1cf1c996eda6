"""facexlib's ParseNet, which tells a face's parts from what lies round and before it, on OpenVINO.

Its class is used, with our own loading; its weights are parsing_parsenet.pth of facexlib's release
0.2.2. It takes 469 GFLOP a picture (counted by torch), 1.7 times GPEN-BFR-512 and 107 times
gpen-lite-256.
"""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import openvino as ov

from stream.errors import ModelError
from stream.models.engines import cache
from stream.models.engines.openvino_runtime import cached_network, cpu_config, keep_network, openvino_core

if TYPE_CHECKING:  # a network that was converted before runs without torch
    from torch import nn

SIDE = 512
"""Px of the picture that it was trained on, aligned as "ffhq_512"."""
CLASSES = (
    "background", "skin", "nose", "glasses", "left eye", "right eye", "left brow", "right brow", "left ear",
    "right ear", "mouth", "upper lip", "lower lip", "hair", "hat", "earring", "necklace", "neck", "cloth",
)  # fmt: skip
"""Its output channels: the labels of CelebAMask-HQ (Lee et al., 2020), in that dataset's order."""
FACE = tuple(range(1, 13))
"""Channels of the face itself. facexlib's own table also keeps hair and earrings, which a video's
motion would tear from the hair outside the crop."""
_CONVERTER_VERSION = 1


class ParseNet:
    """ParseNet on the CPU. One thread at a time may call it.

    `path` is a `.pth`, of which only tensors are unpickled; the converted network is cached by the
    file's digest. `side` is the picture's, a multiple of 16; the cost grows with its square. Raises
    ModelError where the file is missing or holds something else.
    """

    def __init__(self, path: str | Path, threads: int | None = None, side: int = SIDE) -> None:
        path = Path(path)
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            reason = f"cannot be read ({error.strerror})"
            raise ModelError(f"{path}: {reason}; check compose.mask_weights") from None
        self.side = side
        key = cache.key_of(ov.get_version(), _CONVERTER_VERSION, digest, side)
        entry = cache.cache_folder() / "openvino" / key
        network = cached_network(entry) or _converted(path, entry, side)
        compiled = openvino_core().compile_model(network, "CPU", cpu_config(threads))
        self._request = compiled.create_infer_request()

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The share of face f32[side,side] in 0..1 at every pixel of RGB f32[side,side,3] of 0..1."""
        if image.shape != (self.side, self.side, 3) or image.dtype != np.float32:
            raise ValueError(f"expected f32[{self.side}, {self.side}, 3], got {image.shape}, {image.dtype}")
        share: np.ndarray = self._request.infer([image[None]], share_inputs=True)[0][0]
        return share


def _converted(path: Path, entry: Path, side: int) -> ov.Model:
    """The network from picture to share of face; the branch that repaints the picture falls away."""
    import torch

    class FaceShare(torch.nn.Module):
        def __init__(self, net: torch.nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            labels: torch.Tensor = self.net(image.permute(0, 3, 1, 2) * 2 - 1)[0]
            return labels.softmax(dim=1)[:, FACE[0] : FACE[-1] + 1].sum(dim=1)

    small, shape = [1, 64, 64, 3], [1, side, side, 3]  # tracing at full size would take a minute
    net = FaceShare(_load(path)).requires_grad_(False).eval()
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer that OpenVINO uses is deprecated in torch
        network = ov.convert_model(net, example_input=torch.zeros(small), input=[shape])
    keep_network(network, entry)
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
