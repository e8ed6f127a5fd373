"""Our StyleGAN2 beside the same game in PyTorch: the same networks, lazy penalties and optimizers, on the same cores.

Training: 16 updates of both players on 32x32 colour images, among which are 4 by the path-length penalty and 1 by R1.

The networks are written from the paper as functions of a tree of tensors that has the shape of our parameters, so that
tests/test_stylegan_parity.py can give both the same ones.
"""

import dataclasses
import math
import os
from collections.abc import Callable
from functools import partial

import jax
import numpy as np
import torch
from torch.nn import functional as F

from genmap_jax.algorithm import like_batch
from genmap_jax.implicit import stylegan
from genmap_jax.optim import Optim
from genmap_jax.spaces import images

UPDATES, BATCH = 16, 16
SMALL = stylegan.Config(
    images(32, 32, 3),
    **{"latent": 128, "mapping_depth": 4, "channels": 128, "capacity": 4096, "r1": 1.0},
    optim=Optim(lr=2e-3, b1=0.0, b2=0.99, clip=0.0),
)
FIR = torch.outer(torch.tensor([1.0, 3, 3, 1]), torch.tensor([1.0, 3, 3, 1])) / 64.0


def tensors(tree: dict) -> dict:
    """Our parameters as tensors: kernels of convolutions as [out, in, h, w], all others as they are."""
    if isinstance(tree, dict):
        return {name: tensors(sub) for name, sub in tree.items()}
    array = np.array(tree)
    return torch.tensor(array.transpose(3, 2, 0, 1).copy() if array.ndim == 4 else array)


def leaves(tree: dict) -> list[torch.Tensor]:
    return [leaf for sub in tree.values() for leaf in (leaves(sub) if isinstance(sub, dict) else [sub])]


# ---- layers ----------------------------------------------------------------------------------------------------------


def act(x):
    return F.leaky_relu(x, 0.2) * math.sqrt(2.0)


def normalise(x):
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


def dense(p, x, rate=1.0):
    return torch.addmm(p["bias"] * rate, x, p["kernel"] * (rate / x.shape[1] ** 0.5))


def scaled(kernel):
    return kernel / math.sqrt(kernel[0].numel())


def blur(x, gain, pad, stride=1):
    kernel = (gain * FIR).expand(x.shape[1], 1, 4, 4)
    return F.conv2d(F.pad(x, [pad] * 4), kernel, groups=x.shape[1], stride=stride)


def double(x):
    kernel = (4.0 * FIR).expand(x.shape[1], 1, 4, 4)
    return F.conv_transpose2d(x, kernel, stride=2, groups=x.shape[1])[:, :, 1:-1, 1:-1]


def modulated(p, x, w, demodulate=True, up=False):
    style, kernel = dense(p["affine"], w), scaled(p["kernel"])
    x = x * style[:, :, None, None]
    if up:
        x = blur(F.conv_transpose2d(x, kernel.transpose(0, 1).flip(2, 3), stride=2), 4.0, 1)
    else:
        x = F.conv2d(x, kernel, padding=kernel.shape[2] // 2)
    if demodulate:
        norm = style.square() @ kernel.square().sum((2, 3)).T + 1e-8
        x = x * norm.rsqrt()[:, :, None, None]
    return x


def styled(p, x, w, noise, up=False):
    x = modulated(p, x, w, up=up)
    x = x if noise is None else x + p["strength"] * noise
    return act(x + p["bias"][None, :, None, None])


def mapping(p, z, label, classes, depth):
    inputs = [] if z is None else [normalise(z)]
    if classes is not None:
        inputs.append(normalise(dense(p["label"], F.one_hot(label, classes).float())))
    w = torch.cat(inputs, 1)
    for i in range(depth):
        w = act(dense(p[f"Dense_{i}"], w, 0.01))
    return w


def synthesis(p, ws, noise):
    """noise: [B, 1, H, W] of each convolution, or None."""
    noises = iter(noise or [None] * ws.shape[1])
    x = p["basis"].movedim(2, 0)[None].expand(len(ws), -1, -1, -1)
    x = styled(p["StyledConv_0"], x, ws[:, 0], next(noises))
    colours = modulated(p["ToColours_0"], x, ws[:, 1], demodulate=False) + p["ToColours_0"]["bias"][None, :, None, None]
    for i in range(1, ws.shape[1] - 1, 2):
        x = styled(p[f"StyledConv_{i}"], x, ws[:, i], next(noises), up=True)
        x = styled(p[f"StyledConv_{i + 1}"], x, ws[:, i + 1], next(noises))
        last = p[f"ToColours_{(i + 1) // 2}"]
        new = modulated(last, x, ws[:, i + 2], demodulate=False) + last["bias"][None, :, None, None]
        colours = double(colours) + new
    return colours


def deviation(x, group):
    groups = x.reshape(group, len(x) // group, *x.shape[1:])
    channel = (groups.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3)).repeat(group)
    return torch.cat([x, channel[:, None, None, None].expand(-1, 1, *x.shape[2:])], 1)


def discriminator(cfg: stylegan.Config, p, x, label=None):
    """x [B, C, H, W] -> logits [B]"""

    def conv(name, x, down=False):
        kernel, bias = scaled(p[name]["kernel"]), p[name].get("bias")
        if not down:
            return F.conv2d(x, kernel, bias, padding=kernel.shape[2] // 2)
        if kernel.shape[2] == 1:
            return F.conv2d(blur(x, 1.0, 1, stride=2), kernel, bias)
        return F.conv2d(blur(x, 1.0, 2), kernel, bias, stride=2)

    x, i = act(conv("Conv_0", x)), 1
    while x.shape[2] > 4:
        y = act(conv(f"Conv_{i + 1}", act(conv(f"Conv_{i}", x)), down=True))
        x = (y + conv(f"Conv_{i + 2}", x, down=True)) * math.sqrt(0.5) if cfg.residual else y
        i += 3 if cfg.residual else 2
    x = act(conv(f"Conv_{i}", deviation(x, cfg.group)))
    x = act(dense(p["Dense_0"], x.permute(0, 2, 3, 1).flatten(1)))
    x = dense(p["Dense_1"], x)
    if cfg.classes is None:
        return x[:, 0]
    code = mapping(p["mapping"], None, label, cfg.classes, cfg.label_depth)
    return (x * code).sum(1) / math.sqrt(cfg.latent)


# ---- training --------------------------------------------------------------------------------------------------------


def path_lengths(images, ws, y):
    """y: noise of the shape of the images, divided by the root of their number of pixels."""
    (slope,) = torch.autograd.grad((images * y).sum(), ws, create_graph=True)
    return slope.square().sum(2).mean(1).sqrt()


def slopes(logits, x):
    """|grad D|^2 of each image, for R1."""
    (slope,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return slope.square().flatten(1).sum(1)


def theirs(cfg: stylegan.Config, batch: int, updates: int) -> Callable[[], None]:
    algorithm = stylegan.algorithm(cfg, batch_size=batch)
    state = jax.jit(algorithm.init)(jax.random.key(0), like_batch(algorithm.reads, batch))
    G, D = ({**tensors(tree)} for tree in (state.params_g, state.params_d))
    for leaf in leaves(G) + leaves(D):
        leaf.requires_grad_(True)
    adam_g, adam_d = (
        torch.optim.Adam(leaves(net), cfg.optim.lr * c, (0.0, 0.99**c), fused=True)
        for net, c in ((G, cfg.path_every / (cfg.path_every + 1)), (D, cfg.r1_every / (cfg.r1_every + 1)))
    )
    average = [leaf.detach().clone() for leaf in leaves(G)]
    data = torch.tensor(_images(cfg, batch)).permute(0, 3, 1, 2).float()
    cell, path_mean = 2.0 / cfg.space.levels, torch.zeros(())

    def styles(n):
        w, other = (mapping(G["mapping"], torch.randn(n, cfg.latent), None, None, cfg.mapping_depth) for _ in range(2))
        first = torch.where(torch.rand(n) < cfg.mixing, torch.randint(1, cfg.layers, (n,)), cfg.layers)
        return torch.where((torch.arange(cfg.layers)[None] >= first[:, None])[:, :, None], other[:, None], w[:, None])

    def draw(n, ws=None):
        noise = [torch.randn(n, 1, 4 << ((i + 1) // 2), 4 << ((i + 1) // 2)) for i in range(cfg.layers - 1)]
        return synthesis(G["synthesis"], styles(n) if ws is None else ws, noise)

    def dithered(x):
        return x + (torch.rand_like(x) - 0.5) * cell

    def update(adam, loss):
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()

    def trainable(net, on):
        for leaf in leaves(net):
            leaf.requires_grad_(on)

    def run():
        nonlocal path_mean
        for i in range(updates):
            real = (data + torch.rand_like(data)) * cell - 1.0
            trainable(D, False)
            update(adam_g, F.softplus(-discriminator(cfg, D, dithered(draw(batch)))).mean())
            if i % cfg.path_every == 0:
                ws = styles(batch // 2)
                x = draw(batch // 2, ws)
                lengths = path_lengths(x, ws, torch.randn_like(x) / cfg.resolution)
                mean = path_mean.lerp(lengths.mean(), 0.01)
                update(adam_g, cfg.path_every * cfg.path_length * (lengths - mean).square().mean())
                path_mean = mean.detach()
            trainable(D, True)
            with torch.no_grad():
                fake = dithered(draw(batch))
            logits = discriminator(cfg, D, real), discriminator(cfg, D, fake)
            update(adam_d, (F.softplus(-logits[0]) + F.softplus(logits[1])).mean())
            if i % cfg.r1_every == 0:
                x = real.detach().requires_grad_(True)
                r1 = slopes(discriminator(cfg, D, x), x)
                update(adam_d, cfg.r1_every * 0.5 * cfg.r1 * r1.mean())
            with torch.no_grad():
                torch._foreach_lerp_(average, leaves(G), 0.001)

    return run


def comparisons(our_updates: Callable) -> dict[str, tuple[int, dict[str, Callable[[], Callable[[], None]]]]]:
    """Title -> (updates in one call, competitor -> a function that prepares its call); ours is the first competitor.

    our_updates: the function of `experiments/benchmarks.py` that prepares our training.
    """
    torch.set_num_threads(os.cpu_count())
    ours = partial(our_updates, stylegan.algorithm, SMALL, {"image": _images(SMALL, BATCH)}, UPDATES)
    competitors = {"ours": partial(ours, devices=1), "torch": partial(theirs, SMALL, BATCH, UPDATES)}
    return {"StyleGAN2 32x32, lazy R1 and path length, updates/s": (UPDATES, competitors)}


def on_gpu(our_updates: Callable, dry: bool) -> dict[str, tuple[int, dict[str, Callable[[], Callable[[], None]]]]]:
    """As `comparisons`, at the width of the paper's network for CIFAR-10, in float32 with TF32 products."""
    wide = {"latent": 512, "mapping_depth": 8, "channels": 512, "capacity": 16384, "group": 4}
    narrow = {"latent": 8, "mapping_depth": 1, "channels": 8, "group": 2}
    cfg, batch = dataclasses.replace(SMALL, **(narrow if dry else wide)), 4 if dry else 64
    ours = partial(our_updates, stylegan.algorithm, cfg, {"image": _images(cfg, batch)}, UPDATES)
    competitors = {"ours": partial(ours, devices=1), "torch": partial(theirs, cfg, batch, UPDATES)}
    return {f"StyleGAN2 32x32, batch {batch}, images/s": (UPDATES * batch, competitors)}


def _images(cfg: stylegan.Config, batch: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, cfg.space.levels, (batch, *cfg.space.shape)).astype(np.uint8)
