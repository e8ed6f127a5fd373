"""Ancestral sampling of autoregressive models: one token after another from p(x_t | x_<t), in one compiled loop.

A model is a function `step(cache, token, t) -> (logits, cache)`: it takes the token [B] at position t - 1 and gives the
logits [B, V] of the token at position t. At t = 0 there is no token yet: the model starts by itself and ignores the
zeros it is given. What the cache is, only the model knows. It is carried through the loop, so that XLA updates it in
place; returned as a stacked output of a scan instead, it would be copied whole for every token.

A draw is argmax(logits + Gumbel noise), which is categorical (Gumbel 1954). The noise of position t is a function of
the example's key and t, or is given, so that two samplers of one model can be compared token by token.

`temperature`, `top_k` and `top_p` are functions of logits; compose them, and pass the result as `adjust`:

    decode(step, cache, 256, keys=keys, adjust=lambda logits: top_p(temperature(logits, 0.8), 0.95))
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array
Step = Callable[[Any, Array, Array], tuple[Array, Any]]


def decode(
    step: Step,
    cache: Any,
    length: int,
    *,
    keys: Array | None = None,
    noise: Array | None = None,
    adjust: Callable[[Array], Array] = lambda logits: logits,
    prompt: Array | None = None,
) -> Array:
    """Draw strings of `length` tokens. Returns int32 [B, length].

    step, cache: the model, see above, and its empty cache for B strings.
    keys: [B], one per string. Or noise: [B, length, V], pre-drawn Gumbel; zeros make every draw the most likely token.
    adjust: logits [B, V] -> logits of the law to draw from.
    prompt: int32 [B, P], P <= length: tokens that are given, not drawn. Negative entries are free: pad prompts of
        several lengths with -1. A free token before a given one is drawn from its own past only.
    Raises ValueError unless exactly one of keys and noise is given, and if the prompt is longer than the string.
    """
    if (keys is None) == (noise is None):
        raise ValueError("decode draws from keys or from noise: give exactly one of keys=[B] and noise=[B, length, V]")
    n = len(noise if keys is None else keys)
    given = jnp.full((n, length), -1, jnp.int32)
    if prompt is not None:
        if prompt.shape[1] > length:
            raise ValueError(f"a prompt of {prompt.shape[1]} tokens does not fit into length={length}")
        given = given.at[:, : prompt.shape[1]].set(prompt)

    def body(carry, inputs):
        cache, token = carry
        t, given, noise = inputs
        logits, cache = step(cache, token, t)
        if noise is None:
            noise = gumbel(keys, t, logits.shape[-1])
        drawn = jnp.argmax(adjust(logits) + noise, axis=-1).astype(jnp.int32)
        token = jnp.where(given < 0, drawn, given)
        return (cache, token), token

    noise = None if noise is None else jnp.moveaxis(noise, 1, 0)
    _, tokens = jax.lax.scan(body, (cache, jnp.zeros(n, jnp.int32)), (jnp.arange(length), given.T, noise))
    return tokens.T


def gumbel(keys: Array, t: Array | int, vocab: int) -> Array:
    """The noise `decode` draws at position t: keys [B] -> [B, V]. Stack over t on axis 1 for its `noise`."""
    return jax.vmap(lambda key: jax.random.gumbel(jax.random.fold_in(key, t), (vocab,)))(keys)


# ---- the law to draw from: functions of logits [..., V] --------------------------------------------------------------


def temperature(logits: Array, tau: float) -> Array:
    """p^(1/tau), normalised: sharper below 1, flatter above. tau > 0; the limit 0 is `top_k(logits, 1)`."""
    return logits / tau


def top_k(logits: Array, k: int) -> Array:
    """The k most likely tokens, the smaller token first where logits tie. Fan et al. 2018 (arXiv:1805.04833)."""
    order = jnp.argsort(-logits, axis=-1)
    rank = jnp.argsort(order, axis=-1)
    return jnp.where(rank < k, logits, -jnp.inf)


def top_p(logits: Array, p: float) -> Array:
    """The fewest most likely tokens with together at least probability p. Holtzman et al. 2020 (arXiv:1904.09751)."""
    order = jnp.argsort(-logits, axis=-1)
    probs = jnp.take_along_axis(jax.nn.softmax(logits, axis=-1), order, axis=-1)
    before = jnp.cumsum(probs, axis=-1) - probs  # mass of the more likely tokens: 0 for the first, which always stays
    keep = jnp.take_along_axis(before < p, jnp.argsort(order, axis=-1), axis=-1)
    return jnp.where(keep, logits, -jnp.inf)
