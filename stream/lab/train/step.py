"""One training step: the restorer, and the adversary where there is one."""

from __future__ import annotations

from typing import NotRequired, TypedDict

import torch
from torch import Tensor, nn

from stream.lab.train import losses
from stream.lab.train.adversary import AdversaryState, AverageGradients, make_adversary
from stream.lab.train.execution import Execution
from stream.lab.train.perceptual import Backbone
from stream.lab.train.settings import TrainSettings
from stream.models.nets.gpen import GPEN

_BETAS = (0.9, 0.99)
"""StyleGAN2 has a first beta of 0; the restorer keeps its momentum, since pixels lead it."""
_SMALLEST_SHARE = 0.03
"""Of the learning rate at the end."""


class StepState(TypedDict):
    """What a checkpoint keeps."""

    images: int
    net: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: dict[str, object]
    adversary: NotRequired[AdversaryState]


class Step:
    """Networks, optimisers and the average of the weights; `run` sees one batch.

    All randomness follows from the settings' seed and the number of images seen, so that a run that
    goes on from `state` gives the numbers of one that never stopped.
    """

    def __init__(self, net: GPEN, settings: TrainSettings, device: torch.device) -> None:
        self.settings, self.device = settings, device
        self.images = 0
        """Pairs seen so far, of all processes."""
        self.net = net.to(device).train()
        for name, tensor in self.net.named_parameters():
            tensor.requires_grad_(not name.startswith(settings.frozen or ("\0",)))
        self._learning = [tensor for tensor in self.net.parameters() if tensor.requires_grad]
        self._optimizer = torch.optim.Adam(self._learning, settings.lr, _BETAS)
        self.average = {name: tensor.detach().clone() for name, tensor in self.net.state_dict().items()}
        self._backbone = Backbone().to(device) if settings.loss.perceptual else None
        execution = Execution(device, settings.precision == "bf16", settings.compile)
        self._execution = execution
        self._adversary = make_adversary(settings, net.size, execution)
        self._restored = execution.compiled(self._restored_eagerly)
        self._errors = execution.compiled(self._errors_eagerly)
        self._perceptual = execution.compiled(losses.perceptual)

    def run(self, damaged: Tensor, clean: Tensor, average_gradients: AverageGradients) -> dict[str, float]:
        """One batch u8[N,3,S,S]; returns the losses by name, unweighted, and the gradient's norm.

        The gradient of the losses is taken at the restored pictures first and goes back through the
        network from there: so the adversary can measure it, and no graph is walked twice. A step whose
        gradient is not finite is left out: `skipped` is 1.
        """
        settings = self.settings
        dice = torch.Generator().manual_seed(settings.seed * 1_000_003 + self.images)
        x, y = (picture.to(self.device).float() / 127.5 - 1 for picture in (damaged, clean))
        share = _rate(self.images, settings)
        for group in self._optimizer.param_groups:
            group["lr"] = settings.lr * share
        outputs = self._restored(x)
        gradients, figures = self._gradients(x, y, outputs, dice)
        if self._adversary is not None:
            window = _window(self._adversary.cut, self.net.size, dice)
            real, fake = _cut(y, window), _cut(outputs[0].detach(), window)
            pull, adversarial = self._adversary.gradient(fake, gradients[0])
            gradients[0][..., window[0], window[1]] += pull
            figures |= adversarial
        self._optimizer.zero_grad(set_to_none=True)
        learned = [pair for pair in zip(outputs, gradients, strict=True) if pair[0].requires_grad]
        torch.autograd.backward([output for output, _ in learned], [gradient for _, gradient in learned])
        average_gradients(self.net)
        norm = nn.utils.clip_grad_norm_(self._learning, settings.clip)
        sound = bool(torch.isfinite(norm))
        if sound:
            self._optimizer.step()
        if self._adversary is not None:
            figures |= self._adversary.learn(real, fake, average_gradients)
        numbers = {name: float(figure.detach()) for name, figure in figures.items()}
        return numbers | {"norm": float(norm) if sound else 0.0, "skipped": float(not sound)}

    def count(self, images: int) -> None:
        """So many pairs have been seen by all processes together: the average follows."""
        self.images += images
        if self._adversary is not None:
            self._adversary.count(images)
        # A short memory at first, so that the first weights are soon forgotten.
        decay = min(self.settings.average, (1 + self.images) / (10 * images + self.images))
        now = self.net.state_dict()
        for name, mean in self.average.items():
            mean.lerp_(now[name], 1 - decay)

    def state(self) -> StepState:
        """All that a run needs to go on."""
        state: StepState = {
            "images": self.images,
            "net": self.net.state_dict(),
            "average": self.average,
            "optimizer": self._optimizer.state_dict(),
        }
        if self._adversary is not None:
            state["adversary"] = self._adversary.state()
        return state

    def load(self, state: StepState) -> None:
        """Go on from `state()`; an adversary that it does not know starts anew."""
        self.images = state["images"]
        self.net.load_state_dict(state["net"])
        self.average = {name: tensor.to(self.device) for name, tensor in state["average"].items()}
        self._optimizer.load_state_dict(state["optimizer"])
        if self._adversary is not None and "adversary" in state:
            self._adversary.load(state["adversary"])

    # --- inside --------------------------------------------------------------------------------------

    def _gradients(
        self, x: Tensor, y: Tensor, outputs: list[Tensor], dice: torch.Generator
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """The gradients at `outputs` of all losses but the adversary's, and the losses by name."""
        settings = self.settings
        out, *rgbs = (output.detach().requires_grad_(True) for output in outputs)
        parts = self._errors(x, y, out, rgbs)
        if self._backbone is not None:
            window = _window(settings.cut, self.net.size, dice)
            parts["perceptual"] = self._perceptual(self._backbone, _cut(out, window), _cut(y, window))
        total = sum(getattr(settings.loss, name) * part for name, part in parts.items())
        gradients = torch.autograd.grad(total, (out, *rgbs), materialize_grads=True)
        return [gradient.contiguous() for gradient in gradients], parts

    def _restored_eagerly(self, x: Tensor) -> list[Tensor]:
        """The restored pictures, and the intermediate RGBs where a loss looks at them."""
        with self._execution.autocast():
            rgbs = [rgb.float() for rgb in self.net.pyramid(x)]
        out = x + rgbs[-1] if self.net.residual else rgbs[-1]
        return [out, *rgbs[:-1]] if self.settings.loss.scales else [out]

    def _errors_eagerly(self, x: Tensor, y: Tensor, out: Tensor, rgbs: list[Tensor]) -> dict[str, Tensor]:
        weights = self.settings.loss
        parts = {}
        if weights.pixels:
            parts["pixels"] = losses.pixels(out, y)
        if weights.squares:
            parts["squares"] = losses.squares(out, y)
        if weights.gradients:
            parts["gradients"] = losses.gradients(out, y)
        if weights.scales:
            parts["scales"] = losses.scales(rgbs, y - x if self.net.residual else y)
        if weights.detail:
            parts["detail"] = losses.detail(out, y)
        return parts


def _rate(images: int, settings: TrainSettings) -> float:
    """Share of the learning rate: rising linearly, constant, then falling linearly."""
    rise = min(1.0, (images + 1) / max(1, settings.warm_up))
    left = (settings.images - images) / max(1.0, settings.decay * settings.images)
    return rise * max(_SMALLEST_SHARE, min(1.0, left))


def _window(side: int, size: int, dice: torch.Generator) -> tuple[slice, slice]:
    """A square of `side` px somewhere in a picture of `size` px: rows, columns."""
    side = min(side, size)
    top, left = (int(torch.randint(size - side + 1, (), generator=dice)) for _ in range(2))
    return slice(top, top + side), slice(left, left + side)


def _cut(picture: Tensor, window: tuple[slice, slice]) -> Tensor:
    return picture[..., window[0], window[1]].contiguous()
