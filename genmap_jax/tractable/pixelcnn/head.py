"""The law of a pixel given the pixels before it: its channels one after another, each given those before it.

    p(pixel) = p(v_0) p(v_1 | v_0) p(v_2 | v_0, v_1)

The network gives D numbers for every pixel, and never sees the pixel itself: how its channels depend on each other is
said here. In the mixture of logistics (Salimans et al. 2017, section 2.2) the means move linearly with the channels
before; in the categorical head, which has no counterpart there, a table gives logits for each pair of channels.
"""

import math

import jax
import jax.numpy as jnp

from genmap_jax.algorithm import Array, Params
from genmap_jax.likelihoods import mixture_of_logistics
from genmap_jax.tractable.pixelcnn.config import Config

LOG_SCALE_FLOOR = math.log(127.5) - 7.0
"""The least log-scale of a logistic, in grey levels: that of PixelCNN++, -7 where 256 grey levels lie in [-1, 1]."""


def pairs(cfg: Config) -> int:
    """The number of pairs of channels, (earlier, later)."""
    channels = cfg.space.shape[-1]
    return channels * (channels - 1) // 2


def outputs(cfg: Config) -> int:
    """The number D of outputs of the network for every pixel."""
    channels = cfg.space.shape[-1]
    if cfg.head == "logistic":
        return cfg.mixtures * (1 + 2 * channels + pairs(cfg))
    return channels * (cfg.space.grey_levels if cfg.head == "categorical" else 1)


def logistics(cfg: Config, out: Array) -> tuple[Array, Array, Array, Array]:
    """Outputs -> what `mixture_of_logistics` takes. [..., D] -> [..., K], [..., C, K] twice, [..., pairs, K]"""
    channels, half = cfg.space.shape[-1], (cfg.space.grey_levels - 1) / 2.0
    parts = out.reshape(*out.shape[:-1], -1, cfg.mixtures)
    logits, mean, log_scale, coupling = jnp.split(parts, (1, 1 + channels, 1 + 2 * channels), axis=-2)
    log_scale = jnp.maximum(log_scale + math.log(half), LOG_SCALE_FLOOR)
    return logits[..., 0, :], (mean + 1.0) * half, log_scale, jnp.tanh(coupling)


def log_prob(cfg: Config, params: Params, out: Array, v: Array) -> Array:
    """log p of every channel given those before it, in nats. out [..., D], v int [..., C] -> [..., C]"""
    if cfg.head == "logistic":
        return mixture_of_logistics(v, *logistics(cfg, out), cfg.space.grey_levels)
    terms = [
        jnp.take_along_axis(log_pmf(cfg, params, out, v, c), v[..., c, None].astype(jnp.int32), axis=-1)
        for c in range(cfg.space.shape[-1])
    ]
    return jnp.concatenate(terms, axis=-1)


def log_pmf(cfg: Config, params: Params, out: Array, v: Array, c: int) -> Array:
    """log p of every value of channel c given the channels v[..., :c], in nats. out [..., D] -> [..., levels]"""
    levels = cfg.space.grey_levels
    if cfg.head == "logistic":
        at = lambda value: log_prob(cfg, params, out, v.at[..., c].set(value))[..., c]  # noqa: E731
        return jax.vmap(at, out_axes=-1)(jnp.arange(levels, dtype=v.dtype))
    logits = out.reshape(*out.shape[:-1], cfg.space.shape[-1], -1)[..., c, :]
    if cfg.head == "bernoulli":
        logits = jnp.concatenate([jnp.zeros_like(logits), logits], axis=-1)
    for earlier in range(c):
        table = params["coupling"]["embedding"][c * (c - 1) // 2 + earlier]
        logits = logits + table[v[..., earlier].astype(jnp.int32)]
    return jax.nn.log_softmax(logits, axis=-1)
