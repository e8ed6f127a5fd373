"""Projection of images into the styles of a generator."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genmap_jax.implicit import stylegan
from genmap_jax.implicit.stylegan import projection
from genmap_jax.keys import example_keys, normal
from genmap_jax.spaces import images

KEY = jax.random.key(0)
TINY = stylegan.Config(images(8, 8, 1, levels=17), latent=8, mapping_depth=2, channels=16, capacity=128, group=2)


def test_an_image_of_the_generator_is_found_again():
    """Two images of random styles, each on its own: the distance falls to a tenth of that of the mean style."""
    state = jax.jit(stylegan.algorithm(TINY, batch_size=2).init)(KEY, {})
    z = stylegan.latents(example_keys(jax.random.key(1), 2), 8)
    ws = jnp.repeat(stylegan.style(TINY, state.params_g, z)[:, None], TINY.layers, axis=1)
    targets = stylegan.synthesise(TINY, state.params_g, ws)
    how = stylegan.Projection(steps=150, mean_latents=256)
    w, noise, distances = stylegan.project(TINY, state.params_g, targets, KEY, how=how)
    assert (distances[-1] < 0.1 * distances[0]).all()
    drawn = stylegan.synthesise(TINY, state.params_g, jnp.repeat(w[:, None], TINY.layers, axis=1), noise)
    np.testing.assert_allclose(projection.pyramid_distance(drawn, targets), distances[-1], rtol=0.5, atol=1e-4)
    for each in noise:
        np.testing.assert_allclose(each.mean((1, 2, 3)), 0.0, atol=1e-5)
        np.testing.assert_allclose((each**2).mean((1, 2, 3)), 1.0, rtol=1e-4)


def test_correlation_is_small_for_white_noise_and_large_for_a_picture():
    """E = 1 / (pixels) for each axis and resolution of white noise; a constant has 1 for each at full resolution."""
    white = projection.correlation(normal(example_keys(KEY, 2000), (16, 16, 1)))
    np.testing.assert_allclose(white.mean(), 2 / 256 + 2 / 64, rtol=0.1)
    assert projection.correlation(jnp.ones((1, 8, 8, 1)))[0] == pytest.approx(2.0)
    assert (projection.correlation(jnp.ones((1, 4, 4, 1))) == 0.0).all()


def test_the_learning_rate_warms_up_and_cools_down():
    how = stylegan.Projection()
    rates = [float(projection._rate(how, jnp.float32(at))) for at in (0.0, 0.025, 0.05, 0.5, 0.75, 0.875, 1.0)]
    np.testing.assert_allclose(rates, [0.0, 0.5, 1.0, 1.0, 1.0, 0.5, 0.0], atol=1e-6)


def test_bad_input_names_the_argument():
    state = jax.eval_shape(stylegan.algorithm(TINY, batch_size=2).init, KEY, {})
    with pytest.raises(ValueError, match="targets has shape"):
        stylegan.project(TINY, state.params_g, jnp.zeros((2, 4, 4, 1)), KEY)
    with pytest.raises(ValueError, match="steps=0"):
        stylegan.project(
            TINY, state.params_g, jnp.zeros((2, 8, 8, 1)), KEY, how=dataclasses.replace(stylegan.Projection(), steps=0)
        )
