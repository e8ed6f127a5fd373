"""Every family at a size that compiles in seconds: what the contract, device and resume tests run over."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genmap_jax.approximate import diffusion, ebm, latent_diffusion, vae
from genmap_jax.implicit import gan, score
from genmap_jax.optim import Optim
from genmap_jax.tractable import gpt

BATCH = 16
SGD = Optim(name="sgd", lr=1e-2, clip=0.0)  # Adam turns rounding of near-zero gradients into steps of size lr


def perturbed(cfg: gpt.Config, scale: float = 0.3, seed: int = 0):
    """Random parameters far from initialisation, where all logits are nearly equal and hide mistakes."""
    params = jax.eval_shape(gpt.algorithm(cfg, batch_size=1).init, jax.random.key(0)).params
    rng = np.random.default_rng(seed)
    draw = lambda path, p: (path[-1].key == "scale") + scale * rng.standard_normal(p.shape)  # noqa: E731
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), jax.tree.map_with_path(draw, params))


@dataclasses.dataclass(frozen=True)
class Case:
    algorithm: Callable
    config: Any
    kind: str | None  # of log_prob

    def build(self, axis_name: str | None = None, **changes):
        config = dataclasses.replace(self.config, **changes)
        return self.algorithm(config, batch_size=BATCH, axis_name=axis_name)

    def batch(self, seed: int = 0) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        if getattr(self.config, "shape", None) is None:
            return {"tokens": rng.integers(0, self.config.vocab, (BATCH, self.config.length)).astype(np.int32)}
        if len(self.config.shape) == 1:
            return {"x": rng.normal(size=(BATCH, *self.config.shape)).astype(np.float32)}
        images = rng.integers(0, self.config.levels, (BATCH, *self.config.shape)).astype(np.uint8)
        return {"image": images, "label": rng.integers(0, 10, BATCH).astype(np.int32)}


IMAGE = {"shape": (8, 8, 1), "levels": 17}
EBM = {"width": 16, "depth": 1, "chain_steps": 2, "sample_steps": 3, "ais_chains": 8, "ais_temperatures": 5}
DIFFUSION = {"width": 16, "blocks": 1, "sample_steps": 4, "bound_draws": 4}
SCORE = {"width": 16, "blocks": 1, "sample_steps": 4, "tol": 1e-2}

FAMILIES = {
    "gpt": Case(gpt.algorithm, gpt.Config(vocab=11, length=8, layers=1, heads=2, width=16, ema_halflife=50.0), "exact"),
    "gpt_images": Case(
        gpt.algorithm, gpt.Config(vocab=17, length=64, shape=(8, 8, 1), layers=1, heads=2, width=16), "exact"
    ),
    "gpt_labels": Case(
        gpt.algorithm,
        gpt.Config(
            **{"vocab": 17, "length": 64, "shape": (8, 8, 1), "classes": 10},
            **{"layers": 2, "heads": 2, "kv_heads": 1, "width": 16, "scan": True, "remat": "full", "accumulate": 2},
            **gpt.QWEN2,
        ),
        "exact",
    ),
    "vae": Case(
        vae.algorithm,
        vae.Config(**IMAGE, latent=3, hidden=(16,), importance_samples=4, ema_halflife=50.0),
        "lower_bound",
    ),
    "vae_vectors": Case(
        vae.algorithm, vae.Config(shape=(3,), latent=2, hidden=(8,), importance_samples=4), "lower_bound"
    ),
    "ebm": Case(ebm.algorithm, ebm.Config(**IMAGE, **EBM, ema_halflife=50.0), "estimate"),
    "ebm_vectors": Case(ebm.algorithm, ebm.Config(shape=(3,), **EBM), "estimate"),
    "diffusion": Case(
        diffusion.algorithm,
        diffusion.Config(
            **IMAGE, **DIFFUSION, classes=10, schedule="learned", fourier=(2,), ema_halflife=50.0, power_ema=(0.1,)
        ),
        "lower_bound",
    ),
    "diffusion_guided": Case(
        diffusion.algorithm,
        diffusion.Config(**IMAGE, **DIFFUSION, **diffusion.EDM2, classes=10, guidance=2.0, likelihood="ode", tol=1e-2),
        "estimate",
    ),
    "diffusion_vectors": Case(
        diffusion.algorithm,
        diffusion.Config(shape=(3,), **DIFFUSION, **diffusion.FLOW_MATCHING, bound_steps=5),
        "lower_bound",
    ),
    "latent_diffusion": Case(
        latent_diffusion.algorithm,
        latent_diffusion.Config(
            **IMAGE,
            autoencoder=vae.Config(shape=(0,), latent=3, hidden=(16,)),
            prior=diffusion.Config(shape=(0,), **DIFFUSION, **diffusion.EDM),
            bound_samples=2,
            ema_halflife=50.0,
        ),
        "lower_bound",
    ),
    "score": Case(score.algorithm, score.Config(**IMAGE, **SCORE, ema_halflife=50.0), "estimate"),
    "score_vectors": Case(score.algorithm, score.Config(shape=(3,), **SCORE, trace="exact"), "estimate"),
    "gan": Case(gan.algorithm, gan.Config(**IMAGE, latent=4, width=16, depth=1, ema_halflife=50.0, accumulate=2), None),
    "cgan": Case(  # with every field of the state
        gan.algorithm,
        gan.Config(
            **IMAGE,
            **{"classes": 10, "network": "dcgan", "latent": 4, "width": 16, "depth": 1, "ema_halflife": 50.0},
            **{"condition_g": "batch_norm", "spectral_norm": True, "loss": "hinge", "r1": 0.0, "r2": 0.0, "lecam": 0.1},
            **{"augment": ("translation",), "ada_target": 0.6, "ada_ramp": 500},
        ),
        None,
    ),
    "gan_vectors": Case(gan.algorithm, gan.Config(shape=(3,), latent=4, width=16, depth=1), None),
}
