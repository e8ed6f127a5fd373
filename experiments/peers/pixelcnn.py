"""Our PixelCNN++ beside the same network in PyTorch: the same streams, blocks, weight normalisation, loss, optimizer.

Training: one update on digits (8x8, 17 grey values, one stride) and on colour images (32x32, two strides).
Sampling: four colour images of 16x16, where PyTorch runs the whole network for every pixel, as the paper's code does.

The network below is written from the paper, in its conventions: outputs are shifted and not inputs, transposed
convolutions scatter and are cropped. `tests/test_pixelcnn_parity.py` gives it our parameters.
"""

import dataclasses
import math
import os
from collections.abc import Callable
from functools import partial

import jax
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from genmap_jax.optim import Optim
from genmap_jax.spaces import images
from genmap_jax.tractable import pixelcnn

ADAM = Optim(lr=1e-3, b1=0.95, b2=0.9995, clip=0.0)
DIGITS = pixelcnn.Config(
    space=images(8, 8, 1, levels=17), filters=24, blocks=1, scales=2, mixtures=5, optim=ADAM, ema_halflife=1e4
)
COLOUR = pixelcnn.Config(space=images(32, 32, 3), filters=32, blocks=2, optim=ADAM, ema_halflife=1e4)

DOWN, RIGHT = (2, 3), (2, 2)


def concat_elu(x):
    return F.elu(torch.cat([x, -x], 1))


def shifted_down(x):
    return F.pad(x, (0, 0, 1, 0))[:, :, :-1]


def shifted_right(x):
    return F.pad(x, (1, 0))[..., :-1]


class Normed(nn.Module):
    """v [out, in, h, w], g and b [out]: weight normalisation, with a window that ends at the pixel."""

    def __init__(self, inputs, outputs, size=(1, 1), stride=1):
        super().__init__()
        self.size, self.stride = size, stride
        self.v = nn.Parameter(0.05 * torch.randn(outputs, inputs, *size))
        self.g, self.b = nn.Parameter(torch.ones(outputs)), nn.Parameter(torch.zeros(outputs))

    def weight(self):
        v = self.v
        return v * (self.g / v.flatten(1).norm(dim=1))[:, None, None, None]

    def forward(self, x):
        h, w = self.size
        left = (w - 1) // 2 if w == 3 else w - 1
        x = F.pad(x, (left, w - 1 - left, h - 1, 0))
        return F.conv2d(x, self.weight(), self.b, self.stride)


class NormedUp(Normed):
    """A transposed convolution of stride 2, cropped to twice the sides."""

    def forward(self, x):
        height, width = 2 * x.shape[2], 2 * x.shape[3]
        y = F.conv_transpose2d(x, self.weight().transpose(0, 1), self.b, 2)
        crop = 1 if self.size[1] == 3 else 0
        return y[:, :, :height, crop : crop + width]


class Block(nn.Module):
    def __init__(self, cfg, size, told):
        super().__init__()
        filters = cfg.filters
        self.first = Normed(2 * filters, filters, size)
        self.second = Normed(2 * filters, 2 * filters, size)
        if told:
            self.also = Normed(2 * told * filters, filters)
        self.drop = nn.Dropout(cfg.dropout)

    def forward(self, x, *told):
        y = self.first(concat_elu(x))
        if told:
            y = y + self.also(concat_elu(torch.cat(told, 1)))
        value, gate = self.second(self.drop(concat_elu(y))).chunk(2, 1)
        return x + value * torch.sigmoid(gate)


class Network(nn.Module):
    """Images [B, C, H, W] from -1 to 1 -> [B, D, H, W]."""

    def __init__(self, cfg, outputs):
        super().__init__()
        self.cfg, channels = cfg, cfg.space.shape[-1] + 1
        self.first_down = Normed(channels, cfg.filters, (2, 3))
        self.first_above, self.first_left = Normed(channels, cfg.filters, (1, 3)), Normed(channels, cfg.filters, (2, 1))
        self.down, self.right = nn.ModuleDict(), nn.ModuleDict()
        for stream, size, extra in ((self.down, DOWN, 0), (self.right, RIGHT, 1)):
            for k in range(cfg.scales):
                last = k == cfg.scales - 1
                for i in range(2 * cfg.blocks + (not last)):
                    stream[f"block_{k}_{i}"] = Block(cfg, size, extra + (i >= cfg.blocks))
                if not last:
                    stream[f"down_{k}"] = Normed(cfg.filters, cfg.filters, size, 2)
                    stream[f"up_{k}"] = NormedUp(cfg.filters, cfg.filters, size)
        self.last = Normed(cfg.filters, outputs)

    def forward(self, x):
        cfg, x = self.cfg, F.pad(x, (0, 0, 0, 0, 0, 1), value=1.0)
        u = shifted_down(self.first_down(x))
        ul = shifted_down(self.first_above(x)) + shifted_right(self.first_left(x))
        us, uls = [u], [ul]
        for k in range(cfg.scales):
            for i in range(cfg.blocks):
                us.append(self.down[f"block_{k}_{i}"](us[-1]))
                uls.append(self.right[f"block_{k}_{i}"](uls[-1], us[-1]))
            if k < cfg.scales - 1:
                us.append(self.down[f"down_{k}"](us[-1]))
                uls.append(self.right[f"down_{k}"](uls[-1]))
        u, ul = us.pop(), uls.pop()
        for k in reversed(range(cfg.scales)):
            if k < cfg.scales - 1:
                u, ul = self.down[f"up_{k}"](u), self.right[f"up_{k}"](ul)
            for i in range(cfg.blocks, 2 * cfg.blocks + (k < cfg.scales - 1)):
                u = self.down[f"block_{k}_{i}"](u, us.pop())
                ul = self.right[f"block_{k}_{i}"](ul, u, uls.pop())
        return self.last(F.elu(ul))


def log_prob(cfg, out, x):
    """The mixture of logistics. out [B, D, H, W], x [B, C, H, W] on the grid from -1 to 1 -> [B]

    In units of that grid, as in the paper's code, but without its density in the place of small differences.
    """
    batch, channels, height, width = x.shape
    K, half = cfg.mixtures, 1.0 / (cfg.space.levels - 1)
    out = out.unflatten(1, (-1, K))  # [B, 1 + 2 C + pairs, K, H, W]
    logits, mean, log_scale, coupling = out.split((1, channels, channels, channels * (channels - 1) // 2), 1)
    floor = -7.0 + math.log(127.5 * 2.0 * half)  # the same number of grey levels for any number of them
    log_scale, coupling = log_scale.clamp(min=floor), torch.tanh(coupling)
    total = F.log_softmax(logits[:, 0], 1)
    for c in range(channels):
        m = mean[:, c]
        for d in range(c):
            m = m + coupling[:, c * (c - 1) // 2 + d] * x[:, d, None]
        centred, inverse = x[:, c, None] - m, torch.exp(-log_scale[:, c])
        first, last = F.logsigmoid(inverse * (centred + half)), F.logsigmoid(-inverse * (centred - half))
        inside = first + last + torch.log(-torch.expm1(-2.0 * half * inverse))
        edge = x[:, c, None]
        total = total + torch.where(edge < -0.999, first, torch.where(edge > 0.999, last, inside))
    return torch.logsumexp(total, 1).flatten(1).sum(1)


def outputs(cfg: pixelcnn.Config) -> int:
    channels = cfg.space.shape[-1]
    return cfg.mixtures * (1 + 2 * channels + channels * (channels - 1) // 2)


def give(network: Network, params) -> Network:
    """Our parameters: kernels [h, w, in, out] become [out, in, h, w], those of transposed convolutions turned round."""
    modules = dict(network.named_modules())
    with torch.no_grad():
        for path, value in jax.tree.leaves_with_path(params):
            *owner, name = (part.key for part in path)
            module, array = modules[".".join(owner)], np.array(value)
            if name == "kernel":
                array = array[::-1, ::-1] if isinstance(module, NormedUp) else array
                array = array.transpose(3, 2, 0, 1)
            target = {"kernel": "v", "gain": "g", "bias": "b"}[name]
            getattr(module, target).copy_(torch.from_numpy(np.ascontiguousarray(array)))
    return network


def grid(cfg: pixelcnn.Config, batch: np.ndarray) -> torch.Tensor:
    x = torch.from_numpy(np.ascontiguousarray(batch.transpose(0, 3, 1, 2)))
    x = x.float() if x.dtype == torch.uint8 else x
    return x * (2.0 / (cfg.space.levels - 1)) - 1.0


def theirs(cfg: pixelcnn.Config, batch: np.ndarray, updates: int) -> Callable[[], None]:
    network = Network(cfg, outputs(cfg)).train()
    parameters = list(network.parameters())
    average = [p.detach().clone() for p in parameters]
    adam, x = torch.optim.Adam(parameters, 1e-3, (0.95, 0.9995), fused=True), grid(cfg, batch)

    def run():
        for _ in range(updates):
            loss = -log_prob(cfg, network(x), x).mean() / cfg.space.dims
            adam.zero_grad(set_to_none=True)
            loss.backward()
            adam.step()
            with torch.no_grad():
                torch._foreach_lerp_(average, parameters, 0.01)

    return run


def their_samples(cfg: pixelcnn.Config, n: int) -> Callable[[], None]:
    """The whole network for every pixel."""
    network = Network(cfg, outputs(cfg)).eval()
    H, W, C = cfg.space.shape

    def run():
        x = torch.zeros(n, C, H, W)
        with torch.inference_mode():
            for t in range(H * W):
                out = network(x)[:, :, t // W, t % W].unflatten(1, (-1, cfg.mixtures))
                k = torch.distributions.Categorical(logits=out[:, 0]).sample()
                mean, scale, coupling = (
                    out[:, part].gather(2, k[:, None, None].expand(-1, size, 1))[..., 0]
                    for part, size in (
                        (slice(1, 1 + C), C),
                        (slice(1 + C, 1 + 2 * C), C),
                        (slice(1 + 2 * C, None), C * (C - 1) // 2),
                    )
                )
                u = torch.rand(n, C).clamp(1e-5, 1 - 1e-5)
                pixel = mean + scale.clamp(min=-7).exp() * (u.log() - (-u).log1p())
                for c in range(C):
                    told = sum(torch.tanh(coupling[:, c * (c - 1) // 2 + d]) * pixel[:, d] for d in range(c))
                    pixel[:, c] = (pixel[:, c] + told).clamp(-1, 1)
                x[:, :, t // W, t % W] = pixel

    return run


def our_samples(cfg: pixelcnn.Config, n: int) -> Callable[[], None]:
    batch = np.random.default_rng(0).integers(0, cfg.space.levels, (n, *cfg.space.shape)).astype(np.uint8)
    params = jax.jit(partial(pixelcnn.init_params, cfg))(jax.random.key(0), batch)
    draw = jax.jit(lambda params, keys: pixelcnn.generate(cfg, params, keys=keys)[0])
    keys = jax.random.split(jax.random.key(1), n)
    return lambda: jax.block_until_ready(draw(params, keys))


def comparisons(our_updates: Callable) -> dict[str, tuple[int, dict[str, Callable[[], Callable[[], None]]]]]:
    """Title -> (units of work in one call, competitor -> a function that prepares its call); ours is the first.

    our_updates: the function of `experiments/benchmarks.py` that prepares our training.
    """
    torch.set_num_threads(os.cpu_count())
    many = ["ours, 2 devices"] if jax.device_count() > 1 else []
    found = {}
    rows = {"PixelCNN++ 8x8, updates/s": (DIGITS, 32, 10), "PixelCNN++ 32x32, updates/s": (COLOUR, 16, 1)}
    for title, (cfg, size, updates) in rows.items():
        batch = np.random.default_rng(0).integers(0, cfg.space.levels, (size, *cfg.space.shape)).astype(np.uint8)
        ours = partial(our_updates, pixelcnn.algorithm, cfg, {"image": batch}, updates)
        found[title] = (
            updates,
            {
                "ours": partial(ours, devices=1),
                **{name: partial(ours, devices=2) for name in many},
                "torch": partial(theirs, cfg, batch, updates),
            },
        )
    small, n = dataclasses.replace(COLOUR, space=images(16, 16, 3)), 4
    found["4 samples of 16x16, pixels/s"] = (
        n * 256,
        {
            "ours": partial(our_samples, small, n),
            "ours, naive": partial(our_samples, dataclasses.replace(small, sampler="naive"), n),
            "torch, naive": partial(their_samples, small, n),
        },
    )
    return found
