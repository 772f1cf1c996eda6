"""How a network is trained; what a run's checkpoint keeps of it, so that it goes on the same."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stream.config_live import Section


class Shares(Section):
    """How often each level of damage is drawn; only their proportions count."""

    near_clean: float = Field(0.14, ge=0.0, description="near-clean: so that good input is left alone")
    mild: float = Field(0.28, ge=0.0, description="mild")
    medium: float = Field(0.36, ge=0.0, description="medium")
    heavy: float = Field(0.22, ge=0.0, description="heavy")

    def by_level(self) -> dict[str, float]:
        """By the names of `damage.LEVELS`."""
        return {name.replace("_", "-"): share for name, share in self.model_dump().items()}


class Losses(Section):
    """Weights of the losses; 0 switches one off, and it then costs nothing."""

    pixels: float = Field(1.0, ge=0.0, description="mean absolute difference")
    squares: float = Field(0.5, ge=0.0, description="root mean squared difference, what PSNR measures")
    gradients: float = Field(1.0, ge=0.0, description="mean absolute difference of first differences")
    scales: float = Field(0.3, ge=0.0, description="every intermediate RGB against the clean picture")
    perceptual: float = Field(0.4, ge=0.0, description="activations of CenterFace's backbone, on a cut")
    detail: float = Field(0.0, ge=0.0, description="amount of fine detail, place by place; draws outlines")
    adversarial: float = Field(
        0.0,
        ge=0.0,
        description="what the adversary takes for real, on a cut. patch: length of its gradient at the "
        "picture, as a part of the other losses' (0.25 to 0.35); gpen: weight of its loss",
    )


class PatchCriticSettings(Section):
    """The small critic of patches, with spectral norm and the hinge loss."""

    cut: int = Field(160, ge=32, le=2048, description="side of the random cut it looks at, px")
    lr: float = Field(3e-4, gt=0.0, le=1.0, description="its learning rate; Adam, betas 0.5 and 0.99")
    warm_up: int = Field(600, ge=0, description="images that it learns from before the network listens")


class DiscriminatorSettings(Section):
    """GPEN's discriminator, with the logistic loss and R1."""

    size: int = Field(128, ge=32, le=2048, description="side of the cut it looks at, px, a power of two")
    lr: float = Field(2e-3, gt=0.0, description="its learning rate; Adam, betas 0 and 0.99")
    r1: float = Field(2.0, ge=0.0, description="weight of the gradient penalty")
    r1_every: int = Field(16, ge=1, description="steps from penalty to penalty, which is scaled up likewise")
    warm_up: int = Field(1000, ge=0, description="images that it learns from before the network listens")


class AdversarySettings(Section):
    """The adversary, where `loss.adversarial` is not 0."""

    kind: Literal["patch", "gpen"] = Field("patch", description="patch critic, or GPEN's discriminator")
    patch: PatchCriticSettings = PatchCriticSettings()
    gpen: DiscriminatorSettings = DiscriminatorSettings()


class TrainSettings(Section):
    """One run."""

    seed: int = Field(0, ge=0, description="of pairs and cuts")
    images: int = Field(30000, ge=1, description="pairs seen in all when the run ends")
    batch: int = Field(2, ge=1, le=256, description="pairs in a step, of each process")
    lr: float = Field(1.5e-3, gt=0.0, description="learning rate of Adam, betas 0.9 and 0.99")
    warm_up: int = Field(400, ge=0, description="images over which the learning rate rises to that")
    decay: float = Field(
        0.3, ge=0.0, le=1.0, description="last share of the images over which it falls to 3 %"
    )
    clip: float = Field(5.0, gt=0.0, description="largest norm of the gradient")
    average: float = Field(0.998, ge=0.0, lt=1.0, description="of the weights that are kept: decay a step")
    frozen: tuple[str, ...] = Field((), description="beginnings of names of tensors that do not learn")
    cut: int = Field(
        160, ge=32, le=2048, description="side of the perceptual loss's cut, px, a multiple of 32"
    )
    shares: Shares = Shares()
    loss: Losses = Losses()
    adversary: AdversarySettings = AdversarySettings()
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="of the networks' forward and backward pass"
    )
    compile: bool = Field(True, description="torch.compile for the step; a minute or two at the start")
    threads: int = Field(0, ge=0, description="of torch; 0: by the cores at hand")
    feeders: int = Field(1, ge=0, le=64, description="processes that make pairs; 0: in the training process")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where")
    checkpoint_s: float = Field(240.0, gt=0.0, description="seconds from checkpoint to checkpoint")
