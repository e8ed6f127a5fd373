"""A PixelCNN as pure functions of its parameters: the density of images, drawing and completing them, the algorithm."""

import dataclasses
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from genmap_jax import keys as per_example
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
    check_batch,
    check_cond,
    check_parts,
    in_parts,
    init_state,
    minimise,
)
from genmap_jax.keys import example_keys
from genmap_jax.nn.reparametrise import weight_norm
from genmap_jax.objectives import exact_likelihood
from genmap_jax.optim import optimizer
from genmap_jax.samplers.guidance import some_hidden
from genmap_jax.shapes import expect, expect_label, known_within
from genmap_jax.tractable.pixelcnn import head, sampling
from genmap_jax.tractable.pixelcnn.config import SAMPLING, Config, check
from genmap_jax.tractable.pixelcnn.network import PixelCNN

# ---- the density -----------------------------------------------------------------------------------------------------


def init_params(cfg: Config, key: Key, images: Array, label: Array | None = None) -> Params:
    """Random parameters, gains and biases by the images, as `Config.data_init` says.

    images [B, H, W, C], label int32 [B] of a conditional model. Raises ValueError as `outputs`.
    """
    expect_label(label, len(images), cfg.classes, none=cfg.label_drop > 0)
    return cast(Params, PixelCNN(cfg).init(key, cfg.space.to_grid(images), label)["params"])


def outputs(cfg: Config, params: Params, images: Array, label: Array | None = None, keys: Array | None = None) -> Array:
    """What the network says of every pixel given those before it. images [B, H, W, C] -> float32 [B, H, W, D]

    label: int32 [B], of a conditional model; the number `classes` stands for "none" where labels are dropped in
        training.
    keys: [B], of dropout; None drops nothing.
    Raises ValueError for images of another space, and for a label that is missing, too much, or outside the classes.
    """
    expect_label(label, len(images), cfg.classes, none=cfg.label_drop > 0)
    x, weights = cfg.space.to_grid(images), weight_norm(params)
    if keys is None or not cfg.dropout:
        return cast(Array, PixelCNN(cfg).apply({"params": weights}, x, label))

    def one(x, label, key):  # every example with a key of its own
        label = None if label is None else label[None]
        return PixelCNN(cfg, train=True).apply({"params": weights}, x[None], label, rngs={"dropout": key})[0]

    return jax.vmap(one)(x, label, keys)


def channel_log_prob(
    cfg: Config, params: Params, images: Array, label: Array | None = None, keys: Array | None = None
) -> Array:
    """log p of every channel of every pixel, given the pixels before it and the channels before it, in nats.

    images [B, H, W, C] -> float32 [B, H, W, C]. Otherwise as `outputs`.
    """
    return head.log_prob(cfg, params, outputs(cfg, params, images, label, keys), images)


def log_prob(
    cfg: Config, params: Params, images: Array, label: Array | None = None, keys: Array | None = None
) -> Array:
    """Exact log p(image), or log p(image | label), in nats. images [B, H, W, C] -> [B]. Otherwise as `outputs`."""
    return channel_log_prob(cfg, params, images, label, keys).reshape(len(images), -1).sum(-1)


# ---- drawing ---------------------------------------------------------------------------------------------------------


def generate(
    cfg: Config,
    params: Params,
    *,
    keys: Array | None = None,
    noise: Array | None = None,
    label: Array | None = None,
    known: Array | None = None,
) -> tuple[Array, Array]:
    """Draw images with the sampler of cfg. Returns them, float32 [n, H, W, C] of whole grey values, and how often the
    network was run one after another.

    keys: [n], one for each image. Or noise: [n, H, W, C], pre-drawn, uniform in [0, 1).
    label: int32 [n], of a conditional model.
    known: integers [n, H, W, C]: the pixels that are given, negative where one is to be drawn.
    Raises ValueError unless exactly one of keys and noise is given, for a label as `outputs`, and for known pixels of
        another shape or with values that are no grey values.
    """
    if keys is not None and noise is None:
        noise = per_example.uniform(keys, cfg.space.shape)
    elif keys is not None or noise is None:
        raise ValueError(
            f"a PixelCNN draws from keys or from noise: give exactly one of keys=[n] and noise=[n, *{cfg.space.shape}]"
        )
    expect((None, *cfg.space.shape), noise=noise)
    expect_label(label, len(noise), cfg.classes, none=cfg.label_drop > 0)
    if known is not None:
        check_known(cfg, known, len(noise))
    return sampling.generate(cfg, params, noise, label, known)


def complete(cfg: Config, params: Params, keys: Array, known: Array, label: Array | None = None) -> Array:
    """Draw the pixels that are not given. keys [n], known as of `generate` -> float32 [n, H, W, C]

    Each of `cfg.candidates` images is drawn forwards, from the pixels before, and has a weight: the probability of the
    given pixels, each given the pixels before it. One is drawn by these weights (sampling importance resampling, Rubin
    1988). Where all drawn pixels come after the given ones the weights are equal, and one candidate is a draw from the
    model's law given those pixels; otherwise more candidates approach it, at temperature 1 and guidance 1.
    """
    n, count = len(keys), cfg.candidates
    check_known(cfg, known, n)
    if count == 1:
        return generate(cfg, params, keys=keys, label=label, known=known)[0]
    candidate_keys, choice_keys = per_example.split(keys)
    candidate_keys = jax.vmap(lambda key: jax.random.split(key, count))(candidate_keys).reshape(n * count)
    known, label = jax.tree.map(lambda x: jnp.repeat(x, count, axis=0), (known, label))
    drawn, _ = generate(cfg, params, keys=candidate_keys, label=label, known=known)
    nats = channel_log_prob(cfg, params, jnp.nan_to_num(drawn).astype(cfg.space.dtype), label)
    weights = jnp.where(known >= 0, nats, 0.0).reshape(n, count, -1).sum(-1)
    chosen = jax.vmap(jax.random.categorical)(choice_keys, weights)
    return jnp.take_along_axis(drawn.reshape(n, count, *cfg.space.shape), chosen[:, None, None, None, None], 1)[:, 0]


def check_known(cfg: Config, known: Array | np.ndarray, n: int) -> None:
    """Raise ValueError unless these are n images of integers, grey values or negative."""
    expect((n, *cfg.space.shape), known=known)
    levels = cfg.space.grey_levels
    if not jnp.issubdtype(jnp.result_type(known), jnp.signedinteger):
        raise ValueError(
            f"known is {jnp.result_type(known)}: give signed integers, 0..{levels - 1}, negative where a pixel is free"
        )
    if not known_within(known if isinstance(known, jax.core.Tracer) else np.maximum(known, 0), levels):
        raise ValueError(f"known holds {np.max(known)}, but its values are 0..{levels - 1}, negative where free")


# ---- the algorithm ---------------------------------------------------------------------------------------------------


def algorithm(cfg: Config, *, batch_size: int, axis_name: str | None = None) -> Algorithm:
    """Bind a PixelCNN to its optimizer. Raises ValueError on a configuration that cannot work.

    `sample` and `trajectory` take one condition that no batch holds, "known": the pixels that are given, see
    `complete`.
    """
    check(cfg)
    check_parts(batch_size, cfg.accumulate)
    tx = optimizer(cfg.optim, batch_size)

    def label_of(batch: Batch) -> Array | None:
        return None if cfg.classes is None else batch["label"]

    def init(key: Key, batch: Batch) -> State:
        return init_state(init_params(cfg, key, batch["image"], label_of(batch)), tx, cfg.ema_halflife)

    def nats(params: Params, keys: Key, batch: Batch) -> Array:
        dropout_keys, label_keys = per_example.split(keys)
        label = label_of(batch)
        if label is not None and cfg.label_drop:
            label = some_hidden(label, label_keys, cfg.label_drop, cfg.kinds - 1)
        return log_prob(cfg, params, batch["image"], label, dropout_keys)

    loss = exact_likelihood.negative_log_likelihood(nats, cfg.space.dims)

    def sample(state: State, key: Key, n: int, cond: Cond | None = None) -> Array:
        known = None
        if cond is not None and "known" in cond:
            known, cond = cond["known"], {name: value for name, value in cond.items() if name != "known"} or None
        check_cond(cfg.reads, n, cond)
        label = None if cond is None else cond["label"]
        if known is not None:
            return complete(cfg, averaged(state), example_keys(key, n), known, label)
        return generate(cfg, averaged(state), keys=example_keys(key, n), label=label)[0]

    def trajectory(state: State, key: Key, n: int, cond: Cond | None, frames: int) -> Array:
        """The images as they grow, zeros where nothing is drawn yet."""
        height, width, _ = cfg.space.shape
        ends = jnp.linspace(0, height * width, frames + 1)[1:].round()
        seen = jnp.arange(height * width)[None, :] < ends[:, None]
        seen = seen.reshape(frames, 1, height, width, 1)
        return jnp.where(seen, sample(state, key, n, cond)[None], 0)

    def evaluate(state: State, batch: Batch, key: Key) -> LogProb:
        check_batch(cfg.reads, batch)
        exact, params = dataclasses.replace(cfg, dtype="float32"), averaged(state)
        nats = lambda batch: log_prob(exact, params, batch["image"], label_of(batch))  # noqa: E731
        return LogProb(in_parts(nats, batch, cfg.accumulate), "exact")

    return Algorithm(
        reads=cfg.reads,
        init=init,
        step=minimise(loss, tx, ema_halflife=cfg.ema_halflife, axis_name=axis_name, accumulate=cfg.accumulate),
        sample=sample,
        log_prob=evaluate,
        evaluations=None if cfg.sampler == "fixed_point" else cfg.space.shape[0] * cfg.space.shape[1],
        trajectory=trajectory,
    )


FAMILY = Family(
    name="PixelCNN++",
    continent="tractable",
    objective="exact likelihood",
    citation="Salimans et al. 2017, https://arxiv.org/abs/1701.05517",
    algorithm=algorithm,
    sampling=SAMPLING,
)
