"""Translation of images: networks of the papers' size and field of view, losses in closed form, PatchNCE, sampling."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from variants import chosen

from genmap_jax.algorithm import like_batch, mean_terms
from genmap_jax.implicit import cyclegan
from genmap_jax.implicit.cyclegan import networks, players
from genmap_jax.keys import example_keys, split
from genmap_jax.objectives import patch_contrast
from genmap_jax.optim import Optim, schedule
from genmap_jax.spaces import images, vectors

KEYS = example_keys(jax.random.key(0), 4)
TINY = cyclegan.Config(images(8, 8, 1, 17), width=4, blocks=1, patch_layers=1, patches=8, embedding=8, pool=3)
CUT = dataclasses.replace(TINY, **cyclegan.CUT)
PIX2PIX = dataclasses.replace(TINY, **cyclegan.PIX2PIX, depth=3)


def size(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


def shapes(cfg, batch=1):
    algorithm = cyclegan.algorithm(cfg, batch_size=batch)
    return jax.eval_shape(algorithm.init, jax.random.key(0), like_batch(algorithm.reads, batch))


# ---- networks --------------------------------------------------------------------------------------------------------


def test_networks_have_the_papers_parameters():
    """CycleGAN at 256 x 256: 11.378 and 2.765 million."""
    state = shapes(cyclegan.Config(images(256, 256, 3)))
    assert {way: size(params) for way, params in state.params_g.items()} == {"ab": 11_378_179, "ba": 11_378_179}
    assert {way: size(params) for way, params in state.params_d.items()} == {"ab": 2_764_737, "ba": 2_764_737}


@pytest.mark.parametrize(
    ("layers", "field"), chosen([(1, 16), (2, 34), (3, 70), (4, 142), (5, 286)], [(1, 16), (3, 70)])
)
def test_patches_have_the_papers_field_of_view(layers, field, monkeypatch):
    """The pixels on which a logit in the middle depends, without normalisation, which sees all: exactly."""
    monkeypatch.setattr(networks, "instance_norm", lambda x: x)
    side = 2**layers * (-(-field // 2**layers) + 6)
    cfg = cyclegan.Config(images(side, side, 1), width=1, patch_layers=layers)
    x = jnp.ones((1, side, side, 1))
    params = jax.tree.map(jnp.ones_like, cyclegan.PatchGAN(cfg).init(jax.random.key(0), x)["params"])
    middle = lambda x: players.discriminate(cfg, params, x)[0, side // 2**layers // 2, side // 2**layers // 2]  # noqa: E731
    rows, columns = np.nonzero(np.asarray(jax.jit(jax.grad(middle))(x))[0, ..., 0])
    assert np.ptp(rows) + 1 == np.ptp(columns) + 1 == field
    assert rows.min() > 0 and rows.max() < side - 1, "the field must lie inside"


def test_instance_norm_is_of_each_channel_of_each_image_alone():
    """As in float64, also around a mean of 100, where a variance as a difference of means errs by 5e-3: 1e-4."""
    x = 100.0 + np.random.default_rng(0).normal(size=(3, 8, 8, 2)).astype(np.float32)
    wide = x.astype(np.float64)
    expected = (wide - wide.mean((1, 2), keepdims=True)) / np.sqrt(wide.var((1, 2), keepdims=True) + 1e-5)
    np.testing.assert_allclose(networks.instance_norm(jnp.asarray(x)), expected, atol=1e-4)


def test_dropout_is_the_noise_of_a_unet_and_each_example_has_its_own():
    """A key decides a translation, whatever the batch around it; without dropout keys do nothing."""
    params, x = shapes(PIX2PIX).params_g["ab"], jnp.ones((4, 8, 8, 1))
    params = jax.tree.map(lambda p: 0.3 * jax.random.normal(jax.random.key(p.size), p.shape), params)
    translate = jax.jit(lambda x, keys: players.translate(PIX2PIX, params, x, keys))
    out = translate(x, KEYS)
    assert len(np.unique(np.asarray(out), axis=0)) == 4
    np.testing.assert_allclose(translate(x[2:], KEYS[2:]), out[2:], atol=1e-5)
    dry = dataclasses.replace(PIX2PIX, dropout=0.0)
    assert len(np.unique(np.asarray(players.translate(dry, params, x, KEYS)).round(5), axis=0)) == 1


# ---- losses ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def affine(monkeypatch):
    """Generators scale and shift, discriminators always say 0.3 (and see as many channels as is right)."""

    def discriminate(cfg, params, x):
        assert x.shape[-1] == (2 if cfg.objective == "paired" else 1) * cfg.space.shape[-1]
        return jnp.full((len(x), 2, 2), params)

    monkeypatch.setattr(players, "translate", lambda cfg, params, x, keys: params[0] * x + params[1])
    monkeypatch.setattr(players, "discriminate", discriminate)


AWAY, HOME = (2.0, 0.1), (0.5, -0.05)
REAL = {"source": jnp.full((4, 8, 8, 1), 0.2), "image": jnp.full((4, 8, 8, 1), -0.4)}


def test_losses_of_the_cycle_in_closed_form(affine):
    """Inverse maps close the cycle, and only the identity keeps what is there: 1e-6.

    Sources are 0.2 and images -0.4: G(x) = 2 x + 0.1 moves images by |-0.4 + 0.1| = 0.3, and F(y) = y / 2 - 0.05 moves
    sources by |-0.1 - 0.05| = 0.15.
    """
    d = {"ab": 0.3, "ba": 0.6}
    terms = players.generator_terms(TINY, {"ab": AWAY, "ba": HOME}, d, REAL, KEYS, KEYS)
    expected = {"adversarial_ab": 0.7**2, "adversarial_ba": 0.4**2, "cycle_ab": 0.0, "cycle_ba": 0.0}
    expected |= {"identity_ab": 0.3, "identity_ba": 0.15, "loss": 0.49 + 0.16 + 5.0 * 0.45}
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(terms[name], jnp.full(4, value), atol=1e-6, err_msg=name)
    same = players.generator_terms(TINY, {"ab": (1.0, 0.0), "ba": (1.0, 0.0)}, d, REAL, KEYS, KEYS)
    assert all((same[name] == 0).all() for name in ("cycle_ab", "cycle_ba", "identity_ab", "identity_ba"))
    # not each other's inverse: F(G(0.2)) = 1.2, G(F(-0.4)) = -0.6 with F(y) = 2 y + 0.2, G = AWAY
    open_ = players.generator_terms(TINY, {"ab": AWAY, "ba": (2.0, 0.2)}, d, REAL, KEYS, KEYS)
    np.testing.assert_allclose(open_["cycle_ab"], 1.0, atol=1e-6)
    np.testing.assert_allclose(open_["cycle_ba"], abs(2 * (2 * -0.4 + 0.2) + 0.1 + 0.4), atol=1e-6)


def test_losses_of_the_discriminators_in_closed_form(affine):
    """((D(y) - 1)^2 + D(G(x))^2) / 2 for each domain, or half of the cross-entropy: 1e-6."""
    seen = {"ab": REAL["source"], "ba": REAL["image"]}
    terms = players.discriminator_terms(TINY, {"ab": 0.3, "ba": 0.6}, REAL, seen, KEYS)
    value = 0.5 * (0.7**2 + 0.3**2) + 0.5 * (0.4**2 + 0.6**2)
    np.testing.assert_allclose(terms["loss"], jnp.full(4, value), atol=1e-6)
    pairs = {"ab": jnp.concatenate([REAL["source"]] * 2, -1)}
    terms = players.discriminator_terms(PIX2PIX, {"ab": 0.3}, REAL, pairs, KEYS)
    softplus = lambda x: math.log1p(math.exp(x))  # noqa: E731
    np.testing.assert_allclose(terms["loss"], jnp.full(4, 0.5 * (softplus(-0.3) + softplus(0.3))), atol=1e-6)


def test_loss_of_known_pairs_in_closed_form(affine):
    """pix2pix: -log sigmoid(D) + 100 |G(x) - y| with G(0.2) = 0.5 and y = -0.4, 1e-5; nothing goes the other way."""
    terms = players.generator_terms(PIX2PIX, {"ab": AWAY}, {"ab": 0.3}, REAL, KEYS, KEYS)
    np.testing.assert_allclose(terms["loss"], jnp.full(4, math.log1p(math.exp(-0.3)) + 100.0 * 0.9), rtol=1e-5)
    assert terms.keys() == {"loss", "adversarial_ab", "l1_ab"}


def test_discriminators_see_noise_within_a_grey_level(monkeypatch):
    """`dither` moves every pixel by less than half a grey level, uniformly, and real ones by other draws than fakes."""
    seen = []
    monkeypatch.setattr(players, "discriminate", lambda cfg, params, x: seen.append(x) or jnp.zeros((len(x), 1, 1)))
    for dither in (True, False):
        cfg = dataclasses.replace(TINY, dither=dither)
        fake = {"ab": REAL["image"], "ba": REAL["source"]}
        players.discriminator_terms(cfg, {"ab": 0.0, "ba": 0.0}, REAL, fake, KEYS)
        real, other = (np.asarray(x - REAL["image"]) * 16 / 2 for x in seen[:2])  # in grey levels
        if not dither:
            assert (real == 0).all() and (other == 0).all()
            assert (seen[2] == REAL["source"]).all(), "that of the way back judges sources"
            continue
        assert 0.45 < np.abs(real).max() <= 0.5 and abs(np.abs(real).mean() - 0.25) < 0.03
        assert (real != other).all() and len(np.unique(real, axis=0)) == 4
        seen.clear()


def test_discriminators_of_pairs_see_the_source():
    """The same translation beside another source has other logits; without pairs there is one image to see."""
    real = {"source": jnp.zeros((4, 8, 8, 1)), "image": jnp.ones((4, 8, 8, 1))}
    seen = players.shown(PIX2PIX, real["source"], real["image"])
    np.testing.assert_array_equal(seen, np.concatenate([real["source"], real["image"]], -1))
    assert players.shown(TINY, real["source"], real["image"]) is real["image"]


# ---- PatchNCE --------------------------------------------------------------------------------------------------------


def test_patch_nce_in_closed_form():
    """Orthogonal patches: log(1 + (P - 1) exp(-1 / t)); equal ones: log P; the wrong order costs 1 / t more. 1e-5."""
    P, t = 6, 0.5
    unit = jnp.broadcast_to(jnp.eye(P)[None], (2, P, P))
    right = math.log1p((P - 1) * math.exp(-1 / t))
    np.testing.assert_allclose(patch_contrast.patch_nce(unit, unit, t), jnp.full(2, right), rtol=1e-5)
    same = jnp.broadcast_to(unit[:, :1], unit.shape)
    np.testing.assert_allclose(patch_contrast.patch_nce(same, same, t), jnp.full(2, math.log(P)), rtol=1e-5)
    wrong = jnp.roll(unit, 1, axis=1)
    np.testing.assert_allclose(patch_contrast.patch_nce(wrong, unit, t), jnp.full(2, right + 1 / t), rtol=1e-5)
    gradient = jax.grad(lambda target: patch_contrast.patch_nce(unit, target, t).sum())(unit)
    assert (gradient == 0).all(), "no gradient reaches the source"


def test_patch_nce_is_a_loop_over_patches():
    """Any vectors, one patch of the translation after another among all of the source: 1e-5."""
    rng = np.random.default_rng(0)
    query, target = (rng.normal(size=(2, 5, 3)).astype(np.float32) for _ in range(2))
    expected = [
        np.mean([np.log(np.exp(v @ z[p] / 0.7).sum()) - v[p] @ z[p] / 0.7 for p in range(5)])
        for z, v in zip(query.astype(np.float64), target.astype(np.float64), strict=True)
    ]
    np.testing.assert_allclose(patch_contrast.patch_nce(query, target, 0.7), expected, rtol=1e-5)


def test_patches_are_different_and_at_the_places_drawn():
    x = jnp.arange(2 * 3 * 4, dtype=jnp.float32).reshape(2, 3, 4, 1)
    where = patch_contrast.places(KEYS[:2], 12, 5)
    assert where.shape == (2, 5) and all(len(np.unique(row)) == 5 for row in np.asarray(where))
    assert (where[0] != where[1]).any(), "each example has places of its own"
    expected = np.asarray(where) + np.array([[0], [12]])
    np.testing.assert_array_equal(patch_contrast.patches(x, where)[..., 0], expected)
    assert patch_contrast.places(KEYS[:2], 3, 256).shape == (2, 3)


@pytest.mark.slow
def test_contrast_holds_patches_to_their_place():
    """An image that stays is told apart better than one whose halves change places; the heads give unit vectors."""
    init = jax.jit(cyclegan.algorithm(CUT, batch_size=4).init)
    params = init(jax.random.key(0), like_zeros(CUT)).params_g
    params = jax.tree.map(lambda p: p * (10.0 if p.ndim > 1 else 1.0), params)
    x = jax.random.uniform(jax.random.key(1), (4, 8, 8, 1), minval=-1.0)
    loss = jax.jit(lambda x, y: cyclegan.contrast(CUT, params, x, y, KEYS))
    assert (loss(x, x) + 0.1 < loss(x, jnp.roll(x, 4, axis=1))).all()
    of_source, of_translation = jax.jit(jax.grad(lambda x, y: loss(x, y).sum(), (0, 1)))(x, jnp.roll(x, 4, axis=1))
    assert (of_source == 0).all() and (of_translation != 0).any(), "translations come to their sources"
    layers = [h.reshape(4, -1, h.shape[-1]) for h in cyclegan.features(CUT, params["ab"], x, KEYS)]
    assert [h.shape[1] for h in layers] == [64, 16, 4, 4]
    for unit in cyclegan.Heads(CUT).apply({"params": params["heads"]}, layers):
        np.testing.assert_allclose(jnp.linalg.norm(unit, axis=-1), 1.0, atol=1e-4)


def like_zeros(cfg, n=4):
    return {name: jnp.zeros((n, *cfg.space.shape), jnp.uint8) for name in ("image", "source")}


# ---- the step and its samples ----------------------------------------------------------------------------------------


def test_rate_of_learning_is_the_papers_at_every_epoch():
    """Full for 100 epochs, then .9901 at the start of epoch 100, .4950 of 150, .0099 of 199 (epochs count from 0)."""
    size, rates = 50, {0: 1.0, 99: 1.0, 100: 0.9901, 150: 0.4950, 199: 0.0099, 200: 0.0}
    rate = schedule(Optim(lr=1.0, decay_from=99 * size, decay=200 * size, shape="linear"), 1)
    for epoch, value in rates.items():
        assert abs(float(rate(epoch * size)) - value) <= 5e-5, epoch


@pytest.fixture(scope="module")
def started():
    """(algorithm, its initial state)"""
    algorithm = cyclegan.algorithm(TINY, batch_size=4)
    return algorithm, jax.jit(algorithm.init)(jax.random.key(0), like_zeros(TINY))


def batch(seed, n=4):
    rng = np.random.default_rng(seed)
    return {name: rng.integers(0, 17, (n, 8, 8, 1)).astype(np.uint8) for name in ("image", "source")}


@pytest.mark.slow
def test_pools_are_state_and_hold_each_directions_translations(started):
    """After two of three places: what the generators had made of the sources at the beginning of each step."""
    algorithm, first = started
    state, step = first, jax.jit(algorithm.step)
    for i in range(2):
        state, _ = step(state, batch(i), jax.random.key(i))
    assert {way: int(pool.filled) for way, pool in state.pools.items()} == {"ab": 2, "ba": 2}
    for way, name in (("ab", "source"), ("ba", "image")):
        made = players.translate(TINY, first.params_g[way], TINY.space.to_grid(batch(0)[name]), KEYS)
        np.testing.assert_allclose(state.pools[way].images[:, 0], made, atol=1e-5)


@pytest.mark.slow
def test_one_sided_games_let_the_discriminator_go_first():
    """The generator moves against the discriminator that the step ends with, to 1e-4 of the largest move."""
    cfg, key = dataclasses.replace(PIX2PIX, optim=Optim(name="sgd", lr=1.0, clip=0.0)), jax.random.key(3)
    algorithm = cyclegan.algorithm(cfg, batch_size=4)
    state = jax.jit(algorithm.init)(jax.random.key(0), like_zeros(cfg))
    after, _ = jax.jit(algorithm.step)(state, batch(0), key)
    real = {name: cfg.space.to_grid(x) for name, x in batch(0).items()}
    noise, keys_g, _, _ = split(example_keys(key, 4), 4)
    loss = lambda p, d: mean_terms(players.generator_terms(cfg, p, d, real, noise, keys_g))[0]  # noqa: E731
    gradient = jax.jit(jax.grad(loss))
    moves = jax.tree.leaves(jax.tree.map(lambda new, old: old - new, after.params_g, state.params_g))
    largest = max(float(jnp.abs(move).max()) for move in moves)
    errors = {}
    for name, judge in (("after", after.params_d), ("before", state.params_d)):
        expected = jax.tree.leaves(gradient(state.params_g, judge))
        errors[name] = max(float(jnp.abs(a - b).max()) for a, b in zip(moves, expected, strict=True)) / largest
    assert errors["after"] < 1e-4 < 1e-3 < errors["before"]


def test_samples_are_translations_in_the_direction_asked_for(started):
    """ab gives images for sources by one generator, ba sources for images by the other, and `back` is the other one."""
    algorithm, state = started
    other = cyclegan.algorithm(dataclasses.replace(TINY, direction="ba"), batch_size=4)
    assert list(algorithm.reads) == ["image", "source"] and list(other.reads) == ["source", "image"]
    x = batch(9)
    for one, back, way, name in ((algorithm, other, "ab", "source"), (other, algorithm, "ba", "image")):
        expected = TINY.space.from_grid(players.translate(TINY, state.params_g[way], TINY.space.to_grid(x[name]), KEYS))
        drawn = one.sample(state, jax.random.key(0), 4, {name: x[name]})
        np.testing.assert_array_equal(drawn, expected)
        np.testing.assert_array_equal(back.back(state, jax.random.key(0), x[name]), expected)


def test_one_sided_objectives_have_no_way_back():
    for cfg in (CUT, PIX2PIX):
        algorithm = cyclegan.algorithm(cfg, batch_size=4)
        assert algorithm.back is None and algorithm.paired == (cfg.objective == "paired")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"space": images(30, 32, 3)}, r"space.shape=\(30, 32, 3\).*multiples of 4.*--size"),
        ({"space": images(4, 4, 1)}, "8 at least"),
        ({"space": vectors(3)}, "only images"),
        ({"space": images(8, 8, 1), "patch_layers": 2}, "patch_layers=2.*at most 1"),
        ({"generator": "unet", "depth": 4, "space": images(24, 24, 1)}, "multiples of 16.*lower depth"),
        ({"objective": "contrastive", "generator": "unet", "depth": 3}, "generator='unet'.*use 'resnet'"),
        ({"objective": "contrastive", "direction": "ba"}, "direction='ba'.*exchange"),
        ({"optim": Optim(decay=10, decay_from=10)}, "optim.decay=10 must exceed optim.decay_from=10"),
        ({"optim": Optim(shape="linear")}, "optim.shape='linear'.*give optim.decay"),
    ],
)
def test_bad_options_are_refused_by_name(changes, words):
    with pytest.raises(ValueError, match=words):
        cyclegan.algorithm(dataclasses.replace(TINY, **changes), batch_size=4)
