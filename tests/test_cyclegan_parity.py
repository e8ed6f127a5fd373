"""CycleGAN beside the networks and the update of experiments/peers/cyclegan.py, written in PyTorch from the papers."""

import dataclasses
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genmap_jax.algorithm import like_batch
from genmap_jax.implicit import cyclegan
from genmap_jax.implicit.cyclegan import players
from genmap_jax.keys import example_keys, fold, split
from genmap_jax.objectives import pool
from genmap_jax.optim import Optim
from genmap_jax.spaces import images

torch = pytest.importorskip("torch", reason="the reference runs on it; in the extra parity")
pytestmark = pytest.mark.slow

CFG = cyclegan.Config(
    images(16, 20, 3), width=4, blocks=2, patch_layers=2, pool=3, optim=Optim(lr=1e-2, b1=0.5, clip=0)
)
B = 2


@pytest.fixture(scope="module")
def peer():
    path = Path(__file__).parents[1] / "experiments" / "peers" / "cyclegan.py"
    spec = importlib.util.spec_from_file_location("peer_cyclegan", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def started(cfg):
    """A state with every parameter moved away from its initial value, and a full pool of noise."""
    algorithm, rng = cyclegan.algorithm(cfg, batch_size=B), np.random.default_rng(0)
    state = jax.jit(algorithm.init)(jax.random.key(0), like_batch(algorithm.reads, B))
    noised = lambda p: p + 0.1 * rng.normal(size=p.shape).astype(np.float32)  # noqa: E731
    params_g, params_d = jax.tree.map(noised, (state.params_g, state.params_d))
    full = {
        way: pool.Pool(noised(np.zeros(each.images.shape, np.float32)), jnp.int32(cfg.pool))
        for way, each in state.pools.items()
    }
    return algorithm, dataclasses.replace(state, params_g=params_g, params_d=params_d, pools=full)


def nchw(x):
    return torch.tensor(np.asarray(x).transpose(0, 3, 1, 2).copy())


def examples():
    rng = np.random.default_rng(1)
    return {name: rng.integers(0, 256, (B, *CFG.space.shape)).astype(np.uint8) for name in ("image", "source")}


@pytest.mark.parametrize("name", ["resnet", "unet"])
def test_networks_are_those_of_the_papers(name, peer):
    """Images and logits in float32 with equal weights: 1e-5 of the largest."""
    cfg = CFG if name == "resnet" else dataclasses.replace(CFG, generator="unet", depth=2, dropout=0.0)
    _, state = started(cfg)
    x = jnp.asarray(np.random.default_rng(2).normal(size=(B, *cfg.space.shape)), jnp.float32)
    with jax.default_matmul_precision("highest"):
        image = jax.jit(lambda p, x: players.translate(cfg, p, x, example_keys(jax.random.key(0), B)))(
            state.params_g["ab"], x
        )
        logits = jax.jit(lambda p, x: players.discriminate(cfg, p, x))(state.params_d["ab"], x)
    network = peer.load((peer.resnet if name == "resnet" else peer.UNet)(cfg), state.params_g["ab"])
    judge = peer.load(peer.patchgan(cfg, 3), state.params_d["ab"])
    with torch.no_grad():
        for ours, theirs in ((image, network(nchw(x))), (logits[..., None], judge(nchw(x)))):
            theirs = theirs.numpy().transpose(0, 2, 3, 1)
            assert np.abs(theirs).max() > 0.1
            np.testing.assert_allclose(ours, theirs, atol=1e-5 * max(1.0, np.abs(theirs).max()))


def test_one_whole_update_is_that_of_torch(peer):
    """Both generators against the old discriminators, then both discriminators on images of full pools.

    With plain gradients every parameter moves as theirs to 1e-4 of the largest move; Adam would divide rounding by
    rounding where a gradient is zero, as those of biases before a normalisation are.
    """
    cfg = dataclasses.replace(CFG, optim=Optim(name="sgd", lr=1e-2, clip=0.0))
    algorithm, state = started(cfg)
    key, batch = jax.random.key(3), examples()
    real = {name: cfg.space.to_grid(x) for name, x in batch.items()}
    noise, _, _, keys_pool = split(example_keys(key, B), 4)
    with jax.default_matmul_precision("highest"):
        after, _ = jax.jit(algorithm.step)(state, batch, key)
        fakes, _ = jax.jit(lambda p: players.translations(cfg, p, real, noise))(state.params_g)
    seen = {
        way: pool.exchange(state.pools[way], fake, fold(keys_pool, i))[1] for i, (way, fake) in enumerate(fakes.items())
    }
    assert any((np.asarray(seen[way]) != np.asarray(fakes[way])).any() for way in seen), "an old image must be shown"

    game = peer.Game(cfg, state.params_g, state.params_d)
    game.adam_g, game.adam_d = (
        torch.optim.SGD([p for net in nets.values() for p in net.parameters()], 1e-2) for nets in (game.g, game.d)
    )
    game.update(nchw(real["source"]), nchw(real["image"]), {way: lambda _, way=way: nchw(seen[way]) for way in seen})
    for nets, before, ours in ((game.g, state.params_g, after.params_g), (game.d, state.params_d, after.params_d)):
        for way, net in nets.items():
            moves = jax.tree.map(lambda a, b: np.abs(a - b).max(), before[way], ours[way])
            largest = max(jax.tree.leaves(moves))
            expected = peer.load(type_like(peer, net, cfg), ours[way])
            for theirs, mine in zip(net.parameters(), expected.parameters(), strict=True):
                np.testing.assert_allclose(mine.detach(), theirs.detach(), atol=1e-4 * largest)


def type_like(peer, net, cfg):
    """A fresh network of the same kind."""
    has_tanh = any(isinstance(layer, torch.nn.Tanh) for layer in net.modules())
    return peer.resnet(cfg) if has_tanh else peer.patchgan(cfg, cfg.space.shape[-1])
