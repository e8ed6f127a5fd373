"""The generator of StyleGAN3-T: its bands, and that what it draws moves with its waves."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genmap_jax.implicit import stylegan
from genmap_jax.implicit.stylegan import alias_free
from genmap_jax.spaces import images

KEY = jax.random.key(0)
PAPER = stylegan.Config(
    images(1024, 1024, 3), mapping_depth=2, alias_free=True, noise=False, path_length=0.0, mixing=0.0
)
TINY = dataclasses.replace(
    PAPER, space=images(32, 32, 1), latent=8, channels=16, capacity=128, alias_free_layers=8, group=1
)


def test_bands_are_the_papers():
    """Sizes and channels of the fourteen layers at 1024 pixels, configuration T; 22.3 million parameters, to 0.1."""
    known = alias_free.bands(PAPER)
    assert [band.size for band in known][-7:] == [276, 276, 532, 1044, 1044, 1044, 1024]
    assert [band.channels for band in known][-7:] == [323, 203, 128, 81, 51, 32, 32]
    assert known[0].size == 36 and known[-1].size == 1024 and len(known) == 14
    cutoffs = [band.cutoff for band in known]
    assert cutoffs[0] == 2.0 and cutoffs[-1] == cutoffs[-2] == pytest.approx(512.0)
    state = jax.eval_shape(stylegan.algorithm(PAPER, batch_size=4).init, KEY, {})
    count = sum(math.prod(p.shape) for p in jax.tree.leaves(state.params_g)) / 1e6
    assert abs(count - 22.3) < 0.1


def test_a_low_pass_filter_passes_its_band_and_stops_the_rest():
    """A constant passes as it is; beyond the transition at least 20 dB are lost."""
    band = alias_free.Band(cutoff=4.0, half_width=2.0, rate=16, size=36, channels=1)
    taps = alias_free.low_pass(12, band, 32)
    response = np.abs(np.fft.rfft(taps, 4096))
    at = np.fft.rfftfreq(4096, 1 / 32)
    assert taps.sum() == pytest.approx(1.0)
    assert (response[at <= 1.0] > 0.9).all() and (response[at >= 7.0] < 0.1).all()


@pytest.mark.slow
def test_images_move_with_their_waves():
    """EQ-T above 60 dB for whole pixels, with random weights; pixels that do not move at all have less than 30 dB."""
    state = jax.jit(stylegan.algorithm(TINY, batch_size=1).init)(KEY, {})
    moves = ((0, 0), (3, 0), (-2, 5))
    ws = jnp.broadcast_to(jax.random.normal(jax.random.key(1), (TINY.layers, TINY.latent))[None], (3, TINY.layers, 8))
    network, shift = alias_free.AliasFreeSynthesis(TINY), jnp.array(moves) / TINY.resolution
    x = jax.jit(network.apply)({"params": state.params_g["synthesis"]}, ws, None, shift)
    x = 0.25 * (x - x[:1].mean()) / x[:1].std()  # of images within [-1, 1], whatever the weights
    for i, move in list(enumerate(moves))[1:]:
        measured = alias_free.translation_equivariance(x[i : i + 1], x[:1], *move)
        stuck = alias_free.translation_equivariance(x[:1], x[:1], *move)
        assert measured > 60.0 and stuck < 30.0, (measured, stuck)


def test_waves_turn_and_move_as_they_are_told():
    """The learnt move adds to the one asked for; a turn by a right angle is that of the picture."""
    band = alias_free.bands(TINY)[0]
    waves = alias_free.Waves(band)
    params = waves.init(KEY, jnp.zeros((1, 8)), None)

    def start(*values):
        tree = params["params"]
        return {"params": {**tree, "move": {**tree["move"], "bias": jnp.array(values)}}}

    at = lambda variables, shift=None: waves.apply(variables, jnp.zeros((1, 8)), shift)  # noqa: E731
    told = at(params, jnp.array([[0.25, 0.125]]))
    np.testing.assert_allclose(at(start(1.0, 0.0, 0.25, 0.125)), told, atol=1e-4)
    pixels = (int(0.25 * band.rate), int(0.125 * band.rate))
    wanted = jnp.roll(at(params), pixels, (1, 2))[:, pixels[0] :, pixels[1] :]
    np.testing.assert_allclose(told[:, pixels[0] :, pixels[1] :], wanted, atol=1e-4)
    turned = at(start(0.0, 1.0, 0.0, 0.0))
    candidates = [np.rot90(at(params), k, (1, 2)) for k in (1, 3)]
    assert min(np.abs(turned - c).max() for c in candidates) < 1e-3
