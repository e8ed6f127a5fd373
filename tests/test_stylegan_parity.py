"""StyleGAN2 beside the networks of experiments/peers/stylegan.py, written in PyTorch from the paper."""

import dataclasses
import importlib.util
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from variants import chosen

from genmap_jax.algorithm import like_batch
from genmap_jax.implicit import stylegan
from genmap_jax.implicit.stylegan.networks import noise_shapes
from genmap_jax.nn import conv
from genmap_jax.objectives import adversarial
from genmap_jax.spaces import images

torch = pytest.importorskip("torch", reason="the reference runs on it; in the extra parity")


@pytest.fixture(scope="module")
def peer():
    path = Path(__file__).parents[1] / "experiments" / "peers" / "stylegan.py"
    spec = importlib.util.spec_from_file_location("peer_stylegan", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PLAIN = stylegan.Config(
    images(16, 16, 3), latent=12, mapping_depth=3, channels=16, capacity=128, label_depth=2, group=2
)
CASES = {"plain": PLAIN, "labels": dataclasses.replace(PLAIN, classes=3, residual=False)}


def setting(cfg):
    """Parameters far from where they start, and inputs of four examples."""
    rng, side = np.random.default_rng(0), cfg.resolution
    algorithm = stylegan.algorithm(cfg, batch_size=4)
    state = jax.jit(algorithm.init)(jax.random.key(0), like_batch(algorithm.reads, 4))
    moved = lambda p: p + 0.3 * rng.normal(size=p.shape).astype(np.float32)  # noqa: E731
    params = jax.tree.map(moved, (state.params_g, state.params_d))
    shapes = (4, 12), (4, cfg.layers, 12), (4, side, side, 3)
    inputs = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    noise = [rng.normal(size=(4, *shape)).astype(np.float32) for shape in noise_shapes(cfg)]
    label = None if cfg.classes is None else np.array([0, 2, 1, 1])
    return *params, *inputs, noise, label


def first(x):
    """[B, H, W, C] -> a tensor [B, C, H, W]"""
    return torch.tensor(np.asarray(x).transpose(0, 3, 1, 2).copy())


def close(ours, theirs, tol=1e-5):
    theirs = theirs.detach().numpy()
    theirs = theirs.transpose(0, 2, 3, 1) if theirs.ndim == 4 else theirs
    assert np.abs(theirs).max() > 0.1
    np.testing.assert_allclose(ours, theirs, atol=tol * max(1.0, np.abs(theirs).max()))


@pytest.mark.parametrize("name", chosen(CASES, ["labels"]))
def test_networks_are_those_of_the_paper(name, peer):
    """w, images with noise and logits, in float32 with equal weights: 1e-5 of the largest."""
    cfg = CASES[name]
    params_g, params_d, z, ws, x, noise, label = setting(cfg)
    with jax.default_matmul_precision("highest"):
        label_j = None if label is None else jnp.asarray(label)
        w = jax.jit(partial(stylegan.style, cfg))(params_g, z, label_j)
        image = jax.jit(partial(stylegan.synthesise, cfg))(params_g, ws, tuple(noise))
        logits = jax.jit(partial(stylegan.discriminate, cfg))(params_d, x, label_j)
    G, D = peer.tensors(params_g), peer.tensors(params_d)
    label_t = None if label is None else torch.tensor(label)
    close(w, peer.mapping(G["mapping"], torch.tensor(z), label_t, cfg.classes, cfg.mapping_depth))
    close(image, peer.synthesis(G["synthesis"], torch.tensor(ws), [first(n) for n in noise]))
    close(logits, peer.discriminator(cfg, D, first(x), label_t))


@pytest.mark.parametrize("wide", [conv.WIDE, 1])
def test_double_backpropagation_is_that_of_torch(peer, wide, monkeypatch):
    """G6: gradients of R1, through the deviation of groups, and of path lengths to all parameters: 1e-5 relative.

    Also with the convolutions that a CPU has for wide layers.
    """
    monkeypatch.setattr(conv, "WIDE", wide)
    cfg = dataclasses.replace(PLAIN, space=images(8, 8, 3))
    params_g, params_d, _, ws, x, noise, _ = setting(cfg)
    y = np.random.default_rng(1).normal(size=x.shape).astype(np.float32) / 8.0

    def r1(params_d):
        critic = partial(stylegan.discriminate, cfg, params_d)
        return adversarial.zero_centred_gradient_penalty(critic, jnp.asarray(x)).mean()

    def lengths(synthesis):
        draw = lambda ws: (stylegan.synthesise(cfg, {"synthesis": synthesis}, ws, tuple(noise)) * y).sum()  # noqa: E731
        return jnp.sqrt((jax.grad(draw)(jnp.asarray(ws)) ** 2).sum(2).mean(1)).mean()

    with jax.default_matmul_precision("highest"):
        of_r1 = jax.jit(jax.grad(r1))(params_d)
        of_paths = jax.jit(jax.grad(lengths))(params_g["synthesis"])

    D, G = peer.tensors(params_d), peer.tensors(params_g["synthesis"])
    for leaf in (*peer.leaves(D), *peer.leaves(G)):
        leaf.requires_grad_(True)
    images_t, ws_t = first(x).requires_grad_(True), torch.tensor(ws).requires_grad_(True)
    peer.slopes(peer.discriminator(cfg, D, images_t), images_t).mean().backward()
    drawn = peer.synthesis(G, ws_t, [first(n) for n in noise])
    peer.path_lengths(drawn, ws_t, first(y)).mean().backward()

    def compare(ours, theirs):
        if isinstance(ours, dict):
            for name in ours:
                compare(ours[name], theirs[name])
            return
        found = np.zeros(theirs.shape, np.float32) if theirs.grad is None else theirs.grad.numpy()
        found = found.transpose(2, 3, 1, 0) if found.ndim == 4 else found
        np.testing.assert_allclose(ours, found, atol=1e-5 * max(np.abs(found).max(), 1e-3))

    compare(of_r1, D)
    compare(of_paths, G)
    assert np.abs(of_r1["Conv_0"]["kernel"]).max() > 0 and np.abs(of_paths["basis"]).max() > 0
