"""Score-based model: learn grad log p of noised data, sample by running the noise backwards.

Song et al. 2021, "Score-Based Generative Modeling through Stochastic Differential Equations" (arXiv:2011.13456), with
denoising score matching (Vincent 2011). The model is a noise prediction, score(x, t) = -eps_hat(x, t) / std(t):

    train     eps_hat predicts the noise in x_t                        objectives/denoising_score_matching.py
    sample    predictor-corrector on the reverse SDE, or the ODE       samplers/sde.py, samplers/ode.py
    log_prob  the probability-flow ODE: an *estimate* and no bound, of the density at t = eps; images are
              dequantised once

Differs from the paper: the network is told log(std / alpha) instead of t (VP) or log sigma (VE), and is preconditioned
as in `eps_hat` (the idea of Karras et al. 2022, arXiv:2206.00364); images are dequantised also in training, as the
likelihood needs; see also samplers/sde.py and nn/unet.py.
"""

import dataclasses
import math
from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from genmap_jax import parallel
from genmap_jax.algorithm import Algorithm, Array, Key, LogProb, Params, init_state, minimise
from genmap_jax.data import pixels
from genmap_jax.nn.mlp import MLP
from genmap_jax.nn.unet import UNet, sinusoidal
from genmap_jax.objectives.denoising_score_matching import Weighting, denoising_score_matching
from genmap_jax.optim import Optim, optimizer
from genmap_jax.samplers import ode
from genmap_jax.samplers.sde import (
    SDE,
    VE,
    VP,
    SubVP,
    denoised,
    expand,
    log_nsr,
    predictor_corrector_step,
    prior_sample,
    score_from_eps,
)
from genmap_jax.samplers.watching import watch

EMBEDDING = 128
"""Width of the embedding of the noise level."""


@dataclasses.dataclass(frozen=True)
class Config:
    system: ClassVar[str] = "Score-based model"
    objective: ClassVar[str] = "denoising score matching"

    shape: tuple[int, ...]
    """(H, W, C) of images or (D,) of vectors."""
    levels: int = 256
    """Grey values of images; vectors ignore it."""
    sde: Literal["vp", "subvp", "ve"] = "vp"
    beta_max: float = 20.0
    """vp, subvp: noise rate at t = 1; it is 0.1 at t = 0."""
    sigma_max: float = 50.0
    """ve: noise at t = 1, at least the largest distance between two data points; it is 0.01 at t = 0."""
    weighting: Weighting = "noise"
    """Of the loss over time: lambda = std^2 (for samples), or lambda = g^2, importance-sampled (for the likelihood)."""
    network: Literal["mlp", "conv"] = "mlp"
    width: int = 256
    """mlp: hidden units. conv: channels at the finest resolution."""
    blocks: int = 3
    """Residual blocks; conv: per resolution."""
    mult: tuple[int, ...] = (1, 2, 2, 2)
    """conv: channels of each resolution in units of width, finest first."""
    attention: tuple[int, ...] = (16,)
    """conv: resolutions with self-attention."""
    sampler: Literal["pc", "ode"] = "pc"
    """Predictor-corrector on the reverse SDE, or the probability-flow ODE."""
    sample_steps: int = 1000
    """pc: predictor steps."""
    corrector_steps: int = 1
    """pc: Langevin steps after each."""
    snr: float = 0.16
    """pc: signal-to-noise ratio of a Langevin step."""
    trace: Literal["exact", "hutchinson"] = "hutchinson"
    """Divergence in log_prob: "exact" costs D Jacobian products, right up to some 64 dimensions."""
    probes: int = 1
    """hutchinson: probes averaged per example; from 2 on, log_prob has a standard error."""
    tol: float = 1e-5
    """Relative and absolute tolerance of the ODE solver."""
    optim: Optim = Optim()
    ema_halflife: float | None = None
    """In examples; None evaluates the last parameters."""


def make_sde(cfg: Config) -> SDE:
    """The SDE a configuration names."""
    if cfg.sde == "ve":
        return VE(sigma_max=cfg.sigma_max)
    return {"vp": VP, "subvp": SubVP}[cfg.sde](beta_max=cfg.beta_max)


# ---- networks --------------------------------------------------------------------------------------------------------


def network(cfg: Config) -> nn.Module:
    """The module (x [B, *shape], emb [B, E]) -> [B, *shape] inside `eps_hat`."""
    if cfg.network == "conv":
        return UNet(cfg.shape[-1], cfg.width, cfg.mult, cfg.blocks, cfg.attention)
    return MLP(cfg.width, cfg.blocks, cfg.shape)


# ---- the model as free functions of its parameters -------------------------------------------------------------------


def eps_hat(cfg: Config, params: Params, x: Array, t: Array) -> Array:
    """The noise predicted in x_t. x [B, *shape], t [B] -> [B, *shape].

    What is right for standard normal data, plus alpha / scale times the network, where scale^2 = alpha^2 + std^2: the
    network sees and makes numbers of order one at all t, and need not learn the identity where all is noise.
    """
    sde = make_sde(cfg)
    alpha, std = sde.marginal(t)
    scale = jnp.sqrt(alpha**2 + std**2)  # 1 for VP
    x = x / expand(scale, x)
    emb = sinusoidal(2.0 * log_nsr(sde, t), EMBEDDING, period=100.0)  # log_nsr: about -14 to 10
    out = network(cfg).apply({"params": params}, x, emb)
    return expand(std / scale, x) * x + expand(alpha / scale, x) * out


def score(cfg: Config, params: Params, x: Array, t: Array) -> Array:
    """The model of grad log p_t(x). x [B, *shape], t [B] -> [B, *shape]."""
    return score_from_eps(make_sde(cfg), lambda x, t: eps_hat(cfg, params, x, t))(x, t)


def to_data(cfg: Config, x: Array) -> Array:
    """What the SDE ends in -> what a batch holds: uint8 images or float32 vectors."""
    return pixels.requantise(x, cfg.levels) if len(cfg.shape) == 3 else x


def to_continuous(cfg: Config, keys: Key, data: Array) -> Array:
    """The inverse, random for images: keys [B], data [B, *shape] -> float32 [B, *shape]."""
    return pixels.dequantise(data, keys, cfg.levels) if len(cfg.shape) == 3 else data


# ---- the algorithm ---------------------------------------------------------------------------------------------------


def check(cfg: Config) -> None:
    """Raise one ValueError that names the field and the fix."""
    images = len(cfg.shape) == 3
    factor = 2 ** (len(cfg.mult) - 1)
    choices = {
        "sde": ("vp", "subvp", "ve"),
        "weighting": ("noise", "likelihood"),
        "network": ("mlp", "conv"),
        "sampler": ("pc", "ode"),
        "trace": ("exact", "hutchinson"),
    }
    for field, allowed in choices.items():
        if getattr(cfg, field) not in allowed:
            raise ValueError(f"{field}={getattr(cfg, field)!r}: choose one of {', '.join(map(repr, allowed))}")
    if len(cfg.shape) not in (1, 3):
        raise ValueError(f"shape={cfg.shape}: give (H, W, C) for images or (D,) for vectors")
    if images and not 2 <= cfg.levels <= 256:
        raise ValueError(f"levels={cfg.levels}: uint8 images have 2 to 256 grey values")
    if cfg.network == "conv" and not images:
        raise ValueError(f"network='conv' needs a shape (H, W, C), not {cfg.shape}: use network='mlp'")
    if cfg.network == "conv" and (cfg.shape[0] % factor or cfg.shape[1] % factor):
        raise ValueError(f"mult={cfg.mult} needs a shape that divides by {factor}, not {cfg.shape}: shorten mult")
    if cfg.sample_steps < 1 or cfg.corrector_steps < 0:
        raise ValueError(f"sample_steps={cfg.sample_steps}, corrector_steps={cfg.corrector_steps}: at least 1 and 0")
    if cfg.probes < 1:
        raise ValueError(f"probes={cfg.probes}: use at least 1, or trace='exact'")


def algorithm(cfg: Config, *, batch_size: int, axis_name: str | None = None) -> Algorithm:
    """Bind a score model to its optimizer. Raises ValueError on a configuration that cannot work."""
    check(cfg)
    tx, sde = optimizer(cfg.optim, batch_size), make_sde(cfg)
    name = "image" if len(cfg.shape) == 3 else "x"

    def init(key):
        params = network(cfg).init(key, jnp.zeros((1, *cfg.shape)), jnp.zeros((1, EMBEDDING)))["params"]
        return init_state(params, tx, cfg.ema_halflife)

    loss = denoising_score_matching(
        sde,
        lambda params, x, t: eps_hat(cfg, params, x, t),
        lambda keys, batch: to_continuous(cfg, keys, batch[name]),
        cfg.weighting,
    )
    step = minimise(loss, tx, ema_halflife=cfg.ema_halflife, axis_name=axis_name)

    def sample(state, key, n, cond=None):
        if cond is not None:
            raise ValueError("this score model is unconditional: call sample with cond=None")
        if cfg.sampler == "ode":
            field = lambda x, t: score(cfg, state.averaged, x, t)  # noqa: E731
            keys, _ = _split(parallel.example_keys(key, n))
            return to_data(cfg, ode.sample(sde, field, prior_sample(sde, keys, cfg.shape), tol=cfg.tol))
        return trace(state, key, n, 1)[0]

    def trace(state, key, n, frames):
        """The reverse SDE; all frames but the last still carry noise."""
        field = lambda x, t: score(cfg, state.averaged, x, t)  # noqa: E731
        keys, noise = _split(parallel.example_keys(key, n))
        options = {"steps": cfg.sample_steps, "corrector_steps": cfg.corrector_steps, "snr": cfg.snr}
        step = predictor_corrector_step(sde, field, noise, **options)
        x = watch(step, prior_sample(sde, keys, cfg.shape), cfg.sample_steps, frames)
        return to_data(cfg, x.at[-1].set(denoised(sde, field, x[-1])))

    def log_prob(state, batch, key) -> LogProb:
        field = lambda x, t: score(cfg, state.averaged, x, t)  # noqa: E731
        keys, probes = _split(parallel.example_keys(key, len(batch[name])))
        x = to_continuous(cfg, keys, batch[name])
        count = cfg.probes if cfg.trace == "hutchinson" else 0
        nats, stderr = ode.log_prob(sde, field, x, probes, probes=count, tol=cfg.tol)
        cell = pixels.log_cell(math.prod(cfg.shape), cfg.levels) if name == "image" else 0.0
        return LogProb(nats + cell, "estimate", stderr)

    if cfg.sampler == "ode":
        return Algorithm(init, step, sample, log_prob)
    evaluations = cfg.sample_steps * (1 + cfg.corrector_steps) + 1
    return Algorithm(init, step, sample, log_prob, evaluations=evaluations, trace=trace)


def _split(keys: Key) -> tuple[Key, Key]:
    """keys [B] -> two independent keys for each example."""
    return tuple(jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0))
