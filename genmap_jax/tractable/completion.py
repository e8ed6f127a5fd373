"""Continue prompts with a GPT: prefill once, then token by token, in one compilation for all lengths of a bucket."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from genmap_jax.algorithm import Array, Params
from genmap_jax.samplers import decoding
from genmap_jax.shapes import expect
from genmap_jax.spaces import tokens as strings
from genmap_jax.tractable import gpt


def complete(
    cfg: gpt.Config,
    params: Params,
    prompts: Sequence[Sequence[int]],
    new: int,
    key: Array,
    *,
    samples: int = 1,
    adjust: Callable[[Array], Array] | None = None,
    stop: int | Sequence[int] | None = None,
    label: Array | None = None,
) -> np.ndarray:
    """Continue prompts of any lengths by `new` tokens: int32 [prompts, samples, new].

    The tokens that all prompts have are prefilled once for all samples of a prompt; the longer prompts' others are
    forced in the loop. One compilation serves all prompts up to the next power of two.
    adjust: as in `decode`; give the same function object again, or it compiles again. None takes that of cfg.
    stop: a continuation ends with this token, or with any of several, and the rest is filled with the first of them; in
        a prompt they end nothing. None takes those of cfg.
    label: int32 [prompts], of a conditional model.
    Raises ValueError for tokens outside the vocabulary, for prompts that leave no room in cfg.length, for a label that
        is missing, too much or outside of the classes, and where the model's logits are NaN or infinite.
    """
    sizes = [len(prompt) for prompt in prompts]
    if not sizes or new < 1 or samples < 1:
        raise ValueError(f"{len(sizes)} prompts, new={new}, samples={samples}: give at least one of each")
    if max(sizes) + new > cfg.length:
        raise ValueError(
            f"a prompt of {max(sizes)} tokens and new={new} exceed length={cfg.length}: shorten them, or raise length "
            "with rotary positions and their scaling or chunk"
        )
    stops = cfg.stops if stop is None else (stop,) if isinstance(stop, int) else tuple(stop)
    gpt.check_stops(stops, cfg.vocab)
    gpt.check_label(cfg, label)
    if label is not None:
        expect((len(sizes),), label=label)
    bucket = lambda n: min(cfg.length, max(16, 1 << (n - 1).bit_length()))  # noqa: E731
    padded = np.full((len(sizes), bucket(max(sizes))), -1, np.int32)
    for row, prompt in zip(padded, prompts, strict=True):
        row[: len(prompt)] = prompt
        gpt.check_tokens(cfg, row[: len(prompt)])
    keys = jax.random.split(key, len(sizes) * samples)
    total = bucket(max(sizes) + new)
    adjust = cfg.law if adjust is None else adjust
    text = _complete(cfg, adjust, samples, total, params, padded, min(sizes), max(sizes) + new, keys, label, stops)
    text = np.asarray(text).reshape(len(sizes), samples, total)
    drawn = np.stack([rows[:, size : size + new] for rows, size in zip(text, sizes, strict=True)])
    strings(new, cfg.vocab).as_batch(drawn.reshape(-1, new))
    return drawn


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _complete(cfg, adjust, samples, total, params, prompts, shared, last, keys, label, stop):
    cache = gpt.empty_cache(cfg, len(prompts), total)
    label_each = None if label is None else jnp.repeat(label, samples)
    filled = gpt.prefill(cfg, params, cache, jnp.maximum(prompts, 0), jnp.maximum(shared, 1), label)
    # An empty prompt has nothing to prefill: the slots written for it are overwritten before they are seen.
    return decoding.decode(
        gpt.decoding_step(cfg, params, label_each),
        _repeated(filled, len(prompts), samples),
        total,
        keys=keys,
        adjust=adjust,
        prompt=jnp.repeat(prompts, samples, axis=0),
        first=shared,
        last=last,
        stop=stop,
    )


def _repeated(cache: gpt.Cache, n: int, times: int) -> gpt.Cache:
    """The cache of n strings for `times` continuations of each, side by side."""

    def repeat(x):
        return jnp.repeat(x.reshape(n, -1, *x.shape[1:]), times, axis=0).reshape(-1, *x.shape[1:])

    return jax.tree.map(repeat, cache)
