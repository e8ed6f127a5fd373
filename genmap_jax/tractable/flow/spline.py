"""Neural spline flow: an exact density of vectors from splines, couplings and linear maps.

Durkan et al. 2019, "Neural Spline Flows" (arXiv:1906.04032): RQ-NSF (C) of couplings, RQ-NSF (AR) of autoregressive
layers; with affine maps instead of splines, MAF (Papamakarios et al. 2017, arXiv:1705.07057) and, used backwards, IAF.

    data -> [ actnorm, permutation, LU matrix, coupling or autoregressive layer ] x layers -> N(0, I)

Differs from the papers: actnorm instead of batch normalisation, also in front, so that data of any size fit into the
box of the splines; slopes of splines are bounded (see `splines`).
"""

import dataclasses
from typing import Literal

import numpy as np

from genmap_jax.algorithm import Algorithm, Family
from genmap_jax.optim import Optim
from genmap_jax.options import Count, Natural, NotNegative, Positive, check_options
from genmap_jax.spaces import Space
from genmap_jax.tractable.flow import coupling as layers
from genmap_jax.tractable.flow import linear
from genmap_jax.tractable.flow.bijection import Bijection, chain, inverted
from genmap_jax.tractable.flow.density import flow_algorithm, with_exact_likelihood


@dataclasses.dataclass(frozen=True)
class Config:
    """What a spline flow is made of."""

    space: Space
    """Space of one example: vectors of at least two dimensions."""
    layers: Count = 6
    """The number of couplings or autoregressive layers."""
    kind: Literal["coupling", "autoregressive", "inverse_autoregressive"] = "coupling"
    """How a layer is conditioned. A coupling is fast in both directions, an autoregressive layer (MAF) in that of the
    density, an inverse autoregressive one (IAF) in that of sampling."""
    transform: Literal["spline", "affine"] = "spline"
    """The elementwise map: a rational-quadratic spline, or a scale and a shift."""
    mixing: Literal["lu", "permutation"] = "lu"
    """What mixes the features between layers: a permutation and an LU-parametrised matrix, or a permutation alone."""
    actnorm: bool = True
    """Every layer begins with a scale and shift that normalise the first batch. The first one does in any case."""
    width: Count = 64
    """Hidden units of a conditioner."""
    blocks: Natural = 2
    """Residual blocks of a conditioner."""
    bins: Count = 8
    """Bins of a spline."""
    box: Positive = 4.0
    """Splines act on [-box, box]; outside they are the identity."""
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
    temperature: NotNegative = 1.0
    """Standard deviation of the latents that are sampled; 1 samples the model itself."""


def check(cfg: Config) -> None:
    """Raise one ValueError that names the field and the fix."""
    cfg.space.check()
    check_options(cfg)
    if cfg.space.image:
        raise ValueError(f"space.shape={cfg.space.shape}: this flow is of vectors; for images take glow")
    if cfg.space.dims < 2:
        raise ValueError(f"space.shape={cfg.space.shape}: a flow of couplings needs at least 2 dimensions")


def flow(cfg: Config) -> Bijection:
    """The bijection of a configuration, from data [B, D] to latents [B, D]."""
    dims = cfg.space.dims
    elementwise = layers.spline(cfg.bins, cfg.box) if cfg.transform == "spline" else layers.affine()
    maps: list[Bijection] = []
    for i in range(cfg.layers):
        if cfg.actnorm or i == 0:
            maps.append(linear.actnorm())
        maps.append(linear.permutation(np.random.default_rng(i).permutation(dims) if dims > 2 else [1, 0]))
        if cfg.mixing == "lu":
            maps.append(linear.lu())
        if cfg.kind == "coupling":
            network = lambda n: layers.ResidualNetwork(cfg.width, cfg.blocks, n, cfg.dtype)  # noqa: E731
            maps.append(layers.coupling(elementwise, network))
        else:
            layer = layers.autoregressive(elementwise, lambda n: layers.MADE(cfg.width, cfg.blocks, n, cfg.dtype))
            maps.append(layer if cfg.kind == "autoregressive" else inverted(layer))
    return chain([*maps, linear.actnorm()])


def algorithm(cfg: Config, *, batch_size: int, axis_name: str | None = None) -> Algorithm:
    """Bind a spline flow to its optimizer. Raises ValueError on a configuration that cannot work."""
    check(cfg)

    def bind(cfg: Config) -> Algorithm:
        return flow_algorithm(
            cfg.space,
            flow(cfg),
            optim=cfg.optim,
            batch_size=batch_size,
            axis_name=axis_name,
            classes=cfg.classes,
            temperature=cfg.temperature,
            ema_halflife=cfg.ema_halflife,
            accumulate=cfg.accumulate,
        )

    return with_exact_likelihood(bind, cfg)


FAMILY = Family(
    name="Spline flow",
    continent="tractable",
    objective="exact likelihood",
    citation="Durkan et al. 2019, https://arxiv.org/abs/1906.04032",
    algorithm=algorithm,
    sampling=("temperature",),
)
