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

import flax.struct
import jax
import jax.numpy as jnp
import optax

from genmap_jax import algorithm as algorithms
from genmap_jax import parallel
from genmap_jax.algorithm import (
    Algorithm,
    Array,
    Batch,
    Cond,
    Family,
    Key,
    LogProb,
    Metrics,
    Params,
    averaged,
    check_cond,
    ema_update,
    mean_terms,
    player,
)
from genmap_jax.approximate import diffusion, vae
from genmap_jax.keys import example_keys, normal
from genmap_jax.objectives import elbo
from genmap_jax.optim import Optim, optimizer
from genmap_jax.options import Count, Positive, check_options
from genmap_jax.spaces import Space, images, vectors


@dataclasses.dataclass(frozen=True)
class Config:
    """The two models, and how they are optimised together."""

    space: Space
    """The space of one example: images or vectors."""
    autoencoder: vae.Config = vae.Config(images(32, 32, 1))
    """The VAE. Its space becomes the one above; its optimizer, average and samples of the bound those below."""
    prior: diffusion.Config = diffusion.Config(vectors(16), **diffusion.EDM)
    """The diffusion model. Its space becomes that of the VAE's latent, its optimizer and average those below."""
    bound_samples: Count = 16
    """Draws of z averaged per example in log_prob."""
    optim: Optim = Optim()
    """The optimizer of the VAE."""
    prior_optim: Optim = Optim()
    """The optimizer of the diffusion model."""
    ema_halflife: Positive | None = None
    """The half-life of the parameters' average, in examples; None evaluates the last parameters."""


@flax.struct.dataclass
class State:
    """The state of both models, in dicts of "vae" and "prior"."""

    step: Array
    params: dict[str, Params]
    opt_state: dict[str, optax.OptState]
    ema: dict[str, Params] | None


def parts(cfg: Config) -> tuple[vae.Config, diffusion.Config]:
    """The two configurations, completed."""
    return (
        dataclasses.replace(cfg.autoencoder, space=cfg.space),
        dataclasses.replace(cfg.prior, space=vectors(cfg.autoencoder.latent)),
    )


def encoded(cfg: vae.Config, params: Params, keys: Array, x: Array) -> tuple[Array, Array]:
    """z ~ q(z | x) and log q(z | x) in nats. keys [B], x [B, *shape] -> [B, Z], [B]."""
    mu, logvar = vae.encode(cfg, params, x)
    noise = normal(keys, mu.shape[1:])
    return mu + jnp.exp(0.5 * logvar) * noise, (jax.scipy.stats.norm.logpdf(noise) - 0.5 * logvar).sum(-1)


def check(cfg: Config) -> None:
    """Raise one ValueError that names the field and the fix, beside what the two families check of their parts."""
    cfg.space.check()
    check_options(cfg)
    if cfg.prior.classes is not None:
        raise ValueError(f"prior.classes={cfg.prior.classes}: this model reads no labels; leave it out")
    if cfg.prior.power_ema:
        raise ValueError(f"prior.power_ema={cfg.prior.power_ema} is not tracked here: leave it empty")


def algorithm(cfg: Config, *, batch_size: int, axis_name: str | None = None) -> Algorithm:
    """Bind both to their optimizers. Raises ValueError on a configuration that cannot work."""
    check(cfg)
    outer, inner = parts(cfg)
    alone, latent = (family.algorithm(c, batch_size=batch_size) for family, c in ((vae, outer), (diffusion, inner)))
    tx = {"vae": optimizer(cfg.optim, batch_size), "prior": optimizer(cfg.prior_optim, batch_size)}
    name, reads = cfg.space.field, {cfg.space.field: cfg.space}
    elbo_loss = elbo.negative_elbo(
        lambda params, keys, batch: vae.elbo_terms(outer, params, keys, batch[name]), cfg.space.dims, outer.beta
    )
    prior_loss = diffusion.training_loss(inner)

    def init(key: Key, batch: Batch) -> State:
        for_vae, for_prior = jax.random.split(key)
        z = {inner.space.field: inner.space.zeros(1)}
        params = {"vae": alone.init(for_vae, batch).params, "prior": latent.init(for_prior, z).params}
        opt_state = {part: tx[part].init(params[part]) for part in tx}
        ema = None if cfg.ema_halflife is None else jax.tree.map(jnp.copy, params)
        return State(jnp.zeros((), jnp.int32), params, opt_state, ema)

    def step(state: State, batch: Batch, key: Key):
        x, size = batch[name], len(batch[name])
        for_time, for_vae, for_z, for_prior = jax.random.split(key, 4)
        each = lambda key: example_keys(key, size, axis_name)  # noqa: E731
        z, _ = encoded(outer, state.params["vae"], each(for_z), x)
        latents = {inner.space.field: z, "t": diffusion.training_times(inner, for_time, size, axis_name)}

        params, opt_state = {}, {}
        metrics: Metrics = {}
        for part, loss, examples, accumulate in (
            ("vae", elbo_loss, (each(for_vae), batch), outer.accumulate),
            ("prior", prior_loss, (each(for_prior), latents), inner.accumulate),
        ):
            now = state.params[part], state.opt_state[part]
            mean_loss = lambda params, keys, batch, loss=loss: mean_terms(loss(params, keys, batch))  # noqa: E731
            params[part], opt_state[part], value, aux = player(
                mean_loss, *now, tx[part], axis_name, examples, accumulate
            )
            metrics |= {f"{part}_loss": value, **aux}
        total = parallel.total(size, axis_name)
        ema = ema_update(state.ema, params, state.step, total, cfg.ema_halflife)
        metrics["loss"] = metrics["vae_loss"]
        return State(state.step + 1, params, opt_state, ema), metrics

    def as_prior(state: State) -> algorithms.State:
        """What the diffusion model's own sample and log_prob look at."""
        return algorithms.State(state.step, averaged(state)["prior"], None, None)

    def sample(state: State, key: Key, n: int, cond: Cond | None = None) -> Array:
        check_cond(reads, n, cond)
        for_z, for_x = jax.random.split(key)
        z = latent.sample(as_prior(state), for_z, n, None)
        return vae.draw(outer, averaged(state)["vae"], example_keys(for_x, n), z)

    def trajectory(state: State, key: Key, n: int, cond: Cond | None, frames: int) -> Array:
        """What the decoder makes of the latents that the diffusion model believes in, from the first noise on."""
        check_cond(reads, n, cond)
        for_z, for_x = jax.random.split(key)
        z, keys = latent.trajectory(as_prior(state), for_z, n, None, frames), example_keys(for_x, n)
        # The decoder's noise is the same in every frame, on purpose.
        return jax.lax.map(lambda z: vae.draw(outer, averaged(state)["vae"], jax.random.clone(keys), z), z)

    def log_prob(state: State, batch: Batch, key: Key) -> LogProb:
        params, x, exact = averaged(state), batch[name], dataclasses.replace(outer, dtype="float32")

        def one(k):
            for_z, for_bound = jax.random.split(jax.random.fold_in(key, k))
            z, log_q = encoded(exact, params["vae"], example_keys(for_z, len(x)), x)
            inside = latent.log_prob(as_prior(state), {inner.space.field: z}, for_bound)
            return vae.log_likelihood(exact, params["vae"], x, z) + inside.nats - log_q

        nats = jax.lax.map(one, jnp.arange(cfg.bound_samples))  # [K, B]
        stderr = nats.std(0, ddof=1) / cfg.bound_samples**0.5 if cfg.bound_samples > 1 else None
        return LogProb(nats.mean(0), "lower_bound" if inner.likelihood == "bound" else "estimate", stderr)

    return Algorithm(
        reads=reads,
        init=init,
        step=step,
        sample=sample,
        log_prob=log_prob,
        evaluations=latent.evaluations and latent.evaluations + 1,
        trajectory=latent.trajectory and trajectory,
    )


FAMILY = Family(
    name="Latent diffusion",
    continent="approximate",
    objective="ELBO + weighted denoising",
    citation="Rombach et al. 2022, https://arxiv.org/abs/2112.10752",
    algorithm=algorithm,
    sampling=("bound_samples", *(f"prior.{name}" for name in diffusion.FAMILY.sampling if "guidance" not in name)),
)
