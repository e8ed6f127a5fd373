"""The players of image translation: networks applied, and what generators and discriminators minimise, per example.

`params_g` holds the generators by direction ("ab" translates A into B) and CUT's "heads", `params_d` a discriminator
for each direction, which judges its target domain. `real` holds a batch: "source" from A and "image" from B,
[B, H, W, C] on the grid from -1 to 1. `keys` [B] are one PRNG key per example.

The discriminators' loss is halved, and the generators' least-squares loss is (D(G(x)) - 1)^2, without the half of
`objectives.adversarial`: to these the papers' weights are relative.
"""

from typing import Any

import jax
import jax.numpy as jnp

from genmap_jax import keys as per_example
from genmap_jax.algorithm import Array, Params
from genmap_jax.implicit.cyclegan.config import Config
from genmap_jax.implicit.cyclegan.networks import Heads, PatchGAN, generator
from genmap_jax.objectives.discriminator import Judge, d_terms, g_terms
from genmap_jax.objectives.patch_contrast import patch_nce, patches, places
from genmap_jax.shapes import expect

DOMAINS = {"ab": ("source", "image"), "ba": ("image", "source")}
"""Direction -> what of a batch it translates, and into what."""
BACK = {"ab": "ba", "ba": "ab"}
SCALES = {"least_squares": (1.0, 2.0), "nonsaturating": (0.5, 1.0)}
"""Adversarial loss -> factors that make D's and G's losses of `objectives.adversarial` those of the papers."""


def translate(cfg: Config, params: Params, x: Array, keys: Array) -> Array:
    """G(x) of one generator. x [B, H, W, C] in [-1, 1] -> the same. keys [B]: of dropout, which a resnet has not."""
    return _generate(cfg, params, x, keys)[0]


def features(cfg: Config, params: Params, x: Array, keys: Array) -> list[Array]:
    """What the layers of one generator that CUT compares make of x. [B, H, W, C] -> [B, h, w, c] of each layer"""
    return _generate(cfg, params, x, keys)[1]


def discriminate(cfg: Config, params: Params, x: Array) -> Array:
    """D(x) of one discriminator, a logit for each patch. [B, H, W, C'] -> [B, h, w], see `networks.PatchGAN`."""
    logits: Any = PatchGAN(cfg).apply({"params": params}, x)
    return logits


def _generate(cfg: Config, params: Params, x: Array, keys: Array) -> tuple[Array, list[Array]]:
    expect((None, *cfg.space.shape), x=x)
    out: Any = generator(cfg).apply({"params": params}, x, keys)
    return out


# ---- what the players minimise ---------------------------------------------------------------------------------------


def translations(
    cfg: Config, params_g: Params, real: dict[str, Array], keys: Array
) -> tuple[dict[str, Array], dict[str, Array]]:
    """What the generators make of a batch, by direction: of their sources, and of images of their target domain.

    The second is empty where there is no identity loss. Both are one call, in one batch, since no example depends on
    another. keys [B]: of dropout.
    """
    fakes, same = {}, {}
    for i, way in enumerate(cfg.directions):
        source, target = (real[name] for name in DOMAINS[way])
        each = per_example.fold(keys, i)
        if not cfg.identity or cfg.objective == "paired":
            fakes[way] = translate(cfg, params_g[way], source, each)
            continue
        # source i beside target i: a batch that is spread over devices stays where it is
        x, noise = jnp.stack([source, target], 1), jax.vmap(jax.random.split)(each)
        made = translate(cfg, params_g[way], x.reshape(-1, *source.shape[1:]), noise.reshape(-1)).reshape(x.shape)
        fakes[way], same[way] = made[:, 0], made[:, 1]
    return fakes, same


def shown(cfg: Config, source: Array, x: Array) -> Array:
    """What a discriminator sees of an image x: with known pairs, beside its source."""
    return jnp.concatenate([source, x], axis=-1) if cfg.objective == "paired" else x


def distance(x: Array, y: Array) -> Array:
    """Mean absolute difference of each example. [B, ...] -> [B]"""
    return jnp.abs(x - y).reshape(len(x), -1).mean(-1)


def contrast(cfg: Config, params_g: Params, x: Array, y: Array, keys: Array) -> Array:
    """CUT's loss of a translation y of x, the mean over layers of features. [B, H, W, C] -> [B]

    Both are seen by the encoder of the generator; `keys` [B] choose the patches.
    """
    of_x, of_y = (features(cfg, params_g["ab"], image, keys) for image in (x, y))
    where = [places(per_example.fold(keys, i), h.shape[1] * h.shape[2], cfg.patches) for i, h in enumerate(of_x)]

    def vectors(layers: list[Array]) -> list[Array]:
        chosen = [patches(h, at) for h, at in zip(layers, where, strict=True)]
        out: Any = Heads(cfg).apply({"params": params_g["heads"]}, chosen)
        return out

    pairs = zip(vectors(of_y), vectors(of_x), strict=True)
    return jnp.stack([patch_nce(query, target, cfg.temperature) for query, target in pairs]).mean(0)


def generator_terms(
    cfg: Config, params_g: Params, params_d: Params, real: dict[str, Array], noise: Array, keys: Array
) -> dict[str, Array]:
    """What the generators minimise ("loss") and its parts by direction, each [B].

    noise [B]: the keys of `translations`. keys [B]: of all other draws.
    """
    fakes, same = translations(cfg, params_g, real, noise)
    terms = {"loss": jnp.zeros(len(keys))}

    def add(name: str, weight: float, term: Array) -> None:
        terms[name] = term
        terms["loss"] = terms["loss"] + weight * term

    for i, way in enumerate(cfg.directions):
        key_d, key_back, key_x, key_y = per_example.split(per_example.fold(keys, i), 4)
        source, target = (real[name] for name in DOMAINS[way])
        fake, judge = fakes[way], _judge(cfg, params_d[way])
        game = g_terms(cfg.loss, judge, shown(cfg, source, target), shown(cfg, source, fake), key_d)
        add(f"adversarial_{way}", 1.0, SCALES[cfg.loss][1] * game["loss"])
        if cfg.objective == "paired":
            add(f"l1_{way}", cfg.l1, distance(fake, target))
            continue
        weight = cfg.cycle if cfg.objective == "cycle" else cfg.contrastive / (1.0 + cfg.identity)
        if cfg.objective == "cycle":
            back = translate(cfg, params_g[BACK[way]], fake, key_back)
            add(f"cycle_{way}", weight, distance(back, source))
        else:
            add(f"contrastive_{way}", weight, contrast(cfg, params_g, source, fake, key_x))
        if way in same:
            y = same[way]
            kept = distance(y, target) if cfg.objective == "cycle" else contrast(cfg, params_g, target, y, key_y)
            add(f"identity_{way}", weight * cfg.identity, kept)
    return terms


def discriminator_terms(
    cfg: Config, params_d: Params, real: dict[str, Array], seen: dict[str, Array], keys: Array
) -> dict[str, Array]:
    """What the discriminators minimise ("loss") and its parts by direction, each [B].

    seen: by direction, what D is shown of translations.
    """
    terms = {"loss": jnp.zeros(len(keys))}
    for i, way in enumerate(cfg.directions):
        source, target = (real[name] for name in DOMAINS[way])
        judge, key = _judge(cfg, params_d[way]), per_example.fold(keys, i)
        game = d_terms(cfg.loss, judge, shown(cfg, source, target), seen[way], key)
        terms["loss"] = terms["loss"] + SCALES[cfg.loss][0] * game["loss"]
        terms |= {f"{name}_{way}": game[name] for name in ("loss_d", "logit_real", "logit_fake")}
    return terms


def _judge(cfg: Config, params: Params) -> Judge:
    """A discriminator as both players use it, which sees each image with noise of its own."""

    def at(x: Array, keys: Array) -> tuple[Array, None]:
        if cfg.dither:
            cell = 2.0 / (cfg.space.grey_levels - 1)
            x = x + cell * (per_example.uniform(keys, x.shape[1:]) - 0.5)
        return discriminate(cfg, params, x), None

    return at
