"""Energy-based model: p(x) = exp(-E(x)) / Z, learned by contrastive divergence, at temperature 1.

    E(x) = f(x) + |x - mu|^2 / (2 s^2)

with a network f on top of a fixed Gaussian, the *reference* N(mu, s^2 I). It makes Z finite (f grows linearly, the
square wins), it is where chains start, and it is the known end of the annealed path that estimates Z. The last layer
of f starts at zero: before training the model is the reference, and the chains of the buffer are exact samples of it.

Papers: contrastive divergence, Hinton (2002); persistent chains, Tieleman (2008); deep energies with a replay buffer,
Du & Mordatch (2019, https://arxiv.org/abs/1903.08689); what such models learn when drift and noise of the sampler
agree, Nijkamp et al. (2020, https://arxiv.org/abs/1903.12370).

Differs from the papers: Du & Mordatch take drift steps far longer than their noise allows at temperature 1, so that
their samples do not follow exp(-E). Here drift and noise agree (samplers/langevin.py): E is the energy of the samples,
up to the step size of the chain, which also limits how narrow a law it can follow (see `Config.eps`).
"""

import dataclasses
import math
from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from genmap_jax import parallel
from genmap_jax.algorithm import Algorithm, Batch, Key, LogProb, Params
from genmap_jax.data import pixels
from genmap_jax.objectives import contrastive_divergence as cd
from genmap_jax.optim import Optim, optimizer
from genmap_jax.samplers import langevin
from genmap_jax.samplers.annealed_importance import Estimate, annealed_importance
from genmap_jax.samplers.watching import watch

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Config:
    """Network, sampler and evaluation of the model."""

    system: ClassVar[str] = "EBM"
    objective: ClassVar[str] = "contrastive divergence"

    shape: tuple[int, ...] = (8, 8, 1)
    """(H, W, C): images, uniformly dequantised to [-1, 1). (D,): vectors, taken as they are."""
    levels: int = 17
    """Grey values of an image."""

    network: Literal["mlp", "conv"] = "mlp"
    width: int = 256
    depth: int = 3
    """mlp: hidden layers. conv: residual blocks at each of the four resolutions."""
    frequencies: int = 0
    """Also feed f with sin(2^j z), cos(2^j z), j < frequencies, of each coordinate z: learns fine detail sooner."""

    mu: float = 0.0
    s: float = 1.0
    """Mean and standard deviation of the reference; wide enough to cover the data."""

    eps: float = 0.1
    """Langevin step, in units of x. Chains widen any law narrower than eps, and diverge on one below eps / 2."""
    chain_steps: int = 20
    """Langevin steps per update."""
    noise: float = 0.0
    """Standard deviation of Gaussian noise on the data in training (Du & Mordatch 2019): the model is of noised data,
    less steep, so that longer Langevin steps follow it. Evaluation sees the data without it."""
    slots: int = 1
    """Persistent chains per place in the batch. More are more diverse, but each is continued less often."""
    reinit: float = 0.05
    """Probability that a chain restarts from the reference. 1: no persistence, all chains start from noise."""
    alpha: float = 0.0
    """Weight of the squared energies in the loss."""

    sample_steps: int = 2000
    """Length of the chains that `sample` runs from the reference."""
    ais_chains: int = 256
    ais_temperatures: int = 1000
    """Annealed importance sampling of log Z, for evaluation only."""

    optim: Optim = Optim()
    ema_halflife: float | None = None
    """In examples."""


# ---- networks: features of z = (x - mu) / s -> f [B] -----------------------------------------------------------------


class MLP(nn.Module):
    """f of a vector, or of an image as a vector."""

    width: int
    depth: int

    @nn.compact
    def __call__(self, x: Array) -> Array:  # [B, ...] -> [B]
        h = x.reshape(x.shape[0], -1)
        for _ in range(self.depth):
            h = nn.silu(nn.Dense(self.width)(h))
        return nn.Dense(1, kernel_init=nn.initializers.zeros)(h)[:, 0]


class ConvNet(nn.Module):
    """f of an image, after Du & Mordatch (2019): residual, not normalised, four resolutions, summed over space."""

    width: int
    depth: int

    @nn.compact
    def __call__(self, x: Array) -> Array:  # [B, H, W, C] -> [B]
        h = nn.Conv(self.width, (3, 3))(x)
        for stage, width in enumerate((self.width, self.width, 2 * self.width, 2 * self.width)):
            if stage:
                h = nn.avg_pool(h, (2, 2), (2, 2))
            for _ in range(self.depth):
                r = nn.Conv(width, (3, 3))(nn.silu(h))
                r = nn.Conv(width, (3, 3))(nn.silu(r))
                h = r + (h if h.shape[-1] == width else nn.Conv(width, (1, 1), use_bias=False)(h))
        h = jnp.sum(nn.silu(h), axis=(1, 2))
        return nn.Dense(1, kernel_init=nn.initializers.zeros)(h)[:, 0]


def network(cfg: Config) -> nn.Module:
    """The network f of a configuration."""
    return (MLP if cfg.network == "mlp" else ConvNet)(cfg.width, cfg.depth)


# ---- the model: free functions, nats ---------------------------------------------------------------------------------


def features(cfg: Config, x: Array) -> Array:
    """z = (x - mu) / s, and Fourier features of it (Kingma et al. 2021, https://arxiv.org/abs/2107.00630).

    [..., C] -> [..., (1 + 2 frequencies) C].
    """
    z = (x - cfg.mu) / cfg.s
    waves = [wave(2.0**j * z) for j in range(cfg.frequencies) for wave in (jnp.sin, jnp.cos)]
    return jnp.concatenate([z, *waves], axis=-1)


def tilt(cfg: Config, params: Params, x: Array) -> Array:
    """f(x): what the network adds to the energy of the reference. [B, ...] -> [B]"""
    return network(cfg).apply(params, features(cfg, x))


def energy(cfg: Config, params: Params, x: Array) -> Array:
    """E(x) = f(x) + |x - mu|^2 / (2 s^2). [B, ...] -> [B]"""
    z = (x - cfg.mu) / cfg.s
    return tilt(cfg, params, x) + 0.5 * jnp.sum(z**2, axis=tuple(range(1, x.ndim)))


def reference(cfg: Config, keys: Array) -> Array:
    """Draws of N(mu, s^2 I): [B] keys -> [B, *shape]."""
    return cfg.mu + cfg.s * jax.vmap(lambda key: jax.random.normal(key, cfg.shape))(keys)


def log_partition(cfg: Config, params: Params, key: Key) -> Estimate:
    """log Z by annealed importance sampling, with its standard error and effective sample size: read them."""
    f = lambda x: tilt(cfg, params, x)  # noqa: E731
    return annealed_importance(
        f, key, cfg.shape, mu=cfg.mu, s=cfg.s, chains=cfg.ais_chains, temperatures=cfg.ais_temperatures
    )


def algorithm(cfg: Config, *, batch_size: int, axis_name: str | None = None) -> Algorithm:
    """The energy-based model as the runner sees it. Raises ValueError that names the field and the fix."""
    _check(cfg)
    tx = optimizer(cfg.optim, batch_size)
    images = len(cfg.shape) == 3

    def observe(batch: Batch, keys: Array) -> Array:
        return pixels.dequantise(batch["image"], keys, cfg.levels) if images else batch["x"]

    def observe_noised(batch: Batch, keys: Array) -> Array:
        keys_u, keys_noise = jax.vmap(jax.random.split, out_axes=1)(keys)
        return observe(batch, keys_u) + cfg.noise * jax.vmap(lambda k: jax.random.normal(k, cfg.shape))(keys_noise)

    def init(key: Key) -> cd.State:
        key_params, key_buffer = jax.random.split(key)
        params = network(cfg).init(key_params, features(cfg, jnp.zeros((1, *cfg.shape))))
        keys = jax.vmap(lambda k: jax.random.split(k, cfg.slots))(parallel.example_keys(key_buffer, batch_size))
        buffer = jax.vmap(lambda k: reference(cfg, k))(keys)  # [B, slots, *shape]
        return cd.init_state(params, tx, buffer, cfg.ema_halflife)

    def sample(state: cd.State, key: Key, n: int, cond: Array | None = None) -> Array:
        if cond is not None:
            raise ValueError("this energy-based model is unconditional: call sample with cond=None")
        return trace(state, key, n, 1)[0]

    def trace(state: cd.State, key: Key, n: int, frames: int) -> Array:
        start, chain = jax.random.split(key)
        x = reference(cfg, parallel.example_keys(start, n))
        e = lambda x: energy(cfg, state.averaged, x)  # noqa: E731
        step = langevin.ula_step(e, parallel.example_keys(chain, n), cfg.eps)
        x = watch(step, x, cfg.sample_steps, frames)
        return pixels.requantise(x, cfg.levels) if images else x

    def log_prob(state: cd.State, batch: Batch, key: Key) -> LogProb:
        key_u, key_z = jax.random.split(key)
        x = observe(batch, parallel.example_keys(key_u, len(jax.tree.leaves(batch)[0])))
        z = log_partition(cfg, state.averaged, key_z)
        cell = pixels.log_cell(math.prod(cfg.shape), cfg.levels) if images else 0.0
        weight = cell - energy(cfg, state.averaged, x)
        stderr = jnp.full_like(weight, z.stderr)  # one error common to all examples
        return LogProb(weight - z.log_z, "estimate", stderr, upper=weight - z.lower)

    step = cd.persistent(
        energy=lambda params, x: energy(cfg, params, x),
        observe=observe_noised,
        restart=lambda keys: reference(cfg, keys),
        chain=lambda e, x, keys: langevin.ula(e, x, keys, cfg.eps, cfg.chain_steps),
        tx=tx,
        reinit=cfg.reinit,
        alpha=cfg.alpha,
        ema_halflife=cfg.ema_halflife,
        axis_name=axis_name,
    )
    return Algorithm(init, step, sample, log_prob, cd.spec, evaluations=cfg.sample_steps, trace=trace)


def _check(cfg: Config) -> None:
    if len(cfg.shape) not in (1, 3):
        raise ValueError(f"shape={cfg.shape}: give (H, W, C) for images or (D,) for vectors")
    if cfg.network == "conv" and (len(cfg.shape) != 3 or any(side % 8 for side in cfg.shape[:2])):
        raise ValueError(f"network='conv' halves (H, W) three times, which shape={cfg.shape} does not allow: use 'mlp'")
    if cfg.noise < 0:
        raise ValueError(f"noise={cfg.noise} is a standard deviation: give 0 for none")
    if cfg.s <= 0 or cfg.eps <= 0:
        raise ValueError(f"s={cfg.s} and eps={cfg.eps} are lengths: both must be positive")
    if not 0 <= cfg.reinit <= 1:
        raise ValueError(f"reinit={cfg.reinit} is a probability: between 0 and 1")
    if cfg.frequencies < 0:
        raise ValueError(f"frequencies={cfg.frequencies}: give 0 for none")
    for field in ("width", "depth", "chain_steps", "slots", "sample_steps", "ais_temperatures"):
        if getattr(cfg, field) < 1:
            raise ValueError(f"{field}={getattr(cfg, field)} must be at least 1")
    if cfg.ais_chains < 2:
        raise ValueError(f"ais_chains={cfg.ais_chains}: a standard error needs at least 2")
