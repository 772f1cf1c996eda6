"""One training step: generator, and the discriminator where there is one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from stream.nets.discriminator import Discriminator
from stream.nets.gpen import GPEN
from stream.train import losses
from stream.train.perceptual import Backbone
from stream.train.settings import TrainSettings

_BETAS = (0.9, 0.99)
_ADVERSARY_BETAS = (0.0, 0.99)
"""StyleGAN2's for both networks; the generator keeps its momentum, since pixels lead it."""
_SMALLEST_SHARE = 0.03
"""Of the learning rate at the end."""


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
        self._adversary: Discriminator | None = None
        if settings.loss.adversarial:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(settings.seed)
                side = min(settings.adversary.size, net.size)
                self._adversary = Discriminator(side, channel_multiplier=1, narrow=0.25).to(device)
            self._judge = torch.optim.Adam(
                self._adversary.parameters(), settings.adversary.lr, _ADVERSARY_BETAS
            )
        self._restored = self._compiled(self._restored_eagerly)
        self._seen = self._compiled(self._seen_eagerly)
        self._judged = self._compiled(self._judged_eagerly)

    def run(
        self, damaged: Tensor, clean: Tensor, average_gradients: Callable[[nn.Module], None]
    ) -> dict[str, float]:
        """One batch u8[N,3,S,S]; returns the losses by name, unweighted, and the gradient's norm.

        A step whose gradient is not finite is left out: `skipped` is 1.
        """
        settings = self.settings
        dice = torch.Generator().manual_seed(settings.seed * 1_000_003 + self.images)
        x, y = (picture.to(self.device).float() / 127.5 - 1 for picture in (damaged, clean))
        share = _rate(self.images, settings)
        for group in self._optimizer.param_groups:
            group["lr"] = settings.lr * share
        out, parts = self._restored(x, y)
        if self._backbone is not None:
            window = _window(settings.cut, self.net.size, dice)
            parts["perceptual"] = self._seen(_cut(out, window), _cut(y, window))
        total = sum(getattr(settings.loss, name) * part for name, part in parts.items())
        if self._adversary is not None:
            small = _window(settings.adversary.size, self.net.size, dice)
            self._adversary.requires_grad_(False)
            listens = min(1.0, max(0.0, self.images - settings.adversary.warm_up) / 1000)
            parts["adversarial"] = losses.realness(self._judged(_cut(out, small)))
            total = total + settings.loss.adversarial * listens * parts["adversarial"]
        self._optimizer.zero_grad(set_to_none=True)
        total.backward()
        average_gradients(self.net)
        norm = nn.utils.clip_grad_norm_(self._learning, settings.clip)
        sound = bool(torch.isfinite(norm))
        if sound:
            self._optimizer.step()
        if self._adversary is not None:
            parts |= self._teach(_cut(y, small), _cut(out.detach(), small), average_gradients)
        figures = {name: float(part.detach()) for name, part in parts.items()}
        return figures | {"norm": float(norm) if sound else 0.0, "skipped": float(not sound)}

    def count(self, images: int) -> None:
        """So many pairs have been seen by all processes together: the average follows."""
        self.images += images
        # A short memory at first, so that the first weights are soon forgotten.
        decay = min(self.settings.average, (1 + self.images) / (10 * images + self.images))
        now = self.net.state_dict()
        for name, mean in self.average.items():
            mean.lerp_(now[name], 1 - decay)

    def state(self) -> dict:
        """All that a run needs to go on."""
        state = {
            "images": self.images,
            "net": self.net.state_dict(),
            "average": self.average,
            "optimizer": self._optimizer.state_dict(),
        }
        if self._adversary is not None:
            state |= {"adversary": self._adversary.state_dict(), "judge": self._judge.state_dict()}
        return state

    def load(self, state: dict) -> None:
        """Go on from `state()`; a discriminator that it does not know starts anew."""
        self.images = state["images"]
        self.net.load_state_dict(state["net"])
        self.average = {name: tensor.to(self.device) for name, tensor in state["average"].items()}
        self._optimizer.load_state_dict(state["optimizer"])
        if self._adversary is not None and "adversary" in state:
            self._adversary.load_state_dict(state["adversary"])
            self._judge.load_state_dict(state["judge"])

    # --- inside --------------------------------------------------------------------------------------

    def _compiled(self, body: Callable) -> Callable:
        return torch.compile(body, dynamic=False) if self.settings.compile else body

    def _half(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16")

    def _restored_eagerly(self, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        weights = self.settings.loss
        with self._half():
            rgbs = [rgb.float() for rgb in self.net.pyramid(x)]
        base = x if self.net.residual else torch.zeros_like(x)
        out = base + rgbs[-1]
        parts = {}
        if weights.pixels:
            parts["pixels"] = losses.pixels(out, y)
        if weights.squares:
            parts["squares"] = losses.squares(out, y)
        if weights.gradients:
            parts["gradients"] = losses.gradients(out, y)
        if weights.scales:
            parts["scales"] = losses.scales(rgbs[:-1], y - base)
        if weights.detail:
            parts["detail"] = losses.detail(out, y)
        return out, parts

    def _seen_eagerly(self, out: Tensor, clean: Tensor) -> Tensor:
        return losses.perceptual(self._backbone, out, clean)

    def _judged_eagerly(self, x: Tensor) -> Tensor:
        with self._half():
            return self._adversary(x).float()

    def _teach(self, real: Tensor, fake: Tensor, average_gradients) -> dict[str, Tensor]:
        """The discriminator's own step."""
        settings = self.settings.adversary
        self._adversary.requires_grad_(True)
        logits = self._judged(torch.cat((real, fake)))
        parts = {"judgement": losses.judgement(*logits.chunk(2))}
        total = parts["judgement"]
        if self.images // (len(real)) % settings.r1_every == 0:
            real = real.detach().requires_grad_(True)
            parts["r1"] = losses.gradient_penalty(self._adversary(real), real)
            total = total + settings.r1 / 2 * settings.r1_every * parts["r1"]
        self._judge.zero_grad(set_to_none=True)
        total.backward()
        average_gradients(self._adversary)
        self._judge.step()
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
