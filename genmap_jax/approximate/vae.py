"""Variational autoencoder: a lower bound on log p(x) from an amortised Gaussian posterior.

Kingma & Welling 2014, "Auto-Encoding Variational Bayes" (arXiv:1312.6114); Rezende et al. 2014 (arXiv:1401.4082).
Importance-weighted evaluation: Burda et al. 2016 (arXiv:1509.00519). Discretised logistic decoder: Kingma et al. 2016
(arXiv:1606.04934), appendix.

    z ~ N(0, I),   x | z ~ decoder(z),   q(z | x) = N(mu(x), diag(exp(logvar(x))))

Images have a discretised logistic decoder: a true probability of the integers, whose pmf sums to one at any scale, so
the bound is in nats of the data as the batch holds them. Vectors have a Gaussian decoder with learned sigma.

Differs from the papers: Adam instead of Adagrad; SiLU instead of tanh; the logistic decoder instead of Bernoulli or
Gaussian pixels; the conv network is residual, without normalisation layers.
"""

import dataclasses
import math
from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from genmap_jax import parallel
from genmap_jax.algorithm import Algorithm, Array, Key, LogProb, Params, init_state, minimise
from genmap_jax.data import pixels
from genmap_jax.evaluate.path_length import slerp
from genmap_jax.objectives import elbo
from genmap_jax.optim import Optim, optimizer

LOG_SCALE_FLOOR = math.log(0.1)
"""Smallest log-scale of the image decoder, in grey levels: about that of PixelCNN++. At 0.1 the value at the mean has
99 % of the mass; below that, only the price of a surprise at test time would grow."""


@dataclasses.dataclass(frozen=True)
class Config:
    system: ClassVar[str] = "VAE"
    objective: ClassVar[str] = "ELBO"

    shape: tuple[int, ...]
    """(H, W, C) of images or (D,) of vectors."""
    levels: int = 256
    """Grey values of images; vectors ignore it."""
    latent: int = 16
    """Dimensions of z."""
    network: Literal["mlp", "conv"] = "mlp"
    hidden: tuple[int, ...] = (256, 256)
    """mlp: widths of the hidden layers; () makes encoder and decoder linear maps. conv: channels at each resolution,
    finest first, halving the image in between. The decoder is the mirror image."""
    blocks: int = 2
    """conv: residual blocks at each resolution."""
    scale: Literal["global", "output"] = "output"
    """Scale of the decoder: one learned number, or an output of the network for every dimension."""
    beta: float = 1.0
    """Weight of the KL in the training loss; evaluation always takes the true bound."""
    importance_samples: int = 64
    """K of the importance-weighted bound at evaluation; 1 is the ELBO."""
    optim: Optim = Optim()
    ema_halflife: float | None = None
    """In examples; None evaluates the last parameters."""


# ---- the decoder's distributions -------------------------------------------------------------------------------------


def discretised_logistic(v: Array, mean: Array, log_scale: Array, levels: int) -> Array:
    """log P(v) of integers 0..levels-1 under a logistic rounded to the nearest integer, end values absorbing the tails.

    All in units of one grey level and elementwise; `v` may be of any integer or float type. Uses the exact
    log(s(a) - s(b)) = log s(a) + log s(-b) + log(1 - e^(b-a)), without the mid-bin fallback of PixelCNN++, which misses
    single values by up to 2 nats. Grey-level units keep v + 1/2 exact, so small scales lose no digits.
    """
    v = v.astype(mean.dtype)
    inverse = jnp.exp(-log_scale)
    below = jax.nn.log_sigmoid((v + 0.5 - mean) * inverse)  # log P(V <= v)
    above = jax.nn.log_sigmoid((mean - (v - 0.5)) * inverse)  # log P(V >= v)
    inside = below + above + jnp.log(-jnp.expm1(-inverse))
    return jnp.where(v == 0, below, jnp.where(v == levels - 1, above, inside))


def gaussian(x: Array, mean: Array, log_scale: Array) -> Array:
    """log N(x; mean, exp(log_scale)^2), elementwise."""
    return -0.5 * jnp.square((x - mean) * jnp.exp(-log_scale)) - log_scale - 0.5 * math.log(2.0 * math.pi)


# ---- networks --------------------------------------------------------------------------------------------------------


class MLP(nn.Module):
    """Dense layers with SiLU between; no hidden layer makes it a linear map."""

    hidden: tuple[int, ...]
    out: int

    @nn.compact
    def __call__(self, x):
        for width in self.hidden:
            x = nn.silu(nn.Dense(width)(x))
        return nn.Dense(self.out)(x)


class Residual(nn.Module):
    """Pre-activation block that starts as the identity, which is what makes depth trainable without normalisation."""

    @nn.compact
    def __call__(self, x):
        channels = x.shape[-1]
        h = nn.Conv(channels, (3, 3))(nn.silu(x))
        return x + nn.Conv(channels, (3, 3), kernel_init=nn.initializers.zeros)(nn.silu(h))


class ConvEncoder(nn.Module):
    channels: tuple[int, ...]
    blocks: int
    out: int

    @nn.compact
    def __call__(self, x):  # [B, H, W, C] -> [B, out]
        for level, channels in enumerate(self.channels):
            x = nn.Conv(channels, (3, 3), strides=1 if level == 0 else 2)(x)
            for _ in range(self.blocks):
                x = Residual()(x)
        return nn.Dense(self.out)(nn.silu(x).reshape(x.shape[0], -1))


class ConvDecoder(nn.Module):
    channels: tuple[int, ...]
    blocks: int
    shape: tuple[int, ...]  # (H, W, output channels)

    @nn.compact
    def __call__(self, z):  # [B, Z] -> [B, H, W, output channels]
        height, width, out = self.shape
        factor = 2 ** (len(self.channels) - 1)
        coarsest = (height // factor, width // factor, self.channels[-1])
        x = nn.Dense(math.prod(coarsest))(z).reshape(-1, *coarsest)
        for level, channels in enumerate(reversed(self.channels)):
            if level:
                x = nn.Conv(channels, (3, 3))(x.repeat(2, axis=1).repeat(2, axis=2))
            for _ in range(self.blocks):
                x = Residual()(x)
        return nn.Conv(out, (3, 3))(nn.silu(x))


class VAE(nn.Module):
    cfg: Config

    def setup(self):
        cfg = self.cfg
        per_output = cfg.scale == "output"
        if cfg.network == "conv":
            *size, channels = cfg.shape
            self.encoder = ConvEncoder(cfg.hidden, cfg.blocks, 2 * cfg.latent)
            self.decoder = ConvDecoder(cfg.hidden, cfg.blocks, (*size, channels * (1 + per_output)))
        else:
            self.encoder = MLP(cfg.hidden, 2 * cfg.latent)
            self.decoder = MLP(cfg.hidden[::-1], math.prod(cfg.shape) * (1 + per_output))
        if not per_output:
            self.log_scale = self.param("log_scale", nn.initializers.zeros, ())

    def encode(self, x: Array) -> tuple[Array, Array]:
        """Data as the batch holds them [B, ...] -> mu, logvar of q(z | x), each [B, Z]."""
        cfg = self.cfg
        if len(cfg.shape) == 3:
            x = pixels.to_grid(x, cfg.levels)
        if cfg.network == "mlp":
            x = x.reshape(x.shape[0], -1)
        mu, logvar = jnp.split(self.encoder(x), 2, axis=-1)
        return mu, logvar

    def decode(self, z: Array) -> tuple[Array, Array]:
        """z [B, Z] -> mean, log_scale of p(x | z), each [B, *shape]; those of images are in grey levels."""
        cfg = self.cfg
        out = self.decoder(z)
        if cfg.scale == "output":
            mean, log_scale = jnp.split(out, 2, axis=-1)
        else:
            mean, log_scale = out, jnp.broadcast_to(self.log_scale, out.shape)
        mean, log_scale = (t.reshape(z.shape[0], *cfg.shape) for t in (mean, log_scale))
        if len(cfg.shape) == 3:
            mean = (mean + 1.0) * ((cfg.levels - 1) / 2.0)
            start = math.log(cfg.levels / 8.0)  # broad at first: an early surprise must cost nats, not hundreds
            log_scale = LOG_SCALE_FLOOR + nn.softplus(log_scale + start - LOG_SCALE_FLOOR)
        return mean, log_scale

    def __call__(self, x):
        return self.decode(self.encode(x)[0])


# ---- the model as free functions of its parameters -------------------------------------------------------------------


def encode(cfg: Config, params: Params, x: Array) -> tuple[Array, Array]:
    """mu, logvar of q(z | x). x [B, ...] -> [B, Z], [B, Z]."""
    return VAE(cfg).apply({"params": params}, x, method="encode")


def decode(cfg: Config, params: Params, z: Array) -> tuple[Array, Array]:
    """mean, log_scale of p(x | z). z [B, Z] -> [B, *shape], [B, *shape]."""
    return VAE(cfg).apply({"params": params}, z, method="decode")


def log_likelihood(cfg: Config, params: Params, x: Array, z: Array) -> Array:
    """log p(x | z) in nats. x [B, *shape], z [B, Z] -> [B]."""
    mean, log_scale = decode(cfg, params, z)
    images = len(cfg.shape) == 3
    terms = discretised_logistic(x, mean, log_scale, cfg.levels) if images else gaussian(x, mean, log_scale)
    return terms.reshape(x.shape[0], -1).sum(-1)


def elbo_terms(cfg: Config, params: Params, keys: Key, x: Array) -> tuple[Array, Array]:
    """One-sample reconstruction log p(x | z) and analytic KL(q || p), in nats: the ELBO is their difference.

    keys [B], x [B, *shape] -> [B], [B]. Kingma & Welling 2014, eq. 3 and 10 (the reparametrised "version B").
    """
    mu, logvar = encode(cfg, params, x)
    z = mu + jnp.exp(0.5 * logvar) * _normal(keys, cfg.latent)
    return log_likelihood(cfg, params, x, z), elbo.gaussian_kl(mu, logvar)


def log_weights(cfg: Config, params: Params, keys: Key, x: Array, samples: int) -> Array:
    """log p(x, z_k) - log q(z_k | x) of `samples` draws from q, in nats. keys [B], x [B, *shape] -> [K, B].

    Decodes one draw at a time: memory does not grow with K.
    """
    mu, logvar = encode(cfg, params, x)

    def one(k):
        eps = _normal(jax.vmap(lambda key: jax.random.fold_in(key, k))(keys), cfg.latent)
        z = mu + jnp.exp(0.5 * logvar) * eps
        log_ratio = 0.5 * (jnp.square(eps) + logvar - jnp.square(z)).sum(-1)  # log p(z) - log q(z | x)
        return log_likelihood(cfg, params, x, z) + log_ratio

    return jax.lax.map(one, jnp.arange(samples))


def generate(cfg: Config, params: Params, keys: Key) -> Array:
    """Draw from the model `log_prob` is the bound of, decoder noise included. keys [B] -> uint8 or float32 [B, *shape].

    The decoder's mean would look smoother, but nobody's density describes it.
    """
    prior, noise = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    return draw(cfg, params, noise, _normal(prior, cfg.latent))


def draw(cfg: Config, params: Params, noise: Key, z: Array) -> Array:
    """Draw from p(x | z). noise: keys [B], z [B, Z] -> uint8 or float32 [B, *shape]."""
    mean, log_scale = decode(cfg, params, z)
    if len(cfg.shape) == 1:
        return mean + jnp.exp(log_scale) * _normal(noise, *cfg.shape)
    u = jax.vmap(lambda key: jax.random.logistic(key, cfg.shape))(noise)
    return jnp.clip(jnp.round(mean + jnp.exp(log_scale) * u), 0, cfg.levels - 1).astype(jnp.uint8)


def _normal(keys: Key, *shape: int) -> Array:
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


# ---- the algorithm ---------------------------------------------------------------------------------------------------


def check(cfg: Config) -> None:
    """Raise one ValueError that names the field and the fix."""
    images = len(cfg.shape) == 3
    factor = 2 ** (len(cfg.hidden) - 1) if cfg.hidden else 1
    if len(cfg.shape) not in (1, 3):
        raise ValueError(f"shape={cfg.shape}: give (H, W, C) for images or (D,) for vectors")
    if images and not 2 <= cfg.levels <= 256:
        raise ValueError(f"levels={cfg.levels}: uint8 images have 2 to 256 grey values")
    if cfg.latent < 1:
        raise ValueError(f"latent={cfg.latent}: z needs at least one dimension")
    if cfg.network not in ("mlp", "conv"):
        raise ValueError(f"network={cfg.network!r}: choose 'mlp' or 'conv'")
    if cfg.scale not in ("global", "output"):
        raise ValueError(f"scale={cfg.scale!r}: choose 'global' or 'output'")
    if cfg.network == "conv" and not (images and cfg.hidden):
        raise ValueError("network='conv' needs a shape (H, W, C) and at least one entry in hidden; use network='mlp'")
    if cfg.network == "conv" and (cfg.shape[0] % factor or cfg.shape[1] % factor):
        raise ValueError(f"hidden={cfg.hidden} needs a shape that divides by {factor}, not {cfg.shape}: shorten hidden")
    if cfg.importance_samples < 1:
        raise ValueError(f"importance_samples={cfg.importance_samples}: use 1 for the ELBO or more for a tighter bound")


def algorithm(cfg: Config, *, batch_size: int, axis_name: str | None = None) -> Algorithm:
    """Bind a VAE to its optimizer. Raises ValueError on a configuration that cannot work."""
    check(cfg)
    tx = optimizer(cfg.optim, batch_size)
    images = len(cfg.shape) == 3
    name = "image" if images else "x"

    def init(key):
        params = VAE(cfg).init(key, jnp.zeros((1, *cfg.shape), jnp.uint8 if images else jnp.float32))["params"]
        return init_state(params, tx, cfg.ema_halflife)

    terms = lambda params, keys, batch: elbo_terms(cfg, params, keys, batch[name])  # noqa: E731
    loss = elbo.negative_elbo(terms, math.prod(cfg.shape), cfg.beta)
    step = minimise(loss, tx, ema_halflife=cfg.ema_halflife, axis_name=axis_name)

    def sample(state, key, n, cond=None):
        if cond is not None:
            raise ValueError("this VAE is unconditional: call sample with cond=None")
        return generate(cfg, state.averaged, parallel.example_keys(key, n))

    def walk(state, key, t):
        a, b = (_normal(parallel.example_keys(k, len(t)), cfg.latent) for k in jax.random.split(key))
        return decode(cfg, state.averaged, slerp(a, b, t))[0]  # the mean, in grey levels

    def log_prob(state, batch, key) -> LogProb:
        keys = parallel.example_keys(key, len(batch[name]))
        return elbo.importance_bound(log_weights(cfg, state.averaged, keys, batch[name], cfg.importance_samples))

    return Algorithm(init, step, sample, log_prob, evaluations=1, walk=walk)
