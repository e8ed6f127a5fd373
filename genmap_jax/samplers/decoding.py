"""Ancestral sampling of autoregressive models: one token after another from p(x_t | x_<t), in one compiled loop.

A model is a function `step(cache, token, t) -> (logits, cache)`: it takes the token [B] at position t - 1 and gives the
logits [B, V] of the token at position t. At t = 0 there is no token yet: the model starts by itself and ignores the
token it is given. What the cache is, only the model knows. It is carried through the loop, so that XLA updates it in
place; returned as a stacked output of a scan instead, it would be copied whole for every token.

A draw is argmax(logits + Gumbel noise), which is categorical (Gumbel 1954). The noise of position t is a function of
the example's key and t, or is given, so that two samplers of one model can be compared token by token.

`temperature`, `top_k`, `top_p` and `min_p` are functions of logits. `Law` composes them; so does any function:

    decode(step, cache, 256, keys=keys, adjust=Law(temperature=0.8, top_p=0.95), stop=0)
    decode(step, cache, 256, keys=keys, adjust=lambda logits: top_p(temperature(logits, 0.8), 0.95))
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from genmap_jax.keys import fold

Array = jax.Array
Step = Callable[[Any, Array, Array], tuple[Array, Any]]


def unchanged(logits: Array) -> Array:
    """The law of the model itself."""
    return logits


def decode(
    step: Step,
    cache: Any,
    length: int,
    *,
    keys: Array | None = None,
    noise: Array | None = None,
    adjust: Callable[[Array], Array] = unchanged,
    prompt: Array | None = None,
    first: Array | int = 0,
    last: Array | int | None = None,
    stop: Array | Sequence[int] | int | None = None,
) -> Array:
    """Draw strings of `length` tokens. Returns int32 [B, length], -1 for a token whose logits were NaN or infinite.

    step, cache: the model, see above, and its empty cache for B strings.
    keys: [B], one per string. Or noise: [B, length, V], pre-drawn Gumbel; zeros make every draw the most likely token.
    adjust: logits [B, V] -> logits of the law to draw from.
    prompt: int32 [B, P], P <= length: tokens that are given, not drawn. Negative entries are free: pad prompts of
        several lengths with -1. A free token before a given one is drawn from its own past only.
    first: the cache already holds the positions before this one, whose tokens the prompt gives. May be traced.
    last: draw no further than this, and return zeros after it; None is `length`. May be traced.
    stop: after a string has drawn this token, all its free tokens are this token; one that is given ends nothing. Of
        several tokens [K] any ends a string, and the first fills it. The loop ends when every string has stopped. May
        be traced. None: strings do not stop.
    Raises ValueError unless exactly one of keys and noise is given, and if the prompt is longer than the string.
    """
    randomness = keys if noise is None else noise
    if randomness is None or (keys is not None and noise is not None):
        raise ValueError("decode draws from keys or from noise: give exactly one of keys=[B] and noise=[B, length, V]")
    n = len(randomness)
    last = length if last is None else last
    given = jnp.full((n, length), -1, jnp.int32)
    if prompt is not None:
        if prompt.shape[1] > length:
            raise ValueError(f"a prompt of {prompt.shape[1]} tokens does not fit into length={length}")
        given = given.at[:, : prompt.shape[1]].set(prompt)
    given = given.T  # [length, B], time first: a step writes one row
    tokens, stopped = jnp.maximum(given, 0), None
    if stop is not None:  # what the loop does not reach is filled already
        stops = jnp.atleast_1d(jnp.asarray(stop))
        undrawn = (given < 0) & (jnp.arange(length) < last)[:, None]
        tokens, stopped = jnp.where(undrawn, stops[0], tokens), jnp.zeros(n, bool)

    def unfinished(carry):
        t, _, _, stopped = carry
        return (t < last) if stopped is None else (t < last) & ~stopped.all()

    def draw(carry):
        t, cache, tokens, stopped = carry
        logits, cache = step(cache, tokens[t - 1], t)  # at t = 0 some token, which the model ignores
        if noise is None:
            g = gumbel(keys, t, logits.shape[-1])
        else:
            g = jax.lax.dynamic_index_in_dim(noise, t, axis=1, keepdims=False)
        drawn = jnp.argmax(adjust(logits) + g, axis=-1).astype(jnp.int32)
        drawn = jnp.where(jnp.isfinite(logits.max(axis=-1)), drawn, -1)  # NaN would be taken for the most likely
        if stopped is not None:
            drawn = jnp.where(stopped, stops[0], drawn)
            stopped |= jnp.isin(drawn, stops) & (given[t] < 0)
        return t + 1, cache, tokens.at[t].set(jnp.where(given[t] < 0, drawn, given[t])), stopped

    start = (jnp.asarray(first, jnp.int32), cache, tokens, stopped)
    return jax.lax.while_loop(unfinished, draw, start)[2].T


def gumbel(keys: Array, t: Array | int, vocab: int) -> Array:
    """The noise `decode` draws at position t: keys [B] -> [B, V]. Stack over t on axis 1 for its `noise`."""
    return jax.vmap(lambda key: jax.random.gumbel(key, (vocab,)))(fold(keys, t))


# ---- the law to draw from: functions of logits [..., V] --------------------------------------------------------------


def temperature(logits: Array, tau: float) -> Array:
    """p^(1/tau), normalised: sharper below 1, flatter above. tau > 0; the limit 0 is `top_k(logits, 1)`."""
    _check("temperature", tau, math.inf)
    return logits / tau


def top_k(logits: Array, k: int) -> Array:
    """The k most likely tokens, the smaller token first where logits tie. Fan et al. 2018 (arXiv:1805.04833)."""
    _check("top_k", k, logits.shape[-1])
    order = jnp.argsort(-logits, axis=-1)
    rank = jnp.argsort(order, axis=-1)
    return jnp.where(rank < k, logits, -jnp.inf)


def top_p(logits: Array, p: float) -> Array:
    """The fewest most likely tokens with together at least probability p. Holtzman et al. 2020 (arXiv:1904.09751)."""
    _check("top_p", p, 1)
    order = jnp.argsort(-logits, axis=-1)
    probs = jnp.take_along_axis(jax.nn.softmax(logits, axis=-1), order, axis=-1)
    before = jnp.cumsum(probs, axis=-1) - probs  # mass of the more likely tokens: 0 for the first, which always stays
    keep = (before < p) | (p >= 1)  # rounding lets the sum before the last tokens reach 1
    keep = jnp.take_along_axis(keep, jnp.argsort(order, axis=-1), axis=-1)
    return jnp.where(keep, logits, -jnp.inf)


def min_p(logits: Array, p: float) -> Array:
    """The tokens at least p times as likely as the most likely one. Nguyen et al. 2024 (arXiv:2407.01082). p <= 1."""
    _check("min_p", p, 1)
    return jnp.where(logits >= logits.max(-1, keepdims=True) + math.log(p), logits, -jnp.inf)


@dataclasses.dataclass(frozen=True)
class Law:
    """The four functions above, one after another, as a value that can be compared: logits -> logits.

    Each truncation sees what the one before it has left; None leaves it out. Equal laws share one compilation.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None

    def __call__(self, logits: Array) -> Array:
        """Logits [..., V] of the model -> logits of the law to draw from."""
        logits = temperature(logits, self.temperature)
        steps: list[tuple[Callable[..., Array], float | None]]
        steps = [(top_k, self.top_k), (top_p, self.top_p), (min_p, self.min_p)]
        for truncate, value in steps:
            logits = logits if value is None else truncate(logits, value)
        return logits

    def check(self, vocab: int) -> None:
        """Raises ValueError that names an option which leaves none of `vocab` tokens, or means nothing."""
        jax.eval_shape(self, jax.ShapeDtypeStruct((vocab,), jnp.float32))


def _check(name: str, value, most: float) -> None:
    """Raise ValueError for a number that leaves no token, or means nothing. Traced values are taken as they are."""
    if isinstance(value, int | float) and not 0 < value <= most:
        upper = "" if most == math.inf else f" and at most {most}"
        hint = "; for the most likely token take top_k=1" if name == "temperature" else ""
        raise ValueError(f"{name}={value}: give more than 0{upper}{hint}")
