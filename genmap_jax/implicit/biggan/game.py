"""The adversarial game of BigGAN: its state, one step of both players, and samples.

`critic_steps` updates of D, then one of G against the updated D, with the hinge loss, a learning rate for each player
and the spectral norm in both. G is normalised by the batch of all devices and moves away from collapse by orthogonal
regularisation. Samples come from an averaged generator; its spectral norms are those of its own matrices, and its
batch statistics are averages of training or, with `standing`, taken again before sampling.

Differs from the paper: real and generated images get noise one grey level wide before D sees them (`spaces.dither`);
averaging has a half-life in examples and starts at once, with a short memory; a generated image has the label of the
real one beside it; standing statistics are taken with every label equally often.
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from genmap_jax import keys as per_example
from genmap_jax import parallel
from genmap_jax.algorithm import (
    Algorithm,
    Array,
    Batch,
    Cond,
    Family,
    Key,
    Metrics,
    Params,
    check_cond,
    ema_update,
    mean_terms,
    player,
    reads_of,
    split_batch,
)
from genmap_jax.implicit.biggan.config import Config, check
from genmap_jax.implicit.biggan.networks import Discriminator, Generator
from genmap_jax.keys import example_keys
from genmap_jax.nn.reparametrise import normalise, orthogonality, power_step, start_vectors
from genmap_jax.objectives.discriminator import d_terms, g_terms
from genmap_jax.optim import optimizer
from genmap_jax.samplers.interpolation import slerp
from genmap_jax.shapes import expect, expect_label
from genmap_jax.spaces import dither, squash

STANDING_BATCH = 64  # latents in a batch of standing statistics


@flax.struct.dataclass
class State:
    """Both players, the average of the generator, and what the game remembers."""

    step: Array  # int32, updates of G done
    params_g: Params
    params_d: Params
    opt_g: optax.OptState
    opt_d: optax.OptState
    stats_g: Params  # running statistics of batch normalisation
    ema_g: Params | None  # average of `params_g` and of `stats_g`
    vectors_g: Params | None  # spectral norm: a singular vector of every matrix
    vectors_d: Params | None


def averaged(state: State) -> Params:
    """The generator to sample from, with its statistics: the average where there is one. As `generate` takes it."""
    return {"params": state.params_g, "batch_stats": state.stats_g} if state.ema_g is None else state.ema_g


# ---- the model: free functions ---------------------------------------------------------------------------------------


def generate(
    cfg: Config, variables: Params, z: Array, label: Array | None = None, vectors: Params | None = None
) -> Array:
    """G(z, y), with running statistics. z [B, latent], label [B] or None -> [B, H, W, C]

    variables: {"params": ..., "batch_stats": ...}. vectors: of the spectral norm, see `nn.reparametrise`.
    """
    expect((None, cfg.latent), z=z)
    expect_label(label, len(z), cfg.classes)
    return _generator(cfg, None, variables, vectors, z, label, train=False)[0]


def discriminate(
    cfg: Config, params_d: Params, x: Array, label: Array | None = None, vectors: Params | None = None
) -> Array:
    """D(x, y), as logits. x [B, H, W, C], label [B] or None -> [B]. vectors: of the spectral norm."""
    expect((None, *cfg.space.shape), x=x)
    expect_label(label, len(x), cfg.classes)
    logits: Any = Discriminator(cfg).apply({"params": _normal(params_d, vectors)}, x, label)
    return logits


def latents(keys: Array, dims: int, threshold: float | None = None) -> Array:
    """z ~ N(0, I), one draw per key; entries beyond the threshold are drawn again. keys [B] -> [B, dims]"""
    if threshold is None:
        return per_example.normal(keys, (dims,))
    return jax.vmap(lambda key: jax.random.truncated_normal(key, -threshold, threshold, (dims,)))(keys)


def standing_statistics(cfg: Config, variables: Params, vectors: Params | None) -> Params:
    """Batch statistics of G, averaged over `cfg.standing` batches of fresh latents under `cfg.truncation`.

    The same at every call; every label comes equally often. Brock et al. 2019, section 2 (standing statistics).
    """

    def one(i: Array) -> Params:
        keys = example_keys(jax.random.fold_in(jax.random.key(0), i), STANDING_BATCH)
        label = None if cfg.classes is None else (i * STANDING_BATCH + jnp.arange(STANDING_BATCH)) % cfg.classes
        z = latents(keys, cfg.latent, cfg.truncation)
        return _generator(cfg, None, variables, vectors, z, label, train=True, decay=0.0)[1]

    add = lambda i, total: jax.tree.map(jnp.add, total, one(i))  # noqa: E731
    zeros = jax.tree.map(jnp.zeros_like, variables["batch_stats"])
    total = jax.lax.fori_loop(0, cfg.standing, add, zeros)
    return jax.tree.map(lambda x: x / cfg.standing, total)


def _normal(params: Params, vectors: Params | None) -> Params:
    return params if vectors is None else normalise(params, vectors)


def _generator(
    cfg: Config,
    axis_name: str | None,
    variables: Params,
    vectors: Params | None,
    z: Array,
    label: Array | None,
    train: bool,
    decay: float = 0.9,
) -> tuple[Array, Params]:
    """-> (x, running statistics after it)"""
    variables = {**variables, "params": _normal(variables["params"], vectors)}
    network = Generator(cfg, axis_name, decay)
    out: Any = network.apply(variables, z, label, train, mutable=["batch_stats"] if train else False)
    x, after = (out[0], out[1]["batch_stats"]) if train else (out, variables["batch_stats"])
    return squash(x, cfg.space.grey_levels), after


# ---- algorithm -------------------------------------------------------------------------------------------------------


def algorithm(cfg: Config, *, batch_size: int, axis_name: str | None = None) -> Algorithm:
    """BigGAN as the runner sees it. Raises ValueError that names the field and the fix."""
    check(cfg, batch_size)
    space = cfg.space
    reads = reads_of(space, cfg.classes)
    tx_g = optimizer(cfg.optim, batch_size)
    of_d = dataclasses.replace(cfg.optim, lr=cfg.rate_d * cfg.optim.lr)
    tx_d = optimizer(of_d, batch_size // cfg.critic_steps)  # examples in an update of D: schedules count them

    def draw(state: State, params_g: Params, keys: Array, label: Array | None) -> tuple[Array, Params]:
        """What D sees of the generator, keys [B] -> [B, H, W, C], and G's statistics after it."""
        key_z, key_u = per_example.split(keys)
        variables = {"params": params_g, "batch_stats": state.stats_g}
        z = latents(key_z, cfg.latent)
        x, stats = _generator(cfg, axis_name, variables, state.vectors_g, z, label, train=True)
        return dither(x, key_u, space.grey_levels), stats

    def judge(state: State, params_d: Params, label: Array | None):
        return lambda x, keys: (discriminate(cfg, params_d, x, label, state.vectors_d), None)

    def init(key: Key, batch: Batch) -> State:
        key_g, key_d = jax.random.split(key)
        label = None if cfg.classes is None else jnp.zeros(1, jnp.int32)
        variables = Generator(cfg).init(key_g, jnp.zeros((1, cfg.latent)), label)
        params_d = Discriminator(cfg).init(key_d, jnp.zeros((1, *space.shape)), label)["params"]
        start = lambda params, key: start_vectors(params, jax.random.fold_in(key, 1)) if cfg.spectral_norm else None  # noqa: E731
        return State(
            step=jnp.zeros((), jnp.int32),
            params_g=variables["params"],
            params_d=params_d,
            opt_g=tx_g.init(variables["params"]),
            opt_d=tx_d.init(params_d),
            stats_g=variables["batch_stats"],
            # own buffers: the step donates them all
            ema_g=None if cfg.ema_halflife is None else jax.tree.map(jnp.copy, variables),
            vectors_g=start(variables["params"], key_g),
            vectors_d=start(params_d, key_d),
        )

    def update_d(state: State, real: Array, label: Array | None, keys: Array) -> tuple[State, Metrics]:
        if cfg.spectral_norm:
            state = dataclasses.replace(state, vectors_d=power_step(state.params_d, state.vectors_d))
        key_draw, key_judge = per_example.split(keys)
        fake, _ = draw(state, state.params_g, key_draw, label)

        def loss(params_d: Params) -> tuple[Array, Metrics]:
            return mean_terms(d_terms(cfg.loss, judge(state, params_d, label), real, fake, key_judge))

        params_d, opt_d, _, metrics = player(loss, state.params_d, state.opt_d, tx_d, axis_name)
        return dataclasses.replace(state, params_d=params_d, opt_d=opt_d), metrics

    def update_g(state: State, real: Array, label: Array | None, keys: Array) -> tuple[State, Metrics]:
        if cfg.spectral_norm:
            state = dataclasses.replace(state, vectors_g=power_step(state.params_g, state.vectors_g))
        key_draw, key_judge = per_example.split(keys)

        def loss(params_g: Params) -> tuple[Array, tuple[Params, Metrics]]:  # against the D just updated, on fresh z
            fake, stats = draw(state, params_g, key_draw, label)
            value = g_terms(cfg.loss, judge(state, state.params_d, label), real, fake, key_judge)["loss"].mean()
            if not cfg.orthogonal:
                return value, (stats, {"loss_g": value})
            overlap = orthogonality(params_g)
            return value + cfg.orthogonal * overlap, (stats, {"loss_g": value, "orthogonality": overlap})

        params_g, opt_g, _, (stats, metrics) = player(loss, state.params_g, state.opt_g, tx_g, axis_name)
        return dataclasses.replace(state, params_g=params_g, opt_g=opt_g, stats_g=stats), metrics

    def step(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
        x, label = batch[space.field], None if cfg.classes is None else batch["label"]
        keys_x, keys_d, keys_g = (example_keys(one, len(x), axis_name) for one in jax.random.split(key, 3))
        parts = split_batch((space.dequantise(x, keys_x), label, keys_d, keys_g), cfg.critic_steps)
        for i in range(cfg.critic_steps):
            real, of_part, for_d, for_g = jax.tree.map(lambda x, i=i: jax.lax.index_in_dim(x, i, keepdims=False), parts)
            state, metrics = update_d(state, real, of_part, for_d)
        state, metrics_g = update_g(state, real, of_part, for_g)

        seen = parallel.total(len(x), axis_name)
        live = {"params": state.params_g, "batch_stats": state.stats_g}
        ema_g = ema_update(state.ema_g, live, state.step, seen, cfg.ema_halflife)
        return dataclasses.replace(state, step=state.step + 1, ema_g=ema_g), metrics | metrics_g

    def sampler(state: State) -> tuple[Params, Params | None]:
        """The generator to sample from, with the statistics asked for, and its singular vectors."""
        variables, vectors = averaged(state), state.vectors_g
        if cfg.spectral_norm:
            vectors = power_step(variables["params"], vectors)  # those of training belong to other matrices
        if cfg.standing:
            variables = {**variables, "batch_stats": standing_statistics(cfg, variables, vectors)}
        return variables, vectors

    def sample(state: State, key: Key, n: int, cond: Cond | None = None) -> Array:
        check_cond(reads, n, cond)
        variables, vectors = sampler(state)
        z = latents(example_keys(key, n), cfg.latent, cfg.truncation)
        return space.requantise(generate(cfg, variables, z, (cond or {}).get("label"), vectors))

    def walk(state: State, key: Key, t: Array, cond: Cond | None = None) -> Array:
        check_cond(reads, len(t), cond)
        variables, vectors = sampler(state)
        a, b = (latents(example_keys(k, len(t)), cfg.latent, cfg.truncation) for k in jax.random.split(key))
        x = generate(cfg, variables, slerp(a, b, t), (cond or {}).get("label"), vectors)
        return space.grey_values(x)

    return Algorithm(
        reads=reads,
        init=init,
        step=step,
        sample=sample,
        params=lambda state: (state.params_g, state.params_d),
        evaluations=1,
        walk=walk,
    )


FAMILY = Family(
    name="BigGAN",
    continent="implicit",
    objective="adversarial min-max",
    citation="Brock et al. 2019, https://arxiv.org/abs/1809.11096",
    algorithm=algorithm,
    sampling=("truncation", "standing"),
)
