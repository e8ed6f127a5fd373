"""Energy-based model (EBM): p(x) = exp(-E(x)) / Z, learned by contrastive divergence, at temperature 1.

    E(x) = f(x) + |x - mu|^2 / (2 s^2)

with a network f on top of a fixed Gaussian, the *reference* N(mu, s^2 I). It makes Z finite (f grows linearly, the
square wins), it is where chains start, and it is the known end of the annealed path that estimates Z. The last layer
of f starts at zero: before training the model is the reference, and the chains of the buffer are exact samples of it.

Papers: contrastive divergence, Hinton (2002); persistent chains, Tieleman (2008); deep energies with a replay buffer,
Du & Mordatch (2019, https://arxiv.org/abs/1903.08689); what such models learn when drift and noise of the sampler
agree, Nijkamp et al. (2020, https://arxiv.org/abs/1903.12370).

The log-probability of vectors is -E(x) - log Z. Annealed importance sampling under-estimates log Z, so it errs on the
high side, and the mean log-weight in the place of log Z gives an upper bound. Images are integers v, seen as v + u with
u uniform in a cell of volume V. Their log-probability, log V + log E_u[p(v + u)], is estimated by log V + log p(v + u),
which errs on the low side (Theis et al. 2016, https://arxiv.org/abs/1511.01844): the two errors have opposite signs,
and the upper bound is one on E_u[log p(v + u)] + log V, and not on the log-probability.

Differs from the papers: Du & Mordatch take drift steps far longer than their noise allows at temperature 1, so that
their samples do not follow exp(-E). Here drift and noise agree (samplers/langevin.py): E is the energy of the samples,
up to the step size of the chain, which also limits how narrow a law it can follow (see `Config.eps`).
"""

import dataclasses
from functools import partial
from typing import Annotated, Literal, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

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
    averaged,
    check_batch,
    check_cond,
    check_parts,
    in_parts,
)
from genmap_jax.keys import example_keys
from genmap_jax.nn.blocks import block
from genmap_jax.nn.products import in_type, widened
from genmap_jax.objectives import contrastive_divergence as cd
from genmap_jax.optim import Optim, optimizer
from genmap_jax.options import Count, Natural, NotNegative, Positive, Range, Share, check_options
from genmap_jax.samplers import langevin
from genmap_jax.samplers.annealed_importance import Estimate, annealed_importance
from genmap_jax.samplers.trajectory import loop_frames
from genmap_jax.shapes import expect
from genmap_jax.spaces import Space


@dataclasses.dataclass(frozen=True)
class Config:
    """Network, chains and evaluation of an energy-based model."""

    space: Space
    """Space of one example: images, uniformly dequantised to [-1, 1), or vectors, taken as they are."""

    network: Literal["mlp", "conv"] = "mlp"
    """Kind of the network f: dense layers, or the residual convolutions of Du & Mordatch (2019) for images."""
    width: Count = 256
    """Width of the hidden layers of mlp, or channels of the two finer resolutions of conv, which has twice as many at
    the two coarser ones (Du & Mordatch: 128)."""
    depth: Count = 3
    """Number of hidden layers of mlp, or of residual blocks at each of the four resolutions of conv."""
    frequencies: Natural = 0
    """Number of Fourier features of each coordinate z that f reads beside z: sin(2^j z) and cos(2^j z) for
    j < frequencies. They let it learn fine detail sooner."""

    mu: float = 0.0
    """Mean of the reference in every dimension, in units of x."""
    s: Positive = 1.0
    """Standard deviation of the reference in every dimension, in units of x; wide enough to cover the data."""

    eps: Positive = 0.1
    """Step size of the Langevin chains, in units of x, in training and in sampling. Chains widen any law narrower than
    eps, and diverge on one below eps / 2."""
    chain_steps: Count = 20
    """Number of Langevin steps per update (Du & Mordatch: 60)."""
    noise: NotNegative = 0.0
    """Standard deviation of Gaussian noise on the data in training, in units of x (Du & Mordatch 2019). The model is
    then one of noised data, less steep, so that longer Langevin steps follow it. Evaluation adds no noise."""
    chains_per_example: Count = 1
    """Number of persistent chains that each place in the batch owns. More are more diverse, but each is continued less
    often (Du & Mordatch: 10,000 in all)."""
    reinit: Share = 0.05
    """Probability that a chain restarts from the reference (Du & Mordatch: 0.05). At 1 nothing persists: all chains
    start from noise."""
    alpha: NotNegative = 0.0
    """Weight of the squared energies in the loss (Du & Mordatch: 1)."""

    sample_steps: Count = 2000
    """Number of Langevin steps of the chains that `sample` runs from the reference."""
    ais_chains: Annotated[int, Range(2, hint="for a standard error")] = 256
    """Number of chains of the annealed importance sampling that estimates log Z."""
    ais_temperatures: Count = 1000
    """Number of temperatures between the reference and the model in that estimate. Too few make log Z too small, and so
    the likelihood too large."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Activations and products of f have this type in training and sampling, its last layer apart. Parameters, states
    of chains, energies, the loss and the likelihood are always float32."""
    remat: bool = False
    """The backward pass recomputes the inside of every block, to save memory. Only conv has blocks."""
    accumulate: Count = 1
    """An update runs its chains and computes its gradient over this many micro-batches, one after another, to save
    memory."""
    optim: Optim = Optim()
    """The optimizer of f."""
    ema_halflife: Positive | None = None
    """Half-life, in examples, of the moving average of the parameters that samples and likelihoods are computed with;
    None takes the last parameters."""


# ---- networks: features of z = (x - mu) / s -> f [B] -----------------------------------------------------------------
# In the type of their input; the last layer is float32, for all that counts of f are its differences.


class MLP(nn.Module):
    """f of a vector, or of an image as a vector."""

    width: int
    depth: int

    @nn.compact
    def __call__(self, x: Array) -> Array:  # [B, ...] -> [B]
        h = x.reshape(x.shape[0], -1)
        for _ in range(self.depth):
            h = nn.silu(nn.Dense(self.width, dtype=h.dtype)(h))
        return nn.Dense(1, kernel_init=nn.initializers.zeros)(widened(h))[:, 0]


class ConvNet(nn.Module):
    """f of an image, after Du & Mordatch (2019): residual, not normalised, four resolutions, summed over space."""

    width: int
    depth: int
    remat: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:  # [B, H, W, C] -> [B]
        def residual(h: Array, width: int) -> Array:
            r = nn.Conv(width, (3, 3), dtype=h.dtype)(nn.silu(h))
            r = nn.Conv(width, (3, 3), dtype=h.dtype)(nn.silu(r))
            return r + (h if h.shape[-1] == width else nn.Conv(width, (1, 1), use_bias=False, dtype=h.dtype)(h))

        h = nn.Conv(self.width, (3, 3), dtype=x.dtype)(x)
        for stage, width in enumerate((self.width, self.width, 2 * self.width, 2 * self.width)):
            if stage:
                h = nn.avg_pool(h, (2, 2), (2, 2))
            for _ in range(self.depth):
                h = block(self, self.remat, partial(residual, width=width), h)
        h = jnp.sum(widened(nn.silu(h)), axis=(1, 2))
        return nn.Dense(1, kernel_init=nn.initializers.zeros)(h)[:, 0]


def network(cfg: Config) -> nn.Module:
    """The network f of a configuration."""
    return MLP(cfg.width, cfg.depth) if cfg.network == "mlp" else ConvNet(cfg.width, cfg.depth, cfg.remat)


# ---- the model: free functions, nats ---------------------------------------------------------------------------------


def features(cfg: Config, x: Array) -> Array:
    """z = (x - mu) / s, and Fourier features of it (Kingma et al. 2021, https://arxiv.org/abs/2107.00630).

    [..., C] -> [..., (1 + 2 frequencies) C].
    """
    z = (x - cfg.mu) / cfg.s
    waves = [wave(2.0**j * z) for j in range(cfg.frequencies) for wave in (jnp.sin, jnp.cos)]
    return jnp.concatenate([z, *waves], axis=-1)


def tilt(cfg: Config, params: Params, x: Array) -> Array:
    """f(x): what the network adds to the energy of the reference, in nats. [B, *shape] -> [B]"""
    expect((None, *cfg.space.shape), x=x)
    return cast(Array, network(cfg).apply(params, *in_type(cfg.dtype, features(cfg, x))))


def energy(cfg: Config, params: Params, x: Array) -> Array:
    """E(x) = f(x) + |x - mu|^2 / (2 s^2), in nats. [B, *shape] -> [B]"""
    z = (x - cfg.mu) / cfg.s
    return tilt(cfg, params, x) + 0.5 * jnp.sum(z**2, axis=tuple(range(1, x.ndim)))


def reference(cfg: Config, keys: Array) -> Array:
    """Draws of N(mu, s^2 I): [B] keys -> [B, *shape]."""
    return cfg.mu + cfg.s * per_example.normal(keys, cfg.space.shape)


def log_partition(cfg: Config, params: Params, key: Key) -> Estimate:
    """log Z by annealed importance sampling, with its standard error and effective sample size: read them.

    Temperatures are spaced by the power 2: on digits log Z then varies by 0.3 nats between runs, at the power 3 by 1.5.
    """
    return annealed_importance(
        lambda x: tilt(cfg, params, x),
        key,
        cfg.space.shape,
        mu=cfg.mu,
        s=cfg.s,
        chains=cfg.ais_chains,
        temperatures=cfg.ais_temperatures,
        power=2.0,
    )


# ---- the algorithm ---------------------------------------------------------------------------------------------------


def check(cfg: Config) -> None:
    """Raise one ValueError that names the field and the fix."""
    cfg.space.check()
    check_options(cfg)
    if cfg.remat and cfg.network != "conv":
        raise ValueError("remat=True: only network='conv' has blocks whose inside could be recomputed")
    if cfg.network == "conv" and (not cfg.space.image or any(side % 8 for side in cfg.space.shape[:2])):
        raise ValueError(
            f"network='conv' halves the sides of images three times, which {cfg.space.shape} does not allow: use 'mlp'"
        )


class Normalised(NamedTuple):
    """A state and the estimate of its log Z: what `log_prob` needs, computed once for any number of batches."""

    state: cd.State
    log_z: Estimate


def algorithm(cfg: Config, *, batch_size: int, axis_name: str | None = None) -> Algorithm:
    """Bind an energy-based model to its optimizer. Raises ValueError on a configuration that cannot work."""
    check(cfg)
    check_parts(batch_size, cfg.accumulate)
    tx = optimizer(cfg.optim, batch_size)
    reads, exact = {cfg.space.field: cfg.space}, dataclasses.replace(cfg, dtype="float32")

    def observe(batch: Batch, keys: Array) -> Array:
        return cfg.space.dequantise(batch[cfg.space.field], keys)

    def observe_noised(batch: Batch, keys: Array) -> Array:
        keys_u, keys_noise = per_example.split(keys)
        return observe(batch, keys_u) + cfg.noise * per_example.normal(keys_noise, cfg.space.shape)

    def init(key: Key, batch: Batch) -> cd.State:
        key_params, key_buffer = jax.random.split(key)
        params = network(cfg).init(key_params, features(cfg, jnp.zeros((1, *cfg.space.shape))))
        own = lambda key: reference(cfg, jax.random.split(key, cfg.chains_per_example))  # noqa: E731
        buffer = jax.vmap(own)(example_keys(key_buffer, batch_size))  # [B, chains, *shape]
        return cd.init_state(params, tx, buffer, cfg.ema_halflife)

    def sample(state: cd.State, key: Key, n: int, cond: Cond | None = None) -> Array:
        return trajectory(state, key, n, cond, 1)[0]

    def trajectory(state: cd.State, key: Key, n: int, cond: Cond | None, frames: int) -> Array:
        check_cond(reads, n, cond)
        start, chain = jax.random.split(key)
        x = reference(cfg, example_keys(start, n))
        step = langevin.ula_step(lambda x: energy(cfg, averaged(state), x), example_keys(chain, n), cfg.eps)
        return cfg.space.requantise(loop_frames(step, x, cfg.sample_steps, frames))

    def normalise(state: cd.State, key: Key) -> Normalised:
        return Normalised(state, log_partition(exact, averaged(state), key))

    def log_prob(state: cd.State | Normalised, batch: Batch, key: Key) -> LogProb:
        check_batch(reads, batch)
        key_u, key_z = jax.random.split(key)
        state, z = state if isinstance(state, Normalised) else normalise(state, key_z)
        keys = example_keys(key_u, len(batch[cfg.space.field]))
        energies = lambda part: energy(exact, averaged(state), observe(*part))  # noqa: E731
        weight = cfg.space.log_cell - in_parts(energies, (batch, keys), cfg.accumulate)
        common = lambda stderr: jnp.full_like(weight, stderr)  # noqa: E731  log Z is that of all examples
        bound = "dequantised_upper_bound" if cfg.space.image else "upper_bound"
        upper = LogProb(weight - z.lower, bound, common_stderr=common(z.lower_stderr))
        return LogProb(weight - z.log_z, "estimate", common_stderr=common(z.stderr), upper=upper)

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
        accumulate=cfg.accumulate,
    )
    return Algorithm(
        reads=reads,
        init=init,
        step=step,
        sample=sample,
        log_prob=log_prob,
        prepare=normalise,
        spec=cd.spec,
        evaluations=cfg.sample_steps,
        trajectory=trajectory,
    )


FAMILY = Family(
    name="EBM",
    continent="approximate",
    objective="contrastive divergence",
    citation="Du & Mordatch 2019, https://arxiv.org/abs/1903.08689",
    algorithm=algorithm,
    sampling=("sample_steps", "ais_chains", "ais_temperatures"),
)
