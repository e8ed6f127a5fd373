"""The configuration of a translator of images, and which combinations of options are refused."""

import dataclasses
from typing import Annotated, Literal

from genmap_jax.optim import Optim
from genmap_jax.options import Count, Natural, NotNegative, Positive, Range, check_options
from genmap_jax.spaces import Space


@dataclasses.dataclass(frozen=True)
class Config:
    """A translator between the domains A (`source` of a batch) and B (`image` of a batch). The defaults are CycleGAN's
    at 256 x 256."""

    space: Space
    """Space of the images of both domains."""
    objective: Literal["cycle", "contrastive", "paired"] = "cycle"
    """What the translation is held to beside looking real. cycle trains both directions, and a translation back must
    give the source again (CycleGAN). contrastive trains A to B alone, and a patch of the translation must be nearest to
    the same patch of the source (CUT). paired trains A to B on pairs that are known, by their L1 distance (pix2pix)."""

    # ---- networks
    generator: Literal["resnet", "unet"] = "resnet"
    """Network of a generator: resnet has CycleGAN's residual blocks at a quarter of the resolution, unet is that of
    pix2pix."""
    width: Count = 64
    """Number of channels at the full resolution, of generators and discriminators."""
    blocks: Count = 9
    """Number of residual blocks of a resnet (CycleGAN: 9 at 256 x 256, 6 at 128 x 128)."""
    depth: Count = 8
    """How often a unet halves the resolution (pix2pix at 256 x 256: 8)."""
    dropout: Annotated[float, Range(0, below=1)] = 0.5
    """Share of features that a unet drops in its coarse layers, in training and in sampling: its only noise."""
    patch_layers: Count = 3
    """How often a discriminator halves the resolution. It judges patches of 16, 34, 70, 142, 286 pixels with 1 to 5."""
    init_std: Positive = 0.02
    """Standard deviation of initial weights."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Activations and products of all networks have this type in training and sampling. Parameters, normalisations,
    images, losses and pools are always float32."""
    remat: bool = False
    """Whether the backward pass recomputes the inside of every block of a generator, to save memory. Only a resnet has
    blocks."""

    # ---- what is minimised
    loss: Literal["least_squares", "nonsaturating"] = "least_squares"
    """Adversarial loss of both players (CycleGAN and CUT: least_squares; pix2pix: nonsaturating)."""
    cycle: NotNegative = 10.0
    """Weight of the cycle loss |G'(G(x)) - x|, for each direction. Only with objective="cycle"."""
    identity: NotNegative = 0.5
    """How much of a generator's images of its own target domain are held to stay what they are. With
    objective="cycle", the weight of |G(y) - y| as a share of `cycle`; with "contrastive", the weight of the contrastive
    loss between G(y) and y beside that between G(x) and x (CUT: 1, FastCUT: 0)."""
    l1: NotNegative = 100.0
    """Weight of |G(x) - y| on known pairs, with objective="paired"."""
    contrastive: NotNegative = 1.0
    """Weight of the contrastive loss, with objective="contrastive" (CUT: 1, FastCUT: 10)."""
    temperature: Positive = 0.07
    """The contrastive loss divides cosines by this number."""
    patches: Count = 256
    """Number of patches of every layer that the contrastive loss tells apart, or all that the layer has."""
    embedding: Count = 256
    """Number of dimensions in which patches are compared."""

    # ---- the game
    pool: Natural = 50
    """Number of earlier translations kept for each place of the batch, which the discriminator judges half of the time
    in place of new ones. For the memory of CycleGAN's 50 images at batch size B take 50 / B; 0 shows new ones only (CUT
    and pix2pix)."""
    dither: bool = False
    """Whether discriminators see real and translated images with noise one grey level wide, so that the grid of grey
    values does not tell them apart. It helps where grey values are few."""
    accumulate: Count = 1
    """An update translates and computes its gradients over this many micro-batches, one after another, to save
    memory."""
    ema_halflife: Positive | None = None
    """Half-life of the averaged generators that samples come from, in examples. None samples from the generators."""
    optim: Optim = Optim(lr=2e-4, b1=0.5, b2=0.999, clip=0.0)
    """Optimizer of either player."""

    # ---- sampling
    direction: Literal["ab", "ba"] = "ab"
    """Direction of samples: ab translates A into B, ba translates B into A."""

    @property
    def directions(self) -> tuple[str, ...]:
        """The directions that are trained."""
        return ("ab", "ba") if self.objective == "cycle" else ("ab",)


def check(cfg: Config) -> None:
    """Raises ValueError that names the field and the fix."""
    cfg.space.check()
    check_options(cfg)
    shape, side = cfg.space.shape, min(cfg.space.shape[:2])
    if not cfg.space.image:
        raise ValueError(f"space.shape={shape}: only images (H, W, C) are translated")
    halvings = cfg.depth if cfg.generator == "unet" else 2
    if any(size % 2**halvings for size in shape[:2]) or side < 8:
        fix = ", or lower depth" if cfg.generator == "unet" else ""
        raise ValueError(
            f"space.shape={shape}: generator={cfg.generator!r} halves an image {halvings} times, so both sides must be "
            f"multiples of {2**halvings}, 8 at least: prepare the images with another --size{fix}"
        )
    if side < 3 * 2**cfg.patch_layers:
        most = (side // 3).bit_length() - 1
        raise ValueError(
            f"patch_layers={cfg.patch_layers}: of images of space.shape={shape} that leaves no patches to normalise; "
            f"use at most {most}"
        )
    if cfg.remat and cfg.generator != "resnet":
        raise ValueError(f"remat=True: generator={cfg.generator!r} has no residual blocks; only a resnet has")
    if cfg.objective == "contrastive" and cfg.generator != "resnet":
        raise ValueError(
            f"generator={cfg.generator!r}: objective='contrastive' compares features of a resnet; use 'resnet'"
        )
    if cfg.direction not in cfg.directions:
        raise ValueError(
            f"direction={cfg.direction!r}: objective={cfg.objective!r} trains 'ab' alone; for the other direction "
            "exchange the two domains of the data"
        )


CUT = {"objective": "contrastive", "identity": 1.0, "pool": 0}
"""Changes of the defaults that make CUT; FastCUT has identity 0 and contrastive 10."""
PIX2PIX = {"objective": "paired", "generator": "unet", "loss": "nonsaturating", "pool": 0}
"""Changes of the defaults that make pix2pix at 256 x 256."""
