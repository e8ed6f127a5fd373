"""Every family at a size that compiles in seconds: what the contract, device and resume tests run over."""

import dataclasses
from collections.abc import Iterable
from typing import Any, Literal, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np
from variants import chosen

from genmap_jax.algorithm import Algorithm, Cond, Family, conditions, like_batch
from genmap_jax.approximate import diffusion, ebm, latent_diffusion, vae
from genmap_jax.implicit import biggan, cyclegan, gan, score, stylegan
from genmap_jax.optim import Optim
from genmap_jax.run import config as configs
from genmap_jax.spaces import Space, images, vectors
from genmap_jax.tractable import gpt, pixelcnn
from genmap_jax.tractable.flow import continuous, glow, spline, tarflow

BATCH = 16
SGD = Optim(name="sgd", lr=1e-2, clip=0.0)  # Adam turns rounding of near-zero gradients into steps of size lr


def perturbed(cfg: gpt.Config, scale: float = 0.3, seed: int = 0):
    """Random parameters far from initialisation, where all logits are nearly equal and hide mistakes."""
    algorithm = gpt.algorithm(cfg, batch_size=1)
    params = jax.eval_shape(algorithm.init, jax.random.key(0), like_batch(algorithm.reads, 1)).params
    rng = np.random.default_rng(seed)
    draw = lambda path, p: (path[-1].key == "scale") + scale * rng.standard_normal(p.shape)  # noqa: E731
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), jax.tree.map_with_path(draw, params))


def random_examples(space: Space, n: int, rng: np.random.Generator) -> np.ndarray:
    """n examples of a space, as a batch holds them: uniform integers or standard normal numbers."""
    shape, dtype = (n, *space.shape), np.dtype(space.dtype)
    return (rng.normal(size=shape) if space.levels is None else rng.integers(0, space.levels, shape)).astype(dtype)


@dataclasses.dataclass(frozen=True)
class Case:
    """A family in one configuration.

    kind: of what log_prob returns; None without a density.
    resampled: for fields of `Family.sampling` whose next value is not obvious, another legal one.
    """

    family: Family
    config: Any
    kind: str | None
    resampled: dict[str, Any] = dataclasses.field(default_factory=dict)

    def build(self, axis_name: str | None = None, **changes) -> Algorithm:
        config = dataclasses.replace(self.config, **changes)
        return self.family.algorithm(config, batch_size=BATCH, axis_name=axis_name)

    def batch(self, seed: int = 0, n: int = BATCH) -> dict[str, np.ndarray]:
        """Random examples of everything that the family reads."""
        rng = np.random.default_rng(seed)
        return {name: random_examples(space, n, rng) for name, space in self.build().reads.items()}

    def cond(self, n: int) -> Cond | None:
        """Conditions of n samples."""
        return conditions(self.build().reads, self.batch(seed=7, n=n))

    def sampled_otherwise(self) -> Any:
        """The configuration with another legal value in every field of `Family.sampling`."""
        changes = {}
        for path in self.family.sampling:
            owner, _, name = path.rpartition(".")
            owner = configs.value_at(self.config, owner) if owner else self.config
            types = {field.name: field.type for field in dataclasses.fields(owner)}
            changes[path] = self.resampled.get(path) or other_value(types[name], getattr(owner, name))
        return configs.replace(self.config, changes)


def other_value(kind: Any, value: Any) -> Any:
    """A value of the same type that is not this one."""
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        return choices[(choices.index(value) + 1) % len(choices)]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return 0.5 * value + 0.1
    raise TypeError(f"no other value of {value!r}: name one in `resampled`")


DECODING = {"top_k": 5, "top_p": 0.9, "min_p": 0.05, "stop": 3}  # in place of None
DENOISING = {"sample_schedule": "linear", "guidance_interval": (0.1, 10.0), "bound_steps": 7}
DIGITS = images(8, 8, 1, levels=17)
EBM = {"width": 16, "depth": 1, "chain_steps": 2, "sample_steps": 3, "ais_chains": 8, "ais_temperatures": 5}
DIFFUSION = {"width": 16, "blocks": 1, "sample_steps": 4, "bound_draws": 4}
SCORE = {"width": 16, "blocks": 1, "sample_steps": 4, "tol": 1e-2}
GAN = {"latent": 4, "width": 16, "depth": 1}
STYLEGAN = {"latent": 8, "mapping_depth": 2, "channels": 8, "capacity": 64, "label_depth": 2, "r1": 1.0}

FAMILIES = {
    "gpt": Case(
        gpt.FAMILY, gpt.Config(vocab=11, length=8, layers=1, heads=2, width=16, ema_halflife=50.0), "exact", DECODING
    ),
    "gpt_images": Case(
        gpt.FAMILY, gpt.Config(vocab=17, length=64, shape=(8, 8, 1), layers=1, heads=2, width=16), "exact", DECODING
    ),
    "gpt_labels": Case(
        gpt.FAMILY,
        gpt.Config(
            **{"vocab": 17, "length": 64, "shape": (8, 8, 1), "classes": 10},
            **{"layers": 2, "heads": 2, "kv_heads": 1, "width": 16, "scan": True, "remat": "full", "accumulate": 2},
            **gpt.QWEN2,
        ),
        "exact",
        DECODING,
    ),
    "pixelcnn": Case(
        pixelcnn.FAMILY,
        pixelcnn.Config(
            **{"space": DIGITS, "filters": 8, "blocks": 1, "scales": 2, "mixtures": 2, "classes": 10},
            **{"label_drop": 0.1, "remat": True, "ema_halflife": 50.0},
        ),
        "exact",
    ),
    "spline_flow": Case(
        spline.FAMILY, spline.Config(space=vectors(3), layers=2, width=8, blocks=1, bins=4, classes=10), "exact"
    ),
    "glow": Case(
        glow.FAMILY,
        glow.Config(
            **{"space": DIGITS, "levels": 2, "depth": 1, "width": 8, "dequantisation": "variational", "draws": 2},
            **{"noise_depth": 1, "classes": 10, "logit": 0.05, "reversible": True, "ema_halflife": 50.0},
        ),
        "lower_bound",
    ),
    "tarflow": Case(
        tarflow.FAMILY,
        tarflow.Config(
            **{"space": DIGITS, "patch": 4, "flows": 2, "layers": 2, "width": 16, "classes": 10, "noise_std": 0.1},
            **{"draws": 2, "group": 2, "remat": True, "scan": True},
        ),
        "lower_bound",
    ),
    "continuous_flow": Case(
        continuous.FAMILY,
        continuous.Config(space=vectors(3), width=8, blocks=1, steps=4, kinetic=0.01, classes=10),
        "estimate",
    ),
    "vae": Case(
        vae.FAMILY,
        vae.Config(space=DIGITS, latent=3, hidden=(16,), importance_samples=4, ema_halflife=50.0),
        "lower_bound",
    ),
    "vae_vectors": Case(
        vae.FAMILY, vae.Config(space=vectors(3), latent=2, hidden=(8,), importance_samples=4), "lower_bound"
    ),
    "ebm": Case(ebm.FAMILY, ebm.Config(space=DIGITS, **EBM, accumulate=2, ema_halflife=50.0), "estimate"),
    "ebm_vectors": Case(ebm.FAMILY, ebm.Config(space=vectors(3), **EBM), "estimate"),
    "diffusion": Case(
        diffusion.FAMILY,
        diffusion.Config(
            **{"space": DIGITS, **DIFFUSION, "classes": 10, "schedule": "learned", "fourier": (2,)},
            **{"ema_halflife": 50.0, "power_ema": (0.1,), "remat": True},
        ),
        "lower_bound",
        DENOISING,
    ),
    "diffusion_guided": Case(
        diffusion.FAMILY,
        diffusion.Config(
            **{"space": DIGITS, **DIFFUSION, **diffusion.EDM2},
            **{"classes": 10, "guidance": 2.0, "likelihood": "ode", "tol": 1e-2},
        ),
        "estimate",
        DENOISING,
    ),
    "diffusion_vectors": Case(
        diffusion.FAMILY,
        diffusion.Config(space=vectors(3), **DIFFUSION, **diffusion.FLOW_MATCHING, bound_steps=5),
        "lower_bound",
        DENOISING | {"guidance": 1.0},  # there is nothing to guide
    ),
    "latent_diffusion": Case(
        latent_diffusion.FAMILY,
        latent_diffusion.Config(
            space=DIGITS,
            autoencoder=vae.Config(space=vectors(1), latent=3, hidden=(16,)),
            prior=diffusion.Config(space=vectors(1), **DIFFUSION, **diffusion.EDM),
            bound_samples=2,
            ema_halflife=50.0,
        ),
        "lower_bound",
        {f"prior.{name}": value for name, value in DENOISING.items()},
    ),
    "score": Case(score.FAMILY, score.Config(space=DIGITS, **SCORE, ema_halflife=50.0), "estimate"),
    "score_vectors": Case(score.FAMILY, score.Config(space=vectors(3), **SCORE, divergence="exact"), "estimate"),
    "gan": Case(gan.FAMILY, gan.Config(space=DIGITS, **GAN, ema_halflife=50.0, accumulate=2), None),
    "cgan": Case(  # with every field of the state
        gan.CONDITIONAL,
        gan.Config(
            **{"space": DIGITS, **GAN, "classes": 10, "network": "dcgan", "ema_halflife": 50.0},
            **{"condition_g": "batch_norm", "spectral_norm": True, "loss": "hinge", "r1": 0.0, "r2": 0.0, "lecam": 0.1},
            **{"augment": ("translation",), "ada_target": 0.6, "ada_ramp": 500},
        ),
        None,
    ),
    "gan_vectors": Case(gan.FAMILY, gan.Config(space=vectors(3), **GAN), None),
    "stylegan": Case(  # ten steps cut after the fifth have both lazy penalties on both sides
        stylegan.FAMILY,
        stylegan.Config(
            **{"space": DIGITS, "classes": 10, **STYLEGAN, "r1_every": 3, "path_every": 2, "ema_halflife": 50.0},
            **{"remat": True},
            **{"augment": ("integer_translation",), "ada_target": 0.6, "ada_ramp": 500},
        ),
        None,
        {"truncation_layers": 2},
    ),
    "biggan": Case(
        biggan.FAMILY,
        biggan.Config(
            **{"space": DIGITS, "classes": 10, "latent": 6, "width": 4, "channels": (2, 2, 1), "attention": 4},
            **{"embedding": 5, "ema_halflife": 50.0, "remat": True},
        ),
        None,
        {"truncation": 1.0},
    ),
    "cyclegan": Case(  # in five steps the pools are half full; the smallest of its networks
        cyclegan.FAMILY,
        cyclegan.Config(
            **{"space": DIGITS, "generator": "unet", "depth": 2, "width": 4, "patch_layers": 1, "init_std": 0.2},
            **{"pool": 8, "dither": True, "ema_halflife": 50.0},
        ),
        None,
    ),
}

# One configuration for each kind of state, step and density; the others are slow tests.
QUICK = ("gpt", "vae", "ebm_vectors", "diffusion", "score_vectors", "gan_vectors")


def named(names: Iterable[str] = tuple(FAMILIES)) -> list:
    """Names of families as parameters of a test, those that are not quick marked as slow."""
    return chosen(names, QUICK)
