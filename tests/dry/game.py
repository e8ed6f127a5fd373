"""Two linear players with a pool of images and truncated latents: what adversarial families add to a state."""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from genmap_jax.algorithm import Algorithm, Array, Family, check_cond, player
from genmap_jax.keys import example_keys, normal, split
from genmap_jax.objectives import adversarial, pool
from genmap_jax.optim import Optim, optimizer
from genmap_jax.options import Count, NotNegative, check_options
from genmap_jax.spaces import Space, images

DIMS = 4


@dataclasses.dataclass(frozen=True)
class Config:
    space: Space = images(8, 8, 1, levels=17)
    slots: Count = 3
    truncation: NotNegative = 1.0
    """The factor of latents when sampling."""
    optim: Optim = Optim()


@flax.struct.dataclass
class State:
    step: Array
    g: Any
    d: Any
    opt: Any
    pool: pool.Pool


def generate(cfg: Config, g, z: Array) -> Array:
    return (z @ g["w"]).reshape(-1, *cfg.space.shape) + g["b"][None]


def discriminate(d, x: Array) -> Array:
    return x.reshape(len(x), -1) @ d


def algorithm(cfg: Config, *, batch_size: int, axis_name: str | None = None) -> Algorithm:
    check_options(cfg)
    space, tx = cfg.space, optimizer(cfg.optim, batch_size)
    reads = {"image": space}
    d_loss, g_loss = adversarial.LOSSES["hinge"]

    def init(key, batch):
        g = {"w": 0.1 * jax.random.normal(key, (DIMS, space.dims)), "b": jnp.zeros(space.shape)}
        d = jnp.zeros(space.dims)
        return State(jnp.int32(0), g, d, (tx.init(g), tx.init(d)), pool.empty(batch_size, cfg.slots, space))

    def step(state, batch, key):
        keys_x, keys_z, keys_pool = split(example_keys(key, len(batch["image"]), axis_name), 3)
        x, z = space.dequantise(batch["image"], keys_x), normal(keys_z, (DIMS,))
        images_pool, shown = pool.exchange(state.pool, generate(cfg, state.g, z), keys_pool)
        judge = lambda d: (d_loss(discriminate(d, x), discriminate(d, shown)).mean(), {})  # noqa: E731
        d, opt_d, loss_d, _ = player(judge, state.d, state.opt[1], tx, axis_name)
        fool = lambda g: (g_loss(x, discriminate(d, generate(cfg, g, z))).mean(), {})  # noqa: E731
        g, opt_g, loss_g, _ = player(fool, state.g, state.opt[0], tx, axis_name)
        return State(state.step + 1, g, d, (opt_g, opt_d), images_pool), {"loss_d": loss_d, "loss_g": loss_g}

    def sample(state, key, n, cond=None):
        check_cond(reads, n, cond)
        return space.requantise(generate(cfg, state.g, cfg.truncation * normal(example_keys(key, n), (DIMS,))))

    spec = lambda state: State(P(), P(), P(), P(), pool.spec())  # noqa: E731
    return Algorithm(reads=reads, init=init, step=step, sample=sample, spec=spec, params=lambda s: (s.g, s.d))


FAMILY = Family("Dry game", "implicit", "min-max", "von Neumann 1928", algorithm, sampling=("truncation",))
