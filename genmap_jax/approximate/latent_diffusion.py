"""Latent diffusion: a VAE whose prior is a diffusion model, trained with it on its latents.

Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models" (arXiv:2112.10752); as a bound,
Vahdat et al. 2021, "Score-based Generative Modeling in Latent Space" (arXiv:2106.05931). Every step is one update of
each part:

    VAE          minimises its negative ELBO against N(0, I), approximate/vae.py, as if it were alone
    diffusion    learns the latents z ~ q(z | x) the VAE makes now, approximate/diffusion.py

    sample       z from the diffusion model, x from the decoder
    log_prob     E_q[log p(x | z) + bound(z) - log q(z | x)], bound(z) the diffusion model's of log p(z): a lower bound,
                 which gains over the ELBO what the diffusion model knows better of the latents than N(0, I)

Differs from the papers: both parts are trained at once, the VAE without adversarial or perceptual losses; latents are
vectors, and already of about unit variance, since N(0, I) is the VAE's prior.
"""

import dataclasses
import math
from typing import ClassVar

import flax.struct
import jax
import jax.numpy as jnp
import optax

from genmap_jax import algorithm as algorithms
from genmap_jax import parallel
from genmap_jax.algorithm import Algorithm, Array, LogProb, Params, ema_update, player
from genmap_jax.approximate import diffusion, vae
from genmap_jax.objectives import elbo
from genmap_jax.objectives.denoising import even_times
from genmap_jax.optim import Optim, optimizer


@dataclasses.dataclass(frozen=True)
class Config:
    system: ClassVar[str] = "Latent diffusion"
    objective: ClassVar[str] = "ELBO + weighted denoising"

    shape: tuple[int, ...]
    """(H, W, C) of images or (D,) of vectors."""
    levels: int = 256
    """Grey values of images; vectors ignore it."""
    autoencoder: vae.Config = vae.Config(shape=(0,))
    """Of the VAE; its shape and levels are those above, and it is optimised and averaged as said below."""
    prior: diffusion.Config = diffusion.Config(shape=(0,), **diffusion.EDM)
    """Of the diffusion model; its shape is the VAE's latent, and it is optimised and averaged as said below."""
    bound_samples: int = 16
    """Draws of z averaged per example in log_prob."""
    optim: Optim = Optim()
    """Of the VAE."""
    prior_optim: Optim = Optim()
    """Of the diffusion model."""
    ema_halflife: float | None = None
    """In examples; None evaluates the last parameters."""


@flax.struct.dataclass
class State:
    step: Array
    params: dict[str, Params]  # "vae" and "prior"
    opt_state: dict[str, optax.OptState]
    ema: dict[str, Params] | None

    @property
    def averaged(self) -> dict[str, Params]:
        return self.params if self.ema is None else self.ema


def parts(cfg: Config) -> tuple[vae.Config, diffusion.Config]:
    """The two configurations, completed."""
    shape = {"shape": cfg.shape, "levels": cfg.levels}
    return (
        dataclasses.replace(cfg.autoencoder, **shape),
        dataclasses.replace(cfg.prior, shape=(cfg.autoencoder.latent,), classes=None),
    )


def encoded(cfg: vae.Config, params: Params, keys: Array, x: Array) -> tuple[Array, Array]:
    """z ~ q(z | x) and log q(z | x) in nats. keys [B], x [B, *shape] -> [B, Z], [B]."""
    mu, logvar = vae.encode(cfg, params, x)
    eps = jax.vmap(lambda key: jax.random.normal(key, mu.shape[1:]))(keys)
    return mu + jnp.exp(0.5 * logvar) * eps, (jax.scipy.stats.norm.logpdf(eps) - 0.5 * logvar).sum(-1)


def check(cfg: Config) -> None:
    """Raise one ValueError that names the field and the fix, beside what the two families check of their parts."""
    if cfg.prior.sampler == "adaptive":
        raise ValueError("prior.sampler='adaptive' cannot be watched: choose a sampler with a number of steps")
    if cfg.prior.power_ema:
        raise ValueError(f"prior.power_ema={cfg.prior.power_ema} is not tracked here: leave it empty")
    if cfg.bound_samples < 1:
        raise ValueError(f"bound_samples={cfg.bound_samples}: use at least 1")


def algorithm(cfg: Config, *, batch_size: int, axis_name: str | None = None) -> Algorithm:
    """Bind both to their optimizers. Raises ValueError on a configuration that cannot work."""
    check(cfg)
    outer, inner = parts(cfg)
    alone, latent = (family.algorithm(c, batch_size=batch_size) for family, c in ((vae, outer), (diffusion, inner)))
    tx = {"vae": optimizer(cfg.optim, batch_size), "prior": optimizer(cfg.prior_optim, batch_size)}
    name = "image" if len(cfg.shape) == 3 else "x"
    elbo_loss = elbo.negative_elbo(
        lambda params, keys, x: vae.elbo_terms(outer, params, keys, x), math.prod(cfg.shape), outer.beta
    )
    prior_loss = diffusion.training_loss(inner)

    def init(key):
        for_vae, for_prior = jax.random.split(key)
        params = {"vae": alone.init(for_vae).params, "prior": latent.init(for_prior).params}
        opt_state = {part: tx[part].init(params[part]) for part in tx}
        ema = None if cfg.ema_halflife is None else jax.tree.map(jnp.copy, params)
        return State(jnp.zeros((), jnp.int32), params, opt_state, ema)

    def step(state, batch, key):
        x, size = batch[name], len(batch[name])
        for_time, for_vae, for_z, for_prior = jax.random.split(key, 4)
        each = lambda key: parallel.example_keys(key, size, axis_name)  # noqa: E731
        z, _ = encoded(outer, state.params["vae"], each(for_z), x)
        seen = {"x": z, "t": even_times(for_time, size, axis_name)}

        def means(terms):
            means = {name: term.mean() for name, term in terms.items()}
            return means.pop("loss"), means

        params, opt_state, metrics = {}, {}, {}
        for part, loss in (
            ("vae", lambda params: means(elbo_loss(params, each(for_vae), x))),
            ("prior", lambda params: means(prior_loss(params, each(for_prior), seen))),
        ):
            now = state.params[part], state.opt_state[part]
            params[part], opt_state[part], value, aux = player(loss, *now, tx[part], axis_name)
            metrics |= {f"{part}_loss": value, **aux}
        total = parallel.total(size, axis_name)
        ema = ema_update(state.ema, params, state.step, total, cfg.ema_halflife)
        metrics["loss"] = metrics["vae_loss"]
        return State(state.step + 1, params, opt_state, ema), metrics

    def as_prior(state):  # what the diffusion model's own sample and log_prob look at
        return algorithms.State(state.step, state.averaged["prior"], None, None)

    def sample(state, key, n, cond=None):
        if cond is not None:
            raise ValueError("this latent diffusion model is unconditional: call sample with cond=None")
        return trace(state, key, n, 1)[-1]

    def trace(state, key, n, frames):
        """The decoder's view of what the diffusion model believes the latents are."""
        for_z, for_x = jax.random.split(key)
        z = latent.trace(as_prior(state), for_z, n, frames)
        keys = parallel.example_keys(for_x, n)
        return jax.lax.map(lambda z: vae.draw(outer, state.averaged["vae"], keys, z), z)

    def log_prob(state, batch, key) -> LogProb:
        params, x = state.averaged, batch[name]

        def one(k):
            for_z, for_bound = jax.random.split(jax.random.fold_in(key, k))
            z, log_q = encoded(outer, params["vae"], parallel.example_keys(for_z, len(x)), x)
            inside = latent.log_prob(as_prior(state), {"x": z}, for_bound)
            return vae.log_likelihood(outer, params["vae"], x, z) + inside.nats - log_q

        nats = jax.lax.map(one, jnp.arange(cfg.bound_samples))  # [K, B]
        stderr = nats.std(0, ddof=1) / cfg.bound_samples**0.5 if cfg.bound_samples > 1 else None
        return LogProb(nats.mean(0), "lower_bound" if inner.likelihood == "bound" else "estimate", stderr)

    return Algorithm(init, step, sample, log_prob, evaluations=latent.evaluations + 1, trace=trace)
