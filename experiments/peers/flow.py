"""Our flows beside the same flows in PyTorch, on the same cores.

Spline flow: five couplings of rational-quadratic splines in 8 dimensions, as nflows 0.14 builds them (same widths,
bins, LU matrices, actnorm), batches of 512. Glow: two levels of 8 steps on 32x32 grey images, written here in PyTorch.
"""

import math
import os
from collections.abc import Callable
from functools import partial

import jax
import numpy as np
import torch
from nflows import distributions, flows, transforms
from nflows.nn.nets import ResidualNet
from torch import nn

from genmap_jax.optim import Optim
from genmap_jax.spaces import images, vectors
from genmap_jax.tractable.flow import glow, spline

ADAM = Optim(lr=1e-3, clip=0.0)
SPLINE = spline.Config(space=vectors(8), layers=5, width=64, blocks=2, bins=8, box=3.0, optim=ADAM)
GLOW = glow.Config(space=images(32, 32, 1), levels=2, depth=8, width=64, optim=ADAM)
POINTS, IMAGES = 512, 32


def nflows_spline(cfg: spline.Config) -> flows.Flow:
    maps = []
    for _ in range(cfg.layers):
        maps += [
            transforms.ActNorm(8),
            transforms.RandomPermutation(8),
            transforms.LULinear(8, identity_init=True),
            transforms.PiecewiseRationalQuadraticCouplingTransform(
                [0, 0, 0, 0, 1, 1, 1, 1],
                lambda a, b: ResidualNet(a, b, hidden_features=cfg.width, num_blocks=cfg.blocks),
                num_bins=cfg.bins,
                tails="linear",
                tail_bound=cfg.box,
            ),
        ]
    return flows.Flow(transforms.CompositeTransform(maps), distributions.StandardNormal([8]))


class Actnorm(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.shift, self.log_std = (nn.Parameter(torch.zeros(channels, 1, 1)) for _ in range(2))

    def forward(self, x):
        return (x - self.shift) * torch.exp(-self.log_std), -self.log_std.sum() * x[0, 0].numel()

    def inverse(self, y):
        return y * torch.exp(self.log_std) + self.shift


class Mix(nn.Module):
    """A fixed rotation, then an LU matrix, as one 1x1 convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("rotation", torch.linalg.qr(torch.randn(channels, channels))[0])
        self.lower, self.upper = (nn.Parameter(torch.zeros(channels, channels)) for _ in range(2))
        self.log_diagonal = nn.Parameter(torch.zeros(channels))

    def matrix(self):
        lower = torch.tril(self.lower, -1) + torch.eye(len(self.lower))
        return lower @ (torch.triu(self.upper, 1) + torch.diag(self.log_diagonal.exp())) @ self.rotation

    def forward(self, x):
        return nn.functional.conv2d(x, self.matrix()[:, :, None, None]), self.log_diagonal.sum() * x[0, 0].numel()

    def inverse(self, y):
        return nn.functional.conv2d(y, torch.linalg.inv(self.matrix())[:, :, None, None])


class Coupling(nn.Module):
    def __init__(self, channels: int, width: int):
        super().__init__()
        last = nn.Conv2d(width, channels, 3, 1, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        hidden = [nn.Conv2d(channels // 2, width, 3, 1, 1), nn.ReLU(), nn.Conv2d(width, width, 1), nn.ReLU()]
        self.net = nn.Sequential(*hidden, last)

    def parameters_of(self, kept):
        raw, shift = self.net(kept).chunk(2, 1)
        return 2.0 * torch.tanh(raw / 2.0), shift

    def forward(self, x):
        kept, changed = x.chunk(2, 1)
        s, m = self.parameters_of(kept)
        return torch.cat([kept, (changed - m) * torch.exp(-s)], 1), -s.flatten(1).sum(1)

    def inverse(self, y):
        kept, changed = y.chunk(2, 1)
        s, m = self.parameters_of(kept)
        return torch.cat([kept, changed * torch.exp(s) + m], 1)


class TorchGlow(nn.Module):
    """`glow.flow(GLOW)`: squeeze, steps, split, squeeze, steps, actnorm."""

    def __init__(self, cfg: glow.Config):
        super().__init__()
        step = lambda c: [Actnorm(c), Mix(c), Coupling(c, cfg.width)]  # noqa: E731
        steps = lambda c: nn.ModuleList([m for _ in range(cfg.depth) for m in step(c)])  # noqa: E731
        self.fine, self.coarse, self.last = steps(4), steps(8), Actnorm(8)
        self.prior = nn.Conv2d(2, 4, 3, 1, 1)
        nn.init.zeros_(self.prior.weight)
        nn.init.zeros_(self.prior.bias)

    def log_prob(self, x):
        x, total = nn.functional.pixel_unshuffle(x, 2), 0.0
        for m in self.fine:
            x, logdet = m(x)
            total = total + logdet
        x, off = x.chunk(2, 1)
        raw, shift = self.prior(x).chunk(2, 1)
        s = 2.0 * torch.tanh(raw / 2.0)
        z, total = (off - shift) * torch.exp(-s), total - s.flatten(1).sum(1)
        x = nn.functional.pixel_unshuffle(x, 2)
        for m in [*self.coarse, self.last]:
            x, logdet = m(x)
            total = total + logdet
        normal = sum(-0.5 * part.square().flatten(1).sum(1) for part in (z, x))
        return normal + total - 0.5 * math.log(2 * math.pi) * 32 * 32

    def sample(self, n: int):
        x = torch.randn(n, 8, 8, 8)
        for m in [self.last, *reversed(self.coarse)]:
            x = m.inverse(x)
        x = nn.functional.pixel_shuffle(x, 2)
        raw, shift = self.prior(x).chunk(2, 1)
        off = torch.randn(n, 2, 16, 16) * torch.exp(2.0 * torch.tanh(raw / 2.0)) + shift
        x = torch.cat([x, off], 1)
        for m in reversed(self.fine):
            x = m.inverse(x)
        return nn.functional.pixel_shuffle(x, 2)


def trains(model: nn.Module, batch: Callable[[], torch.Tensor], updates: int) -> Callable[[], None]:
    adam = torch.optim.Adam(model.parameters(), 1e-3, fused=True)

    def run():
        for _ in range(updates):
            adam.zero_grad(set_to_none=True)
            (-model.log_prob(batch()).mean()).backward()
            adam.step()

    return run


def their_points(updates: int) -> Callable[[], None]:
    x = torch.tensor(_points())
    model = nflows_spline(SPLINE)
    model.log_prob(x)  # actnorm starts from the first batch
    return trains(model, lambda: x, updates)


def their_images(updates: int) -> Callable[[], None]:
    v = torch.tensor(_images()).permute(0, 3, 1, 2).float()
    return trains(TorchGlow(GLOW), lambda: (v + torch.rand_like(v)) * (2.0 / 256) - 1.0, updates)


def their_samples(model: nn.Module, n: int) -> Callable[[], None]:
    def run():
        with torch.no_grad():
            model.sample(n)

    return run


def our_samples(family, cfg, batch: dict[str, np.ndarray], n: int) -> Callable[[], None]:
    algorithm = family(cfg, batch_size=n)
    state = jax.jit(algorithm.init)(jax.random.key(0), batch)
    draw = jax.jit(algorithm.sample, static_argnums=2)
    return lambda: jax.block_until_ready(draw(state, jax.random.key(1), n))


def comparisons(our_updates: Callable) -> dict[str, tuple[int, dict[str, Callable[[], Callable[[], None]]]]]:
    """What is compared -> (units of work in one call, competitor -> how to set it up; ours is the first).

    our_updates: of `experiments/benchmarks.py`.
    """
    torch.set_num_threads(os.cpu_count())
    points, pictures = {"x": _points()}, {"image": _images()}
    ours = partial(our_updates, spline.algorithm, SPLINE, points, 20)
    ours_glow = partial(our_updates, glow.algorithm, GLOW, pictures, 3)
    return {
        "spline flow, 8 dimensions, updates/s": (
            20,
            {"ours": partial(ours, devices=1), "nflows": partial(their_points, 20)},
        ),
        "spline flow, 8 dimensions, samples/s": (
            POINTS,
            {
                "ours": partial(our_samples, spline.algorithm, SPLINE, points, POINTS),
                "nflows": lambda: their_samples(nflows_spline(SPLINE).eval(), POINTS),
            },
        ),
        "Glow 32x32, updates/s": (3, {"ours": partial(ours_glow, devices=1), "torch": partial(their_images, 3)}),
        "Glow 32x32, samples/s": (
            IMAGES,
            {
                "ours": partial(our_samples, glow.algorithm, GLOW, pictures, IMAGES),
                "torch": lambda: their_samples(TorchGlow(GLOW), IMAGES),
            },
        ),
    }


def _points() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(POINTS, 8)).astype(np.float32)


def _images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (IMAGES, 32, 32, 1)).astype(np.uint8)
