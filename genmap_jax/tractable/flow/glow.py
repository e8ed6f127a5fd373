"""Glow: a normalizing flow of images, multi-scale, with invertible 1x1 convolutions.

Kingma & Dhariwal 2018, "Glow: Generative Flow with Invertible 1x1 Convolutions" (arXiv:1807.03039); multi-scale
architecture of Dinh et al. 2017, "Real NVP" (arXiv:1605.08803).

    level     squeeze,  [ actnorm, 1x1 convolution, coupling ] x depth,  half of the channels become latents
    flow      levels after one another; the last one keeps all its channels

Images are dequantised, uniformly or by a flow of their own, so that the likelihood is a bound on the probability of the
integers; the density itself is exact.

Differs from the paper: a 1x1 convolution is a fixed rotation times an LU matrix that starts as identity, the same
rotation in all steps of a level; scales of couplings are bounded by a tanh (its sigmoid(s + 2) can vanish: NaN);
conditioners have no actnorm; splines can take the place of affine maps, and logits that of pixels.
"""

import dataclasses
from typing import Annotated, Literal

from genmap_jax.algorithm import Algorithm, Family
from genmap_jax.optim import Optim
from genmap_jax.options import Count, NotNegative, Positive, Range, check_options
from genmap_jax.spaces import Space
from genmap_jax.tractable.flow import coupling as layers
from genmap_jax.tractable.flow import images, linear
from genmap_jax.tractable.flow.bijection import Bijection, chain, repeat
from genmap_jax.tractable.flow.density import Dequantisation, flow_algorithm, with_exact_likelihood


@dataclasses.dataclass(frozen=True)
class Config:
    """What a Glow is made of."""

    space: Space
    """Space of one example: images whose sides divide by 2 to the number of levels."""
    levels: Count = 2
    """The number of scales; each halves the sides. The paper has 3 on CIFAR-10."""
    depth: Count = 4
    """The number of steps (actnorm, 1x1 convolution, coupling) of each level; 32 in the paper."""
    width: Count = 64
    """Hidden channels of a conditioner; 512 in the paper."""
    transform: Literal["affine", "spline"] = "affine"
    """The elementwise map of couplings: a scale and a shift, or a rational-quadratic spline."""
    logit: Annotated[float, Range(0, below=0.5)] = 0.0
    """Grey values are squeezed into [logit, 1 - logit] and the flow is one of their logits (Real NVP has 0.05), which
    helps where many pixels are black or white; 0 is a flow of the grey values themselves."""
    mixing: Literal["lu", "permutation"] = "lu"
    """What mixes channels before a coupling: a 1x1 convolution, or a reversal of their order as in Real NVP."""
    actnorm: bool = True
    """Every step begins with a scale and shift that normalise the first batch. The last map of the flow does so in any
    case: it is the learned prior of the last level."""
    bins: Count = 4
    """Bins of a spline."""
    box: Positive = 4.0
    """Splines act on [-box, box]; outside they are the identity."""
    dequantisation: Dequantisation = "uniform"
    """The law of the noise within a grey level: uniform, or a flow of its own that is given the image."""
    noise_depth: Count = 2
    """The number of steps of the flow of variational dequantisation."""
    reversible: bool = False
    """Back-propagation recomputes activations from outputs instead of storing them: memory is flat in depth."""
    classes: Count | None = None
    """The number of classes of a conditional flow, which reads the label of a batch; None is unconditional."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Activations and products of the conditioners have this type in training and sampling. Parameters, the bijections
    themselves, the loss and the likelihood are always float32."""
    accumulate: Count = 1
    """An update computes its gradient over this many micro-batches, one after another, to save memory."""
    optim: Optim = Optim()
    """How parameters are updated."""
    ema_halflife: Positive | None = None
    """Half-life of the average of the parameters in examples; None is no average."""
    draws: Count = 16
    """Draws of the dequantisation noise for one likelihood in evaluation; more give a tighter bound."""
    temperature: NotNegative = 1.0
    """Standard deviation of the latents that are sampled; 1 samples the model itself, the paper shows 0.7."""


def check(cfg: Config) -> None:
    """Raise one ValueError that names the field and the fix."""
    cfg.space.check()
    check_options(cfg)
    if not cfg.space.image:
        raise ValueError(f"space.shape={cfg.space.shape}: Glow is of images; for vectors take the spline flow")
    if any(side % 2**cfg.levels for side in cfg.space.shape[:2]):
        raise ValueError(
            f"levels={cfg.levels} needs images whose sides divide by {2**cfg.levels}, not {cfg.space.shape}: "
            "use fewer levels"
        )


def steps(cfg: Config, channels: int, depth: int) -> Bijection:
    """`depth` times actnorm, 1x1 convolution and coupling, on images of so many channels."""
    elementwise = layers.spline(cfg.bins, cfg.box) if cfg.transform == "spline" else layers.affine()
    mix = (
        [linear.rotation(channels), linear.lu()] if cfg.mixing == "lu" else [linear.permutation(range(channels)[::-1])]
    )
    change = layers.coupling(elementwise, lambda n: images.ConvNetwork(cfg.width, n, cfg.dtype))
    step = chain([linear.actnorm()] * cfg.actnorm + [*mix, change])
    return repeat(step, depth, reversible=cfg.reversible)


def flow(cfg: Config) -> Bijection:
    """The bijection of a configuration, from images [B, H, W, C] to latents: nested pairs of arrays, finest first."""
    channels = [cfg.space.shape[-1] * 2 ** (level + 2) for level in range(cfg.levels)]  # after the squeeze
    whole = chain([images.squeeze(), steps(cfg, channels[-1], cfg.depth), linear.actnorm()])
    for count in reversed(channels[:-1]):
        rest = images.split_off(layers.affine(), lambda n: images.ConvPrior(n, cfg.dtype), whole)
        whole = chain([images.squeeze(), steps(cfg, count, cfg.depth), rest])
    return chain([images.logit(cfg.logit), whole]) if cfg.logit else whole


def noise(cfg: Config) -> Bijection | None:
    """The flow of variational dequantisation, from the noise's logits [B, H, W, C] given the image; None for
    uniform."""
    if cfg.dequantisation == "uniform":
        return None
    inner = steps(dataclasses.replace(cfg, reversible=False), 4 * cfg.space.shape[-1], cfg.noise_depth)
    return chain([images.squeeze(), images.with_squeezed_condition(inner), images.unsqueeze()])


def algorithm(cfg: Config, *, batch_size: int, axis_name: str | None = None) -> Algorithm:
    """Bind a Glow to its optimizer. Raises ValueError on a configuration that cannot work."""
    check(cfg)

    def bind(cfg: Config) -> Algorithm:
        return flow_algorithm(
            cfg.space,
            flow(cfg),
            optim=cfg.optim,
            batch_size=batch_size,
            axis_name=axis_name,
            classes=cfg.classes,
            noise=noise(cfg),
            draws=cfg.draws,
            temperature=cfg.temperature,
            ema_halflife=cfg.ema_halflife,
            accumulate=cfg.accumulate,
        )

    return with_exact_likelihood(bind, cfg)


FAMILY = Family(
    name="Normalizing flow",
    continent="tractable",
    objective="exact likelihood",
    citation="Kingma & Dhariwal 2018, https://arxiv.org/abs/1807.03039",
    algorithm=algorithm,
    sampling=("draws", "temperature"),
)
