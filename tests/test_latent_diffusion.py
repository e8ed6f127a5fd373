"""Latent diffusion: its bound against the VAE's, whose prior is one a fresh diffusion model has exactly."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genmap_jax.approximate import diffusion, latent_diffusion, vae
from genmap_jax.optim import Optim
from genmap_jax.spaces import vectors

AUTOENCODER = vae.Config(vectors(3), latent=2, hidden=(16,), scale="global", importance_samples=1)
PRIOR = diffusion.Config(vectors(2), **diffusion.EDM, log_snr_max=9.0, log_snr_min=-9.0, width=16, blocks=1)


@pytest.mark.slow
def test_a_fresh_prior_gives_the_elbo():
    """F = 0 is the exact denoiser of N(0, I), so the bound is the ELBO: means within 4 s.e. and 0.02 nats."""
    n = 1000
    cfg = latent_diffusion.Config(vectors(3), autoencoder=AUTOENCODER, prior=PRIOR, bound_samples=16)
    algorithm = latent_diffusion.algorithm(cfg, batch_size=n)
    batch = {"x": np.random.default_rng(0).standard_normal((n, 3)).astype(np.float32)}
    state = jax.jit(algorithm.init)(jax.random.key(0), batch)
    ours = jax.jit(algorithm.log_prob)(state, batch, jax.random.key(1))
    outer, _ = latent_diffusion.parts(cfg)
    keys = jax.random.split(jax.random.key(2), n)
    recon, kl = jax.jit(lambda p, x: vae.elbo_terms(outer, p, keys, x))(state.params["vae"], batch["x"])
    difference = np.asarray(ours.nats - (recon - kl))
    assert difference.std() < 10.0, "a bound of small variance, whatever schedule trains"
    assert abs(difference.mean()) < 4 * difference.std() / n**0.5 + 0.02
    assert ours.kind == "lower_bound" and ours.stderr.shape == (n,)


@pytest.mark.slow
def test_both_parts_learn():
    """Two distant clusters under a stiff VAE leave latents that are not normal: the bound gains over the ELBO."""
    cfg = latent_diffusion.Config(
        vectors(2),
        autoencoder=AUTOENCODER,
        prior=PRIOR,
        optim=Optim(lr=5e-3),
        prior_optim=Optim(lr=5e-3),
        bound_samples=4,
    )
    algorithm = latent_diffusion.algorithm(cfg, batch_size=256)
    step = jax.jit(algorithm.step, donate_argnums=0)
    rng = np.random.default_rng(0)
    draw = lambda n: (3 * rng.choice([-1.0, 1.0], (n, 1)) + 0.1 * rng.standard_normal((n, 2))).astype(np.float32)  # noqa: E731
    state = jax.jit(algorithm.init)(jax.random.key(0), {"x": draw(256)})
    for i in range(400):
        state, metrics = step(state, {"x": draw(256)}, jax.random.key(i))
    x = draw(512)
    outer, _ = latent_diffusion.parts(cfg)
    alone = vae.algorithm(outer, batch_size=1)
    elbo = alone.log_prob(state.replace(params=state.params["vae"], ema=None), {"x": x}, jax.random.key(0)).nats.mean()
    ours = jax.jit(algorithm.log_prob)(state, {"x": x}, jax.random.key(0)).nats.mean()
    assert ours > elbo + 0.1


@pytest.mark.parametrize("antithetic", [True, False])
def test_the_prior_is_trained_at_the_times_it_asks_for(antithetic, monkeypatch):
    """Evenly spaced over the batch of n, so that exp(2 pi i n t) is the same for all, or independent."""
    n, loss = 64, diffusion.training_loss

    def watched(cfg):
        def terms(params, keys, batch):
            phase = 2.0 * jnp.pi * n * batch["t"]
            return loss(cfg)(params, keys, batch) | {"cos": jnp.cos(phase), "sin": jnp.sin(phase)}

        return terms

    monkeypatch.setattr(diffusion, "training_loss", watched)
    prior = dataclasses.replace(PRIOR, antithetic=antithetic)
    cfg = latent_diffusion.Config(vectors(3), autoencoder=AUTOENCODER, prior=prior)
    algorithm = latent_diffusion.algorithm(cfg, batch_size=n)
    batch = {"x": np.zeros((n, 3), np.float32)}
    state = jax.jit(algorithm.init)(jax.random.key(0), batch)
    _, metrics = jax.jit(algorithm.step)(state, batch, jax.random.key(1))
    assert (np.hypot(metrics["cos"], metrics["sin"]) > 0.99) == antithetic


def test_bad_parts_are_refused():
    bad = latent_diffusion.Config(vectors(3), autoencoder=AUTOENCODER, prior=diffusion.Config(vectors(2), eta=2.0))
    with pytest.raises(ValueError, match="eta="):
        latent_diffusion.algorithm(bad, batch_size=2)
    bad = latent_diffusion.Config(vectors(3), prior=diffusion.Config(vectors(2), power_ema=(0.1,)))
    with pytest.raises(ValueError, match="prior.power_ema"):
        latent_diffusion.algorithm(bad, batch_size=2)
    bad = latent_diffusion.Config(vectors(3), prior=diffusion.Config(vectors(2), classes=3))
    with pytest.raises(ValueError, match="prior.classes=3"):
        latent_diffusion.algorithm(bad, batch_size=2)
    with pytest.raises(ValueError, match="^bound_samples="):
        latent_diffusion.algorithm(latent_diffusion.Config(vectors(3), bound_samples=0), batch_size=2)
