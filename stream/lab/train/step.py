"""One training step of the restorer and, if there is one, of the adversary."""

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
"""The betas of Adam. StyleGAN2 has a first beta of 0; the restorer needs momentum for its pixel losses."""
_LAST_RATE_SHARE = 0.03
"""Share of the learning rate that is left at the end of the run."""


class StepState(TypedDict):
    """The state of the training in a checkpoint, without the adversary's."""

    images: int
    net: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: dict[str, object]
    adversary: NotRequired[AdversaryState]


class Step:
    """Networks, optimisers and the running average of the weights; `run` trains on one batch.

    All randomness follows from the settings' seed and from the number of images seen. A run that
    continues from `state()` therefore gives the same numbers as a run that was never interrupted.
    """

    def __init__(self, net: GPEN, settings: TrainSettings, device: torch.device) -> None:
        self.settings, self.device = settings, device
        self.images = 0
        """Pairs seen so far by all processes together."""
        self.net = net.to(device).train()
        for name, tensor in self.net.named_parameters():
            tensor.requires_grad_(not name.startswith(settings.frozen or ("\0",)))
        self._trainable = [tensor for tensor in self.net.parameters() if tensor.requires_grad]
        self._optimizer = torch.optim.Adam(self._trainable, settings.lr, _BETAS)
        self.average = {name: tensor.detach().clone() for name, tensor in self.net.state_dict().items()}
        self._backbone = Backbone().to(device) if settings.loss.perceptual else None
        execution = Execution(device, settings.precision == "bf16", settings.compile)
        self._execution = execution
        self._adversary = make_adversary(settings, net.size, execution)
        self._restored = execution.compiled(self._restored_eagerly)
        self._errors = execution.compiled(self._errors_eagerly)
        self._perceptual = execution.compiled(losses.perceptual)

    def run(self, damaged: Tensor, clean: Tensor, average_gradients: AverageGradients) -> dict[str, float]:
        """Train on one batch, both u8[N,3,S,S]; the losses by name, unweighted, and the gradient's norm.

        The gradients of the losses are computed at the restored pictures first and propagated through the
        network afterwards. This lets the adversary measure them, and no graph is traversed twice. A step
        whose gradient is not finite changes no weights; `skipped` is then 1.
        """
        settings = self.settings
        rng = torch.Generator().manual_seed(settings.seed * 1_000_003 + self.images)
        x, y = (picture.to(self.device).float() / 127.5 - 1 for picture in (damaged, clean))
        share = _rate(self.images, settings)
        for group in self._optimizer.param_groups:
            group["lr"] = settings.lr * share
        outputs = self._restored(x)
        gradients, figures = self._gradients(x, y, outputs, rng)
        if self._adversary is not None:
            window = _window(self._adversary.cut, self.net.size, rng)
            real, fake = _cut(y, window), _cut(outputs[0].detach(), window)
            own_gradient, own_figures = self._adversary.gradient(fake, gradients[0])
            gradients[0][..., window[0], window[1]] += own_gradient
            figures |= own_figures
        self._optimizer.zero_grad(set_to_none=True)
        trained = [pair for pair in zip(outputs, gradients, strict=True) if pair[0].requires_grad]
        torch.autograd.backward([output for output, _ in trained], [gradient for _, gradient in trained])
        average_gradients(self.net)
        norm = nn.utils.clip_grad_norm_(self._trainable, settings.clip)
        finite = bool(torch.isfinite(norm))
        if finite:
            self._optimizer.step()
        if self._adversary is not None:
            figures |= self._adversary.learn(real, fake, average_gradients)
        numbers = {name: float(figure.detach()) for name, figure in figures.items()}
        return numbers | {"norm": float(norm) if finite else 0.0, "skipped": float(not finite)}

    def count(self, images: int) -> None:
        """Add the number of pairs that all processes saw in this step, and update the average."""
        self.images += images
        if self._adversary is not None:
            self._adversary.count(images)
        # A fast decay at first, so that the average soon forgets the initial weights.
        decay = min(self.settings.average, (1 + self.images) / (10 * images + self.images))
        weights = self.net.state_dict()
        for name, mean in self.average.items():
            mean.lerp_(weights[name], 1 - decay)

    def state(self) -> StepState:
        """Everything that a run needs to continue."""
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
        """Continue from a `state()`. An adversary that is not in it starts anew."""
        self.images = state["images"]
        self.net.load_state_dict(state["net"])
        self.average = {name: tensor.to(self.device) for name, tensor in state["average"].items()}
        self._optimizer.load_state_dict(state["optimizer"])
        if self._adversary is not None and "adversary" in state:
            self._adversary.load(state["adversary"])

    def _gradients(
        self, x: Tensor, y: Tensor, outputs: list[Tensor], rng: torch.Generator
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """The gradients at `outputs` of all losses except the adversary's, and the losses by name."""
        settings = self.settings
        out, *rgbs = (output.detach().requires_grad_(True) for output in outputs)
        parts = self._errors(x, y, out, rgbs)
        if self._backbone is not None:
            window = _window(settings.cut, self.net.size, rng)
            parts["perceptual"] = self._perceptual(self._backbone, _cut(out, window), _cut(y, window))
        total = sum(getattr(settings.loss, name) * part for name, part in parts.items())
        gradients = torch.autograd.grad(total, (out, *rgbs), materialize_grads=True)
        return [gradient.contiguous() for gradient in gradients], parts

    def _restored_eagerly(self, x: Tensor) -> list[Tensor]:
        """The restored pictures, followed by the intermediate RGBs if the loss `scales` is on."""
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
    """Factor of the learning rate: it rises linearly, stays at 1 and falls linearly."""
    rise = min(1.0, (images + 1) / max(1, settings.warm_up))
    left = (settings.images - images) / max(1.0, settings.decay * settings.images)
    return rise * max(_LAST_RATE_SHARE, min(1.0, left))


def _window(side: int, size: int, rng: torch.Generator) -> tuple[slice, slice]:
    """Rows and columns of a random square of `side` px in a picture of `size` px."""
    side = min(side, size)
    top, left = (int(torch.randint(size - side + 1, (), generator=rng)) for _ in range(2))
    return slice(top, top + side), slice(left, left + side)


def _cut(picture: Tensor, window: tuple[slice, slice]) -> Tensor:
    return picture[..., window[0], window[1]].contiguous()
