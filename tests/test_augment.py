"""Augmentation of what D sees: what each transform does, where the gradients go, and ADA's control of it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genmap_jax.implicit import gan
from genmap_jax.nn import augment
from genmap_jax.parallel import example_keys

N, SHAPE = 64, (8, 8, 2)
X = jax.random.uniform(jax.random.key(0), (N, *SHAPE), minval=-1.0, maxval=1.0)
KEYS = example_keys(jax.random.key(1), N)
ALL = tuple(augment.TRANSFORMS)


@pytest.fixture(scope="module")
def once():
    """Each transform on all of X, compiled together."""
    return jax.jit(lambda: {name: augment.augment(X, KEYS, 1.0, (name,)) for name in ALL})()


def test_probability_zero_is_the_identity_and_half_is_half():
    apply = jax.jit(lambda p: augment.augment(X, KEYS, p, ("colour", "cutout", "turn")))
    np.testing.assert_array_equal(apply(0.0), X)
    colour = (apply(0.5) != X).all((1, 2, 3)).mean()  # the others leave some pixels as they were
    assert 0.25 < colour < 0.75


def test_translation_is_an_integer_shift_with_zeros(once):
    """By -1, 0 or 1 pixels of 8 along each axis, exactly; all nine happen."""
    seen = set()
    padded = np.pad(X, ((0, 0), (1, 1), (1, 1), (0, 0)))
    for i, moved in enumerate(np.asarray(once["translation"])):
        shifts = [(a, b) for a in range(3) for b in range(3) if (padded[i, a : a + 8, b : b + 8] == moved).all()]
        assert len(shifts) == 1
        seen |= set(shifts)
    assert len(seen) == 9


def test_flips_and_turns_permute_pixels(once):
    flipped = [(once["flip"][i] == X[i, :, ::-1]).all() for i in range(N)]
    assert 0.25 < np.mean(flipped) < 0.75
    turns = [[bool((once["turn"][i] == jnp.rot90(X[i], k)).all()) for k in range(4)] for i in range(N)]
    assert (np.sum(turns, axis=1) == 1).all() and (np.sum(turns, axis=0) > 4).all()


def test_cutout_removes_half_of_each_side(once):
    gone = np.asarray(once["cutout"] == 0.0).all(-1)
    assert (np.asarray(once["cutout"])[~gone] == np.asarray(X)[~gone]).all()
    assert gone.sum((1, 2)).max() == 16 and (gone.sum((1, 2)) >= 4).all()


def test_scaling_keeps_the_centre_and_colour_keeps_differences(once):
    """Zoomed constants stay constant inside; colour is affine in each image and swaps no pixels of one hue."""
    flat = jnp.ones((N, *SHAPE))
    zoomed = augment.augment(flat, KEYS, 1.0, ("scaling",))
    np.testing.assert_allclose(zoomed[:, 3:5, 3:5], 1.0, atol=1e-6)
    assert (zoomed[:, 0, 0] < 1.0).any() and (jnp.abs(zoomed[:, 0, 0] - 1.0) < 1e-6).any()
    grey = jnp.repeat(X[..., :1], 2, axis=-1)
    changed = augment.augment(grey, KEYS, 1.0, ("colour",))
    for a, b in zip(np.asarray(grey[..., 0]), np.asarray(changed[..., 0]), strict=True):
        slope, _ = np.polyfit(a.ravel(), b.ravel(), 1)
        assert 0.5 <= slope <= 1.5 and np.corrcoef(a.ravel(), b.ravel())[0, 1] > 1 - 1e-5


def judged(cfg, x=X, y=X):
    """`d_terms` of a linear D that is shown augmented images, and its weight."""
    w = jnp.arange(1.0, 1.0 + np.prod(SHAPE)).reshape(SHAPE) / 100.0
    judge = lambda x, keys: (jnp.einsum("bhwc,hwc->b", augment.augment(x, keys, 1.0, cfg.augment), w), None)  # noqa: E731
    return gan.d_terms(cfg, judge, x, y, KEYS), w


def test_players_see_different_augmentations_and_penalties_do_not():
    """Real and generated images have draws of their own, and R1 is the slope at the image *before* augmentation.

    A linear D then has the slope of T(x), in what cutout leaves of w: below |w|^2 and different for each image.
    """
    cfg = gan.Config(shape=SHAPE, augment=("cutout",))
    terms, w = judged(cfg)
    assert (terms["logit_real"] != terms["logit_fake"]).mean() > 0.5  # of the very same images
    assert (terms["r1"] < (w**2).sum()).all() and len(np.unique(terms["r1"].round(4))) > 5


def test_the_generators_gradient_passes_through_the_augmentation():
    cfg = gan.Config(shape=SHAPE, augment=("cutout",), loss="nonsaturating")
    key_cut = jax.vmap(jax.random.split, out_axes=1)(KEYS)[1]
    judge = lambda x, keys: (augment.augment(x, keys, 1.0, cfg.augment).sum((1, 2, 3)), None)  # noqa: E731
    slope = jax.grad(lambda fake: gan.g_terms(cfg, judge, X, fake, KEYS)["loss"].sum())(X)
    visible = augment.augment(X, key_cut, 1.0, cfg.augment) != 0.0
    np.testing.assert_array_equal(slope != 0.0, visible)


def test_consistency_is_zero_for_a_discriminator_that_ignores_moves():
    cfg = gan.Config(shape=SHAPE, r1=0.0, r2=0.0, consistency=10.0)
    middle = jnp.pad(X[:, 2:6, 2:6], ((0, 0), (2, 2), (2, 2), (0, 0)))  # stays inside when moved by one pixel
    judge = lambda x, keys: (x.sum((1, 2, 3)), None)  # noqa: E731
    np.testing.assert_allclose(gan.d_terms(cfg, judge, middle, middle, KEYS)["consistency"], 0.0, atol=1e-9)
    weigh = lambda x, keys: (x[:, :4].sum((1, 2, 3)), None)  # noqa: E731
    assert gan.d_terms(cfg, weigh, middle, middle, KEYS)["consistency"].max() > 0.01


def test_ada_moves_by_the_papers_step_every_fourth_update():
    """Batch 64, ramp 500,000: 0.000512 an adjustment, up above the target and down below it, within [0, 1]."""
    control = partial(augment.adjusted, batch=64, target=0.6, ramp=500_000)
    p, signs = control(jnp.float32(0.5), jnp.float32(4 * 0.7), jnp.int32(8))
    np.testing.assert_allclose(p - 0.5, 0.000512, rtol=1e-4)
    assert signs == 0.0
    p, _ = control(jnp.float32(0.5), jnp.float32(4 * 0.5), jnp.int32(8))
    np.testing.assert_allclose(p - 0.5, -0.000512, rtol=1e-4)
    p, signs = control(jnp.float32(0.5), jnp.float32(2.1), jnp.int32(7))
    assert p == 0.5 and signs == jnp.float32(2.1)
    assert control(jnp.float32(0.0), jnp.float32(0.0), jnp.int32(4))[0] == 0.0
    assert control(jnp.float32(1.0), jnp.float32(4.0), jnp.int32(4))[0] == 1.0
