"""Our PixelCNN++ beside the one in PyTorch of `experiments/peers/pixelcnn.py`: equal parameters, equal outputs."""

import functools
import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

from genmap_jax import data
from genmap_jax.algorithm import init_state
from genmap_jax.optim import Optim, optimizer
from genmap_jax.spaces import images
from genmap_jax.tractable import pixelcnn
from genmap_jax.tractable.pixelcnn import head
from genmap_jax.units import bits_per_dim

torch = pytest.importorskip("torch", reason="the reference runs on it; in the extra parity")
pytestmark = pytest.mark.slow

PEER = Path(__file__).parents[1] / "experiments" / "peers" / "pixelcnn.py"


@functools.cache
def peer():
    spec = importlib.util.spec_from_file_location("peer_pixelcnn", PEER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "cfg",
    [
        pixelcnn.Config(space=images(8, 8, 1, levels=17), filters=8, blocks=2, scales=1, mixtures=3),
        pixelcnn.Config(space=images(8, 8, 3), filters=8, blocks=2, scales=3, mixtures=3),
        pixelcnn.Config(space=images(32, 32, 3), filters=8, blocks=1, scales=3, mixtures=10),
    ],
    ids=["8x8 grey", "8x8 colour", "32x32 colour"],
)
def test_outputs_log_probabilities_and_gradients_are_those_of_pytorch(cfg):
    """Outputs in float32, the log-probability there in float64."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, cfg.space.levels, (3, *cfg.space.shape)).astype(np.uint8)
    params = jax.jit(functools.partial(pixelcnn.init_params, cfg))(jax.random.key(0), x)
    params = jax.tree.map(lambda p: p + 0.05 * rng.standard_normal(p.shape).astype(np.float32), params)
    theirs = peer().give(peer().Network(cfg, peer().outputs(cfg)).eval(), params)
    assert sum(p.numel() for p in theirs.parameters()) == sum(p.size for p in jax.tree.leaves(params))

    out = theirs(peer().grid(cfg, x))
    ours = jax.jit(functools.partial(pixelcnn.outputs, cfg))(params, x)
    same = out.detach().numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(ours, same, atol=1e-4)

    exact = peer().log_prob(cfg, out.double(), peer().grid(cfg, x.astype(np.float64)))
    nats = jax.jit(functools.partial(pixelcnn.log_prob, cfg))(params, x)
    np.testing.assert_allclose(nats / cfg.space.dims, exact.detach().numpy() / cfg.space.dims, atol=1e-4)
    nats = jax.jit(functools.partial(head.log_prob, cfg))(params, same, x)  # from the very same outputs
    np.testing.assert_allclose(nats.reshape(3, -1).sum(-1), exact.detach().numpy(), rtol=2e-6)

    (exact.sum() / cfg.space.dims).backward()
    gradients = jax.jit(jax.grad(lambda p: pixelcnn.log_prob(cfg, p, x).sum() / cfg.space.dims))(params)
    expected = dict(theirs.named_parameters())
    for path, ours in jax.tree.leaves_with_path(gradients):
        *owner, name = (part.key for part in path)
        found = expected[".".join([*owner, {"kernel": "v", "gain": "g", "bias": "b"}[name]])].grad.numpy()
        if name == "kernel":
            found = found.transpose(2, 3, 1, 0)
            found = found[::-1, ::-1] if owner[-1].startswith("up_") else found
        scale = max(1e-3, np.abs(found).max())
        np.testing.assert_allclose(np.asarray(ours) / scale, found / scale, atol=2e-4, err_msg=str(path))


def test_sixty_updates_reach_the_bits_that_pytorch_reaches():
    """On digits, from equal parameters, with the same images, without dropout."""
    adam = Optim(lr=1e-3, b1=0.95, b2=0.9995, clip=0.0)
    cfg = pixelcnn.Config(
        space=images(8, 8, 1, levels=17), filters=12, blocks=1, scales=2, mixtures=3, dropout=0.0, optim=adam
    )
    train, test = data.load("digits", "train"), data.load("digits", "test")
    batches = [data.batch(train, 0, i, 32)["image"] for i in range(60)]
    params = jax.jit(functools.partial(pixelcnn.init_params, cfg))(jax.random.key(0), batches[0])
    theirs = peer().give(peer().Network(cfg, peer().outputs(cfg)), params)
    their_adam = torch.optim.Adam(theirs.parameters(), 1e-3, (0.95, 0.9995))
    state, step = init_state(params, optimizer(adam, 32)), jax.jit(pixelcnn.algorithm(cfg, batch_size=32).step)

    def their_nats(x):
        return peer().log_prob(cfg, theirs(peer().grid(cfg, x)), peer().grid(cfg, x))

    for x in batches:
        state, _ = step(state, {"image": x}, jax.random.key(0))
        their_adam.zero_grad()
        (-their_nats(x).mean() / 64).backward()
        their_adam.step()
    x = test.take(test.spaced(200))["image"]
    nats = jax.jit(functools.partial(pixelcnn.log_prob, cfg))
    before, ours = (float(nats(p, x).mean()) for p in (params, state.params))
    with torch.inference_mode():
        found = float(their_nats(x).mean())
    assert bits_per_dim(ours, 64) == pytest.approx(bits_per_dim(found, 64), abs=0.02)
    assert bits_per_dim(ours, 64) < bits_per_dim(before, 64) - 0.2
