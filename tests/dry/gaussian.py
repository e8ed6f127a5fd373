"""A diagonal Gaussian that starts at the moments of the first batch: a family with data-dependent initialisation."""

import dataclasses

import jax.numpy as jnp

from genmap_jax import likelihoods
from genmap_jax.algorithm import Algorithm, Family, LogProb, averaged, check_cond, init_state, minimise
from genmap_jax.keys import example_keys, normal
from genmap_jax.optim import Optim, optimizer
from genmap_jax.options import NotNegative, Positive, check_options
from genmap_jax.spaces import Space, images


@dataclasses.dataclass(frozen=True)
class Config:
    space: Space = images(8, 8, 1, levels=17)
    least: Positive = 0.1
    """The least standard deviation at the start."""
    temperature: NotNegative = 1.0
    """The standard deviation of samples, in units of the model's."""
    optim: Optim = Optim()


def log_prob(params, x):
    terms = likelihoods.gaussian(x, params["mean"][None], params["log_scale"][None])
    return terms.reshape(len(x), -1).sum(-1)


def algorithm(cfg: Config, *, batch_size: int, axis_name: str | None = None) -> Algorithm:
    cfg.space.check()
    check_options(cfg)
    space, tx = cfg.space, optimizer(cfg.optim, batch_size)
    reads = {space.field: space}

    def init(key, batch):
        x = space.dequantise(batch[space.field], example_keys(key, batch_size))
        params = {"mean": x.mean(0), "log_scale": jnp.log(jnp.maximum(x.std(0), cfg.least))}
        return init_state(params, tx)

    def loss(params, keys, batch):
        return {"loss": -log_prob(params, space.dequantise(batch[space.field], keys)) / space.dims}

    def sample(state, key, n, cond=None):
        check_cond(reads, n, cond)
        params, noise = averaged(state), normal(example_keys(key, n), space.shape)
        return space.requantise(params["mean"][None] + cfg.temperature * jnp.exp(params["log_scale"])[None] * noise)

    def evaluate(state, batch, key):
        x = space.dequantise(batch[space.field], example_keys(key, len(batch[space.field])))
        return LogProb(log_prob(averaged(state), x) + space.log_cell, "lower_bound")

    step = minimise(loss, tx, axis_name=axis_name)
    return Algorithm(reads=reads, init=init, step=step, sample=sample, log_prob=evaluate, evaluations=1)


FAMILY = Family(
    name="Dry Gaussian",
    continent="tractable",
    objective="exact likelihood",
    citation="Gauss 1809",
    algorithm=algorithm,
    sampling=("temperature",),
)
