"""Augmentation of what D sees: what each transform does, where the gradients go, and ADA's control of it."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from variants import chosen

from genmap_jax.keys import example_keys, split
from genmap_jax.nn import augment, wavelets
from genmap_jax.objectives import ada
from genmap_jax.objectives.discriminator import Penalties, d_terms, g_terms

N, SHAPE = 64, (8, 8, 3)
X = jax.random.uniform(jax.random.key(0), (N, *SHAPE), minval=-1.0, maxval=1.0)
KEYS = example_keys(jax.random.key(1), N)


@pytest.fixture(scope="module")
def once():
    """Each transform of pixels on all of X, compiled together."""
    return jax.jit(lambda: {name: augment.augment(X, KEYS, 1.0, (name,)) for name in augment.PIXELS})()


# ---- probabilities ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_probability_zero_is_the_identity():
    """Of all transforms together, to the last bit: no image is resampled for nothing."""
    apply = jax.jit(lambda p: augment.augment(X, KEYS, p, (*augment.ADA, *augment.DIFFAUGMENT, "scaling")))
    np.testing.assert_array_equal(apply(0.0), X)


@pytest.mark.slow
def test_each_transform_has_its_probability(monkeypatch):
    """p = 0.3, each within 4 standard errors; both rotations of ADA together have p too.

    Matrices are told by their distance to the identity instead of being applied, which compiles faster.
    """
    distance = lambda x, matrix: x + jnp.abs(matrix - jnp.eye(len(matrix))).sum()  # noqa: E731
    cheap = {name: (draw, distance) for name, (draw, _) in augment.MATRICES.items()}
    monkeypatch.setattr(augment, "MATRICES", cheap)
    cases = {name: (name,) for name in augment.TRANSFORMS} | {"two rotations": ("rotation", "rotation")}
    n, p = 1500, 0.3
    x, keys = jnp.broadcast_to(X[:1], (n, *SHAPE)), example_keys(jax.random.key(3), n)
    apply = lambda names: (augment.augment(x, keys, p, names) != x).any((1, 2, 3)).mean()  # noqa: E731
    idle = {"flip": 1 / 2, "luma_flip": 1 / 2, "turn": 1 / 4, "translation": 1 / 9, "integer_translation": 1 / 4}
    shares = jax.jit(lambda: {name: apply(names) for name, names in cases.items()})()
    for case, share in shares.items():
        expected = p * (1.0 - idle.get(case, 0.0))  # some draws are the identity
        assert abs(share - expected) <= 4 * math.sqrt(expected * (1 - expected) / n), (case, share)


# ---- pixels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "mode"), [("translation", "constant"), ("integer_translation", "reflect")])
def test_translations_are_integer_shifts(once, name, mode):
    """By -1, 0 or 1 pixels of 8 along each axis, exactly, with zeros or the mirrored image outside; all nine happen."""
    seen = set()
    padded = np.pad(X, ((0, 0), (1, 1), (1, 1), (0, 0)), mode=mode)
    for i, moved in enumerate(np.asarray(once[name])):
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


@pytest.mark.parametrize("side", [8, 10, 7, 3])
def test_cutout_treats_the_first_and_the_last_pixels_alike(side):
    """Row i of n is cut as often as row n - 1 - i, by mirrored draws of its place: exact, over all places."""
    cut = jax.vmap(augment.cutout, in_axes=(None, 0))
    gone = np.asarray(cut(jnp.ones((side, side, 1)), jax.random.split(jax.random.key(0), 4000)))[..., 0] == 0.0
    for axis in (2, 1):
        spans = {tuple(np.flatnonzero(row)) for row in gone.any(axis)}
        assert spans == {tuple(sorted(side - 1 - i for i in span)) for span in spans}
        assert max(map(len, spans)) == (side + 1) // 2
    shares = gone.mean(0)
    np.testing.assert_allclose(shares, shares[::-1, ::-1], atol=4 * 0.5 / 4000**0.5)


def test_scaling_keeps_the_centre_and_colour_keeps_differences(once):
    """Zoomed constants stay constant inside; colour is affine in each image and swaps no pixels of one hue."""
    flat = jnp.ones((N, *SHAPE))
    zoomed = augment.augment(flat, KEYS, 1.0, ("scaling",))
    np.testing.assert_allclose(zoomed[:, 3:5, 3:5], 1.0, atol=1e-6)
    assert (zoomed[:, 0, 0] < 1.0).any() and (jnp.abs(zoomed[:, 0, 0] - 1.0) < 1e-6).any()
    grey = jnp.repeat(X[..., :1], 3, axis=-1)
    changed = augment.augment(grey, KEYS, 1.0, ("colour",))
    for a, b in zip(np.asarray(grey[..., 0]), np.asarray(changed[..., 0]), strict=True):
        slope, _ = np.polyfit(a.ravel(), b.ravel(), 1)
        assert 0.5 <= slope <= 1.5 and np.corrcoef(a.ravel(), b.ravel())[0, 1] > 1 - 1e-5


def test_noise_is_that_of_one_image(once):
    """Its standard deviation is |N(0, 0.1^2)|, of mean 0.1 sqrt(2 / pi), one for each image: 3 standard errors."""
    sd = (once["noise"] - X).std((1, 2, 3))
    assert abs(sd.mean() - 0.1 * math.sqrt(2 / math.pi)) <= 3 * 0.1 * math.sqrt((1 - 2 / math.pi) / N)
    assert sd.max() > 4 * sd.min()


# ---- moves of the plane ----------------------------------------------------------------------------------------------

RAMP = jnp.stack(jnp.broadcast_arrays(jnp.arange(24.0)[:, None], jnp.arange(24.0)[None]), -1)  # (row, column)


def test_the_filter_is_the_symlet():
    """Orthonormal to its even shifts, with six vanishing moments: 1e-8. And down @ up = 1: 1e-6."""
    h, k = np.array(wavelets.SYM6), np.arange(12)
    for shift in range(6):
        assert abs(h[: 12 - 2 * shift] @ h[2 * shift :] - (shift == 0)) <= 1e-8
    assert abs(h.sum() - math.sqrt(2)) <= 1e-8
    assert all(abs((-1.0) ** k * k**moment @ h) <= 1e-8 * 12**moment for moment in range(6))
    x = jax.random.normal(jax.random.key(0), (8, 12, 3))
    np.testing.assert_allclose(wavelets.warp(x, jnp.eye(3)), x, atol=2e-6)


def test_a_warp_reads_its_image_once():
    """A TPU pays for every index of a gather: four, one for each neighbour, would cost four times as much."""
    program = str(jax.make_jaxpr(jax.vmap(wavelets.warp, (0, None)))(jnp.zeros((2, 16, 16, 3)), jnp.eye(3)))
    assert program.count("gather[") == 1


@pytest.mark.parametrize("degrees", [0.0, 30.0, 90.0, 200.0])
def test_warps_of_ramps_are_exact(degrees):
    """Where a pixel comes from, read off images of the coordinates: rotation, zoom, shift inside of the image, 1e-4."""
    matrix = augment.rotation_matrix(math.radians(degrees)) @ jnp.diag(jnp.array([0.9, 0.8, 1.0]))
    matrix = matrix @ jnp.eye(3).at[:2, 2].set(jnp.array([0.3, -0.7]))
    there = jnp.concatenate([RAMP - 11.5, jnp.ones((24, 24, 1))], -1)
    expected = jnp.einsum("ij,hwj->hwi", matrix, there)[..., :2] + 11.5
    np.testing.assert_allclose(wavelets.warp(RAMP, matrix)[8:-8, 8:-8], expected[8:-8, 8:-8], atol=1e-4)


def test_moves_form_a_group():
    """R(a) R(b) = R(a + b), R(90 degrees) is `rot90`, whole shifts are copies; the inverses undo: 1e-5."""
    R, close = augment.rotation_matrix, partial(np.testing.assert_allclose, atol=1e-5)
    close(R(0.4) @ R(0.7), R(1.1))
    close(R(0.4) @ R(-0.4), jnp.eye(3))
    close(wavelets.warp(RAMP, R(math.pi / 2))[8:-8, 8:-8], jnp.rot90(RAMP)[8:-8, 8:-8])
    x = jax.random.normal(jax.random.key(0), (20, 24, 2))
    shift = jnp.eye(3).at[:2, 2].set(jnp.array([-2.0, 1.0]))
    close(wavelets.warp(x, shift)[6:-6, 6:-6], jnp.roll(x, (2, -1), (0, 1))[6:-6, 6:-6])
    keys = split(KEYS[:1], 3)
    draws = [jax.jit(fn, static_argnums=1)(k[0], SHAPE) for fn, k in zip(MOVES, keys, strict=True)]
    close(jnp.linalg.det(draws[0][:2, :2]), 1.0)  # anisotropic scaling keeps areas
    assert draws[1][0, 0] == draws[1][1, 1] and (draws[2][:2, :2] == jnp.eye(2)).all()


MOVES = (augment.anisotropic_scaling, augment.isotropic_scaling, augment.fractional_translation)


@pytest.mark.parametrize("names", chosen([(augment.GEOMETRY,), (augment.BANDS,), (augment.BLIT,)], [(augment.BANDS,)]))
def test_gradients_of_linear_transforms_are_their_transposes(names):
    """<y, A x> = <A^T y, x> and <A v, A v> = <v, A^T A v>, through a second derivative: 1e-4 relative."""
    apply = lambda x: augment.augment(x, KEYS[:4], 1.0, names)  # noqa: E731
    x, y = X[:4], X[4:8]

    @jax.jit
    def products(x, y):
        out, pullback = jax.vjp(apply, x)
        half = lambda x: 0.5 * (apply(x) ** 2).sum()  # noqa: E731
        second = jax.jvp(jax.grad(half), (x,), (y,))[1]
        return (y * out).sum(), (pullback(y)[0] * x).sum(), (apply(y) ** 2).sum(), (y * second).sum()

    a, b, c, d = products(x, y)
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(c, d, rtol=1e-4)


# ---- colours and bands -----------------------------------------------------------------------------------------------


def test_maps_of_known_colours():
    """On red, green, blue and greys, as rows (r, g, b, 1): 1e-6."""
    red, green, blue, grey = jnp.eye(4)[:3].at[:, 3].set(1.0).tolist() + [[0.3, 0.3, 0.3, 1.0]]
    at = lambda colour, matrix: jnp.array(colour) @ matrix  # noqa: E731
    close, third = partial(np.testing.assert_allclose, atol=1e-6), augment.hue_matrix(2 * math.pi / 3)
    close(at(red, third), green)
    close(at(green, third), blue)
    close(at(grey, third), grey)
    close(third @ third @ third, jnp.eye(4))
    close(at(red, augment.saturation_matrix(0.0)), [1 / 3, 1 / 3, 1 / 3, 1.0])
    close(at(grey, augment.saturation_matrix(5.0)), grey)
    key = next(k for k in KEYS if jax.random.bernoulli(k))
    flip = augment.luma_flip(key, SHAPE)
    close(at(grey, flip), [-0.3, -0.3, -0.3, 1.0])
    close(at([1.0, -1.0, 0.0, 1.0], flip), [1.0, -1.0, 0.0, 1.0])
    close(flip @ flip, jnp.eye(4))
    b, c = augment.brightness(key, SHAPE), augment.contrast(key, SHAPE)
    close(at(red, b) - jnp.array(red), [*[float(b[3, 0])] * 3, 0.0])
    close(at(red, c), [float(c[0, 0]), 0.0, 0.0, 1.0])


def test_grey_images_know_no_hue():
    """With one channel, hue and saturation do nothing and the others act as on three equal channels: 1e-6."""
    grey = X[..., :1]
    for names in (("hue",), ("saturation",), augment.COLOUR):
        one = augment.augment(grey, KEYS, 1.0, names)
        three = augment.augment(jnp.repeat(grey, 3, -1), KEYS, 1.0, names).mean(-1, keepdims=True)
        np.testing.assert_allclose(one, three, atol=1e-5)
        if len(names) == 1:
            np.testing.assert_allclose(one, grey, atol=1e-6)


def test_bands_sum_to_the_image_and_cover_their_octaves():
    """The four filters sum to the impulse, exactly; each has gain 1 in the middle of its octave within a third."""
    bank = wavelets.filter_bank()
    np.testing.assert_allclose(bank.sum(0), np.eye(43)[21], atol=1e-12)
    np.testing.assert_allclose(bank.sum(1), [1, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(bank, bank[:, ::-1], atol=1e-12)
    response = np.abs(np.fft.rfft(np.pad(bank, ((0, 0), (0, 981)))))  # 513 frequencies from 0 to pi
    middles = [0, 96, 192, 384]
    for band, at in enumerate(middles):
        assert response[band, at] > 2 / 3 and response[:, at].argmax() == band
    np.testing.assert_allclose(wavelets.filter_bands(X[0], jnp.eye(4)), X[0], atol=1e-6)


def test_band_gains_keep_the_power_of_natural_images():
    gains = jnp.diagonal(augment.band_gains(1, 3.0))
    np.testing.assert_allclose((jnp.array([10, 1, 1, 1]) / 13 * gains**2).sum(), 1.0, rtol=1e-6)
    np.testing.assert_allclose(gains / gains[0], [1, 3, 1, 1], rtol=1e-6)


# ---- in the game -----------------------------------------------------------------------------------------------------


def judged(transforms, penalties):
    """`d_terms` of a linear D that is shown augmented images, and its weight."""
    w = jnp.arange(1.0, 1.0 + np.prod(SHAPE)).reshape(SHAPE) / 100.0
    judge = lambda x, keys: (jnp.einsum("bhwc,hwc->b", augment.augment(x, keys, 1.0, transforms), w), None)  # noqa: E731
    return d_terms("relativistic", judge, X, X, KEYS, penalties), w


def test_players_see_different_augmentations_and_penalties_do_not():
    """Real and generated images have draws of their own, and R1 is the gradient at the image *before* augmentation.

    A linear D then has the gradient of T(x), in what cutout leaves of w: below |w|^2 and different for each image.
    """
    terms, w = judged(("cutout",), Penalties(r1=1.0, r2=1.0))
    assert (terms["logit_real"] != terms["logit_fake"]).mean() > 0.5  # of the very same images
    assert (terms["r1"] < (w**2).sum()).all() and len(np.unique(terms["r1"].round(4))) > 5


def test_the_generators_gradient_passes_through_the_augmentation():
    key_cut = split(KEYS)[1]
    judge = lambda x, keys: (augment.augment(x, keys, 1.0, ("cutout",)).sum((1, 2, 3)), None)  # noqa: E731
    slope = jax.grad(lambda fake: g_terms("nonsaturating", judge, X, fake, KEYS)["loss"].sum())(X)
    visible = augment.augment(X, key_cut, 1.0, ("cutout",)) != 0.0
    np.testing.assert_array_equal(slope != 0.0, visible)


def test_consistency_is_zero_for_a_discriminator_that_ignores_moves():
    penalties = Penalties(consistency=10.0)
    middle = jnp.pad(X[:, 2:6, 2:6], ((0, 0), (2, 2), (2, 2), (0, 0)))  # stays inside when moved by one pixel
    judge = lambda x, keys: (x.sum((1, 2, 3)), None)  # noqa: E731
    terms = d_terms("relativistic", judge, middle, middle, KEYS, penalties)
    np.testing.assert_allclose(terms["consistency"], 0.0, atol=1e-9)
    weigh = lambda x, keys: (x[:, :4].sum((1, 2, 3)), None)  # noqa: E731
    assert d_terms("relativistic", weigh, middle, middle, KEYS, penalties)["consistency"].max() > 0.01


def test_ada_moves_by_the_papers_step_every_fourth_update():
    """Batch 64, ramp 500,000: 0.000512 an adjustment, up above the target and down below it, within [0, 1]."""
    control = partial(ada.adjust, batch=64, target=0.6, ramp=500_000)
    at = lambda p, signs: ada.State(jnp.float32(p), jnp.float32(signs))  # noqa: E731
    new = control(at(0.5, 3 * 0.7), jnp.float32(0.7), jnp.int32(8))
    np.testing.assert_allclose(new.p - 0.5, 0.000512, rtol=1e-4)
    assert new.signs == 0.0
    new = control(at(0.5, 3 * 0.5), jnp.float32(0.5), jnp.int32(8))
    np.testing.assert_allclose(new.p - 0.5, -0.000512, rtol=1e-4)
    new = control(at(0.5, 1.5), jnp.float32(0.6), jnp.int32(7))
    assert new.p == 0.5 and new.signs == jnp.float32(1.5) + jnp.float32(0.6)
    assert control(at(0.0, 0.0), jnp.float32(0.0), jnp.int32(4)).p == 0.0
    assert control(at(1.0, 3.0), jnp.float32(1.0), jnp.int32(4)).p == 1.0
    np.testing.assert_array_equal(ada.statistic(jnp.array([2.0, -1.0])), [1.0, -1.0])
    np.testing.assert_array_equal(ada.statistic(jnp.array([2.0, -1.0]), jnp.array([3.0, -3.0])), [-1.0, 1.0])
