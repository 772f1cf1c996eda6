"""Models to measure: the bundled one, published shapes with random weights, or any weights file."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode

from stream.lab.bench.published import PublishedGPEN
from stream.lab.bench.worker import BenchError
from stream.models.info import BUNDLED_MODEL, ModelInfo, bundled_model_path
from stream.models.nets import GPEN, build_generator, load_generator
from stream.models.nets.gpen import StyledConv


@dataclass(frozen=True, slots=True)
class GeneratorShape:
    """The parameters that determine the shapes of a generator's tensors."""

    size: int
    channel_multiplier: float
    narrow: float


OFFICIAL = {
    "GPEN-BFR-256": GeneratorShape(size=256, channel_multiplier=1, narrow=0.5),
    "GPEN-BFR-512": GeneratorShape(size=512, channel_multiplier=2, narrow=1),
}
"""Shapes of published models. Their weights are not available; random weights take the same time."""
KNOWN = (BUNDLED_MODEL, *OFFICIAL)
"""Names of models that need no file."""


def weights_file(name: str, folder: Path) -> Path:
    """The weights file of `name`, a known model or a path. Random weights are made once, in `folder`.

    Raises BenchError if there is no such file.
    """
    if name == BUNDLED_MODEL:
        return bundled_model_path()
    if name not in OFFICIAL:
        if not Path(name).is_file():
            raise BenchError(f"--model {name}: no such file; known by name: {', '.join(KNOWN)}")
        return Path(name)
    path = folder / f"{name}.safetensors"
    if path.exists():
        return path
    shape = OFFICIAL[name]
    torch.manual_seed(0)
    net = GPEN(shape.size, channel_multiplier=shape.channel_multiplier, narrow=shape.narrow)
    for layer in net.generator.modules():
        if isinstance(layer, StyledConv):
            layer.noise.weight.data.uniform_(0.2, 1.0)
    metadata = {key: str(value) for key, value in asdict(shape).items()}
    save_file(net.state_dict(), path, metadata | {"arch": "FullGenerator", "template": "ffhq_512"})
    return path


def shown_name(name: str) -> str:
    """The model's name in a table."""
    return f"{name} (random weights)" if name in OFFICIAL else Path(name).stem if "/" in name else name


def network_flop(info: ModelInfo) -> int:
    """Floating-point operations of a crop's convolutions and matrix products, two for each multiply-add."""
    net = build_generator(info)
    with FlopCounterMode(display=False) as counter:
        net(torch.empty(1, 3, info.in_size, info.in_size, device="meta"))
    return int(counter.get_total_flops())


class PublishedModel:
    """A weights file in the published formulation, eager, computed in `dtype`."""

    def __init__(
        self,
        path: str | Path,
        *,
        depthwise: bool = False,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> None:
        net, self.model = load_generator(path)
        tensors = {name: t.detach().to(device, dtype) for name, t in net.state_dict().items()}
        self._net = PublishedGPEN(tensors, residual=self.model.residual, depthwise=depthwise)
        self._dtype = dtype

    def __call__(
        self, x: torch.Tensor, mode: Callable[[], AbstractContextManager[None]] = torch.no_grad
    ) -> torch.Tensor:
        """Restore f32[N,3,S,S] in -1..1 under `mode`, `torch.no_grad` or `torch.inference_mode`."""
        low, high = self.model.input_range
        with mode():
            x = (x * 0.5 + 0.5) * (high - low) + low if (low, high) != (-1.0, 1.0) else x
            return self._net(x.to(self._dtype)).float()


def random_retinaface(folder: Path) -> Path:
    """A weights file of RetinaFace-ResNet50 with random values, to measure its time. It finds no face."""
    path = folder / "retinaface.pth"
    if not path.exists():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # facexlib uses a deprecated argument of torchvision
            from facexlib.detection.retinaface import RetinaFace

            torch.manual_seed(0)
            net = RetinaFace(network_name="resnet50", device="cpu")
        # No anchor may count as a face: suppression of a million hits would run out of memory.
        for head in net.ClassHead:
            head.conv1x1.weight.data.zero_()
            head.conv1x1.bias.data = torch.tensor([20.0, -20.0]).repeat(len(head.conv1x1.bias) // 2)
        torch.save(net.state_dict(), path)
    return path
