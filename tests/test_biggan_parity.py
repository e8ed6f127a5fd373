"""BigGAN beside the networks of experiments/peers/biggan.py, written in PyTorch from the paper."""

import dataclasses
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genmap_jax.algorithm import like_batch
from genmap_jax.implicit import biggan
from genmap_jax.spaces import images

torch = pytest.importorskip("torch", reason="the reference runs on it; in the extra parity")

WIDE = biggan.Config(images(16, 16, 3), classes=3, latent=12, width=8, channels=(4, 2, 2, 1), attention=8, embedding=5)
CASES = {"plain": WIDE, "deep": dataclasses.replace(WIDE, deep=True)}


@pytest.fixture(scope="module")
def peer():
    path = Path(__file__).parents[1] / "experiments" / "peers" / "biggan.py"
    spec = importlib.util.spec_from_file_location("peer_biggan", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["plain", pytest.param("deep", marks=pytest.mark.slow)])
def test_networks_are_those_of_the_paper(name, peer):
    """Images, normalised by the batch, and logits, in float32 with equal weights: 1e-5 of the largest."""
    cfg, rng = CASES[name], np.random.default_rng(0)
    algorithm = biggan.algorithm(cfg, batch_size=4)
    state = jax.jit(algorithm.init)(jax.random.key(0), like_batch(algorithm.reads, 4))
    moved = lambda p: p + 0.1 * rng.normal(size=p.shape).astype(np.float32)  # noqa: E731
    params_g, params_d = jax.tree.map(moved, (state.params_g, state.params_d))
    z, x = rng.normal(size=(4, 12)).astype(np.float32), rng.normal(size=(4, 16, 16, 3)).astype(np.float32)
    label = np.array([0, 2, 1, 1])
    variables = {"params": params_g, "batch_stats": state.stats_g}
    with jax.default_matmul_precision("highest"):
        G, D = biggan.Generator(cfg), biggan.Discriminator(cfg)
        image, _ = jax.jit(lambda v, z, y: G.apply(v, z, y, True, mutable=["batch_stats"]))(variables, z, label)
        logits = jax.jit(lambda p, x, y: D.apply({"params": p}, x, y))(params_d, x, label)
    theirs = peer.generator(cfg, peer.tensors(params_g), torch.tensor(z), torch.tensor(label))
    theirs = theirs.numpy().transpose(0, 2, 3, 1)
    assert np.abs(theirs).max() > 0.1
    np.testing.assert_allclose(image, theirs, atol=1e-5 * max(1.0, np.abs(theirs).max()))
    given = torch.tensor(x.transpose(0, 3, 1, 2).copy())
    theirs = peer.discriminator(cfg, peer.tensors(params_d), given, torch.tensor(label)).numpy()
    assert np.abs(theirs).max() > 0.1
    np.testing.assert_allclose(logits, theirs, atol=1e-5 * max(1.0, np.abs(theirs).max()))
    assert jnp.isfinite(image).all()
