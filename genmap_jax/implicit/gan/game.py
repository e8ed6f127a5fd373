"""The adversarial game of a GAN: its state, one step of both players, and samples.

Algorithm 1 of Goodfellow et al. 2014: `critic_steps` updates of D, then one of G against the updated D. The default is
the modern form, R3GAN (Huang et al. 2024, https://arxiv.org/abs/2501.05441), which converges locally: the relativistic
pairing loss with zero-centred gradient penalties on real examples (R1) and on generated ones (R2), networks without
normalisation, Adam without momentum, samples from an averaged generator.

D could tell real from generated images by the grid of grey values alone. So both kinds get uniform noise one grey level
wide before D sees them. For real images that is dequantisation; a generator that is right on the grid then has exactly
their distribution, and `sample` rounds to the grid.

A generated example takes the label of the real one it is paired with, so that both kinds have the same labels.

Differs from the papers: R3GAN's schedules of the penalty weight, of the averaging and of Adam's b2 are left out. Lazy
penalties (Karras et al. 2020) share one optimizer step with the loss instead of having steps of their own, so Adam's
constants need no correction. With the relativistic loss, whose D is known only up to a constant, ADA goes by the sign
of D(real) - D(generated).
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
from genmap_jax.implicit.gan.config import Config, check
from genmap_jax.implicit.gan.networks import Discriminator, Generator
from genmap_jax.keys import example_keys
from genmap_jax.nn.augment import augment
from genmap_jax.nn.reparametrise import equalise, normalise, power_step, start_vectors, unequalise
from genmap_jax.objectives import ada
from genmap_jax.objectives.discriminator import Judge, d_terms, g_terms, move_anchors
from genmap_jax.optim import optimizer
from genmap_jax.samplers.interpolation import slerp
from genmap_jax.shapes import expect, expect_label
from genmap_jax.spaces import dither, squash


@flax.struct.dataclass
class State:
    """Both players, the average of the generator, and what the options remember; None where an option is off."""

    step: Array  # int32, updates of G done
    params_g: Params
    params_d: Params
    opt_g: optax.OptState
    opt_d: optax.OptState
    stats_g: Params  # running statistics of batch normalisation; empty without
    ema_g: Params | None  # average of `params_g` and of `stats_g`
    vectors_d: Params | None  # spectral norm: a singular vector of every matrix
    anchors: Array | None  # LeCam: [2], running means of the logits of real and of generated examples
    ada: ada.State | None  # ADA: probability of a transform, and its statistic


def averaged(state: State) -> Params:
    """The generator to sample from, with its statistics: the average where there is one."""
    return {**state.params_g, **state.stats_g} if state.ema_g is None else state.ema_g


# ---- the model: free functions ---------------------------------------------------------------------------------------


def generate(cfg: Config, variables: Params, z: Array, label: Array | None = None) -> Array:
    """G(z, y), with running statistics. z [B, latent], label [B] or None -> [B, *space.shape]"""
    expect((None, cfg.latent), z=z)
    expect_label(label, len(z), cfg.classes)
    return _generator(cfg, None, variables, z, label, False)[0]


def discriminate(
    cfg: Config, params_d: Params, x: Array, label: Array | None = None, vectors: Params | None = None
) -> Array:
    """D(x, y), as logits. x [B, *space.shape], label [B] or None -> [B]

    vectors: of the spectral norm, see `nn.reparametrise`.
    """
    expect((None, *cfg.space.shape), x=x)
    expect_label(label, len(x), cfg.classes)
    return _discriminator(cfg, params_d, vectors, x, label)[0]


def latents(keys: Array, dims: int) -> Array:
    """z ~ N(0, I), one draw per key. keys [B] -> [B, dims]"""
    return per_example.normal(keys, (dims,))


def _generator(cfg: Config, axis_name: str | None, variables: Params, z: Array, label: Array | None, train: bool):
    """-> (x, running statistics after it)"""
    if cfg.equalised:
        variables = {**variables, "params": equalise(variables["params"])}
    mutable = ["batch_stats"] if train else False
    out: Any = Generator(cfg, axis_name).apply(variables, z, label, train, mutable=mutable)
    x, stats = out if train else (out, {})
    return squash(x, cfg.space.grey_levels) if cfg.squash else x, stats


def _discriminator(cfg: Config, params: Params, vectors: Params | None, x: Array, label: Array | None):
    """-> (logits [B], logits of classes [B, K] or None)"""
    if cfg.equalised:
        params = equalise(params)
    if vectors is not None:
        params = normalise(params, vectors)
    return Discriminator(cfg).apply(params, x, label)


# ---- algorithm -------------------------------------------------------------------------------------------------------


def algorithm(cfg: Config, *, batch_size: int, axis_name: str | None = None) -> Algorithm:
    """The GAN as the runner sees it. Raises ValueError that names the field and the fix."""
    check(cfg, batch_size)
    tx, space = optimizer(cfg.optim, batch_size), cfg.space
    tx_d = optimizer(cfg.optim, batch_size // cfg.critic_steps)  # examples in an update of D: schedules count them
    reads = reads_of(space, cfg.classes)

    def draw(variables: Params, key_z: Array, key_u: Array, label: Array | None) -> tuple[Array, Params]:
        """What D sees of the generator, keys [B] -> [B, *shape], and G's statistics after it."""
        x, stats = _generator(cfg, axis_name, variables, latents(key_z, cfg.latent), label, True)
        return dither(x, key_u, space.grey_levels) if space.image else x, stats

    def judge(params_d: Params, state: State, label: Array | None) -> Judge:
        p = cfg.augment_p if state.ada is None else state.ada.p

        def at(x: Array, keys: Array) -> tuple[Array, Array | None]:
            x = augment(x, keys, p, cfg.augment) if cfg.augment else x
            logits, guess = _discriminator(cfg, params_d, state.vectors_d, x, label)
            if guess is None:
                return logits, None
            return logits, cfg.auxiliary * optax.softmax_cross_entropy_with_integer_labels(guess, label)

        return at

    def init(key: Key, batch: Batch) -> State:
        key_g, key_d = jax.random.split(key)
        label = None if cfg.classes is None else jnp.zeros(1, jnp.int32)
        stats_g = Generator(cfg).init(key_g, jnp.zeros((1, cfg.latent)), label)
        params_g = {"params": stats_g.pop("params")}
        params_d = Discriminator(cfg).init(key_d, jnp.zeros((1, *space.shape)), label)
        if cfg.equalised:
            params_g, params_d = unequalise(params_g), unequalise(params_d)
        return State(
            step=jnp.zeros((), jnp.int32),
            params_g=params_g,
            params_d=params_d,
            opt_g=tx.init(params_g),
            opt_d=tx_d.init(params_d),
            stats_g=stats_g,
            # own buffers: the step donates them all
            ema_g=None if cfg.ema_halflife is None else jax.tree.map(jnp.copy, {**params_g, **stats_g}),
            vectors_d=start_vectors(params_d, jax.random.fold_in(key_d, 1)) if cfg.spectral_norm else None,
            anchors=jnp.zeros(2) if cfg.lecam else None,
            ada=None if cfg.ada_target is None else ada.start(),
        )

    def update_d(state: State, part: Batch) -> tuple[State, Metrics]:
        if cfg.spectral_norm:
            state = dataclasses.replace(state, vectors_d=power_step(state.params_d, state.vectors_d))

        def loss(params_d: Params, part: Batch) -> tuple[Array, Metrics]:
            real, label = part["real"], part.get("label")
            key_z, key_u, keys = per_example.split(part["keys"], 3)
            fake, _ = draw({**state.params_g, **state.stats_g}, key_z, key_u, label)
            at = judge(params_d, state, label)
            terms = d_terms(cfg.loss, at, real, fake, keys, cfg.penalties, anchors=state.anchors, step=state.step)
            if state.ada is not None:
                versus = terms["logit_fake"] if cfg.loss == "relativistic" else 0.0
                terms["sign_real"] = ada.statistic(terms["logit_real"], versus)
            return mean_terms(terms)

        params_d, opt_d, _, metrics = player(
            loss, state.params_d, state.opt_d, tx_d, axis_name, (part,), cfg.accumulate
        )
        anchors = None if state.anchors is None else move_anchors(state.anchors, metrics)
        return dataclasses.replace(state, params_d=params_d, opt_d=opt_d, anchors=anchors), metrics

    def update_g(state: State, part: Batch) -> tuple[State, Metrics]:
        def loss(params_g: Params, part: Batch) -> tuple[Array, Params]:  # against the D just updated, on fresh z
            real, label = part["real"], part.get("label")
            key_z, key_u, keys = per_example.split(part["keys"], 3)
            fake, stats = draw({**params_g, **state.stats_g}, key_z, key_u, label)
            return g_terms(cfg.loss, judge(state.params_d, state, label), real, fake, keys)["loss"].mean(), stats

        params_g, opt_g, value, stats_g = player(
            loss, state.params_g, state.opt_g, tx, axis_name, (part,), cfg.accumulate
        )
        return dataclasses.replace(state, params_g=params_g, opt_g=opt_g, stats_g=stats_g), {"loss_g": value}

    def step(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
        x = batch[space.field]
        keys_x, keys_d, keys_g = (example_keys(one, len(x), axis_name) for one in jax.random.split(key, 3))
        examples = {"real": space.dequantise(x, keys_x)} | {name: batch[name] for name in list(reads)[1:]}
        parts = split_batch((examples, keys_d, keys_g), cfg.critic_steps)
        sign: Array | float = 0.0
        for i in range(cfg.critic_steps):
            part, for_d, for_g = jax.tree.map(lambda x, i=i: jax.lax.index_in_dim(x, i, keepdims=False), parts)
            state, metrics = update_d(state, part | {"keys": for_d})
            sign += metrics.get("sign_real", 0.0) / cfg.critic_steps
        state, metrics_g = update_g(state, part | {"keys": for_g})

        seen = parallel.total(len(x), axis_name)
        ema_g = ema_update(state.ema_g, {**state.params_g, **state.stats_g}, state.step, seen, cfg.ema_halflife)
        state = dataclasses.replace(state, step=state.step + 1, ema_g=ema_g)
        if state.ada is not None and cfg.ada_target is not None:
            control = ada.adjust(state.ada, sign, state.step, seen, cfg.ada_target, cfg.ada_ramp)
            state = dataclasses.replace(state, ada=control)
            metrics["augment_p"] = control.p
        return state, {**metrics, **metrics_g}

    def sample(state: State, key: Key, n: int, cond: Cond | None = None) -> Array:
        check_cond(reads, n, cond)
        x = generate(cfg, averaged(state), latents(example_keys(key, n), cfg.latent), (cond or {}).get("label"))
        return space.requantise(x)

    def walk(state: State, key: Key, t: Array, cond: Cond | None = None) -> Array:
        check_cond(reads, len(t), cond)
        a, b = (latents(example_keys(k, len(t)), cfg.latent) for k in jax.random.split(key))
        return space.grey_values(generate(cfg, averaged(state), slerp(a, b, t), (cond or {}).get("label")))

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
    name="GAN",
    continent="implicit",
    objective="adversarial min-max",
    citation="Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661",
    algorithm=algorithm,
)
CONDITIONAL = FAMILY._replace(name="Conditional GAN", citation="Mirza & Osindero 2014, https://arxiv.org/abs/1411.1784")
