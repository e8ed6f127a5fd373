"""A flow as an algorithm: likelihood of what a batch holds, maximum-likelihood training, sampling. Shared by all flows.

A model of this folder builds one `Bijection` from its configuration; everything else about it is here.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp

from genmap_jax import keys as per_example
from genmap_jax.algorithm import (
    Algorithm,
    Array,
    Batch,
    Cond,
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
    reads_of,
)
from genmap_jax.keys import example_keys
from genmap_jax.objectives.elbo import importance_bound
from genmap_jax.objectives.exact_likelihood import negative_log_likelihood
from genmap_jax.optim import Optim, optimizer
from genmap_jax.samplers.interpolation import slerp
from genmap_jax.spaces import Space
from genmap_jax.tractable.flow import dequantisation
from genmap_jax.tractable.flow.bijection import Bijection, log_density

C = TypeVar("C")
Dequantisation = Literal["uniform", "variational"]


def one_hot(batch: dict[str, Array] | None, classes: int | None) -> Array | None:
    """What the bijections are told of a batch or of conditions: the label as float [B, classes], or None."""
    return jax.nn.one_hot(batch["label"], classes) if classes is not None and batch is not None else None


def with_exact_likelihood(bind: Callable[[C], Algorithm], cfg: C) -> Algorithm:
    """`bind(cfg)`, whose likelihood is computed in float32 whatever training was. cfg: with a field `dtype`."""
    config: Any = cfg
    exact = dataclasses.replace(config, dtype="float32")
    return bind(cfg)._replace(log_prob=bind(exact).log_prob)


def flow_algorithm(
    space: Space,
    bijection: Bijection,
    *,
    optim: Optim,
    batch_size: int,
    axis_name: str | None = None,
    classes: int | None = None,
    label_drop: float = 0.0,
    noise_std: float = 0.0,
    denoise: bool = False,
    noise: Bijection | None = None,
    draws: int = 1,
    temperature: float = 1.0,
    ema_halflife: float | None = None,
    accumulate: int = 1,
) -> Algorithm:
    """Bind a bijection to its optimizer.

    space: images, whose likelihood is a bound through dequantisation, or vectors, whose density is exact.
    label_drop: the share of training examples whose label is hidden.
    noise_std: trains on images with Gaussian noise of this size, in units of [-1, 1], instead of dequantised ones; then
        `denoise` takes it away from samples by the score of the model (Tweedie's formula).
    noise: the bijection of variational dequantisation; None is uniform. draws: of the noise, in evaluation.
    temperature: standard deviation of the latents that are sampled; 1 samples the model itself.
    accumulate: micro-batches of an update and of a likelihood. Raises ValueError unless the batch divides into them.
    """
    check_parts(batch_size, accumulate)
    tx = optimizer(optim, batch_size)
    reads = reads_of(space, classes)

    def dequantised(params: Params, keys: Key, batch: Batch) -> dequantisation.Dequantised:
        if noise is None:
            return dequantisation.uniform(space, batch[space.field], keys)
        return dequantisation.variational(space, noise, params["noise"], batch[space.field], keys)

    def log_weight(params: Params, keys: Key, batch: Batch) -> Array:
        x, log_ratio = dequantised(params, keys, batch)
        return log_density(bijection, params["flow"], x, one_hot(batch, classes)) + log_ratio

    def told(keys: Key, batch: Batch) -> Array | None:
        """The labels of training examples, some of them hidden."""
        cond = one_hot(batch, classes)
        if cond is None or not label_drop:
            return cond
        return cond * (per_example.uniform(keys) >= label_drop)[:, None]

    def training_log_prob(params: Params, keys: Key, batch: Batch) -> Array:
        noise_keys, label_keys = per_example.split(keys)
        if noise_std:
            x = space.to_grid(batch[space.field]) + noise_std * per_example.normal(noise_keys, space.shape)
            log_ratio = jnp.zeros(len(x))
        else:
            x, log_ratio = dequantised(params, noise_keys, batch)
        return log_density(bijection, params["flow"], x, told(label_keys, batch)) + log_ratio

    def init(key: Key, batch: Batch) -> State:
        flow_key, noise_key, data_key, logits_key = jax.random.split(key, 4)
        keys = example_keys(data_key, len(batch[space.field]))
        params = {}
        if noise is not None:
            v = batch[space.field]
            t = jax.random.logistic(logits_key, v.shape)
            params["noise"] = noise.init(noise_key, t, space.to_grid(v))
        x, _ = dequantised(params, keys, batch)
        params["flow"] = bijection.init(flow_key, x, one_hot(batch, classes))
        return init_state(params, tx, ema_halflife)

    def decode(params: Params, z, cond: Cond | None) -> Array:
        return bijection.inverse(params["flow"], z, one_hot(cond, classes))[0]

    def cleaned(params: Params, x: Array, cond: Cond | None) -> Array:
        """Tweedie's formula: the mean of the image, given the image with noise."""
        score = jax.grad(lambda x: log_density(bijection, params["flow"], x, one_hot(cond, classes)).sum())(x)
        return x + noise_std**2 * score

    def latents(params: Params, keys: Key) -> list[Array]:
        """Standard normal numbers of the structure of the latents, as leaves; every one its own key."""
        n = len(keys)
        like = jax.ShapeDtypeStruct((n, *space.shape), jnp.float32)
        label = None if classes is None else jax.ShapeDtypeStruct((n, classes), jnp.float32)
        shapes = jax.eval_shape(lambda p, x, c: bijection.forward(p, x, c)[0], params["flow"], like, label)
        leaves, structure = jax.tree.flatten(shapes)
        drawn = [per_example.normal(per_example.fold(keys, i), leaf.shape[1:]) for i, leaf in enumerate(leaves)]
        return jax.tree.unflatten(structure, drawn)

    def sample(state: State, key: Key, n: int, cond: Cond | None = None) -> Array:
        check_cond(reads, n, cond)
        params = averaged(state)
        z = jax.tree.map(lambda z: temperature * z, latents(params, example_keys(key, n)))
        x = decode(params, z, cond)
        if denoise:
            x = cleaned(params, x, cond)
        return space.from_grid(x) if noise_std else space.requantise(x)

    def walk(state: State, key: Key, t: Array, cond: Cond | None = None) -> Array:
        check_cond(reads, len(t), cond)
        params = averaged(state)
        a, b = (latents(params, example_keys(k, len(t))) for k in jax.random.split(key))
        flat = lambda z: jnp.concatenate([leaf.reshape(len(t), -1) for leaf in jax.tree.leaves(z)], axis=-1)  # noqa: E731
        between = slerp(flat(a), flat(b), t)
        leaves, structure = jax.tree.flatten(a)
        ends = [sum(leaf.size for leaf in leaves[: i + 1]) // len(t) for i in range(len(leaves) - 1)]
        parts = [p.reshape(leaf.shape) for p, leaf in zip(jnp.split(between, ends, axis=-1), leaves, strict=True)]
        return space.grey_values(decode(params, jax.tree.unflatten(structure, parts), cond))

    def log_prob(state: State, batch: Batch, key: Key) -> LogProb:
        params = averaged(state)

        def of_part(keys: Key, batch: Batch) -> LogProb:
            if not space.image:
                return LogProb(log_weight(params, keys, batch), "exact")
            one = lambda k: log_weight(params, per_example.fold(keys, k), batch)  # noqa: E731
            return importance_bound(jax.lax.map(one, jnp.arange(draws)))

        return log_prob_in_parts(of_part, reads, batch, key, accumulate)

    return Algorithm(
        reads=reads,
        init=init,
        step=minimise(
            negative_log_likelihood(training_log_prob, space.dims),
            tx,
            ema_halflife=ema_halflife,
            axis_name=axis_name,
            accumulate=accumulate,
        ),
        sample=sample,
        log_prob=log_prob,
        evaluations=1,
        walk=walk,
    )
