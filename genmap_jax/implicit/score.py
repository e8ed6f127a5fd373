"""Score-based model: learn grad log p of noised data, sample by running the noise backwards.

Song et al. 2021, "Score-Based Generative Modeling through Stochastic Differential Equations" (arXiv:2011.13456), with
denoising score matching (Vincent 2011). The model is a noise prediction, score(x, t) = -eps_hat(x, t) / std(t):

    train     eps_hat predicts the noise in x_t                        objectives/denoising_score_matching.py
    sample    predictor-corrector on the reverse SDE                   samplers/predictor_corrector.py
              or, as a denoiser, every sampler of diffusion            samplers/denoising.py, ode.py
    log_prob  the probability-flow ODE: an *estimate* and no bound, of the density at time t_min; images are
              dequantised once                                         samplers/ode.py

Differs from the paper: the network is told log(std / alpha) instead of t (VP) or log sigma (VE), and is preconditioned
as in `eps_hat` (the idea of Karras et al. 2022, arXiv:2206.00364); images are dequantised also in training, as the
likelihood needs; see also processes/sde.py, samplers/predictor_corrector.py and nn/unet.py.
"""

import dataclasses
import math
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from genmap_jax.algorithm import (
    Algorithm,
    Array,
    Batch,
    Cond,
    Family,
    Key,
    LogProb,
    Params,
    State,
    averaged,
    check_cond,
    check_parts,
    init_state,
    log_prob_in_parts,
    minimise,
)
from genmap_jax.keys import example_keys, split
from genmap_jax.nn.mlp import MLP
from genmap_jax.nn.products import in_type, widened
from genmap_jax.nn.unet import UNet, sinusoidal
from genmap_jax.objectives.denoising_score_matching import Weighting, denoising_score_matching
from genmap_jax.optim import Optim, optimizer
from genmap_jax.options import Count, Natural, NotNegative, Positive, Range, Share, check_options
from genmap_jax.processes import Denoise, expand
from genmap_jax.processes.sde import SDE, VE, VP, SubVP, as_denoiser, log_snr, scale, schedule, score_from_eps
from genmap_jax.samplers import denoising, ode
from genmap_jax.samplers.predictor_corrector import predictor_corrector, prior_sample
from genmap_jax.shapes import expect
from genmap_jax.spaces import Space

EMBEDDING = 128
"""Width of the embedding of the noise level."""


@dataclasses.dataclass(frozen=True)
class Config:
    """What a score-based model is made of."""

    space: Space
    """The space of one example: images or vectors."""
    sde: Literal["vp", "subvp", "ve"] = "vp"
    """The noise process: variance preserving, sub-variance preserving, or variance exploding."""
    beta_max: Annotated[float, Range(above=0.1)] = 20.0
    """The noise rate of "vp" and "subvp" at t = 1; it is 0.1 at t = 0."""
    sigma_max: Annotated[float, Range(above=0.01)] = 50.0
    """The noise of "ve" at t = 1, at least the largest distance between two data points; it is 0.01 at t = 0."""
    weighting: Weighting = "noise"
    """The weight of the loss over time: "noise" is std^2 (for samples), "likelihood" g^2, importance-sampled."""
    network: Literal["mlp", "conv"] = "mlp"
    """The network: a residual MLP, or the DDPM++ U-Net on images."""
    width: Count = 256
    """Hidden units of "mlp", or channels of "conv" at the finest resolution."""
    blocks: Count = 3
    """Residual blocks of "mlp", or of "conv" at each resolution."""
    channel_mult: tuple[Count, ...] = (1, 2, 2, 2)
    """Channels of "conv" at each resolution in units of width, finest first."""
    attention: tuple[Count, ...] = (16,)
    """Resolutions of "conv" that have self-attention."""

    sampler: Literal["pc", "ode", "ancestral", "ddim", "euler", "heun", "dpmpp_2m"] = "pc"
    """The sampler: "pc" is predictor-corrector on the reverse SDE, "ode" the probability-flow ODE by an adaptive
    solver; the others step through the noise levels of the SDE at evenly spaced times."""
    sample_steps: Count = 1000
    """Steps of every sampler but "ode"; "pc" makes `corrector_steps` more evaluations in each, "heun" one more."""
    corrector_steps: Natural = 1
    """Langevin steps of "pc" after each predictor step."""
    snr: Positive = 0.16
    """The signal-to-noise ratio of a Langevin step of "pc"."""
    eta: Share = 0.0
    """The noise of "ddim": from the ODE (0) to ancestral sampling (1)."""
    churn: NotNegative = 0.0
    """The noise S_churn that "heun" adds and removes again."""

    divergence: Literal["exact", "hutchinson"] = "hutchinson"
    """How the likelihood computes the divergence: "exact" costs D Jacobian products, right up to some 64 dimensions."""
    probes: Count = 1
    """Probes averaged per example by "hutchinson"; from 2 on, the likelihood has a standard error."""
    spacing: Annotated[float, Range(above=0, most=1)] = 0.35
    """Distance in log sigma of the noise levels at which the likelihood computes the divergence, to sum it by the
    trapezoidal rule; see `samplers.ode.log_prob`."""
    tol: Positive = 1e-5
    """The relative and absolute tolerance of the ODE solver, in likelihood and sampler."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Activations and products of the network have this type in training and sampling. Parameters, normalisations, the
    loss and the likelihood are always float32."""
    remat: bool = False
    """The backward pass recomputes the inside of every block, to save memory."""
    accumulate: Count = 1
    """An update computes its gradient over this many micro-batches, one after another, to save memory."""
    optim: Optim = Optim()
    """The optimizer."""
    ema_halflife: Positive | None = None
    """The half-life of the parameters' average, in examples; None evaluates the last parameters."""


def make_sde(cfg: Config) -> SDE:
    """The SDE a configuration names."""
    if cfg.sde == "ve":
        return VE(sigma_max=cfg.sigma_max)
    return {"vp": VP, "subvp": SubVP}[cfg.sde](beta_max=cfg.beta_max)


# ---- networks --------------------------------------------------------------------------------------------------------


def network(cfg: Config) -> nn.Module:
    """The module (x [B, *shape], emb [B, E]) -> [B, *shape] inside `eps_hat`."""
    if cfg.network == "conv":
        return UNet(cfg.space.shape[-1], cfg.width, cfg.channel_mult, cfg.blocks, cfg.attention, cfg.remat)
    return MLP(cfg.width, cfg.blocks, cfg.space.shape, cfg.remat)


# ---- the model as free functions of its parameters -------------------------------------------------------------------


def eps_hat(cfg: Config, params: Params, x: Array, t: Array) -> Array:
    """The noise predicted in x_t. x [B, *shape], t [B] -> [B, *shape]. Raises ValueError on other shapes.

    What is right for standard normal data, plus alpha / size times the network, where size^2 = alpha^2 + std^2: the
    network sees and makes numbers of order one at all t, and need not learn the identity where all is noise.
    """
    expect((None, *cfg.space.shape), x=x)
    expect((x.shape[0],), t=t)
    sde = make_sde(cfg)
    alpha, std = sde.marginal(t)
    size = jnp.sqrt(alpha**2 + std**2)  # 1 for VP
    x = x / expand(size, x)
    emb = sinusoidal(-2.0 * log_snr(sde, t), EMBEDDING, period=100.0)  # log SNR: about 14 to -10
    out: Any = network(cfg).apply({"params": params}, *in_type(cfg.dtype, x, emb))
    return expand(std / size, x) * x + expand(alpha / size, x) * widened(out)


def score(cfg: Config, params: Params, x: Array, t: Array) -> Array:
    """The model of grad log p_t(x). x [B, *shape], t [B] -> [B, *shape]."""
    return score_from_eps(make_sde(cfg), lambda x, t: eps_hat(cfg, params, x, t))(x, t)


def denoiser(cfg: Config, params: Params) -> Denoise:
    """The model as denoise(y [B, *shape], sigma [B]) -> x_hat, where y = x_0 + sigma noise."""
    return as_denoiser(make_sde(cfg), lambda x, t: score(cfg, params, x, t))


def log_density(cfg: Config, params: Params, x: Array, keys: Key) -> tuple[Array, Array | None]:
    """log p(x) at time t_min, in nats, and its standard error over probes. x [B, *shape], keys [B] -> [B], [B] or None.

    x is y of the common description at the noise of t_min, times alpha there: hence the last term.
    """
    sde = make_sde(cfg)
    noise = schedule(sde, sde.t_min)
    first, last = scale(sde, noise.sigma_min), scale(sde, noise.sigma_max)
    ends = noise.sigma_min, noise.sigma_max, sde.prior_std() / last
    probes = cfg.probes if cfg.divergence == "hutchinson" else 0
    options: dict[str, Any] = {"probes": probes, "tol": cfg.tol, "spacing": cfg.spacing}
    exact = dataclasses.replace(cfg, dtype="float32")
    nats, stderr = ode.log_prob(denoiser(exact, params), x / first, *ends, keys, **options)
    return nats - cfg.space.dims * math.log(first), stderr


# ---- the algorithm ---------------------------------------------------------------------------------------------------


def check(cfg: Config) -> None:
    """Raise one ValueError that names the field and the fix."""
    cfg.space.check()
    check_options(cfg)
    shape = cfg.space.shape
    if cfg.network == "conv" and not cfg.space.image:
        raise ValueError(f"network='conv' needs images, not space.shape={shape}: use network='mlp'")
    if cfg.network == "conv" and not cfg.channel_mult:
        raise ValueError(f"channel_mult={cfg.channel_mult}: network='conv' needs one resolution at least")
    factor = 2 ** (len(cfg.channel_mult) - 1)
    if cfg.network == "conv" and (shape[0] % factor or shape[1] % factor):
        raise ValueError(
            f"channel_mult={cfg.channel_mult} needs an image that divides by {factor}, not {shape}: shorten it"
        )
    least = 1 if cfg.sampler == "pc" else denoising.least_steps(cfg.sampler)
    if cfg.sample_steps < least:
        raise ValueError(f"sample_steps={cfg.sample_steps}: sampler={cfg.sampler!r} needs at least {least}")


def algorithm(cfg: Config, *, batch_size: int, axis_name: str | None = None) -> Algorithm:
    """Bind a score model to its optimizer. Raises ValueError on a configuration that cannot work."""
    check(cfg)
    check_parts(batch_size, cfg.accumulate)
    tx, sde, space = optimizer(cfg.optim, batch_size), make_sde(cfg), cfg.space
    reads = {space.field: space}
    noise = schedule(sde, sde.t_sample)
    sigmas = denoising.levels("ode" if cfg.sampler == "pc" else cfg.sampler, noise, cfg.sample_steps)

    def init(key: Key, batch: Batch) -> State:
        params = network(cfg).init(key, jnp.zeros((1, *space.shape)), jnp.zeros((1, EMBEDDING)))["params"]
        return init_state(params, tx, cfg.ema_halflife)

    loss = denoising_score_matching(
        sde,
        lambda params, x, t: eps_hat(cfg, params, x, t),
        lambda keys, batch: space.dequantise(batch[space.field], keys),
        cfg.weighting,
    )
    step = minimise(loss, tx, ema_halflife=cfg.ema_halflife, axis_name=axis_name, accumulate=cfg.accumulate)

    def sample(state: State, key: Key, n: int, cond: Cond | None = None) -> Array:
        return trajectory(state, key, n, cond, 1)[-1]

    def trajectory(state: State, key: Key, n: int, cond: Cond | None, frames: int) -> Array:
        """Of "pc" the reverse SDE, with its noise; of the others what the model believes the data are."""
        check_cond(reads, n, cond)
        params = averaged(state)
        for_start, for_noise = split(example_keys(key, n))
        x = prior_sample(sde, for_start, space.shape)
        options: dict[str, Any]
        if cfg.sampler == "pc":
            options = {"steps": cfg.sample_steps, "corrector_steps": cfg.corrector_steps, "snr": cfg.snr}
            field = lambda x, t: score(cfg, params, x, t)  # noqa: E731
            x = predictor_corrector(sde, field, x, for_noise, frames=frames, **options)
        else:
            y = x / scale(sde, noise.sigma_max)
            options = {"eta": cfg.eta, "churn": cfg.churn, "tol": cfg.tol}
            x = denoising.draw(cfg.sampler, denoiser(cfg, params), y, sigmas, for_noise, frames, **options)
        return space.requantise(x)

    def log_prob(state: State, batch: Batch, key: Key) -> LogProb:
        params = averaged(state)

        def of_part(keys: Key, batch: Batch) -> LogProb:
            for_data, probes = split(keys)
            nats, stderr = log_density(cfg, params, space.dequantise(batch[space.field], for_data), probes)
            return LogProb(nats + space.log_cell, "estimate", stderr)

        return log_prob_in_parts(of_part, reads, batch, key, cfg.accumulate)

    evaluations: int | None
    if cfg.sampler == "pc":
        evaluations = cfg.sample_steps * (1 + cfg.corrector_steps) + 1
    else:
        evaluations = denoising.evaluations(cfg.sampler, cfg.sample_steps)
    return Algorithm(
        reads=reads,
        init=init,
        step=step,
        sample=sample,
        log_prob=log_prob,
        evaluations=evaluations,
        trajectory=None if cfg.sampler == "ode" else trajectory,
    )


FAMILY = Family(
    name="Score-based model",
    continent="implicit",
    objective="denoising score matching",
    citation="Song et al. 2021, https://arxiv.org/abs/2011.13456",
    algorithm=algorithm,
    sampling=(
        "sampler",
        "sample_steps",
        "corrector_steps",
        "snr",
        "eta",
        "churn",
        "divergence",
        "probes",
        "spacing",
        "tol",
    ),
)
