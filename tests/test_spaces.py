"""The edge between batches and networks: ranges are checked there, and NaN does not become a pixel or a token."""

import dataclasses

import families
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genmap_jax.algorithm import check_cond
from genmap_jax.approximate import diffusion, vae
from genmap_jax.implicit import gan
from genmap_jax.report import pictures
from genmap_jax.spaces import images, labels, tokens, vectors

BAD = np.array([[np.nan], [np.inf], [-np.inf], [0.3]], np.float32).reshape(4, 1, 1, 1)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_the_way_back_ends_in_grey_values_and_keeps_what_is_not_finite(levels):
    """Both inverses, compiled; values out of range go to the ends, as before."""
    space, key = images(1, 1, 1, levels), jax.random.split(jax.random.key(0), levels)
    every = jnp.arange(levels, dtype=jnp.uint8).reshape(-1, 1, 1, 1)
    there_and_back = {
        "grid": jax.jit(lambda v: space.from_grid(space.to_grid(v))),
        "cells": jax.jit(lambda v: space.requantise(space.dequantise(v, key))),
    }
    for back in there_and_back.values():
        np.testing.assert_array_equal(space.as_batch(back(every)), every)
    for inverse in (space.from_grid, space.requantise):
        x = np.asarray(jax.jit(inverse)(BAD))
        assert np.isnan(x[:3]).all() and np.isfinite(x[3:]).all()
        with pytest.raises(ValueError, match="3 of 4 samples hold NaN or infinite values"):
            space.as_batch(x)
        np.testing.assert_array_equal(space.as_batch(inverse(jnp.array([-7.0, 7.0]).reshape(2, 1, 1, 1))).ravel(),
                                      [0, levels - 1])  # fmt: skip


def test_samples_of_every_space_are_counted():
    with pytest.raises(ValueError, match="1 of 2 samples hold NaN"):
        vectors(2).as_batch(np.array([[0.0, np.inf], [1.0, 2.0]]))
    with pytest.raises(ValueError, match="1 of 2 samples hold tokens"):
        tokens(2, 5).as_batch(np.array([[0, 4], [1, -1]]))
    x = images(1, 1, 1, 17).as_batch(np.array([[[[2.6]]], [[[-0.4]]], [[[16.4]]]]))  # of a walk, not rounded yet
    assert x.dtype == np.uint8 and x.ravel().tolist() == [3, 0, 16]


def test_pictures_refuse_what_is_no_grey_value():
    for wrong in (np.nan, -1.0, 17.0):
        with pytest.raises(ValueError, match="not in 0..16"):
            pictures.image_grid(np.full((2, 4, 4, 1), wrong), 17)


# ---- what is given to public functions -------------------------------------------------------------------------------


def test_examples_outside_of_their_space_are_named():
    """Shape and kind of number while tracing; the range where the values are known, and not inside of compiled code."""
    space, grey = images(2, 2, 1, 17), np.full((3, 2, 2, 1), 16, np.uint8)
    space.expect(image=grey)
    for wrong, words in [
        (grey[..., 0], r"image has shape \(3, 2, 2\)"),
        (jnp.asarray(grey / 16.0), "image is float32, but a batch holds uint8"),
        (grey + 1, r"image holds 17 to 17, but its values are 0\.\.16"),
        (grey.astype(np.int32) - 17, "image holds -1 to -1"),
    ]:
        with pytest.raises(ValueError, match=words):
            space.expect(image=wrong)
    with pytest.raises(ValueError, match="x is int32, but a batch holds float32"):
        vectors(2).expect(x=np.zeros((3, 2), np.int32))
    jax.eval_shape(space.to_grid, grey + 1)  # values unknown
    with pytest.raises(ValueError, match="float32"):
        jax.eval_shape(space.to_grid, jnp.zeros((3, 2, 2, 1)))


@pytest.mark.parametrize("family", families.named())
def test_log_prob_refuses_what_is_no_example(family):
    """Outside of compiled code values, inside of it types: floats for integers, integers for floats, out of range.

    Also where the batch is evaluated in parts.
    """
    case = families.FAMILIES[family]
    if case.build().log_prob is None:
        return
    accumulates = any(field.name == "accumulate" for field in dataclasses.fields(case.config))
    algorithm, batch = case.build(**({"accumulate": 2} if accumulates else {})), case.batch(n=2)
    (field, space), *_ = algorithm.reads.items()
    state = jax.eval_shape(algorithm.init, jax.random.key(0), case.batch())
    other = jnp.float32 if space.levels else jnp.int32
    wrong = [batch | {field: batch[field].astype(other)}]
    if space.levels:
        wrong += [batch | {field: batch[field].astype(np.int32) + space.levels}]
        wrong += [batch | {field: batch[field].astype(np.int32) - space.levels}]
    for each in wrong:
        with pytest.raises(ValueError, match=rf"\b({field}|x) "):
            jax.eval_shape(lambda s, k: algorithm.log_prob(s, each, k), state, jax.random.key(0))  # noqa: B023


def test_labels_that_are_none_are_named():
    """-1 would be the last class, K the class for "none" or none at all: of denoiser, generator and discriminator."""
    space = images(2, 2, 1, 17)
    cfg = diffusion.Config(space=space, classes=3, width=4, blocks=1)
    game = gan.Config(space=space, classes=3, latent=2, width=4, depth=1)
    x, sigma, z = jnp.zeros((2, 2, 2, 1)), jnp.ones(2), jnp.zeros((2, 2))
    state, players = (
        jax.eval_shape(family.algorithm(each, batch_size=2).init, jax.random.key(0), {})
        for family, each in ((diffusion, cfg), (gan, game))
    )
    calls = [
        (3, state.params, lambda params, y: diffusion.denoiser(cfg, params)(x, sigma, y)),
        (2, players.params_g, lambda params, y: gan.generate(game, params, z, y)),
        (2, players.params_d, lambda params, y: gan.discriminate(game, params, x, y)),
    ]
    for most, params, call in calls:
        told = lambda y: jax.eval_shape(lambda params: call(params, y), params)  # noqa: B023, E731
        told(np.array([0, most]))
        for wrong in ([0, -1], [0, most + 1], [0.0, 1.0], [0, 1, 2]):
            with pytest.raises(ValueError, match="label"):
                told(np.array(wrong))
        with pytest.raises(ValueError, match="classes=3: give a label"):
            told(None)
    with pytest.raises(ValueError, match="unconditional"):
        gan.generate(gan.Config(space=space, latent=2), {}, jnp.zeros((2, 2)), jnp.zeros(2, jnp.int32))
    for wrong in (np.array([0, -1]), np.array([0, 3]), np.array([0.0, 1.0])):
        with pytest.raises(ValueError, match="cond"):
            check_cond({"image": space, "label": labels(3)}, 2, {"label": wrong})


def test_a_decoder_is_asked_for_integers():
    cfg = vae.Config(space=images(2, 2, 1, 17), latent=2, hidden=(4,))
    params = jax.eval_shape(vae.algorithm(cfg, batch_size=2).init, jax.random.key(0), {}).params
    grey = np.full((2, 2, 2, 1), 16, np.uint8)
    likelihood = lambda x: lambda params: vae.log_likelihood(cfg, params, x, jnp.zeros((2, 2)))  # noqa: E731
    jax.eval_shape(likelihood(grey), params)
    for wrong in (grey / 16.0, grey + 1):
        with pytest.raises(ValueError, match="^x "):
            jax.eval_shape(likelihood(wrong), params)
        with pytest.raises(ValueError, match="^x "):
            vae.encode(cfg, None, wrong)
