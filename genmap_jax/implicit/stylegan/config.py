"""The configuration of StyleGAN2, and which combinations of options are refused."""

import dataclasses
from typing import Annotated, Literal

from genmap_jax.nn import augment
from genmap_jax.objectives import adversarial
from genmap_jax.optim import Optim
from genmap_jax.options import Count, NotNegative, Positive, Range, Share, check_options
from genmap_jax.spaces import Space


@dataclasses.dataclass(frozen=True)
class Config:
    """StyleGAN2 for square images whose sides are a power of two. The defaults are config F of the paper."""

    space: Space
    """Space of one example: images, which the generator makes in uniformly dequantised form."""
    classes: Count | None = None
    """Number of labels of the data; the generator then makes examples of the label asked for. None trains an
    unconditional model."""

    # ---- networks
    latent: Count = 512
    """Number of dimensions of z, of w and of the embedding of the label."""
    mapping_depth: Count = 8
    """Number of layers of the network that maps z to w (ADA's paper on CIFAR-10: 2)."""
    channels: Count = 512
    """Number of channels at low resolutions, and the most there are at any."""
    capacity: Count = 32768
    """Number of channels times resolution at high resolutions, so 32 channels at 1024 pixels (ADA's paper up to 256
    pixels: 16384)."""
    noise: bool = True
    """Whether every layer adds noise to its pixels, with a strength that is learnt."""
    alias_free: bool = False
    """Whether the generator has the layers of StyleGAN3-T, which treat feature maps as samples of smooth signals: what
    it draws then moves without sticking to pixels. It adds no noise, and wants path_length=0 and mixing=0 as there."""
    alias_free_layers: Count = 14
    """Number of layers of that generator before the colours, whatever the resolution."""
    residual: bool = True
    """Whether the blocks of D have skip connections (ADA's paper on CIFAR-10: not)."""
    group: Count = 4
    """Number of images whose standard deviation D sees (ADA's paper: batch per GPU, 32 on CIFAR-10)."""
    label_depth: Count = 8
    """Number of layers of the network that maps a label for D."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the activations of the convolutions. Parameters, statistics, colours and logits are float32."""
    remat: bool = False
    """Whether the backward pass recomputes the layers of every resolution, to save memory."""

    # ---- the game
    loss: adversarial.Loss = "nonsaturating"
    """Adversarial loss of both players, one of those in `genmap_jax.objectives.adversarial`."""
    r1: NotNegative = 10.0
    """Weight gamma of the penalty (gamma / 2) |grad D|^2 on real examples; `r1_heuristic` gives a start. 0 turns it
    off."""
    r1_every: Count = 16
    """Number of steps from one update by the penalty R1 to the next."""
    path_length: NotNegative = 2.0
    """Weight of the path-length penalty; 0 turns it off."""
    path_every: Count = 4
    """Number of steps from one update by the path-length penalty to the next."""
    mixing: Share = 0.9
    """Probability that a generated image has the styles of two latents, one up to a random layer and one from there
    on."""

    # ---- what D sees
    augment: tuple[str, ...] = ()
    """Transforms of every image that D sees, by their names in `genmap_jax.nn.augment`, in this order; `ADA` and `BGC`
    there are the lists of ADA's paper."""
    augment_p: Share = 1.0
    """Probability of each transform, unless ADA sets it."""
    ada_target: Annotated[float, Range(above=-1, below=1)] | None = None
    """Target of adaptive augmentation (ADA) for the mean sign of D(real): augment_p starts at 0, rises while the mean
    is above the target and falls while it is below (Karras et al.: 0.6). None keeps augment_p constant."""
    ada_ramp: Count = 500_000
    """Number of examples in which ADA's probability can go from 0 to 1 (Karras et al.: 500,000)."""

    # ---- sampling
    truncation: Share = 1.0
    """Truncation psi: styles are drawn towards their mean, w_mean + psi (w - w_mean). 1 draws from the model itself, 0
    always the mean image. Karras et al. show samples with 0.5 to 0.7."""
    truncation_layers: Count | None = None
    """Number of layers, the coarsest first, whose styles are truncated. None truncates all."""

    ema_halflife: Positive | None = 10_000
    """Half-life of the averaged generator from which samples are drawn, in examples (ADA's paper: 20,000 at 256
    pixels, 500,000 on CIFAR-10). None samples from the generator itself."""
    optim: Optim = Optim(lr=2e-3, b1=0.0, b2=0.99, clip=0.0)
    """Optimizer of either player, before its constants are corrected for lazy penalties."""

    @property
    def resolution(self) -> int:
        """Height and width."""
        return self.space.shape[0]

    @property
    def layers(self) -> int:
        """Number of styles of an image: every convolution has one, and the last layer to colours."""
        if self.alias_free:  # also the waves it starts from
            return self.alias_free_layers + 2
        return 2 * (self.resolution.bit_length() - 1) - 2

    def width(self, resolution: int) -> int:
        """Channels at a resolution."""
        return max(1, min(self.capacity // resolution, self.channels))


def r1_heuristic(resolution: int, batch_size: int) -> float:
    """A first value of `Config.r1`, 0.0002 resolution^2 / batch_size (ADA's code, configuration "auto")."""
    return 0.0002 * resolution**2 / batch_size


def check(cfg: Config, batch_size: int) -> None:
    """Raises ValueError that names the field and the fix."""
    cfg.space.check()
    check_options(cfg)
    shape = cfg.space.shape
    if not cfg.space.image or shape[0] != shape[1] or shape[0] < 8 or shape[0].bit_count() != 1:
        raise ValueError(
            f"space.shape={shape}: StyleGAN2 doubles the resolution from 4x4, so it needs square images of 8, 16, 32, "
            "... pixels a side; pad or resize them"
        )
    if batch_size % cfg.group:
        raise ValueError(
            f"batch_size={batch_size} does not divide into groups of group={cfg.group} images, whose standard "
            "deviation D sees: use a multiple, or a smaller group"
        )
    if cfg.path_length and batch_size % 2:
        raise ValueError(f"batch_size={batch_size}: path_length={cfg.path_length} takes half of it; use an even one")
    if cfg.truncation_layers is not None and cfg.truncation_layers > cfg.layers:
        raise ValueError(f"truncation_layers={cfg.truncation_layers}: there are {cfg.layers} layers; use at most that")
    if cfg.loss == "wasserstein" and not cfg.r1:
        raise ValueError("loss='wasserstein' without a bound on the gradient of D has no minimum: give r1 above 0")
    if cfg.alias_free and cfg.noise:
        raise ValueError("noise=True: the layers of alias_free=True add no noise to their pixels; set noise=False")
    if cfg.alias_free and cfg.alias_free_layers < 3:
        raise ValueError(
            f"alias_free_layers={cfg.alias_free_layers}: the last two are at full resolution; give 3 or more"
        )
    augment.check(cfg.augment, shape)
    if cfg.ada_target is not None and not cfg.augment:
        raise ValueError(f"ada_target={cfg.ada_target} adapts the augmentation, but augment is empty: name transforms")
