"""The settings of a training run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stream.config_live import Section


class LevelShares(Section):
    """How often each level of damage is drawn. Only the proportions count."""

    near_clean: float = Field(
        0.14,
        ge=0.0,
        description="share of near-clean faces, which teach it to keep good input",
    )
    mild: float = Field(0.28, ge=0.0, description="share of mild damage")
    medium: float = Field(0.36, ge=0.0, description="share of medium damage")
    heavy: float = Field(0.22, ge=0.0, description="share of heavy damage")

    def by_level(self) -> dict[str, float]:
        """The shares by the names in `damage.LEVELS`."""
        return {name.replace("_", "-"): share for name, share in self.model_dump().items()}


class LossWeights(Section):
    """Weights of the losses. 0 switches a loss off; it then takes no time."""

    pixels: float = Field(1.0, ge=0.0, description="mean absolute difference")
    squares: float = Field(0.5, ge=0.0, description="root mean squared difference, as PSNR has it")
    gradients: float = Field(1.0, ge=0.0, description="mean absolute difference of first differences")
    scales: float = Field(
        0.3, ge=0.0, description="difference of every intermediate RGB from the clean picture"
    )
    perceptual: float = Field(
        0.4, ge=0.0, description="difference of CenterFace's activations on a random square"
    )
    detail: float = Field(0.0, ge=0.0, description="local amount of fine detail; tends to draw outlines")
    adversarial: float = Field(
        0.0,
        ge=0.0,
        description="adversarial loss on a random square. patch: length of its gradient at the picture, as a "
        "share of the other losses' (0.25 to 0.35); gpen: weight of the loss",
    )


class PatchCriticSettings(Section):
    """The small patch critic, with spectral norm and the hinge loss."""

    cut: int = Field(160, ge=32, le=2048, description="side of its random square, px")
    lr: float = Field(3e-4, gt=0.0, le=1.0, description="learning rate; Adam, betas 0.5 and 0.99")
    warm_up: int = Field(600, ge=0, description="images it is trained on before its gradient is used")


class DiscriminatorSettings(Section):
    """GPEN's discriminator, with the logistic loss and the R1 penalty."""

    size: int = Field(128, ge=32, le=2048, description="side of its random square, px, a power of two")
    lr: float = Field(2e-3, gt=0.0, description="learning rate; Adam, betas 0 and 0.99")
    r1: float = Field(2.0, ge=0.0, description="weight of the R1 gradient penalty")
    r1_every: int = Field(16, ge=1, description="steps between penalties; each is scaled up by this number")
    warm_up: int = Field(1000, ge=0, description="images it is trained on before its gradient is used")


class AdversarySettings(Section):
    """The adversary, which is used if `loss.adversarial` is not 0."""

    kind: Literal["patch", "gpen"] = Field("patch", description="patch critic, or GPEN's discriminator")
    patch: PatchCriticSettings = PatchCriticSettings()
    gpen: DiscriminatorSettings = DiscriminatorSettings()


class TrainSettings(Section):
    """The settings of one run."""

    seed: int = Field(0, ge=0, description="seed of pairs and random squares")
    images: int = Field(30000, ge=1, description="number of pairs after which the run ends")
    batch: int = Field(2, ge=1, le=256, description="pairs in a step, in each process")
    lr: float = Field(1.5e-3, gt=0.0, description="learning rate of Adam, betas 0.9 and 0.99")
    warm_up: int = Field(400, ge=0, description="images over which the learning rate rises to its value")
    decay: float = Field(
        0.3,
        ge=0.0,
        le=1.0,
        description="last share of the images, over which the rate falls to 3 %",
    )
    clip: float = Field(5.0, gt=0.0, description="largest norm of the gradient")
    average: float = Field(0.998, ge=0.0, lt=1.0, description="decay a step of the weights' running average")
    frozen: tuple[str, ...] = Field((), description="prefixes of the names of tensors that are not trained")
    cut: int = Field(
        160, ge=32, le=2048, description="side of the perceptual loss's random square, px, a multiple of 32"
    )
    shares: LevelShares = LevelShares()
    loss: LossWeights = LossWeights()
    adversary: AdversarySettings = AdversarySettings()
    precision: Literal["fp32", "bf16"] = Field("fp32", description="precision of forward and backward passes")
    compile: bool = Field(True, description="use torch.compile; takes a minute or two at the start")
    threads: int = Field(0, ge=0, description="threads of torch; 0: by the number of available cores")
    feeders: int = Field(1, ge=0, le=64, description="processes that make pairs; 0: the training process")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="device to train on")
    checkpoint_s: float = Field(240.0, gt=0.0, description="seconds between checkpoints")
