"""The configuration of BigGAN, and which combinations of options are refused."""

import dataclasses
from typing import Annotated, Literal

from genmap_jax.objectives import adversarial
from genmap_jax.optim import Optim
from genmap_jax.options import Count, Natural, NotNegative, Positive, Range, check_options
from genmap_jax.spaces import Space


@dataclasses.dataclass(frozen=True)
class Config:
    """BigGAN for images (H, W, C). The defaults are those of the paper at 128x128."""

    space: Space
    """Space of one example: images, which the generator makes in uniformly dequantised form."""
    classes: Count | None = None
    """Number of labels of the data; the generator then makes examples of the label asked for. None trains an
    unconditional model."""

    # ---- networks
    latent: Count = 120
    """Number of dimensions of z (128 with `deep`)."""
    width: Count = 96
    """Number of channels of which `channels` are multiples (128 with `deep`)."""
    channels: tuple[Count, ...] = (16, 16, 8, 4, 2, 1)
    """Channels of the generator at each resolution, the lowest first, in units of `width`; each resolution is twice the
    last. D has the same, from the highest on."""
    attention: Natural = 64
    """Height of the feature maps that have self-attention, in both networks; 0 leaves it out."""
    hierarchical: bool = True
    """Whether z is cut into parts, of which the first layer and each block get one. Otherwise the first layer gets all
    of it. With `deep`, whether each block gets all of z."""
    embedding: Count = 128
    """Number of dimensions of the embedding of a label that all normalisations of G share."""
    shared_embedding: bool = True
    """Whether the gains and biases of normalisations are linear maps of one embedding of the label. Otherwise each has
    a table of its own."""
    spectral_norm: bool = True
    """Whether every weight matrix of both players is divided by its largest singular value; the embedding that G's
    normalisations share is not."""
    deep: bool = False
    """Whether blocks are those of BigGAN-deep: bottlenecks, two at each resolution, with skip connections that keep
    their channels."""

    # ---- the game
    loss: adversarial.Loss = "hinge"
    """Adversarial loss of both players, one of those in `genmap_jax.objectives.adversarial`."""
    critic_steps: Count = 2
    """Number of updates of D for each update of G, on equal parts of the batch."""
    orthogonal: NotNegative = 1e-4
    """Weight of orthogonal regularisation of G, the squared inner products of different filters of a layer. It makes
    models that bear truncation. 0 turns it off."""
    rate_d: Positive = 4.0
    """Learning rate of D as a multiple of that of G."""

    # ---- sampling
    truncation: Annotated[float, Range(above=0)] | None = None
    """Threshold of truncation: every entry of z beyond it is drawn again. Smaller numbers give better and less varied
    samples; None draws from the model itself."""
    standing: Natural = 0
    """Number of batches over which the statistics of the normalisations are taken again before sampling, under the
    truncation asked for (standing statistics; the paper: 100). 0 takes the running averages of training."""

    ema_halflife: Positive | None = 10_000
    """Half-life of the averaged generator from which samples are drawn, in examples. None samples from the generator
    itself."""
    optim: Optim = Optim(lr=5e-5, b1=0.0, b2=0.999, clip=0.0)
    """Optimizer of G, and of D but for `rate_d`."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the activations of the convolutions. Parameters, statistics and logits are float32."""
    remat: bool = False
    """Whether the backward pass recomputes the inside of every block, to save memory."""

    @property
    def depth(self) -> int:
        """How often the resolution is doubled."""
        return len(self.channels) - 1


def check(cfg: Config, batch_size: int) -> None:
    """Raises ValueError that names the field and the fix."""
    cfg.space.check()
    check_options(cfg)
    shape, depth = cfg.space.shape, cfg.depth
    if not cfg.space.image or any(side % 2**depth for side in shape[:2]):
        raise ValueError(
            f"channels={cfg.channels} halve an image {depth} times, which space.shape={shape} does not allow: give "
            "fewer, or images whose sides are multiples of a power of two"
        )
    if depth < 1:
        raise ValueError(f"channels={cfg.channels}: give two or more, one for each resolution")
    if cfg.hierarchical and not cfg.deep and cfg.latent % (depth + 1):
        raise ValueError(
            f"latent={cfg.latent} does not divide into the {depth + 1} parts of the hierarchy, one for the first layer "
            f"and one for each block: use a multiple of {depth + 1}, or hierarchical=False"
        )
    heights = [shape[0] >> i for i in range(depth)]  # both networks have these maps
    if cfg.attention and cfg.attention not in heights[1:]:
        raise ValueError(f"attention={cfg.attention}: feature maps have heights {heights[1:]}; name one, or 0 for none")
    if cfg.loss == "wasserstein" and not cfg.spectral_norm:
        raise ValueError("loss='wasserstein' without a bound on the gradient of D has no minimum: use spectral_norm")
    if batch_size % cfg.critic_steps:
        raise ValueError(
            f"batch_size={batch_size} does not divide into critic_steps={cfg.critic_steps} parts: use a multiple"
        )
