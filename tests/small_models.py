"""Small GPENs with random weights or with a known output, and pictures for them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from stream import load_config
from stream.config import Config
from stream.models.nets.gpen import GPEN

SKIN, BLUE = (0.75, 0.5, 0.4), (0.2, 0.3, 0.9)


def write_model(
    path: Path,
    task: str = "restore",
    *,
    size: int = 64,
    in_size: int | None = None,
    answer: tuple[float, float, float] | str | None = None,
    input_range: str = "-1,1",
    template: str = "ffhq_512",
) -> Path:
    """Write a model with the published structure and tensor names.

    answer: None: the weights are random. A colour (R, G, B in 0..1): it is the network's output. "input":
    the network's output is its input, in the values of its input range (-1..1 or 0..1).
    """
    facts = {"channel_multiplier": 1, "narrow": 0.125, "style_dim": 32, "n_mlp": 2}
    echoes = answer == "input"
    torch.manual_seed(0)
    net = GPEN(size, in_size=in_size, residual=echoes, **facts)
    state = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}
    if answer is not None:
        for name, tensor in state.items():
            if "to_rgb" in name and name.endswith(("conv.weight", ".bias")) and "modulation" not in name:
                tensor.zero_()
        if not echoes:
            last = state[f"generator.to_rgbs.{len(net.generator.to_rgbs) - 1}.bias"]
            last.copy_(torch.tensor(answer).view(1, 3, 1, 1) * 2 - 1)
    sizes = {"arch": "FullGenerator", "size": size}
    if in_size is not None:
        sizes = {"arch": "FullGenerator_SR", "in_size": in_size, "out_size": size}
    stated = {"task": task, "template": template, "input_range": input_range, "residual": echoes}
    metadata = {key: str(value).lower() for key, value in (facts | stated).items()}
    metadata |= {key: str(value) for key, value in sizes.items()}
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path, metadata=metadata)
    return path


UNCHECKED = "restore.skip_sharp=1", "compose.guard=false"
"""Settings that restore every face, although random weights do not give a face."""


def write_models(folder: Path) -> Path:
    """Write one model for each task. `restore` and `sr` have random weights."""
    write_model(folder / "restore.safetensors")
    write_model(folder / "sr.safetensors", in_size=32)
    write_model(folder / "colorize.safetensors", "colorize", answer=SKIN)
    write_model(folder / "inpaint.safetensors", "inpaint", answer=BLUE)
    write_model(folder / "echo.safetensors", "inpaint", answer="input")
    write_model(folder / "segment.safetensors", "segment", answer="input", input_range="0,1")
    return folder


def settings(models: Path, name: str, *overrides, engine="torch") -> Config:
    """The default preset with a model of `write_models`, whose output is used whatever it is."""
    ours = [f"restore.model={models / name}.safetensors", f"restore.engine={engine}", *UNCHECKED]
    return load_config("default", None, [*ours, *overrides])


def picture(path, seed=0, size=64, channels=3) -> np.ndarray:
    """Write a smooth random picture and return its pixels, RGB or grey u8."""
    coarse = np.random.default_rng(seed).integers(30, 220, (8, 8, channels)).astype(np.uint8)
    image = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    Image.fromarray(image).save(path)
    return image


def read(path) -> np.ndarray:
    """Pixels as stored, u8."""
    return np.asarray(Image.open(path))


def hole_mask(size=64) -> np.ndarray:
    """A mask u8[size,size], white where to fill."""
    mask = np.zeros((size, size), np.uint8)
    mask[20:30, 24:44] = 255
    return mask


METADATA = {
    "arch": "FullGenerator",
    "size": "16",
    "channel_multiplier": "1",
    "narrow": "0.015625",
    "style_dim": "8",
    "n_mlp": "1",
    "template": "ffhq_512",
}


def write_tiny_model(path, *, drop=None, metadata=METADATA):
    net = GPEN(16, channel_multiplier=1, narrow=1 / 64, style_dim=8, n_mlp=1)
    state = {key: value for key, value in net.state_dict().items() if key != drop}
    save_file(state, path, metadata=metadata)
    return path
