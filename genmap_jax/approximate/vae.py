"""Variational autoencoder (VAE): a lower bound on log p(x) from an amortised Gaussian posterior.

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
from typing import Literal, cast

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
    State,
    averaged,
    check_cond,
    check_parts,
    init_state,
    log_prob_in_parts,
    minimise,
)
from genmap_jax.keys import example_keys
from genmap_jax.likelihoods import discretised_logistic, gaussian
from genmap_jax.nn.blocks import block
from genmap_jax.nn.products import in_type, widened
from genmap_jax.objectives import elbo
from genmap_jax.optim import Optim, optimizer
from genmap_jax.options import Count, Natural, NotNegative, Positive, check_options
from genmap_jax.samplers.interpolation import slerp
from genmap_jax.shapes import expect
from genmap_jax.spaces import Space, nearest_grey

LOG_SCALE_FLOOR = math.log(0.1)
"""Smallest log-scale of the image decoder, in grey levels: about that of PixelCNN++. At 0.1 the value at the mean has
99 % of the mass; below that, only the price of a surprise at test time would grow."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Network, decoder and bound of a VAE."""

    space: Space
    """Space of one example: images under a discretised logistic decoder, or vectors under a Gaussian one."""
    latent: Count = 16
    """Number of dimensions of the latent z."""
    network: Literal["mlp", "conv"] = "mlp"
    """Kind of encoder and decoder: dense layers on the flattened example, or residual convolutions on images."""
    hidden: tuple[Count, ...] = (256, 256)
    """Widths of the encoder, of which the decoder is the mirror image. For mlp they are those of the hidden layers, and
    () makes both networks linear maps. For conv they are the channels at each resolution, finest first; the side of the
    image is halved from one to the next."""
    blocks: Natural = 2
    """Number of residual blocks at each resolution; only conv reads it."""
    scale: Literal["global", "output"] = "output"
    """Scale of the decoder's distribution: one learned number, or an output of the network for every dimension."""
    beta: NotNegative = 1.0
    """Weight of the KL divergence in the training loss (Higgins et al. 2017). Evaluation always takes the true bound,
    whose weight is 1, as is the paper's."""
    importance_samples: Count = 64
    """Number K of samples of the importance-weighted bound at evaluation (Burda et al. 2016: up to 5,000); 1 is the
    ELBO."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Activations and products of encoder and decoder have this type in training and sampling. Parameters, the loss and
    the likelihood are always float32."""
    remat: bool = False
    """The backward pass recomputes the inside of every block, to save memory. Only conv has blocks."""
    accumulate: Count = 1
    """An update computes its gradient over this many micro-batches, one after another, to save memory."""
    optim: Optim = Optim()
    """The optimizer of encoder and decoder."""
    ema_halflife: Positive | None = None
    """Half-life, in examples, of the moving average of the parameters with which samples and bounds are computed; None
    takes the last parameters."""


# ---- networks: in the type of their input, with float32 parameters ---------------------------------------------------


class MLP(nn.Module):
    """Dense layers with SiLU between; no hidden layer makes it a linear map."""

    hidden: tuple[int, ...]
    out: int

    @nn.compact
    def __call__(self, x):
        for width in self.hidden:
            x = nn.silu(nn.Dense(width, dtype=x.dtype)(x))
        return nn.Dense(self.out, dtype=x.dtype)(x)


class Residual(nn.Module):
    """Pre-activation block that starts as the identity, which is what makes depth trainable without normalisation."""

    @nn.compact
    def __call__(self, x):
        channels, zeros = x.shape[-1], nn.initializers.zeros
        h = nn.Conv(channels, (3, 3), dtype=x.dtype)(nn.silu(x))
        return x + nn.Conv(channels, (3, 3), kernel_init=zeros, dtype=x.dtype)(nn.silu(h))


class ConvEncoder(nn.Module):
    """Residual blocks at each resolution, halved in between by strided convolutions, then a dense layer."""

    channels: tuple[int, ...]
    blocks: int
    out: int
    remat: bool

    @nn.compact
    def __call__(self, x):  # [B, H, W, C] -> [B, out]
        for stage, channels in enumerate(self.channels):
            x = nn.Conv(channels, (3, 3), strides=1 if stage == 0 else 2, dtype=x.dtype)(x)
            for _ in range(self.blocks):
                x = block(self, self.remat, lambda x: Residual()(x), x)
        return nn.Dense(self.out, dtype=x.dtype)(nn.silu(x).reshape(x.shape[0], -1))


class ConvDecoder(nn.Module):
    """The mirror image of `ConvEncoder`: a dense layer, then residual blocks at each resolution, doubled in between."""

    channels: tuple[int, ...]
    blocks: int
    shape: tuple[int, ...]  # (H, W, output channels)
    remat: bool

    @nn.compact
    def __call__(self, z):  # [B, Z] -> [B, H, W, output channels]
        height, width, out = self.shape
        factor = 2 ** (len(self.channels) - 1)
        coarsest = (height // factor, width // factor, self.channels[-1])
        x = nn.Dense(math.prod(coarsest), dtype=z.dtype)(z).reshape(-1, *coarsest)
        for stage, channels in enumerate(reversed(self.channels)):
            if stage:
                x = nn.Conv(channels, (3, 3), dtype=x.dtype)(x.repeat(2, axis=1).repeat(2, axis=2))
            for _ in range(self.blocks):
                x = block(self, self.remat, lambda x: Residual()(x), x)
        return nn.Conv(out, (3, 3), dtype=x.dtype)(nn.silu(x))


class VAE(nn.Module):
    """Encoder and decoder of a configuration."""

    cfg: Config

    def setup(self):
        cfg = self.cfg
        per_output = cfg.scale == "output"
        if cfg.network == "conv":
            *size, channels = cfg.space.shape
            self.encoder = ConvEncoder(cfg.hidden, cfg.blocks, 2 * cfg.latent, cfg.remat)
            shape = (*size, channels * (1 + per_output))
            self.decoder = ConvDecoder(cfg.hidden, cfg.blocks, shape, cfg.remat)
        else:
            self.encoder = MLP(cfg.hidden, 2 * cfg.latent)
            self.decoder = MLP(cfg.hidden[::-1], cfg.space.dims * (1 + per_output))
        if not per_output:
            self.log_scale = self.param("log_scale", nn.initializers.zeros, ())

    def encode(self, x: Array) -> tuple[Array, Array]:
        """Data as the batch holds them [B, ...] -> mu, logvar of q(z | x), each [B, Z]."""
        x = self.cfg.space.to_grid(x)
        if self.cfg.network == "mlp":
            x = x.reshape(x.shape[0], -1)
        mu, logvar = jnp.split(widened(self.encoder(*in_type(self.cfg.dtype, x))), 2, axis=-1)
        return mu, logvar

    def decode(self, z: Array) -> tuple[Array, Array]:
        """z [B, Z] -> mean, log_scale of p(x | z), each [B, *shape]; those of images are in grey levels."""
        cfg = self.cfg
        out = widened(self.decoder(*in_type(cfg.dtype, z)))
        if cfg.scale == "output":
            mean, log_scale = jnp.split(out, 2, axis=-1)
        else:
            mean, log_scale = out, jnp.broadcast_to(self.log_scale, out.shape)
        mean, log_scale = (t.reshape(z.shape[0], *cfg.space.shape) for t in (mean, log_scale))
        if cfg.space.image:
            levels = cfg.space.grey_levels
            mean = (mean + 1.0) * ((levels - 1) / 2.0)
            start = math.log(levels / 8.0)  # broad at first: an early surprise must cost nats, not hundreds
            log_scale = LOG_SCALE_FLOOR + nn.softplus(log_scale + start - LOG_SCALE_FLOOR)
        return mean, log_scale

    def __call__(self, x):
        return self.decode(self.encode(x)[0])


# ---- the model as free functions of its parameters -------------------------------------------------------------------


def encode(cfg: Config, params: Params, x: Array) -> tuple[Array, Array]:
    """mu, logvar of q(z | x). x [B, *shape] as a batch holds it -> [B, Z], [B, Z]."""
    cfg.space.expect(x=x)
    return cast(tuple[Array, Array], VAE(cfg).apply({"params": params}, x, method="encode"))


def decode(cfg: Config, params: Params, z: Array) -> tuple[Array, Array]:
    """mean, log_scale of p(x | z), of images in grey levels. z [B, Z] -> [B, *shape], [B, *shape]."""
    expect((None, cfg.latent), z=z)
    return cast(tuple[Array, Array], VAE(cfg).apply({"params": params}, z, method="decode"))


def log_likelihood(cfg: Config, params: Params, x: Array, z: Array) -> Array:
    """log p(x | z) in nats. x [B, *shape] as a batch holds it, z [B, Z] -> [B]."""
    expect((z.shape[0], *cfg.space.shape), x=x)
    cfg.space.expect(x=x)
    mean, log_scale = decode(cfg, params, z)
    if cfg.space.image:
        terms = discretised_logistic(x, mean, log_scale, cfg.space.grey_levels)
    else:
        terms = gaussian(x, mean, log_scale)
    return terms.reshape(x.shape[0], -1).sum(-1)


def elbo_terms(cfg: Config, params: Params, keys: Key, x: Array) -> tuple[Array, Array]:
    """One-sample reconstruction log p(x | z) and analytic KL(q || p), in nats: the ELBO is their difference.

    keys [B], x [B, *shape] -> [B], [B]. Kingma & Welling 2014, eq. 3 and 10 (the reparametrised "version B").
    """
    mu, logvar = encode(cfg, params, x)
    z = mu + jnp.exp(0.5 * logvar) * per_example.normal(keys, (cfg.latent,))
    return log_likelihood(cfg, params, x, z), elbo.gaussian_kl(mu, logvar)


def log_weights(cfg: Config, params: Params, keys: Key, x: Array, samples: int) -> Array:
    """log p(x, z_k) - log q(z_k | x) of `samples` draws z_k from q, in nats. keys [B], x [B, *shape] -> [K, B].

    Decodes one draw at a time: memory does not grow with K.
    """
    mu, logvar = encode(cfg, params, x)

    def one(k):
        eps = per_example.normal(per_example.fold(keys, k), (cfg.latent,))
        z = mu + jnp.exp(0.5 * logvar) * eps
        log_ratio = 0.5 * (jnp.square(eps) + logvar - jnp.square(z)).sum(-1)  # log p(z) - log q(z | x)
        return log_likelihood(cfg, params, x, z) + log_ratio

    return jax.lax.map(one, jnp.arange(samples))


def generate(cfg: Config, params: Params, keys: Key) -> Array:
    """Draw from the model `log_prob` is the bound of, decoder noise included. keys [B] -> [B, *shape].

    The decoder's mean would look smoother, but nobody's density describes it.
    """
    prior, noise = per_example.split(keys)
    return draw(cfg, params, noise, per_example.normal(prior, (cfg.latent,)))


def draw(cfg: Config, params: Params, noise: Key, z: Array) -> Array:
    """Draw from p(x | z). noise: keys [B], z [B, Z] -> float32 [B, *shape], of images whole grey values."""
    mean, log_scale = decode(cfg, params, z)
    if not cfg.space.image:
        return mean + jnp.exp(log_scale) * per_example.normal(noise, cfg.space.shape)
    u = jax.vmap(lambda key: jax.random.logistic(key, cfg.space.shape))(noise)
    return nearest_grey(mean + jnp.exp(log_scale) * u, cfg.space.grey_levels)


# ---- the algorithm ---------------------------------------------------------------------------------------------------


def check(cfg: Config) -> None:
    """Raise one ValueError that names the field and the fix."""
    cfg.space.check()
    check_options(cfg)
    factor = 2 ** (len(cfg.hidden) - 1) if cfg.hidden else 1
    if cfg.network == "conv" and not (cfg.space.image and cfg.hidden):
        raise ValueError("network='conv' needs images and at least one entry in hidden; use network='mlp'")
    if cfg.remat and cfg.network != "conv":
        raise ValueError("remat=True: only network='conv' has blocks whose inside could be recomputed")
    if cfg.network == "conv" and any(side % factor for side in cfg.space.shape[:2]):
        raise ValueError(
            f"hidden={cfg.hidden} needs images whose sides divide by {factor}, not {cfg.space.shape}: shorten hidden"
        )


def algorithm(cfg: Config, *, batch_size: int, axis_name: str | None = None) -> Algorithm:
    """Bind a VAE to its optimizer. Raises ValueError on a configuration that cannot work."""
    check(cfg)
    check_parts(batch_size, cfg.accumulate)
    tx = optimizer(cfg.optim, batch_size)
    reads = {cfg.space.field: cfg.space}

    def init(key: Key, batch: Batch) -> State:
        params = VAE(cfg).init(key, cfg.space.zeros(1))["params"]
        return init_state(params, tx, cfg.ema_halflife)

    def terms(params: Params, keys: Key, batch: Batch) -> tuple[Array, Array]:
        return elbo_terms(cfg, params, keys, batch[cfg.space.field])

    loss = elbo.negative_elbo(terms, cfg.space.dims, cfg.beta)

    def sample(state: State, key: Key, n: int, cond: Cond | None = None) -> Array:
        check_cond(reads, n, cond)
        return generate(cfg, averaged(state), example_keys(key, n))

    def walk(state: State, key: Key, t: Array, cond: Cond | None = None) -> Array:
        check_cond(reads, len(t), cond)
        a, b = (per_example.normal(example_keys(k, len(t)), (cfg.latent,)) for k in jax.random.split(key))
        return decode(cfg, averaged(state), slerp(a, b, t))[0]  # the mean, in grey levels

    def log_prob(state: State, batch: Batch, key: Key) -> LogProb:
        exact, params = dataclasses.replace(cfg, dtype="float32"), averaged(state)

        def of_part(keys: Key, batch: Batch) -> LogProb:
            x = batch[cfg.space.field]
            return elbo.importance_bound(log_weights(exact, params, keys, x, cfg.importance_samples))

        return log_prob_in_parts(of_part, reads, batch, key, cfg.accumulate)

    return Algorithm(
        reads=reads,
        init=init,
        step=minimise(loss, tx, ema_halflife=cfg.ema_halflife, axis_name=axis_name, accumulate=cfg.accumulate),
        sample=sample,
        log_prob=log_prob,
        evaluations=1,
        walk=walk,
    )


FAMILY = Family(
    name="VAE",
    continent="approximate",
    objective="ELBO",
    citation="Kingma & Welling 2014, https://arxiv.org/abs/1312.6114",
    algorithm=algorithm,
    sampling=("importance_samples",),
)
