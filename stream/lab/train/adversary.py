"""The adversary: a network that learns to tell clean pictures from restored ones.

The restorer follows its gradient, and so draws texture that a mean over all possible faces lacks.
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
"""By which the patch critic's gradient is multiplied at most: a critic that is sure of itself has a
vanishing gradient, and what is left of it is noise."""
_PATCH_BETAS = (0.5, 0.99)
_GPEN_BETAS = (0.0, 0.99)
"""StyleGAN2's."""
_GPEN_RISE = 1000
"""Images after the warm-up over which the weight of GPEN's discriminator rises."""
Figures = dict[str, Tensor]
"""Scalars for the log, by name."""
AverageGradients = Callable[[nn.Module], None]
"""Makes a network's gradients the mean over all processes."""


class AdversaryState(TypedDict):
    """What a checkpoint keeps of an adversary."""

    network: dict[str, Tensor]
    optimizer: dict[str, object]
    images: int
    steps: int


class Adversary(ABC):
    """A network, its optimiser, and what it has seen. Pictures are cuts, f32[N,3,cut,cut] RGB in -1..1."""

    def __init__(
        self, network: nn.Module, cut: int, lr: float, betas: tuple[float, float], execution: Execution
    ) -> None:
        self.network = network.to(execution.device).train()
        self.cut = cut
        """Side of the pictures, px."""
        self.images = 0
        """Pairs that it has learned from, in all processes together."""
        self._steps = 0
        self._execution = execution
        self._optimizer = torch.optim.Adam(self.network.parameters(), lr, betas)

    @abstractmethod
    def gradient(self, restored: Tensor, others: Tensor) -> tuple[Tensor, Figures]:
        """The gradient at `restored` of the loss that the restorer pays for looking unreal.

        `others`, f32[N,3,S,S], is the gradient of its other losses at the whole pictures. Zero while
        the adversary warms up.
        """

    @abstractmethod
    def _loss(self, clean: Tensor, restored: Tensor) -> tuple[Tensor, Figures]:
        """The loss that the adversary itself pays."""

    def learn(self, clean: Tensor, restored: Tensor, average_gradients: AverageGradients) -> Figures:
        """One step of the adversary. A step whose gradient is not finite is left out."""
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
        """Record that all processes together have learned from `images` more pairs."""
        self.images += images

    def state(self) -> AdversaryState:
        """All that the adversary needs to go on."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "images": self.images,
            "steps": self._steps,
        }

    def load(self, state: AdversaryState) -> None:
        """Go on from `state()`. The state of another network is ignored: the adversary starts anew."""
        if _shapes(state.get("network", {})) != _shapes(self.network.state_dict()):
            return
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.images, self._steps = state["images"], state["steps"]


class PatchAdversary(Adversary):
    """A patch critic with the hinge loss; the length of its gradient is a given part of the others'.

    The rule is that of the adaptive weight of VQGAN (Esser et al., 2021), taken at the picture, not at
    the last layer, and for each picture by itself: so the result does not depend on how the pictures
    are grouped into batches and processes.
    """

    def __init__(self, settings: TrainSettings, size: int, execution: Execution) -> None:
        own = settings.adversary.patch
        super().__init__(PatchCritic(), min(own.cut, size), own.lr, _PATCH_BETAS, execution)
        self._ratio, self._warm_up = settings.loss.adversarial, own.warm_up

    def gradient(self, restored: Tensor, others: Tensor) -> tuple[Tensor, Figures]:
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
        # Not compiled: five convolutions gain nothing by it (measured), and it takes a minute.
        with self._execution.autocast():
            logits: Tensor = self.network(pictures)
            return logits.float()


class GpenAdversary(Adversary):
    """GPEN's discriminator with the logistic loss, a fixed weight, and R1 every few steps."""

    def __init__(self, settings: TrainSettings, size: int, execution: Execution) -> None:
        self._settings = settings.adversary.gpen
        cut = min(self._settings.size, size)
        network = Discriminator(cut, channel_multiplier=1, narrow=0.25)
        super().__init__(network, cut, self._settings.lr, _GPEN_BETAS, execution)
        self._weight = settings.loss.adversarial
        self._logits = execution.compiled(self._logits_eagerly)

    def gradient(self, restored: Tensor, others: Tensor) -> tuple[Tensor, Figures]:
        listens = min(1.0, (self.images - self._settings.warm_up) / _GPEN_RISE)
        if listens <= 0:
            return torch.zeros_like(restored), {}
        self.network.requires_grad_(False)  # the compiled graph then computes no gradients of weights
        restored = restored.detach().requires_grad_(True)
        loss = losses.realness(self._logits(restored))
        (gradient,) = torch.autograd.grad(self._weight * listens * loss, restored)
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
    """The adversary of a restorer of `size` px; None if the weight of its loss is 0.

    Its first weights follow from the seed: all processes begin with the same.
    """
    if not settings.loss.adversarial:
        return None
    kinds = {"patch": PatchAdversary, "gpen": GpenAdversary}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return kinds[settings.adversary.kind](settings, size, execution)


def _norms(pictures: Tensor) -> Tensor:
    """Euclidean norm of each of `[N,C,H,W]`, as `[N,1,1,1]`."""
    return pictures.square().sum((1, 2, 3), keepdim=True).sqrt()


def _shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}
