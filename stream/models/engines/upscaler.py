"""Super-resolution networks of Real-ESRGAN's class for whole pictures, loaded by spandrel, run on torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from stream.errors import ModelError
from stream.models.engines import cuda_usable

TILE = 320
"""Side of the tiles that go through the network, px of the small picture."""
_MARGIN, _FADE = 16, 16
"""Width of a tile's border that is discarded, and of the part next to it that is blended with the
neighbouring tile, px."""


class Upscaler:
    """One network on one device, FP32.

    path: a `.pth`, of which only tensors are unpickled, or a `.safetensors`. device: "cpu", "cuda", or
    "auto": CUDA if it is usable. threads: the size of torch's thread pool. Raises ModelError if spandrel is
    missing, or if the file holds no network that upscales RGB.
    """

    def __init__(self, path: str | Path, *, device: str = "auto", threads: int | None = None) -> None:
        try:
            import spandrel
        except ImportError:
            raise ModelError(
                "compose.upscale_weights: needs the package spandrel; pip install 'gpen-stream[upscale]'"
            ) from None
        if threads is not None:
            torch.set_num_threads(threads)
        state = _state(Path(path))
        try:
            model = spandrel.ModelLoader().load_from_state_dict(spandrel.canonicalize_state_dict(state))
        except (
            spandrel.UnsupportedModelError,
            RuntimeError,
            KeyError,
            TypeError,
            ValueError,
            AttributeError,
        ):
            raise ModelError(
                f"{path}: no network that spandrel knows; check compose.upscale_weights"
            ) from None
        rgb = model.input_channels == model.output_channels == 3
        if not isinstance(model, spandrel.ImageModelDescriptor) or not rgb or model.scale < 2:
            raise ModelError(
                f"{path}: a {model.architecture.name} that does not enlarge RGB; take an upscaler's weights"
            )
        self.scale: int = model.scale
        self.name = model.architecture.name
        if device == "auto":
            device = "cuda" if cuda_usable() else "cpu"
        self._device = torch.device(device)
        self._net = model.to(self._device).eval()

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> np.ndarray:
        """RGB f32[h,w,3] in 0..1 -> f32[h scale,w scale,3], computed in tiles that are blended."""
        height, width = image.shape[:2]
        k = self.scale
        total = np.zeros((height * k, width * k, 3), np.float32)
        weights = np.zeros((height * k, width * k, 1), np.float32)
        for y0, y1 in spans(height):
            for x0, x1 in spans(width):
                tile = np.ascontiguousarray(image[y0:y1, x0:x1].transpose(2, 0, 1)[None])
                upscaled = (
                    self._net(torch.from_numpy(tile).to(self._device))[0].permute(1, 2, 0).cpu().numpy()
                )
                rows, columns = _ramp(y0, y1, height, k), _ramp(x0, x1, width, k)
                weight = (rows[:, None] * columns[None, :])[..., None]
                place = slice(y0 * k, y1 * k), slice(x0 * k, x1 * k)
                total[place] += upscaled * weight
                weights[place] += weight
        return total / weights


def spans(length: int) -> list[tuple[int, int]]:
    """Parts (first, last + 1) of 0..length, at most TILE long, that overlap by both of their borders."""
    step = TILE - 2 * (_MARGIN + _FADE)
    starts = range(0, max(1, length - 2 * (_MARGIN + _FADE)), step)
    return [(start, min(start + TILE, length)) for start in starts]


def _ramp(start: int, stop: int, length: int, scale: int) -> np.ndarray:
    """Blending weights f32[(stop - start) scale] along one side of a tile; 1 at the picture's own edges."""
    at = np.arange((stop - start) * scale, dtype=np.float32) + 0.5
    ramp = np.ones_like(at)
    for has_neighbour, distance in ((start > 0, at), (stop < length, at[::-1])):
        if has_neighbour:
            ramp = np.minimum(ramp, np.clip((distance / scale - _MARGIN) / _FADE, 0, 1))
    return ramp


def _state(path: Path) -> dict[str, torch.Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        reason = error.strerror or "it is not whole"
        raise ModelError(f"{path}: cannot be read ({reason}); check compose.upscale_weights") from None
    except Exception:  # broken files raise anything: KeyError, IndexError, UnpicklingError
        raise ModelError(f"{path}: not a file of weights; fetch it again") from None
    return state
