"""A linear map from images of one domain to those of another, and back: a family whose samples are translations."""

import dataclasses
from typing import Literal

import jax.numpy as jnp

from genmap_jax.algorithm import Algorithm, Family, averaged, check_cond, init_state, minimise
from genmap_jax.optim import Optim, optimizer
from genmap_jax.options import Share, check_options
from genmap_jax.spaces import Space, images


@dataclasses.dataclass(frozen=True)
class Config:
    source: Space = images(8, 8, 1, levels=17)
    target: Space = images(8, 8, 1, levels=17)
    strength: Share = 1.0
    """The share of the way from the source to its translation that a sample goes."""
    direction: Literal["ab", "ba"] = "ab"
    """Whether samples are targets of sources, or sources of targets."""
    optim: Optim = Optim()


def translate(cfg: Config, params, source):
    """Images [B, H, W, C] -> real numbers [B, H, W, C] on the grid of the target."""
    return cfg.source.to_grid(source) * params["gain"] + params["bias"][None]


def untranslate(cfg: Config, params, target):
    """The inverse of `translate`."""
    return (cfg.target.to_grid(target) - params["bias"][None]) / params["gain"]


def algorithm(cfg: Config, *, batch_size: int, axis_name: str | None = None) -> Algorithm:
    check_options(cfg)
    if cfg.source.shape != cfg.target.shape:
        raise ValueError(f"target.shape={cfg.target.shape} must be that of the source, {cfg.source.shape}")
    tx = optimizer(cfg.optim, batch_size)
    ways = {"source": (cfg.source, translate), "image": (cfg.target, untranslate)}
    given, example = ("source", "image") if cfg.direction == "ab" else ("image", "source")
    (here, there), (other, home) = ways[given], ways[example]
    reads = {example: other, given: here}

    def init(key, batch):
        return init_state({"gain": jnp.ones(()), "bias": jnp.zeros(cfg.target.shape)}, tx)

    def loss(params, keys, batch):
        error = translate(cfg, params, batch["source"]) - cfg.target.to_grid(batch["image"])
        return {"loss": jnp.square(error).reshape(len(error), -1).mean(-1)}

    def sample(state, key, n, cond=None):
        check_cond(reads, n, cond)
        start = here.to_grid(cond[given])
        return other.from_grid(start + cfg.strength * (there(cfg, averaged(state), cond[given]) - start))

    def back(state, key, examples):
        return here.from_grid(home(cfg, averaged(state), examples))

    step = minimise(loss, tx, axis_name=axis_name)
    return Algorithm(reads=reads, init=init, step=step, sample=sample, back=back, evaluations=1)


FAMILY = Family(
    name="Dry translator",
    continent="implicit",
    objective="squared error",
    citation="Legendre 1805",
    algorithm=algorithm,
    sampling=("strength", "direction"),
)
