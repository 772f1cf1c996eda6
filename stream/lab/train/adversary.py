"""The adversary: a network that learns to tell clean pictures from restored ones.

The restorer follows its gradient and so produces texture, which a mean over all possible faces lacks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypedDict

import torch
from torch import Tensor, nn

from stream.lab.train import losses
from stream.lab.train.execution import Execution
from stream.lab.train.settings import TrainSettings
from stream.models.nets.discriminator import Discriminator
from stream.models.nets.patch_critic import PatchCritic

LARGEST_SCALE = 10.0
"""Largest factor of the patch critic's gradient. The gradient of a confident critic vanishes, and
what is left of it is mostly noise."""
_PATCH_BETAS = (0.5, 0.99)
_GPEN_BETAS = (0.0, 0.99)
"""The betas of Adam in StyleGAN2."""
_GPEN_RISE = 1000
"""Number of images after the warm-up over which the weight of GPEN's discriminator rises to its value."""
Figures = dict[str, Tensor]
"""Scalars for the log by name."""
AverageGradients = Callable[[nn.Module], None]
"""Replaces a network's gradients by their mean over all processes."""


class AdversaryState(TypedDict):
    """The state of an adversary in a checkpoint."""

    network: dict[str, Tensor]
    optimizer: dict[str, object]
    images: int
    steps: int


class Adversary(ABC):
    """A network and its optimiser. Pictures are random squares, RGB f32[N,3,cut,cut] in -1..1."""

    def __init__(
        self, network: nn.Module, cut: int, lr: float, betas: tuple[float, float], execution: Execution
    ) -> None:
        self.network = network.to(execution.device).train()
        self.cut = cut
        """Side of the pictures, px."""
        self.images = 0
        """Pairs that it has been trained on, in all processes together."""
        self._steps = 0
        self._execution = execution
        self._optimizer = torch.optim.Adam(self.network.parameters(), lr, betas)

    @abstractmethod
    def gradient(self, restored: Tensor, others: Tensor) -> tuple[Tensor, Figures]:
        """The gradient at `restored` of the restorer's adversarial loss; zero during the warm-up.

        `others`, f32[N,3,S,S], is the gradient of the restorer's other losses at the whole pictures.
        """

    @abstractmethod
    def _loss(self, clean: Tensor, restored: Tensor) -> tuple[Tensor, Figures]:
        """The adversary's own loss."""

    def learn(self, clean: Tensor, restored: Tensor, average_gradients: AverageGradients) -> Figures:
        """Train the adversary for one step. A step whose gradient is not finite changes no weights."""
        self.network.requires_grad_(True)
        loss, figures = self._loss(clean, restored)
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        average_gradients(self.network)
        gradients = [tensor.grad for tensor in self.network.parameters() if tensor.grad is not None]
        if torch.isfinite(nn.utils.get_total_norm(gradients)):
            self._optimizer.step()
        self._steps += 1
        return figures

    def count(self, images: int) -> None:
        """Add the number of pairs that all processes were trained on in this step."""
        self.images += images

    def state(self) -> AdversaryState:
        """Everything that the adversary needs to continue."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "images": self.images,
            "steps": self._steps,
        }

    def load(self, state: AdversaryState) -> None:
        """Continue from a `state()`. A different network's state is ignored: it starts anew."""
        if _shapes(state.get("network", {})) != _shapes(self.network.state_dict()):
            return
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.images, self._steps = state["images"], state["steps"]


class PatchAdversary(Adversary):
    """A patch critic with the hinge loss. Its gradient has a set share of the other gradients' length.

    The rule is the adaptive weight of VQGAN (Esser et al., 2021). It is computed at the picture rather
    than at the last layer, and for each picture alone. The result therefore does not depend on how the
    pictures are grouped into batches and processes.
    """

    def __init__(self, settings: TrainSettings, size: int, execution: Execution) -> None:
        own = settings.adversary.patch
        super().__init__(PatchCritic(), min(own.cut, size), own.lr, _PATCH_BETAS, execution)
        self._ratio, self._warm_up = settings.loss.adversarial, own.warm_up

    def gradient(self, restored: Tensor, others: Tensor) -> tuple[Tensor, Figures]:
        """The scaled hinge gradient, see `Adversary.gradient`."""
        if self.images < self._warm_up:
            return torch.zeros_like(restored), {}
        restored = restored.detach().requires_grad_(True)
        loss = losses.generator_hinge(self._logits(restored))
        (gradient,) = torch.autograd.grad(loss, restored)
        scale = (self._ratio * _norms(others) / (_norms(gradient) + 1e-9)).clamp(max=LARGEST_SCALE)
        return gradient * scale, {"adversarial": loss, "adversarial_scale": scale.mean()}

    def _loss(self, clean: Tensor, restored: Tensor) -> tuple[Tensor, Figures]:
        loss = losses.critic_hinge(*self._logits(torch.cat((clean, restored))).chunk(2))
        return loss, {"judgement": loss}

    def _logits(self, pictures: Tensor) -> Tensor:
        # Not compiled: that takes a minute and does not speed up five convolutions (measured).
        with self._execution.autocast():
            logits: Tensor = self.network(pictures)
            return logits.float()


class GpenAdversary(Adversary):
    """GPEN's discriminator with the logistic loss, a fixed weight, and the R1 penalty every few steps."""

    def __init__(self, settings: TrainSettings, size: int, execution: Execution) -> None:
        self._settings = settings.adversary.gpen
        cut = min(self._settings.size, size)
        network = Discriminator(cut, channel_multiplier=1, narrow=0.25)
        super().__init__(network, cut, self._settings.lr, _GPEN_BETAS, execution)
        self._weight = settings.loss.adversarial
        self._logits = execution.compiled(self._logits_eagerly)

    def gradient(self, restored: Tensor, others: Tensor) -> tuple[Tensor, Figures]:
        """The gradient of the weighted logistic loss, see `Adversary.gradient`."""
        rise = min(1.0, (self.images - self._settings.warm_up) / _GPEN_RISE)
        if rise <= 0:
            return torch.zeros_like(restored), {}
        self.network.requires_grad_(False)  # so that the compiled graph computes no gradients of weights
        restored = restored.detach().requires_grad_(True)
        loss = losses.realness(self._logits(restored))
        (gradient,) = torch.autograd.grad(self._weight * rise * loss, restored)
        return gradient, {"adversarial": loss}

    def _loss(self, clean: Tensor, restored: Tensor) -> tuple[Tensor, Figures]:
        own = self._settings
        figures = {"judgement": losses.judgement(*self._logits(torch.cat((clean, restored))).chunk(2))}
        loss = figures["judgement"]
        if self._steps % own.r1_every == 0:
            clean = clean.detach().requires_grad_(True)
            figures["r1"] = losses.gradient_penalty(self.network(clean), clean)
            loss = loss + own.r1 / 2 * own.r1_every * figures["r1"]
        return loss, figures

    def _logits_eagerly(self, pictures: Tensor) -> Tensor:
        with self._execution.autocast():
            logits: Tensor = self.network(pictures)
            return logits.float()


def make_adversary(settings: TrainSettings, size: int, execution: Execution) -> Adversary | None:
    """The adversary for a restorer of `size` px; None if the weight of its loss is 0.

    Its initial weights follow from the seed, so all processes start with the same.
    """
    if not settings.loss.adversarial:
        return None
    kinds = {"patch": PatchAdversary, "gpen": GpenAdversary}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return kinds[settings.adversary.kind](settings, size, execution)


def _norms(pictures: Tensor) -> Tensor:
    """Euclidean norm of each picture of `[N,C,H,W]`, as `[N,1,1,1]`."""
    return pictures.square().sum((1, 2, 3), keepdim=True).sqrt()


def _shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}
