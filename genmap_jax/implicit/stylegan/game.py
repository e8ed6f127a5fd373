"""The adversarial game of StyleGAN2: its state, one step of both players, and samples.

A step is, in the order of the authors' code: the generator on fresh latents; at every 4th step an update of its own by
the path-length penalty, on half a batch; the discriminator; at every 16th step an update of its own by R1. All updates
of a player share one optimizer, whose constants are corrected for the extra updates (`objectives.lazy`). D sees images
through adaptive augmentation; penalties are with respect to the images before it.

Differs from the papers: the layer from which a second latent takes over is drawn for each image, not for each batch;
real and generated images get noise one grey level wide before D sees them (`spaces.dither`), so that few grey values do
not give images away; the mean of w is taken in the generator's updates only.
"""

import dataclasses
import math
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
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
from genmap_jax.implicit.stylegan.alias_free import AliasFreeSynthesis
from genmap_jax.implicit.stylegan.config import Config, check
from genmap_jax.implicit.stylegan.networks import Discriminator, Mapping, Synthesis, noise_shapes
from genmap_jax.keys import example_keys
from genmap_jax.nn.augment import augment
from genmap_jax.objectives import ada, lazy
from genmap_jax.objectives.discriminator import Judge, Penalties, d_terms, g_terms, gradient_penalties
from genmap_jax.objectives.path_length import path_length_penalty, path_lengths
from genmap_jax.optim import optimizer
from genmap_jax.samplers.interpolation import lerp
from genmap_jax.shapes import expect, expect_label
from genmap_jax.spaces import dither

MEAN_DECAY = 0.995  # of the mean of w, per update


@flax.struct.dataclass
class State:
    """Both players, the average of the generator, and what the game remembers."""

    step: Array  # int32, updates of G done
    params_g: Params  # of both of G's networks: "mapping" and "synthesis"
    params_d: Params
    opt_g: optax.OptState
    opt_d: optax.OptState
    ema_g: Params | None  # average of `params_g`
    w_mean: Array  # [latent], running mean of w
    path_mean: Array  # running mean of path lengths
    ada: ada.State | None  # ADA: probability of a transform, and its statistic


def averaged(state: State) -> Params:
    """The generator to sample from: the average where there is one."""
    return state.params_g if state.ema_g is None else state.ema_g


# ---- the model: free functions ---------------------------------------------------------------------------------------


def style(cfg: Config, params_g: Params, z: Array, label: Array | None = None) -> Array:
    """w of a latent. z [B, latent], label [B] or None -> [B, latent]"""
    expect((None, cfg.latent), z=z)
    expect_label(label, len(z), cfg.classes)
    w: Any = Mapping(cfg, cfg.mapping_depth).apply({"params": params_g["mapping"]}, z, label)
    return w


def synthesise(cfg: Config, params_g: Params, ws: Array, noise: tuple[Array, ...] | None = None) -> Array:
    """Images of styles. ws [B, layers, latent] -> [B, H, W, C]

    noise: as `draw_noise` gives it; None for none, the mean of what every layer adds.
    """
    expect((None, cfg.layers, cfg.latent), ws=ws)
    x: Any = _synthesis(cfg).apply({"params": params_g["synthesis"]}, ws, noise)
    return x


def _synthesis(cfg: Config) -> Synthesis | AliasFreeSynthesis:
    return AliasFreeSynthesis(cfg) if cfg.alias_free else Synthesis(cfg)


def discriminate(
    cfg: Config, params_d: Params, x: Array, label: Array | None = None, axis_name: str | None = None
) -> Array:
    """D(x, y), as logits. x [B, H, W, C], label [B] or None -> [B]. B must divide into groups of `cfg.group`."""
    expect((None, *cfg.space.shape), x=x)
    expect_label(label, len(x), cfg.classes)
    logits: Any = Discriminator(cfg, axis_name).apply({"params": params_d}, x, label)
    return logits


def latents(keys: Array, dims: int) -> Array:
    """z ~ N(0, I), one draw per key. keys [B] -> [B, dims]"""
    return per_example.normal(keys, (dims,))


def draw_noise(cfg: Config, keys: Array) -> tuple[Array, ...] | None:
    """Standard normal noise of every convolution, [B, H, W, 1] each; None without noise. keys [B]"""
    if not cfg.noise:
        return None
    shapes = noise_shapes(cfg)
    *ends, size = np.cumsum([math.prod(shape) for shape in shapes])
    parts = jnp.split(per_example.normal(keys, (int(size),)), ends, axis=1)  # one draw is quicker to compile
    return tuple(part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True))


def mix(w: Array, other: Array, first: Array, layers: int) -> Array:
    """Styles of two latents: w up to layer `first`, `other` from there on. w, other [B, D], first [B] -> [B, layers, D]

    Karras et al. 2019 (https://arxiv.org/abs/1812.04948), section 3.1.
    """
    other_now = jnp.arange(layers)[None] >= first[:, None]
    return jnp.where(other_now[..., None], other[:, None], w[:, None])


def mixing_layers(keys: Array, layers: int, probability: float) -> Array:
    """The layer from which the second latent takes over: uniform on 1..layers-1 with this probability, else none.

    keys [B] -> [B]; `layers` stands for none.
    """
    key_coin, key_layer = per_example.split(keys)
    first = jax.vmap(lambda key: jax.random.randint(key, (), 1, layers))(key_layer)
    return jnp.where(per_example.uniform(key_coin) < probability, first, layers)


def truncate(cfg: Config, w: Array, w_mean: Array) -> Array:
    """w for every layer, the first `truncation_layers` of them drawn towards the mean. w [B, D] -> [B, layers, D]"""
    psi = cfg.truncation
    near = psi * w + (1.0 - psi) * w_mean[None]  # exact for 0 and 1
    count = cfg.layers if cfg.truncation_layers is None else cfg.truncation_layers
    return mix(near, w, jnp.full(len(w), count), cfg.layers)


# ---- algorithm -------------------------------------------------------------------------------------------------------


def algorithm(cfg: Config, *, batch_size: int, axis_name: str | None = None) -> Algorithm:
    """StyleGAN2 as the runner sees it. Raises ValueError that names the field and the fix."""
    check(cfg, batch_size)
    space = cfg.space
    reads = reads_of(space, cfg.classes)
    tx_g = optimizer(lazy.corrected(cfg.optim, cfg.path_every) if cfg.path_length else cfg.optim, batch_size)
    tx_d = optimizer(lazy.corrected(cfg.optim, cfg.r1_every) if cfg.r1 else cfg.optim, batch_size)

    def draw_styles(params_g: Params, keys: Array, label: Array | None) -> tuple[Array, Array]:
        """Styles of fresh latents, mixed -> ([B, layers, latent], w of the first latents [B, latent])"""
        key_z, key_other, key_layer = per_example.split(keys, 3)
        w = style(cfg, params_g, latents(key_z, cfg.latent), label)
        if not cfg.mixing:
            return jnp.repeat(w[:, None], cfg.layers, axis=1), w
        other = style(cfg, params_g, latents(key_other, cfg.latent), label)
        return mix(w, other, mixing_layers(key_layer, cfg.layers, cfg.mixing), cfg.layers), w

    def draw(params_g: Params, keys: Array, label: Array | None) -> tuple[Array, Array]:
        """What D sees of the generator -> ([B, H, W, C], w of the first latents [B, latent])"""
        key_w, key_noise, key_u = per_example.split(keys, 3)
        ws, w = draw_styles(params_g, key_w, label)
        return dither(synthesise(cfg, params_g, ws, draw_noise(cfg, key_noise)), key_u, space.grey_levels), w

    def judge(params_d: Params, state: State, label: Array | None) -> Judge:
        p = cfg.augment_p if state.ada is None else state.ada.p

        def at(x: Array, keys: Array) -> tuple[Array, None]:
            x = augment(x, keys, p, cfg.augment) if cfg.augment else x
            return discriminate(cfg, params_d, x, label, axis_name), None

        return at

    def init(key: Key, batch: Batch) -> State:
        key_mapping, key_synthesis, key_d, key_noise = jax.random.split(key, 4)
        label = None if cfg.classes is None else jnp.zeros(1, jnp.int32)
        mapping, synthesis = Mapping(cfg, cfg.mapping_depth), _synthesis(cfg)
        ws, noise = jnp.zeros((1, cfg.layers, cfg.latent)), draw_noise(cfg, example_keys(key_noise, 1))
        params_g = {
            "mapping": mapping.init(key_mapping, jnp.zeros((1, cfg.latent)), label)["params"],
            "synthesis": synthesis.init(key_synthesis, ws, noise)["params"],
        }
        lone = dataclasses.replace(cfg, group=1)  # one image is enough for shapes
        params_d = Discriminator(lone).init(key_d, jnp.zeros((1, *space.shape)), label)["params"]
        return State(
            step=jnp.zeros((), jnp.int32),
            params_g=params_g,
            params_d=params_d,
            opt_g=tx_g.init(params_g),
            opt_d=tx_d.init(params_d),
            # own buffers: the step donates them all
            ema_g=None if cfg.ema_halflife is None else jax.tree.map(jnp.copy, params_g),
            w_mean=jnp.zeros(cfg.latent),
            path_mean=jnp.zeros(()),
            ada=None if cfg.ada_target is None else ada.start(),
        )

    def update_g(state: State, real: Array, label: Array | None, keys: Array) -> tuple[State, Metrics]:
        key_draw, key_judge = per_example.split(keys)

        def loss(params_g: Params) -> tuple[Array, Array]:
            fake, w = draw(params_g, key_draw, label)
            terms = g_terms(cfg.loss, judge(state.params_d, state, label), real, fake, key_judge)
            return terms["loss"].mean(), w.mean(0)

        params_g, opt_g, value, w = player(loss, state.params_g, state.opt_g, tx_g, axis_name)
        w_mean = w + MEAN_DECAY * (state.w_mean - w)
        return dataclasses.replace(state, params_g=params_g, opt_g=opt_g, w_mean=w_mean), {"loss_g": value}

    def regularise_g(state: State, label: Array | None, keys: Array) -> tuple[State, Metrics]:
        key_w, key_noise, key_y = per_example.split(keys, 3)

        def loss(params_g: Params) -> tuple[Array, Array]:
            ws, _ = draw_styles(params_g, key_w, label)
            noise = draw_noise(cfg, key_noise)
            lengths = path_lengths(lambda ws: synthesise(cfg, params_g, ws, noise), ws, key_y)
            penalty, mean = path_length_penalty(lengths, state.path_mean, axis_name)
            return cfg.path_length * penalty.mean(), mean

        params_g, opt_g, _, mean = lazy.own_step(
            cfg.path_every, state.step, loss, state.params_g, state.opt_g, tx_g, axis_name
        )
        mean = jnp.where(state.step % cfg.path_every == 0, mean, state.path_mean)
        return dataclasses.replace(state, params_g=params_g, opt_g=opt_g, path_mean=mean), {"path_length": mean}

    def update_d(state: State, real: Array, label: Array | None, keys: Array) -> tuple[State, Metrics]:
        key_draw, key_judge = per_example.split(keys)
        fake, _ = draw(state.params_g, key_draw, label)

        def loss(params_d: Params) -> tuple[Array, Metrics]:
            terms = d_terms(cfg.loss, judge(params_d, state, label), real, fake, key_judge)
            if state.ada is not None:
                versus = terms["logit_fake"] if cfg.loss == "relativistic" else 0.0
                terms["sign_real"] = ada.statistic(terms["logit_real"], versus)
            return mean_terms(terms)

        params_d, opt_d, _, metrics = player(loss, state.params_d, state.opt_d, tx_d, axis_name)
        return dataclasses.replace(state, params_d=params_d, opt_d=opt_d), metrics

    def regularise_d(state: State, real: Array, label: Array | None, keys: Array) -> tuple[State, Metrics]:
        def loss(params_d: Params) -> tuple[Array, Metrics]:
            at = judge(params_d, state, label)
            return mean_terms(gradient_penalties(at, real, real, keys, Penalties(r1=cfg.r1)))

        params_d, opt_d, _, metrics = lazy.own_step(
            cfg.r1_every, state.step, loss, state.params_d, state.opt_d, tx_d, axis_name
        )
        # 0 in the other steps: as many times as large in this one, the mean over steps is that of the penalty
        return dataclasses.replace(state, params_d=params_d, opt_d=opt_d), {"r1": cfg.r1_every * metrics["r1"]}

    def step(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
        x, label = batch[space.field], None if cfg.classes is None else batch["label"]
        key_x, key_g, key_path, key_d, key_r1 = jax.random.split(key, 5)
        keys = lambda key: example_keys(key, len(x), axis_name)  # noqa: E731
        real = space.dequantise(x, keys(key_x))
        state, metrics = update_g(state, real, label, keys(key_g))
        if cfg.path_length:
            half, half_label = jax.tree.map(lambda x: x[0], split_batch((x, label), 2))
            state, found = regularise_g(state, half_label, example_keys(key_path, len(half), axis_name))
            metrics |= found
        state, found = update_d(state, real, label, keys(key_d))
        metrics |= found
        if cfg.r1:
            state, found = regularise_d(state, real, label, keys(key_r1))
            metrics |= found

        seen = parallel.total(len(x), axis_name)
        ema_g = ema_update(state.ema_g, state.params_g, state.step, seen, cfg.ema_halflife)
        state = dataclasses.replace(state, step=state.step + 1, ema_g=ema_g)
        if state.ada is not None and cfg.ada_target is not None:
            control = ada.adjust(state.ada, metrics["sign_real"], state.step, seen, cfg.ada_target, cfg.ada_ramp)
            state = dataclasses.replace(state, ada=control)
            metrics["augment_p"] = control.p
        return state, metrics

    def sample(state: State, key: Key, n: int, cond: Cond | None = None) -> Array:
        check_cond(reads, n, cond)
        key_z, key_noise = per_example.split(example_keys(key, n))
        w = style(cfg, averaged(state), latents(key_z, cfg.latent), (cond or {}).get("label"))
        ws = truncate(cfg, w, state.w_mean)
        return space.requantise(synthesise(cfg, averaged(state), ws, draw_noise(cfg, key_noise)))

    def walk(state: State, key: Key, t: Array, cond: Cond | None = None) -> Array:
        """A straight path in W, with the same noise along it."""
        check_cond(reads, len(t), cond)
        key_a, key_b, key_noise = per_example.split(example_keys(key, len(t)), 3)
        a, b = (style(cfg, averaged(state), latents(k, cfg.latent), (cond or {}).get("label")) for k in (key_a, key_b))
        ws = truncate(cfg, lerp(a, b, t), state.w_mean)
        x = synthesise(cfg, averaged(state), ws, draw_noise(cfg, key_noise))
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
    name="StyleGAN2",
    continent="implicit",
    objective="adversarial min-max",
    citation="Karras et al. 2020, https://arxiv.org/abs/1912.04958",
    algorithm=algorithm,
    sampling=("truncation", "truncation_layers"),
)
