"""Generative adversarial network: a generator and a discriminator in a min-max game. No density, only samples.

    min_G max_D  E_x[log sigmoid(D(x))] + E_z[log(1 - sigmoid(D(G(z))))],   x ~ data,  z ~ N(0, I)

Goodfellow et al. 2014 (https://arxiv.org/abs/1406.2661), algorithm 1 with k = 1: one update of D, then one of G against
the updated D. The default is the modern form of the game, R3GAN (Huang et al. 2024, https://arxiv.org/abs/2501.05441),
which converges locally: the relativistic pairing loss with zero-centred gradient penalties on real examples (R1) and on
generated ones (R2), networks without normalisation, Adam without momentum, samples from an averaged generator.

Integer images are a trap: a discriminator that sees the grid of grey values needs to look at nothing else. So both
kinds of image get uniform noise one grey level wide before D sees them. For real ones that is dequantisation; a
generator of exact grid values then has exactly their distribution, and `sample` rounds to the grid.

Differs from the papers: R3GAN's grouped convolutions, its augmentation, and its schedules of the penalty weight, of the
averaging and of Adam's b2 are left out.
"""

import dataclasses
import math
from typing import Literal

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from genmap_jax import parallel
from genmap_jax.algorithm import Algorithm, Array, Batch, Key, Metrics, Params, ema_update, player
from genmap_jax.data import pixels
from genmap_jax.objectives import adversarial
from genmap_jax.optim import Optim, optimizer


@dataclasses.dataclass(frozen=True)
class Config:
    """A GAN for images (H, W, C) or vectors (D,)."""

    shape: tuple[int, ...]
    """Of one example."""
    levels: int = 256
    """Number of grey values (images only)."""
    network: Literal["mlp", "conv"] = "mlp"
    """conv: residual networks, for images."""
    latent: int = 64
    """Dimensions of z."""
    width: int = 256
    """Hidden units, or channels at every resolution."""
    depth: int = 3
    """mlp: hidden layers. conv: halvings of the resolution, with two residual blocks each."""
    loss: adversarial.Loss = "relativistic"
    r1: float = 1.0
    """Weight gamma of the penalty (gamma / 2) |grad D|^2 on real examples; 0 turns it off."""
    r2: float = 1.0
    """The same on generated examples."""
    ema_halflife: float | None = 10_000
    """Of the averaged generator, in examples; None samples from the generator itself."""
    optim: Optim = Optim(lr=2e-4, b1=0.0, b2=0.99, clip=0.0)
    """Of both players. Momentum makes the game oscillate."""


@flax.struct.dataclass
class State:
    """Two players, and the average of one of them."""

    step: Array  # int32, updates done
    params_g: Params
    params_d: Params
    opt_g: optax.OptState
    opt_d: optax.OptState
    ema_g: Params | None  # None: no averaging

    @property
    def averaged(self) -> Params:
        """The generator to sample from."""
        return self.params_g if self.ema_g is None else self.ema_g


# ---- networks --------------------------------------------------------------------------------------------------------

SLOPE = 0.2  # of the leaky ReLU below zero: D must pass a gradient to G everywhere
HE = nn.initializers.variance_scaling(2.0 / (1.0 + SLOPE**2), "fan_in", "truncated_normal")


def act(x: Array) -> Array:
    return nn.leaky_relu(x, SLOPE)


class MLP(nn.Module):
    """Plain hidden layers. [B, ...] -> [B, out]"""

    width: int
    depth: int
    out: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = x.reshape(x.shape[0], -1)
        for _ in range(self.depth):
            x = act(nn.Dense(self.width, kernel_init=HE)(x))
        return nn.Dense(self.out)(x)


class Block(nn.Module):
    """Residual block that starts as the identity, which replaces normalisation (Zhang et al. 2019, arXiv:1901.09321).

    [B, H, W, width] -> the same
    """

    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        h = nn.Conv(self.width, (3, 3), kernel_init=HE)(act(x))
        return x + nn.Conv(self.width, (3, 3), kernel_init=nn.initializers.zeros)(act(h))


class Generator(nn.Module):
    """z [B, latent] -> x [B, *shape], images in the convention of `pixels.dequantise`."""

    cfg: Config

    @nn.compact
    def __call__(self, z: Array) -> Array:
        cfg = self.cfg
        if cfg.network == "mlp":
            x = MLP(cfg.width, cfg.depth, math.prod(cfg.shape))(z)
            return x.reshape(-1, *cfg.shape)
        H, W, C = cfg.shape
        h, w = H >> cfg.depth, W >> cfg.depth
        x = nn.Dense(h * w * cfg.width)(z).reshape(-1, h, w, cfg.width)
        for _ in range(cfg.depth):
            x = Block(cfg.width)(Block(cfg.width)(x))
            x = x.repeat(2, axis=1).repeat(2, axis=2)  # nearest; the next 3x3 convolution smooths
        return nn.Conv(C, (3, 3))(act(Block(cfg.width)(x)))


class Discriminator(nn.Module):
    """x [B, *shape] -> logits [B]. The mirror of `Generator`."""

    cfg: Config

    @nn.compact
    def __call__(self, x: Array) -> Array:
        cfg = self.cfg
        if cfg.network == "mlp":
            return MLP(cfg.width, cfg.depth, 1)(x)[:, 0]
        x = nn.Conv(cfg.width, (3, 3), kernel_init=HE)(x)
        for _ in range(cfg.depth):
            x = Block(cfg.width)(Block(cfg.width)(x))
            B, H, W, C = x.shape
            x = x.reshape(B, H // 2, 2, W // 2, 2, C).mean(axis=(2, 4))
        x = act(Block(cfg.width)(x))
        return nn.Dense(1)(x.reshape(x.shape[0], -1))[:, 0]


# ---- the model: free functions ---------------------------------------------------------------------------------------


def generate(cfg: Config, params_g: Params, z: Array) -> Array:
    """G(z). [B, latent] -> [B, *shape]"""
    return Generator(cfg).apply(params_g, z)


def discriminate(cfg: Config, params_d: Params, x: Array) -> Array:
    """D(x), as logits. [B, *shape] -> [B]"""
    return Discriminator(cfg).apply(params_d, x)


def latents(keys: Array, dims: int) -> Array:
    """z ~ N(0, I), one draw per key. [B] -> [B, dims]"""
    return jax.vmap(lambda key: jax.random.normal(key, (dims,)))(keys)


def dither(x: Array, keys: Array, levels: int) -> Array:
    """Generated images with the noise `pixels.dequantise` puts on real ones, centred: x is the middle of its cell."""
    u = jax.vmap(lambda key: jax.random.uniform(key, x.shape[1:]))(keys)
    return x + (u - 0.5) * (2.0 / levels)


def d_terms(critic: adversarial.Critic, real: Array, fake: Array, cfg: Config) -> dict[str, Array]:
    """What D minimises ("loss") and its parts, each [B]. `fake` counts as data: no gradient reaches the generator.

    L_D + (gamma_1 / 2) |grad D(real)|^2 + (gamma_2 / 2) |grad D(fake)|^2        Huang et al. 2024, section 2
    """
    fake = jax.lax.stop_gradient(fake)
    penalty, parts = 0.0, {}
    if cfg.r1:
        logit_real, parts["r1"] = adversarial.squared_slope(critic, real)
        penalty += 0.5 * cfg.r1 * parts["r1"]
    else:
        logit_real = critic(real)
    if cfg.r2:
        logit_fake, parts["r2"] = adversarial.squared_slope(critic, fake)
        penalty += 0.5 * cfg.r2 * parts["r2"]
    else:
        logit_fake = critic(fake)
    loss_d, _ = adversarial.LOSSES[cfg.loss]
    value = loss_d(logit_real, logit_fake)
    return {"loss": value + penalty, "loss_d": value, "logit_real": logit_real, "logit_fake": logit_fake, **parts}


def g_terms(critic: adversarial.Critic, real: Array, fake: Array, cfg: Config) -> dict[str, Array]:
    """What G minimises, [B]. Only the relativistic loss looks at `real`."""
    _, loss_g = adversarial.LOSSES[cfg.loss]
    return {"loss": loss_g(critic(real), critic(fake))}


# ---- algorithm -------------------------------------------------------------------------------------------------------


def algorithm(cfg: Config, *, batch_size: int, axis_name: str | None = None) -> Algorithm:
    """The GAN as the runner sees it. Raises ValueError that names the field and the fix."""
    _check(cfg)
    tx = optimizer(cfg.optim, batch_size)
    images = len(cfg.shape) == 3

    def observe(batch: Batch, keys: Array) -> Array:
        return pixels.dequantise(batch["image"], keys, cfg.levels) if images else batch["x"]

    def draw(params_g: Params, keys: Array) -> Array:
        """What D sees of the generator. [B] -> [B, *shape]"""
        key_z, key_u = jax.vmap(jax.random.split, out_axes=1)(keys)
        x = generate(cfg, params_g, latents(key_z, cfg.latent))
        return dither(x, key_u, cfg.levels) if images else x

    def init(key: Key) -> State:
        key_g, key_d = jax.random.split(key)
        params_g = Generator(cfg).init(key_g, jnp.zeros((1, cfg.latent)))
        params_d = Discriminator(cfg).init(key_d, jnp.zeros((1, *cfg.shape)))
        ema_g = None if cfg.ema_halflife is None else jax.tree.map(jnp.copy, params_g)  # own buffers: the step donates
        return State(jnp.zeros((), jnp.int32), params_g, params_d, tx.init(params_g), tx.init(params_d), ema_g)

    def step(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
        size = batch["image" if images else "x"].shape[0]
        keys_x, keys_d, keys_g = (parallel.example_keys(k, size, axis_name) for k in jax.random.split(key, 3))
        real = observe(batch, keys_x)

        fake = draw(state.params_g, keys_d)

        def loss_d(params_d):
            critic = lambda x: discriminate(cfg, params_d, x)  # noqa: E731
            means = {name: term.mean() for name, term in d_terms(critic, real, fake, cfg).items()}
            return means.pop("loss"), means

        params_d, opt_d, _, metrics = player(loss_d, state.params_d, state.opt_d, tx, axis_name)

        def loss_g(params_g):  # against the D just updated, on fresh z
            critic = lambda x: discriminate(cfg, params_d, x)  # noqa: E731
            return g_terms(critic, real, draw(params_g, keys_g), cfg)["loss"].mean(), {}

        params_g, opt_g, value_g, _ = player(loss_g, state.params_g, state.opt_g, tx, axis_name)

        seen = parallel.total(size, axis_name)
        ema_g = ema_update(state.ema_g, params_g, state.step, seen, cfg.ema_halflife)
        return State(state.step + 1, params_g, params_d, opt_g, opt_d, ema_g), {**metrics, "loss_g": value_g}

    def sample(state: State, key: Key, n: int, cond: Array | None = None) -> Array:
        if cond is not None:
            raise ValueError("cond must be None: this GAN is unconditional")
        x = generate(cfg, state.averaged, latents(parallel.example_keys(key, n), cfg.latent))
        return pixels.requantise(x, cfg.levels) if images else x

    return Algorithm(init, step, sample)


def _check(cfg: Config) -> None:
    images = len(cfg.shape) == 3
    if not images and len(cfg.shape) != 1:
        raise ValueError(f"shape={cfg.shape}: give (H, W, C) for images or (D,) for vectors")
    if images and not 2 <= cfg.levels <= 256:
        raise ValueError(f"levels={cfg.levels}: uint8 images have 2 to 256 grey values")
    if cfg.network not in ("mlp", "conv"):
        raise ValueError(f"network={cfg.network!r} is unknown: use 'mlp' or 'conv'")
    if cfg.network == "conv" and (not images or any(side % 2**cfg.depth for side in cfg.shape[:2])):
        raise ValueError(
            f"network='conv' halves an image depth={cfg.depth} times, which shape={cfg.shape} does not allow: "
            "lower depth or use network='mlp'"
        )
    for field in ("latent", "width", "depth"):
        if getattr(cfg, field) < 1:
            raise ValueError(f"{field}={getattr(cfg, field)} must be at least 1")
    if cfg.loss not in adversarial.LOSSES:
        raise ValueError(f"loss={cfg.loss!r} is unknown: use one of {', '.join(adversarial.LOSSES)}")
    for field in ("r1", "r2"):
        if getattr(cfg, field) < 0:
            raise ValueError(f"{field}={getattr(cfg, field)} weighs a penalty: give 0 (off) or more")
    if cfg.loss == "wasserstein" and not (cfg.r1 or cfg.r2):
        raise ValueError("loss='wasserstein' without a penalty has no minimum: give r1 or r2 above 0")
    if cfg.ema_halflife is not None and cfg.ema_halflife <= 0:
        raise ValueError(f"ema_halflife={cfg.ema_halflife} is a number of examples: positive, or None for no averaging")
