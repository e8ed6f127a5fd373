"""The configuration of a GAN, and which combinations of options are refused."""

import dataclasses
from typing import Annotated, Literal

from genmap_jax.nn import augment
from genmap_jax.objectives import adversarial
from genmap_jax.objectives.discriminator import Penalties
from genmap_jax.optim import Optim
from genmap_jax.options import Count, NotNegative, Positive, Range, Share, check_options
from genmap_jax.spaces import Space


@dataclasses.dataclass(frozen=True)
class Config:
    """A GAN for images (H, W, C) or vectors (D,)."""

    space: Space
    """Space of one example: images, which the generator makes in uniformly dequantised form, or vectors."""
    classes: Count | None = None
    """Number of labels of the data; the generator then makes examples of the label asked for. None trains an
    unconditional GAN."""

    # ---- networks
    network: Literal["mlp", "conv", "dcgan", "r3gan"] = "mlp"
    """Architecture of both networks. mlp is fully connected; the others are for images. conv is plain residual, dcgan
    has DCGAN's generator and SNGAN's discriminator, r3gan has the blocks of R3GAN."""
    latent: Count = 64
    """Number of dimensions of z (DCGAN: 100; R3GAN: 64)."""
    width: Count = 256
    """Number of hidden units (mlp) or of channels. With dcgan, the channels at the lowest resolution, which halve with
    every doubling of the resolution; R3GAN has 768 on CIFAR-10."""
    depth: Count = 3
    """Number of hidden layers (mlp), or how often the resolution is halved."""
    squash: bool = False
    """Whether the generator ends in tanh, as DCGAN's (Radford et al. 2016, https://arxiv.org/abs/1511.06434). It helps
    with images most of whose pixels are black or white."""
    condition_g: Literal["concat", "batch_norm"] = "concat"
    """How the label enters G: concat puts an embedding beside z; batch_norm (dcgan only) gives every normalisation a
    gain and a bias for each class."""
    condition_d: Literal["concat", "projection", "auxiliary"] = "projection"
    """How D uses the label: concat puts it beside x as a one-hot code, projection adds an inner product of its
    embedding with the last features, auxiliary hides it from D and trains an auxiliary classifier of it."""
    spectral_norm: bool = False
    """Whether every weight matrix of D is divided by its largest singular value (SNGAN)."""
    equalised: bool = False
    """Whether both networks have an equalised learning rate: weights are stored with unit variance and scaled when
    used (Karras et al. 2018)."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Activations and products of both networks have this type in training and sampling, D's last layer apart.
    Parameters, normalisations, logits, losses and penalties are always float32."""
    remat: bool = False
    """Whether the backward pass recomputes the inside of every block, to save memory. Only conv and r3gan have
    blocks."""

    # ---- the game
    loss: adversarial.Loss = "relativistic"
    """Adversarial loss of both players, one of those in `genmap_jax.objectives.adversarial` (R3GAN: relativistic)."""
    r1: NotNegative = 1.0
    """Weight gamma of the penalty (gamma / 2) |grad D|^2 on real examples (R3GAN on CIFAR-10: 0.05). As with every
    penalty, 0 turns it off."""
    r2: NotNegative = 1.0
    """Weight gamma of the penalty (gamma / 2) |grad D|^2 on generated examples (R3GAN on CIFAR-10: 0.05)."""
    gradient_penalty: NotNegative = 0.0
    """Weight of the penalty (|grad D| - 1)^2 on points between real and generated examples (WGAN-GP: 10)."""
    dragan: NotNegative = 0.0
    """Weight of the penalty (|grad D| - 1)^2 on real examples with noise (DRAGAN: 10)."""
    lecam: NotNegative = 0.0
    """Weight of LeCam regularisation, the squared distance of logits to running means (Tseng et al.: 0.01 to 0.3)."""
    consistency: NotNegative = 0.0
    """Weight of consistency regularisation, the squared change of D when real and generated images move by pixels
    (Zhang et al.: 10)."""
    auxiliary: NotNegative = 1.0
    """Weight of the auxiliary classifier's cross-entropy, with condition_d="auxiliary" (AC-GAN: 1)."""
    penalty_every: Count = 1
    """Number of steps from one use of the gradient penalties to the next, which then weigh as many times as much
    (StyleGAN2: 16)."""
    critic_steps: Count = 1
    """Number of updates of D for each update of G, on equal parts of the batch (SNGAN and WGAN: 5)."""
    accumulate: Count = 1
    """Number of micro-batches whose gradients are averaged in an update: less memory, same result. Not with dcgan,
    whose generator is normalised by its batch."""

    # ---- what D sees
    augment: tuple[str, ...] = ()
    """Transforms of every image that D sees, by their names in `genmap_jax.nn.augment`, in this order. DiffAugment has
    colour, translation and cutout; `genmap_jax.nn.augment.ADA` lists StyleGAN2-ADA's."""
    augment_p: Share = 1.0
    """Probability of each transform, unless ADA sets it (DiffAugment: 1)."""
    ada_target: Annotated[float, Range(above=-1, below=1)] | None = None
    """Target of adaptive augmentation (ADA) for the mean sign of D(real): augment_p starts at 0, rises while the mean
    is above the target and falls while it is below (Karras et al.: 0.6). None keeps augment_p constant."""
    ada_ramp: Count = 500_000
    """Number of examples in which ADA's probability can go from 0 to 1 (Karras et al.: 500,000)."""

    ema_halflife: Positive | None = 10_000
    """Half-life of the averaged generator from which samples are drawn, in examples. None samples from the generator
    itself."""
    optim: Optim = Optim(lr=2e-4, b1=0.0, b2=0.99, clip=0.0)
    """Optimizer of either player. Momentum makes the game oscillate, so b1 is 0 (R3GAN)."""

    @property
    def penalties(self) -> Penalties:
        """What D minimises beside its loss."""
        return Penalties(
            r1=self.r1,
            r2=self.r2,
            gradient_penalty=self.gradient_penalty,
            dragan=self.dragan,
            every=self.penalty_every,
            lecam=self.lecam,
            consistency=self.consistency,
        )


def check(cfg: Config, batch_size: int) -> None:
    """Raises ValueError that names the field and the fix."""
    cfg.space.check()
    check_options(cfg)
    images, shape = cfg.space.image, cfg.space.shape
    if cfg.network != "mlp" and (not images or any(side % 2**cfg.depth for side in shape[:2])):
        raise ValueError(
            f"network={cfg.network!r} halves an image depth={cfg.depth} times, which space.shape={shape} does not "
            "allow: lower depth or use network='mlp'"
        )
    if cfg.squash and not images:
        raise ValueError(f"squash={cfg.squash} is for images; vectors have no range to be squashed to: leave it off")
    if cfg.remat and cfg.network not in ("conv", "r3gan"):
        raise ValueError(
            f"remat=True: network={cfg.network!r} has no residual blocks whose inside could be recomputed; use "
            "'conv' or 'r3gan'"
        )
    if cfg.network == "r3gan" and cfg.width % 8:
        raise ValueError(
            f"width={cfg.width}: network='r3gan' has groups of 16 of 2 width channels; use a multiple of 8"
        )
    if cfg.network == "dcgan" and cfg.width % 2**cfg.depth:
        raise ValueError(f"width={cfg.width}: network='dcgan' halves it depth={cfg.depth} times; use a multiple")
    if cfg.accumulate > 1 and cfg.network == "dcgan":
        raise ValueError(
            f"accumulate={cfg.accumulate}: network='dcgan' normalises by the batch, which micro-batches would change; "
            "use accumulate=1 or another network"
        )
    if cfg.condition_g == "batch_norm" and cfg.network != "dcgan":
        raise ValueError(f"condition_g='batch_norm': network={cfg.network!r} has no normalisation; use 'dcgan'")
    if cfg.loss == "wasserstein" and not (cfg.r1 or cfg.r2 or cfg.gradient_penalty or cfg.dragan or cfg.spectral_norm):
        raise ValueError(
            "loss='wasserstein' without a bound on the gradient of D has no minimum: give gradient_penalty, r1 or r2 "
            "above 0, or spectral_norm"
        )
    if (cfg.augment or cfg.consistency) and not images:
        raise ValueError(
            f"augment={cfg.augment}, consistency={cfg.consistency} are for images; with vectors use () and 0"
        )
    if images:
        augment.check(cfg.augment, shape)
    if cfg.ada_target is not None and not cfg.augment:
        raise ValueError(f"ada_target={cfg.ada_target} adapts the augmentation, but augment is empty: name transforms")
    parts = cfg.critic_steps * cfg.accumulate
    if batch_size % parts:
        raise ValueError(
            f"batch_size={batch_size} does not divide into critic_steps={cfg.critic_steps} times "
            f"accumulate={cfg.accumulate} parts: use a multiple of {parts}"
        )
