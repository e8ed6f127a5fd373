"""GPT: a causal transformer over tokens, with the exact log-probability of every string.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners" (GPT-2), after Radford et al. 2018 (GPT) and
Vaswani et al. 2017 (arXiv:1706.03762).

    log p(x_1..x_L) = sum_t log p(x_t | x_1..x_{t-1})

GPT-2's architecture: LayerNorm before each block, learned positions, tanh-approximated GELU, output head tied to the
embedding, N(0, 0.02) initialisation with residual projections scaled by 1 / sqrt(2 layers).

Differs from the paper: the first token is predicted too, from a learned start vector, so that p is a density over
strings of length L and sums to one over all V^L of them. No dropout.
"""

import dataclasses
import math
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from genmap_jax import parallel
from genmap_jax.algorithm import Algorithm, Array, LogProb, Params, init_state, minimise
from genmap_jax.objectives import exact_likelihood
from genmap_jax.optim import Optim, optimizer
from genmap_jax.samplers import decoding

Cache = Any
"""Per layer, the keys and the values of all positions, each [B H, L, d]. Heads come before time, so that a head reads
its past contiguously; and in one axis with the batch, because XLA copies a [1, H, L, d] cache for every token."""


@dataclasses.dataclass(frozen=True)
class Config:
    system: ClassVar[str] = "GPT"
    objective: ClassVar[str] = "exact likelihood"

    vocab: int = 256
    """Tokens are 0..vocab-1; 256 for bytes, the number of grey values for images."""
    length: int = 64
    """Tokens of an example, all of them predicted."""
    shape: tuple[int, int, int] | None = None
    """(H, W, C) of images, read row by row, a token for every channel of a pixel: length = H W C. None: text."""
    layers: int = 4
    heads: int = 4
    width: int = 128
    """Of the residual stream; the hidden layer of a block's MLP is four times as wide."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of matrix products and activations. Parameters, normalisations, softmax and loss are always float32."""
    optim: Optim = Optim()
    ema_halflife: float | None = None
    """In examples; None evaluates the last parameters."""

    @property
    def levels(self) -> int | None:
        """Grey values, of images."""
        return self.vocab if self.shape else None


# ---- the network -----------------------------------------------------------------------------------------------------


def _dense(cfg: Config, features: int, std: float = 0.02, name: str | None = None) -> nn.Dense:
    return nn.Dense(features, dtype=cfg.dtype, kernel_init=nn.initializers.normal(std), name=name)


def _norm(cfg: Config, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=1e-5, dtype=cfg.dtype, name=name)


class Attention(nn.Module):
    """Causal self-attention of T tokens at positions t, t+1, ... over themselves and, with a cache, all before them."""

    cfg: Config

    @nn.compact
    def __call__(self, x: Array, cache: tuple[Array, Array] | None, t: Array | int):  # [B, T, D]
        cfg = self.cfg
        batch, heads, d = x.shape[0], cfg.heads, cfg.width // cfg.heads
        qkv = _dense(cfg, 3 * cfg.width, name="qkv")(x).reshape(batch, -1, 3, heads, d)
        q, k, v = jnp.transpose(qkv, (2, 0, 3, 1, 4)).reshape(3, batch * heads, -1, d)
        if cache is not None:
            write = lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, t, axis=1)  # noqa: E731
            k, v = cache = write(cache[0], k), write(cache[1], v)
        scores = jnp.einsum("ntd,nsd->nts", q, k, preferred_element_type=jnp.float32) * d**-0.5
        past = jnp.arange(k.shape[1])[None, :] <= t + jnp.arange(q.shape[1])[:, None]  # [T, S]
        weights = jax.nn.softmax(jnp.where(past[None], scores, -jnp.inf), axis=-1)
        y = jnp.einsum("nts,nsd->ntd", weights.astype(v.dtype), v)
        y = jnp.transpose(y.reshape(batch, heads, -1, d), (0, 2, 1, 3)).reshape(x.shape)
        return _dense(cfg, cfg.width, 0.02 / (2 * cfg.layers) ** 0.5, name="out")(y), cache


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)). [B, T, D] -> [B, T, D] and the cache."""

    cfg: Config

    @nn.compact
    def __call__(self, x: Array, cache: tuple[Array, Array] | None, t: Array | int):
        cfg = self.cfg
        y, cache = Attention(cfg, name="attention")(_norm(cfg, "attention_norm")(x), cache, t)
        x = x + y
        y = _dense(cfg, 4 * cfg.width, name="up")(_norm(cfg, "mlp_norm")(x))
        y = _dense(cfg, cfg.width, 0.02 / (2 * cfg.layers) ** 0.5, name="down")(nn.gelu(y, approximate=True))
        return x + y, cache


class GPT(nn.Module):
    """Tokens -> logits, whole strings at once (`__call__`) or one position at a time (`step`)."""

    cfg: Config

    def setup(self):
        cfg, init = self.cfg, nn.initializers.normal(0.02)
        self.start = self.param("start", init, (cfg.width,))
        self.embedding = self.param("embedding", init, (cfg.vocab, cfg.width))
        self.positions = self.param("positions", init, (cfg.length, cfg.width))
        self.blocks = [Block(cfg, name=f"block_{i}") for i in range(cfg.layers)]
        self.final_norm = _norm(cfg, "final_norm")

    def __call__(self, tokens: Array) -> Array:  # [B, L] -> [B, L, V]
        return self.trunk(self.embed(tokens))[0]

    def embed(self, tokens: Array) -> Array:
        """What the blocks see: the start vector, then the embeddings of all tokens but the last. [B, L] -> [B, L, D]"""
        start = jnp.broadcast_to(self.start, (tokens.shape[0], 1, self.cfg.width))
        return jnp.concatenate([start, self.embedding[tokens[:, :-1]]], axis=1)

    def step(self, cache: Cache, token: Array, t: Array) -> tuple[Array, Cache]:
        """Token [B] at position t - 1 -> logits [B, V] at position t; the contract of `samplers.decoding`."""
        x = jnp.where(t == 0, self.start[None, :], self.embedding[token])
        logits, cache = self.trunk(x[:, None, :], cache, t)
        return logits[:, 0], cache

    def trunk(self, x: Array, cache: Cache | None = None, t: Array | int = 0) -> tuple[Array, Cache]:
        """Input vectors [B, T, D] at positions t, t+1, ... -> logits [B, T, V] float32, and the cache with them in."""
        x = x + jax.lax.dynamic_slice_in_dim(self.positions, t, x.shape[1])[None]
        x, new = x.astype(self.cfg.dtype), []
        for block, layer in zip(self.blocks, cache or [None] * self.cfg.layers, strict=True):
            x, layer = block(x, layer, t)
            new.append(layer)
        head = self.embedding.astype(self.cfg.dtype)
        return jnp.einsum("btd,vd->btv", self.final_norm(x), head, preferred_element_type=jnp.float32), new


# ---- pure functions --------------------------------------------------------------------------------------------------


def logits(cfg: Config, params: Params, tokens: Array) -> Array:
    """Logits of every token given those before it. int32 [B, L] -> float32 [B, L, V]."""
    return GPT(cfg).apply({"params": params}, tokens)


def log_prob(cfg: Config, params: Params, tokens: Array) -> Array:
    """Exact log p(x_1..x_L) in nats. int32 [B, L] -> float32 [B]."""
    return -optax.softmax_cross_entropy_with_integer_labels(logits(cfg, params, tokens), tokens).sum(-1)


def empty_cache(cfg: Config, n: int) -> Cache:
    """Room for the keys and values of n strings of cfg.length tokens."""
    room = (n * cfg.heads, cfg.length, cfg.width // cfg.heads)
    return [(jnp.zeros(room, cfg.dtype), jnp.zeros(room, cfg.dtype)) for _ in range(cfg.layers)]


def decoding_step(cfg: Config, params: Params) -> decoding.Step:
    """The model as `samplers.decoding` wants it, for a cache from `empty_cache`."""
    return lambda cache, token, t: GPT(cfg).apply({"params": params}, cache, token, t, method="step")


# ---- the algorithm ---------------------------------------------------------------------------------------------------


def check(cfg: Config) -> None:
    """Raise one ValueError that names the field and the fix."""
    if cfg.shape is not None and cfg.length != math.prod(cfg.shape):
        raise ValueError(f"length={cfg.length}: images of shape={cfg.shape} have {math.prod(cfg.shape)} tokens")
    for name in ("vocab", "length", "layers", "heads", "width"):
        if getattr(cfg, name) < 1:
            raise ValueError(f"{name}={getattr(cfg, name)}: must be at least 1")
    if cfg.width % cfg.heads:
        raise ValueError(f"width={cfg.width} does not divide over heads={cfg.heads}: make it a multiple")
    if cfg.dtype not in ("float32", "bfloat16"):
        raise ValueError(f"dtype={cfg.dtype!r}: choose 'float32' or 'bfloat16'")


def algorithm(cfg: Config, *, batch_size: int, axis_name: str | None = None) -> Algorithm:
    """Bind a GPT to its optimizer. Raises ValueError on a configuration that cannot work."""
    check(cfg)
    tx = optimizer(cfg.optim, batch_size)

    def init(key):
        params = GPT(cfg).init(key, jnp.zeros((1, cfg.length), jnp.int32))["params"]
        return init_state(params, tx, cfg.ema_halflife)

    def tokens(batch):
        return batch["tokens"] if cfg.shape is None else batch["image"].reshape(-1, cfg.length).astype(jnp.int32)

    nats = lambda params, keys, batch: log_prob(cfg, params, tokens(batch))  # noqa: E731
    loss = exact_likelihood.negative_log_likelihood(nats, cfg.length)
    step = minimise(loss, tx, ema_halflife=cfg.ema_halflife, axis_name=axis_name)

    def sample(state, key, n, cond=None):
        if cond is not None:
            raise ValueError("this GPT is unconditional: call sample with cond=None")
        model = decoding_step(cfg, state.averaged)
        drawn = decoding.decode(model, empty_cache(cfg, n), cfg.length, keys=parallel.example_keys(key, n))
        return drawn if cfg.shape is None else drawn.reshape(n, *cfg.shape).astype(jnp.uint8)

    def trace(state, key, n, frames):
        drawn = sample(state, key, n)
        stops = jnp.linspace(0, cfg.length, frames + 1)[1:].round()
        seen = jnp.arange(cfg.length)[None, :] < stops[:, None]  # [frames, L]
        return jnp.where(seen.reshape(frames, 1, *drawn.shape[1:]), drawn[None], 0)

    def evaluate(state, batch, key) -> LogProb:
        return LogProb(log_prob(cfg, state.averaged, tokens(batch)), "exact")

    return Algorithm(init, step, sample, evaluate, evaluations=cfg.length, trace=trace)
