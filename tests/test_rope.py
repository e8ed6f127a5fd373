"""Rotary positions depend on distance; their stretched forms; dual chunk attention stays within the trained window."""

import dataclasses
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genmap_jax.nn import rope
from genmap_jax.tractable import gpt

FOLDER = Path(__file__).parents[1] / "experiments"


def test_products_depend_on_the_distance_alone():
    """Both positions shifted by 1 to 1,000: q.k changes by <= 1e-5 of |q| |k|; by a change of distance it changes."""
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 64))
    q, k = q / jnp.linalg.norm(q), k / jnp.linalg.norm(k)
    dot = lambda m, n: float((rope.rotate(q, jnp.array([m]), 1e4) * rope.rotate(k, jnp.array([n]), 1e4)).sum())  # noqa: E731
    for shift in (1, 10, 100, 1000):
        assert abs(dot(7 + shift, 3 + shift) - dot(7, 3)) <= 1e-5
        assert abs(dot(7 + shift, 3) - dot(7, 3)) > 1e-3


def test_yarn_as_published():
    """Factor 4, original length 16, theta 1e4, head 8; the numbers are those of transformers."""
    yarn = rope.Scaling("yarn", 4.0, 16)
    np.testing.assert_allclose(rope.frequencies(8, 1e4, yarn), [1, 0.025, 0.0025, 0.00025], rtol=1e-12)
    assert rope.sharpness(yarn) == pytest.approx(1.138629, abs=1e-6)
    x = jnp.ones((1, 8))
    np.testing.assert_allclose(rope.rotate(x, jnp.array([0]), 1e4, yarn), 1.138629 * x, rtol=1e-6)
    long = rope.frequencies(128, 1e4, rope.Scaling("yarn", 4.0, 4096)) / rope.frequencies(128, 1e4)
    assert (long[:20] == 1).all() and (long[-16:] == 0.25).all() and (np.diff(long) <= 0).all()


def test_llama3_as_published():
    """Factor 8, original length 64, theta 1e4, head 8. The planes make 10.2, 1.02, 0.102 and 0.0102 turns within it."""
    llama3 = rope.Scaling("llama3", 8.0, 64, fast=4.0, slow=1.0)
    stays = (64 * 0.1 / (2 * np.pi) - 1) / 3  # of the second plane
    second = 0.1 * ((1 - stays) / 8 + stays)
    np.testing.assert_allclose(rope.frequencies(8, 1e4, llama3), [1, second, 0.00125, 0.000125], rtol=1e-12)
    assert rope.sharpness(llama3) == 1.0
    long = rope.frequencies(128, 5e5, rope.Scaling("llama3", 8.0, 8192, 4.0, 1.0)) / rope.frequencies(128, 5e5)
    assert (long[:20] == 1).all() and (long[-20:] == 0.125).all() and (np.diff(long) <= 0).all()


def test_linear_and_ntk():
    plain = rope.frequencies(16, 1e4)
    np.testing.assert_allclose(rope.frequencies(16, 1e4, rope.Scaling("linear", 4.0)), plain / 4)
    ntk = rope.frequencies(16, 1e4, rope.Scaling("ntk", 4.0)) / plain
    np.testing.assert_allclose(ntk[[0, -1]], [1.0, 0.25])  # the fastest stays, the slowest is stretched by the factor


@pytest.mark.parametrize(("chunk", "window"), [(12, 16), (8, 16), (3, 5), (1, 2)])
def test_dual_chunks_present_no_distance_beyond_the_window(chunk, window):
    at, distances = np.arange(64), rope.chunked_distances(64, chunk, window)
    causal = np.tri(64, dtype=bool)
    assert distances[causal].max() == window - 1 and distances[causal].min() == 0
    near = causal & (at[:, None] - at[None] <= window - chunk)  # the window that the second part keeps exact
    np.testing.assert_array_equal(distances[near], (at[:, None] - at[None])[near])
    for i in range(64):  # the three parts, written out
        for j in range(i + 1):
            apart = i // chunk - j // chunk
            query = [i % chunk, min(chunk + i % chunk, window - 1), window - 1][min(apart, 2)]
            assert distances[i, j] == query - j % chunk


@pytest.mark.slow
def test_dual_chunk_attention_against_its_distance_matrix():
    """One layer: attention from scores of every pair rotated to its own distance, one pair at a time: 1e-5."""
    cfg = gpt.Config(vocab=11, length=24, layers=1, heads=2, width=16, **gpt.LLAMA, chunk=6, trained=8)
    params = gpt.GPT(cfg).init(jax.random.key(0), jnp.zeros((1, 24), jnp.int32))["params"]["block_0"]["attention"]
    params = jax.tree.map(lambda x: 20 * x, params)
    x = jax.random.normal(jax.random.key(1), (1, 24, 16))
    y, _ = gpt.Attention(cfg).apply({"params": params}, x, None, gpt.At(jnp.arange(24)))
    qkv = (x[0] @ params["qkv"]["kernel"]).reshape(24, 3, 2, 8)
    distances = rope.chunked_distances(24, 6, 8)
    heads = []
    for h in range(2):
        q, k, v = qkv[:, 0, h], qkv[:, 1, h], qkv[:, 2, h]
        turned = jax.vmap(lambda d, k, q=q: rope.rotate(q, d, 1e4) @ k, out_axes=1)(jnp.asarray(distances).T, k)
        weights = jax.nn.softmax(jnp.where(np.tri(24, dtype=bool), turned * 8**-0.5, -jnp.inf), axis=-1)
        heads.append(weights @ v)
    np.testing.assert_allclose(y[0], jnp.concatenate(heads, -1) @ params["out"]["kernel"], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_dual_chunk_attention_is_attention_within_one_chunk():
    cfg = gpt.Config(vocab=11, length=12, layers=2, heads=2, width=16, **gpt.LLAMA)
    params = gpt.GPT(cfg).init(jax.random.key(0), jnp.zeros((1, 12), jnp.int32))["params"]
    params = jax.tree.map(lambda x: 10 * x, params)
    tokens = jax.random.randint(jax.random.key(1), (3, 12), 0, 11)
    plain = gpt.logits(cfg, params, tokens)
    one = gpt.logits(dataclasses.replace(cfg, chunk=12, trained=16), params, tokens)
    np.testing.assert_allclose(one, plain, rtol=0, atol=1e-5)
    assert abs(gpt.logits(dataclasses.replace(cfg, chunk=4, trained=6), params, tokens) - plain).max() > 1e-3


@pytest.mark.slow
def test_ways_to_read_a_long_text():
    """experiments/long_context.py: every token is scored once, and overlapping windows give each its half before it."""
    spec = importlib.util.spec_from_file_location("long_context", FOLDER / "long_context.py")
    long_context = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(long_context)
    cfg = gpt.Config(vocab=11, length=8, layers=1, heads=2, width=16, **gpt.LLAMA)
    params = jax.tree.map(
        lambda x: 10 * x, gpt.GPT(cfg).init(jax.random.key(0), jnp.zeros((1, 8), jnp.int32))["params"]
    )
    tokens = np.random.default_rng(0).integers(0, 11, (3, 32))
    nats = long_context.table(cfg, params, tokens, batch=2)
    assert all(each.shape == (3, 32) and np.isfinite(each).all() for each in nats.values())
    for start in range(0, 32, 8):
        alone = gpt.log_prob(cfg, params, jnp.asarray(tokens[:, start : start + 8]))
        np.testing.assert_allclose(nats["cut"][:, start : start + 8].sum(1), alone, rtol=1e-5)
    for start in range(4, 28, 8):
        window = jax.nn.log_softmax(gpt.logits(cfg, params, jnp.asarray(tokens[:, start : start + 8])))
        expected = np.take_along_axis(np.asarray(window), tokens[:, start : start + 8, None], -1)[:, 4:, 0]
        np.testing.assert_allclose(nats["overlapping"][:, start + 4 : start + 8], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(nats["overlapping"][:, 12:16], nats["cut"][:, 12:16])
