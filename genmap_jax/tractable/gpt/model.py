"""A GPT as pure functions of its parameters: the density of strings, decoding with a cache, and the algorithm."""

import dataclasses
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from genmap_jax.algorithm import (
    Algorithm,
    Array,
    Family,
    Key,
    LogProb,
    Params,
    averaged,
    check_batch,
    check_cond,
    check_parts,
    in_parts,
    init_state,
    minimise,
)
from genmap_jax.keys import example_keys
from genmap_jax.objectives import exact_likelihood
from genmap_jax.optim import optimizer
from genmap_jax.samplers import decoding
from genmap_jax.shapes import expect, expect_label, known_within
from genmap_jax.tractable.gpt.config import SAMPLING, Config, check
from genmap_jax.tractable.gpt.network import GPT, Cache


def init_params(cfg: Config, key: Key) -> Params:
    """Random parameters, as `Config.init` says."""
    label = None if cfg.classes is None else jnp.zeros(1, jnp.int32)
    return GPT(cfg).init(key, jnp.zeros((1, cfg.length), jnp.int32), label)["params"]


# ---- the density -----------------------------------------------------------------------------------------------------


def logits(
    cfg: Config,
    params: Params,
    tokens: Array,
    label: Array | None = None,
    segments: Array | None = None,
    keys: Array | None = None,
) -> Array:
    """Logits of every token given those before it. int32 [B, T] -> float32 [B, T, V], T <= cfg.length.

    label: int32 [B], of a conditional model.
    segments: int32 [B, T], of packed strings: the document id of each token; attention is masked across documents.
    keys: [B], one per string, for dropout. None drops nothing.
    Raises ValueError for wrong shapes, strings longer than cfg.length, a label that is missing or too much, and, where
        the values are known (outside of compiled code), tokens or labels outside their range.
    """
    expect((None, None), tokens=tokens)
    if segments is not None:
        expect(tokens.shape, segments=segments)
    _check_length(cfg, "tokens", tokens.shape[1])
    check_tokens(cfg, tokens)
    expect_label(label, len(tokens), cfg.classes)
    return cast(Array, GPT(cfg).apply({"params": params}, tokens, label, segments, keys))


def token_log_prob(
    cfg: Config,
    params: Params,
    tokens: Array,
    label: Array | None = None,
    segments: Array | None = None,
    keys: Array | None = None,
) -> Array:
    """log p(x_t | x_1..x_{t-1}) of every token, in nats. int32 [B, T] -> float32 [B, T]. Otherwise as `logits`."""
    scores = logits(cfg, params, tokens, label, segments, keys)
    # A sum instead of a lookup: the gradient of a lookup is a scatter, which keeps that of all logits in float32.
    chosen = jnp.where(jax.nn.one_hot(tokens, cfg.vocab, dtype=bool), scores, 0.0).sum(-1)
    return chosen - jax.nn.logsumexp(scores, axis=-1)


def log_prob(
    cfg: Config,
    params: Params,
    tokens: Array,
    label: Array | None = None,
    segments: Array | None = None,
    keys: Array | None = None,
) -> Array:
    """Exact log p(x_1..x_T), or log p(x_1..x_T | label), in nats. int32 [B, T] -> float32 [B].

    Arguments and errors as of `logits`. Of packed strings: the sum over their documents. Tokens of negative segments
    are padding and count nothing.
    """
    nats = token_log_prob(cfg, params, tokens, label, segments, keys)
    return (nats if segments is None else jnp.where(segments < 0, 0.0, nats)).sum(-1)


# ---- decoding with a cache -------------------------------------------------------------------------------------------


def empty_cache(cfg: Config, n: int, length: int | None = None) -> Cache:
    """Room for the keys and values of n strings of `length` tokens (None: cfg.length), or of the window.

    Raises ValueError for strings longer than cfg.length.
    """
    length = cfg.length if length is None else length
    _check_length(cfg, "the cache", length)
    rooms = [min(length, cfg.of_layer(i).window or cfg.length) for i in range(cfg.layers)]
    zeros = lambda room: jnp.zeros((n * cfg.groups, room, cfg.head_size), cfg.dtype)  # noqa: E731
    return [(zeros(room), zeros(room)) for room in rooms]


def decoding_step(cfg: Config, params: Params, label: Array | None = None) -> decoding.Step:
    """The model as `samplers.decoding` wants it, for a cache from `empty_cache`. Raises ValueError as `logits`."""
    check_label(cfg, label)
    cfg, params = _cast(cfg, params)
    return lambda cache, token, t: GPT(cfg).apply({"params": params}, cache, token, t, label, method="step")


def _cast(cfg: Config, params: Params) -> tuple[Config, Params]:
    """The same model with its matrices in the type of their products, so that a step does not read float32 to cast it.

    The embedding stays float32, for it is added to other vectors first: a tied head becomes a matrix of its own.
    """
    if cfg.tied:
        cfg, params = dataclasses.replace(cfg, tied=False), {**params, "head": params["embedding"]}
    cast = lambda path, x: x.astype(cfg.dtype) if path[-1].key in ("kernel", "head") else x  # noqa: E731
    return cfg, jax.tree.map_with_path(cast, params)


def prefill(
    cfg: Config, params: Params, cache: Cache, prompt: Array, count: Array | int, label: Array | None = None
) -> Cache:
    """Fill an empty cache with the first `count` >= 1 tokens of prompt [B, P] at once; `decode` goes on at `count`.

    P is compiled, `count` is not: pad prompts to a few lengths P and each compiles once. Raises ValueError as `logits`.
    """
    expect((None, None), prompt=prompt)
    _check_length(cfg, "prompt", prompt.shape[1])
    check_tokens(cfg, prompt)
    check_label(cfg, label)
    return GPT(cfg).apply({"params": params}, cache, prompt, jnp.asarray(count), label, method="prefill")


# ---- what is refused -------------------------------------------------------------------------------------------------


def check_tokens(cfg: Config, tokens: Array | np.ndarray) -> None:
    """Raise ValueError for known tokens outside the vocabulary, which an embedding lookup would take for others."""
    if not jnp.issubdtype(jnp.result_type(tokens), jnp.integer):
        raise ValueError(f"tokens are {jnp.result_type(tokens)}: give integers, 0..{cfg.vocab - 1}")
    if not known_within(tokens, cfg.vocab):
        raise ValueError(
            f"tokens {np.min(tokens)} to {np.max(tokens)} do not fit vocab={cfg.vocab}: give 0..{cfg.vocab - 1}"
        )


def check_label(cfg: Config, label: Array | np.ndarray | None) -> None:
    """Raise ValueError for a label that is missing or too much, or known and outside of the classes."""
    expect_label(label, None, cfg.classes)


def _check_length(cfg: Config, name: str, length: int) -> None:
    """Raise ValueError for positions past those of the model, which a lookup would take for the last."""
    if length > cfg.length:
        raise ValueError(
            f"{name}: {length} tokens, but length={cfg.length}: shorten them, or raise length with rotary positions "
            "and their scaling or chunk"
        )


# ---- the algorithm ---------------------------------------------------------------------------------------------------


def algorithm(cfg: Config, *, batch_size: int, axis_name: str | None = None) -> Algorithm:
    """Bind a GPT to its optimizer. Raises ValueError on a configuration that cannot work."""
    check(cfg)
    check_parts(batch_size, cfg.accumulate)
    tx = optimizer(cfg.optim, batch_size)

    def init(key, batch):
        return init_state(init_params(cfg, key), tx, cfg.ema_halflife)

    def observed(batch):
        """The arguments of `log_prob`."""
        example = batch[cfg.space.field]
        cfg.space.expect(**{cfg.space.field: example})
        tokens = example if cfg.shape is None else example.reshape(-1, cfg.length).astype(jnp.int32)
        return tokens, None if cfg.classes is None else batch["label"], batch.get("segments")

    def nats(params, keys, batch):
        return log_prob(cfg, params, *observed(batch), keys if cfg.dropout else None)

    loss = exact_likelihood.negative_log_likelihood(nats, cfg.length)
    step = minimise(loss, tx, ema_halflife=cfg.ema_halflife, axis_name=axis_name, accumulate=cfg.accumulate)

    def sample(state, key, n, cond=None):
        check_cond(cfg.reads, n, cond)
        model = decoding_step(cfg, averaged(state), cond and cond["label"])
        drawn = decoding.decode(
            model, empty_cache(cfg, n), cfg.length, keys=example_keys(key, n), adjust=cfg.law, stop=cfg.stops
        )
        return drawn if cfg.shape is None else jnp.where(drawn < 0, jnp.nan, drawn).reshape(n, *cfg.shape)

    def trajectory(state, key, n, cond, frames):
        """The strings as they grow, zeros where nothing is drawn yet."""
        drawn = sample(state, key, n, cond)
        ends = jnp.linspace(0, cfg.length, frames + 1)[1:].round()
        seen = jnp.arange(cfg.length)[None, :] < ends[:, None]  # [frames, L]
        return jnp.where(seen.reshape(frames, 1, *drawn.shape[1:]), drawn[None], 0)

    def evaluate(state, batch, key) -> LogProb:
        exact, params = dataclasses.replace(cfg, dtype="float32"), averaged(state)
        check_batch(cfg.reads, batch)
        nats = lambda batch: log_prob(exact, params, *observed(batch))  # noqa: E731
        return LogProb(in_parts(nats, batch, cfg.accumulate), "exact")

    return Algorithm(
        reads=cfg.reads,
        init=init,
        step=step,
        sample=sample,
        log_prob=evaluate,
        evaluations=cfg.length,
        trajectory=trajectory,
    )


FAMILY = Family(
    name="GPT",
    continent="tractable",
    objective="exact likelihood",
    citation="Radford et al. 2019, "
    "https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf",
    algorithm=algorithm,
    sampling=SAMPLING,
)
