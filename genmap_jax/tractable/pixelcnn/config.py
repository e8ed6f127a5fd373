"""The options of a PixelCNN, the choices of published models, and what must hold among them."""

import dataclasses
from typing import Annotated, Any, Literal

from genmap_jax.algorithm import reads_of
from genmap_jax.optim import Optim
from genmap_jax.options import Count, Natural, NotNegative, Positive, Range, check_options
from genmap_jax.samplers.guidance import check_guidance
from genmap_jax.spaces import Space


@dataclasses.dataclass(frozen=True)
class Config:
    """The defaults are the network of PixelCNN++ on CIFAR-10, which has 53.7 million parameters there."""

    space: Space
    """The space of one example: images, whose sides divide by 2 for every scale but the first."""
    classes: Count | None = None
    """The model is conditional, p(x | label), with labels 0..classes-1. None makes it unconditional."""
    label_drop: Annotated[float, Range(0, below=1)] = 0.0
    """The share of training labels that are replaced by "none", which classifier-free guidance needs."""

    network: Literal["two_stream", "masked"] = "two_stream"
    """Two streams of shifted convolutions see all pixels before (PixelCNN++); one stream of masked convolutions has a
    blind spot above and to the right (PixelCNN)."""
    filters: Count = 160
    """Every layer has this many channels."""
    blocks: Count = 5
    """Every scale has this many gated residual blocks on the way down, and as many or one more on the way up."""
    scales: Count = 3
    """The network works at this many resolutions, each half of the one before. 1 leaves the resolution as it is."""
    skips: bool = True
    """Blocks on the way up are told what the blocks on the way down have put out (long skip connections)."""
    data_init: bool = True
    """Every layer starts with a gain and a bias that standardise its outputs on the first batch (Salimans & Kingma
    2016, arXiv:1602.07868, section 3)."""
    attention: tuple[Natural, ...] = ()
    """After the way down at these scales (0 is the finest) stands an attention block, as in PixelSNAIL (Chen et al.
    2018, arXiv:1712.09763)."""
    dropout: Annotated[float, Range(0, below=1)] = 0.5
    """This share of the activations inside of every block is dropped in training; 0 drops nothing."""

    head: Literal["logistic", "categorical", "bernoulli"] = "logistic"
    """The law of a channel: a discretised mixture of logistics, a free probability for every grey value, or for images
    of two values the probability of a 1."""
    mixtures: Count = 10
    """The mixture of logistics has this many components; other heads do not read it."""

    sampler: Literal["cached", "fixed_point", "naive"] = "cached"
    """How samples are drawn: "cached" computes every layer once at every pixel, "fixed_point" runs the whole network
    until nothing changes any more, "naive" runs it for every pixel. All give the same images, but for rounding."""
    temperature: Positive = 1.0
    """Samples are drawn from p^(1 / temperature), normalised for every channel. The likelihood is always that of p."""
    guidance: NotNegative = 1.0
    """The weight of classifier-free guidance in samples: 0 is the unconditional model, 1 the conditional one, and above
    it labels count more. It needs label_drop."""

    candidates: Count = 1
    """Where pixels are given, an image is chosen among this many by the probability of the given pixels that come
    after the drawn ones. 1 takes what was drawn from the pixels before alone; many approach the model's own conditional
    law."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Convolutions and activations have this type. Parameters, their normalisation and the loss are always float32."""
    remat: bool = False
    """The backward pass recomputes the inside of every block, to save memory."""
    accumulate: Count = 1
    """An update computes its gradient over this many micro-batches, one after another, to save memory."""
    optim: Optim = Optim(b1=0.95, b2=0.9995)
    """The optimizer, with the moments of PixelCNN++."""
    ema_halflife: Positive | None = None
    """The parameters are averaged for evaluation with this half-life, in examples. None evaluates the last ones."""

    @property
    def reads(self) -> dict[str, Space]:
        """What of a batch the model uses; see `Algorithm.reads`."""
        return reads_of(self.space, self.classes)

    @property
    def kinds(self) -> int:
        """The number of labels that the network knows: the classes, then "none", if labels are dropped."""
        return (self.classes or 0) + (self.label_drop > 0)


SAMPLING = ("sampler", "temperature", "guidance", "candidates")
"""The options that only sampling reads: they may be changed after training."""
GATED: dict[str, Any] = {"network": "masked", "scales": 1, "filters": 32, "blocks": 3, "dropout": 0.0}
"""The smallest model: masked convolutions with gates, without strides, with the blind spot of the first PixelCNN. Van
den Oord et al. 2016, https://arxiv.org/abs/1601.06759; gates: https://arxiv.org/abs/1606.05328."""
PIXELSNAIL: dict[str, Any] = {"scales": 1, "attention": (0,)}
"""No strides, and attention over all pixels before. Chen et al. 2018, https://arxiv.org/abs/1712.09763."""


def check(cfg: Config) -> None:
    """Raise one ValueError that names the field and the fix."""
    cfg.space.check()
    check_options(cfg)
    if not cfg.space.image:
        raise ValueError(f"space.shape={cfg.space.shape}: a PixelCNN is of images, so give (H, W, C)")
    factor = 2 ** (cfg.scales - 1)
    if any(side % factor for side in cfg.space.shape[:2]):
        raise ValueError(
            f"scales={cfg.scales} needs images whose sides divide by {factor}, not {cfg.space.shape}: use fewer scales"
        )
    if cfg.head == "bernoulli" and cfg.space.levels != 2:
        raise ValueError(
            f"head='bernoulli' is for images of two values, not space.levels={cfg.space.levels}: take another head, or "
            "data of two values"
        )
    if any(scale >= cfg.scales for scale in cfg.attention) or len(set(cfg.attention)) < len(cfg.attention):
        raise ValueError(f"attention={cfg.attention}: name each scale once, 0..{cfg.scales - 1}")
    if cfg.label_drop and cfg.classes is None:
        raise ValueError(f"label_drop={cfg.label_drop} drops labels of a conditional model: set classes, or leave it 0")
    check_guidance(cfg.guidance, cfg.classes, cfg.label_drop)
