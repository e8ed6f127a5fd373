"""What a GAN is made of: its configuration, and what of it does not fit together."""

import dataclasses
from typing import ClassVar, Literal

from genmap_jax.nn.augment import TRANSFORMS
from genmap_jax.objectives import adversarial
from genmap_jax.optim import Optim

NETWORKS = ("mlp", "conv", "dcgan", "r3gan")


@dataclasses.dataclass(frozen=True)
class Config:
    """A GAN for images (H, W, C) or vectors (D,)."""

    objective: ClassVar[str] = "adversarial min-max"

    shape: tuple[int, ...]
    """Of one example."""
    levels: int = 256
    """Number of grey values (images only)."""
    classes: int | None = None
    """Number of labels of the data: generate examples of the label asked for. None: unconditional."""

    # ---- networks
    network: Literal["mlp", "conv", "dcgan", "r3gan"] = "mlp"
    """conv: residual networks. dcgan: DCGAN's generator, SNGAN's discriminator. r3gan: R3GAN's blocks. For images."""
    latent: int = 64
    """Dimensions of z."""
    width: int = 256
    """Hidden units, or channels (dcgan: at the lowest resolution, halved with every doubling)."""
    depth: int = 3
    """mlp: hidden layers. Others: halvings of the resolution."""
    squash: bool = False
    """tanh on the generator's output, as in DCGAN (Radford et al. 2016, https://arxiv.org/abs/1511.06434): for images
    most of whose pixels are black or white, which it makes easy to hit."""
    condition_g: Literal["concat", "batch_norm"] = "concat"
    """How G learns of the label: beside z, or by a gain and bias of every normalisation for each class (dcgan only)."""
    condition_d: Literal["concat", "projection", "auxiliary"] = "projection"
    """How D does: beside x; in its last layer; or not, and it guesses the label instead."""
    spectral_norm: bool = False
    """Of all matrices of D."""
    equalised: bool = False
    """Equalised learning rate, in both networks."""

    # ---- the game
    loss: adversarial.Loss = "relativistic"
    r1: float = 1.0
    """Weight gamma of the penalty (gamma / 2) |grad D|^2 on real examples; this and all penalties: 0 turns it off."""
    r2: float = 1.0
    """The same on generated examples."""
    gradient_penalty: float = 0.0
    """Weight of (|grad D| - 1)^2 between real and generated examples (WGAN-GP: 10)."""
    dragan: float = 0.0
    """The same around real examples (10)."""
    lecam: float = 0.0
    """Weight of the distance of logits to running means (0.01 to 0.3)."""
    consistency: float = 0.0
    """Weight of the squared change of D when images move by pixels, real and generated (10)."""
    auxiliary: float = 1.0
    """Weight of the cross-entropy of labels, with condition_d="auxiliary"."""
    penalty_every: int = 1
    """Steps between two uses of the gradient penalties, which then weigh as many times as much."""
    critic_steps: int = 1
    """Updates of D for each of G; each takes its share of the batch."""
    accumulate: int = 1
    """Micro-batches of an update, whose gradients are averaged: less memory, same result."""

    # ---- what D sees
    augment: tuple[str, ...] = ()
    """Transforms of what D sees, of those in `genmap_jax.nn.augment`. DiffAugment: colour translation cutout."""
    augment_p: float = 1.0
    """Probability of each transform."""
    ada_target: float | None = None
    """ADA: augment_p starts at 0 and goes up while mean sign(D(real)) is above this (0.6), else down."""
    ada_ramp: int = 500_000
    """Examples in which it can go from 0 to 1."""

    ema_halflife: float | None = 10_000
    """Of the averaged generator, in examples; None samples from the generator itself."""
    optim: Optim = Optim(lr=2e-4, b1=0.0, b2=0.99, clip=0.0)
    """Of both players. Momentum makes the game oscillate."""

    @property
    def system(self) -> str:
        """What the map calls it."""
        return "GAN" if self.classes is None else "Conditional GAN"

    @property
    def images(self) -> bool:
        return len(self.shape) == 3


def check(cfg: Config, batch_size: int) -> None:
    """Raises ValueError that names the field and the fix."""
    images = cfg.images
    if not images and len(cfg.shape) != 1:
        raise ValueError(f"shape={cfg.shape}: give (H, W, C) for images or (D,) for vectors")
    if images and not 2 <= cfg.levels <= 256:
        raise ValueError(f"levels={cfg.levels}: uint8 images have 2 to 256 grey values")
    choices = {
        "network": NETWORKS,
        "loss": tuple(adversarial.LOSSES),
        "condition_g": ("concat", "batch_norm"),
        "condition_d": ("concat", "projection", "auxiliary"),
    }
    for field, known in choices.items():
        if getattr(cfg, field) not in known:
            raise ValueError(f"{field}={getattr(cfg, field)!r} is unknown: use one of {', '.join(known)}")
    if cfg.network != "mlp" and (not images or any(side % 2**cfg.depth for side in cfg.shape[:2])):
        raise ValueError(
            f"network={cfg.network!r} halves an image depth={cfg.depth} times, which shape={cfg.shape} does not allow: "
            "lower depth or use network='mlp'"
        )
    if cfg.network == "r3gan" and cfg.width % 8:
        raise ValueError(
            f"width={cfg.width}: network='r3gan' has groups of 16 of 2 width channels; use a multiple of 8"
        )
    if cfg.network == "dcgan" and cfg.width % 2**cfg.depth:
        raise ValueError(f"width={cfg.width}: network='dcgan' halves it depth={cfg.depth} times; use a multiple")
    for field in ("latent", "width", "depth", "penalty_every", "critic_steps", "accumulate", "ada_ramp"):
        if getattr(cfg, field) < 1:
            raise ValueError(f"{field}={getattr(cfg, field)} must be at least 1")
    if cfg.classes is not None and cfg.classes < 1:
        raise ValueError(f"classes={cfg.classes} must be at least 1; None for an unconditional GAN")
    if cfg.condition_g == "batch_norm" and cfg.network != "dcgan":
        raise ValueError(f"condition_g='batch_norm': network={cfg.network!r} has no normalisation; use 'dcgan'")
    for field in ("r1", "r2", "gradient_penalty", "dragan", "lecam", "consistency"):
        if getattr(cfg, field) < 0:
            raise ValueError(f"{field}={getattr(cfg, field)} weighs a penalty: give 0 (off) or more")
    if cfg.loss == "wasserstein" and not (cfg.r1 or cfg.r2 or cfg.gradient_penalty or cfg.dragan or cfg.spectral_norm):
        raise ValueError(
            "loss='wasserstein' without a bound on D's slope has no minimum: give gradient_penalty, r1 or r2 above 0, "
            "or spectral_norm"
        )
    if (cfg.augment or cfg.consistency) and not images:
        raise ValueError(f"augment={cfg.augment}, consistency={cfg.consistency} are of images, not of vectors")
    for name in cfg.augment:
        if name not in TRANSFORMS:
            raise ValueError(f"augment={cfg.augment}: {name!r} is unknown; there are {', '.join(TRANSFORMS)}")
    if "turn" in cfg.augment and cfg.shape[0] != cfg.shape[1]:
        raise ValueError(f"augment={cfg.augment}: 'turn' needs square images, not shape={cfg.shape}")
    if not 0.0 <= cfg.augment_p <= 1.0:
        raise ValueError(f"augment_p={cfg.augment_p} is a probability: give 0 to 1")
    if cfg.ada_target is not None and not cfg.augment:
        raise ValueError(f"ada_target={cfg.ada_target} adapts the augmentation, but augment is empty: name transforms")
    parts = cfg.critic_steps * cfg.accumulate
    if batch_size % parts:
        raise ValueError(
            f"batch_size={batch_size} does not divide into critic_steps={cfg.critic_steps} times "
            f"accumulate={cfg.accumulate} parts: use a multiple of {parts}"
        )
    if cfg.ema_halflife is not None and cfg.ema_halflife <= 0:
        raise ValueError(f"ema_halflife={cfg.ema_halflife} is a number of examples: positive, or None for no averaging")
