"""Our diffusion beside the U-Net of Hugging Face diffusers on PyTorch: the same network and solver, on the same cores.

Training: EDM's loss, ADM's U-Net (32 channels, 32x32 images, batch 16), AdamW, one update.
Sampling: 18 steps of Heun, 35 evaluations, 16 images. theirs is a loop in Python, as in diffusers' pipelines.

On a GPU: the network and loss of `experiments/edm_cifar10.py` beside a twin written from the paper, compiled, with
channels last.
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

from genmap_jax.approximate import diffusion
from genmap_jax.optim import Optim
from genmap_jax.spaces import images

BATCH, UPDATES = 16, 3  # updates between two looks at the clock
SIZES = {"width": 32, "channel_mult": (1, 2, 4), "blocks": 1, "attention": (8,), "head_width": 32}
SMALL = diffusion.Config(
    images(32, 32, 1), **diffusion.EDM, network="adm", **SIZES, sample_steps=18, optim=Optim(weight_decay=0.01)
)
EVALUATIONS = 2 * SMALL.sample_steps - 1


def theirs_training() -> Callable[[], None]:
    model = _theirs().train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.01, fused=True)
    x = torch.tensor(_images(), dtype=torch.float32).permute(0, 3, 1, 2) / 127.5 - 1.0

    def run():
        for _ in range(UPDATES):
            sigma = torch.exp(-1.2 + 1.2 * torch.randn(BATCH, 1, 1, 1))
            y = x + sigma * torch.randn_like(x)
            loss = (((_denoise(model, y, sigma) - x) * (1 + sigma**2).sqrt() / sigma) ** 2).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    return run


def ours_sampling() -> Callable[[], None]:
    algorithm = diffusion.algorithm(SMALL, batch_size=BATCH)
    state = jax.jit(algorithm.init)(jax.random.key(0), {"image": _images()})
    draw = jax.jit(algorithm.sample, static_argnums=2)
    return lambda: jax.block_until_ready(draw(state, jax.random.key(1), BATCH))


def theirs_sampling() -> Callable[[], None]:
    model = _theirs().eval()
    sigmas = torch.tensor(diffusion.sigmas_of(SMALL), dtype=torch.float32)

    def run():
        with torch.inference_mode():
            y = sigmas[0] * torch.randn(BATCH, 1, 32, 32)
            for now, then in zip(sigmas[:-1], sigmas[1:], strict=True):
                slope = (y - _denoise(model, y, now.expand(BATCH, 1, 1, 1))) / now
                there = y + (then - now) * slope
                if then > 0:
                    other = (there - _denoise(model, there, then.expand(BATCH, 1, 1, 1))) / then
                    there = y + (then - now) * (slope + other) / 2
                y = there

    return run


# ---- on a GPU --------------------------------------------------------------------------------------------------------

CIFAR = diffusion.Config(
    images(32, 32, 3),
    **diffusion.EDM,
    **{
        "network": "unet",
        "classes": 10,
        "data_std": 0.5,
        "width": 128,
        "blocks": 4,
        "channel_mult": (2, 2, 2),
        "attention": (16,),
    },
    optim=Optim(lr=1e-3),
    ema_halflife=500_000.0,
)
DRY = dataclasses.replace(CIFAR, width=16, blocks=1)


def _norm(channels: int) -> nn.Module:
    return nn.GroupNorm(math.gcd(32, max(channels // 4, 1)), channels, eps=1e-6)


class Residual(nn.Module):
    """A residual block, which may halve or double height and width."""

    def __init__(self, before: int, after: int, emb: int, resample: str | None = None):
        super().__init__()
        self.resample, self.told = resample, nn.Linear(emb, after)
        self.norms = nn.ModuleList([_norm(before), _norm(after)])
        self.convs = nn.ModuleList([nn.Conv2d(before, after, 3, padding=1), nn.Conv2d(after, after, 3, padding=1)])
        self.skip = nn.Conv2d(before, after, 1) if resample or before != after else nn.Identity()

    def resized(self, x):
        if self.resample == "down":
            return F.avg_pool2d(x, 2)
        return F.interpolate(x, scale_factor=2) if self.resample == "up" else x

    def forward(self, x, emb):
        h = self.convs[0](self.resized(F.silu(self.norms[0](x)))) + self.told(F.silu(emb))[:, :, None, None]
        h = self.convs[1](F.silu(self.norms[1](h)))
        return (self.skip(self.resized(x)) + h) * 0.5**0.5


class Attention(nn.Module):
    """Self-attention with one head over positions."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm, self.qkv = _norm(channels), nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x):
        B, C, H, W = x.shape
        q, k, v = self.qkv(self.norm(x).permute(0, 2, 3, 1).reshape(B, 1, H * W, C)).chunk(3, 3)
        h = self.out(F.scaled_dot_product_attention(q, k, v))
        return (x + h.reshape(B, H, W, C).permute(0, 3, 1, 2)) * 0.5**0.5


class UNet(nn.Module):
    """genmap_jax/nn/unet.py with the embeddings of noise level and label: images [B, C, H, W] -> the same."""

    def __init__(self, cfg: diffusion.Config):
        super().__init__()
        width, emb, colours = cfg.width, 4 * cfg.width, cfg.space.shape[-1]
        self.label, self.emb = nn.Embedding(cfg.classes + 1, diffusion.EMBEDDING), nn.Linear(diffusion.EMBEDDING, emb)
        self.emb2, self.first = nn.Linear(emb, emb), nn.Conv2d(colours, width, 3, padding=1)
        self.down, self.up, skips, size, now = nn.ModuleList(), nn.ModuleList(), [width], 32, width
        for i, mult in enumerate(cfg.channel_mult):
            if i > 0:
                size //= 2
                self.down.append(nn.ModuleList([Residual(now, now, emb, "down")]))
                skips.append(now)
            for _ in range(cfg.blocks):
                parts = [Residual(now, mult * width, emb)] + ([Attention(mult * width)] * (size in cfg.attention))
                self.down.append(nn.ModuleList(parts))
                now = mult * width
                skips.append(now)
        self.middle = nn.ModuleList([Residual(now, now, emb), Attention(now), Residual(now, now, emb)])
        for i, mult in reversed(list(enumerate(cfg.channel_mult))):
            for _ in range(cfg.blocks + 1):
                self.up.append(nn.ModuleList([Residual(now + skips.pop(), mult * width, emb)]))
                now = mult * width
            if size in cfg.attention:
                self.up[-1].append(Attention(now))
            if i > 0:
                self.up[-1].append(Residual(now, now, emb, "up"))
                size *= 2
        self.norm, self.last = _norm(now), nn.Conv2d(now, colours, 3, padding=1)

    def forward(self, x, log_sigma, label):
        frequencies = torch.exp(-math.log(100.0) * torch.linspace(0, 1, diffusion.EMBEDDING // 2, device=x.device))
        angles = 4.0 * log_sigma[:, None] * frequencies
        emb = torch.cat([angles.sin(), angles.cos()], 1) + self.label(label)
        emb = self.emb2(F.silu(self.emb(emb)))
        x = self.first(x)
        skips = [x]
        for parts in self.down:
            for part in parts:
                x = part(x) if isinstance(part, Attention) else part(x, emb)
            skips.append(x)
        for part in self.middle:
            x = part(x) if isinstance(part, Attention) else part(x, emb)
        for parts in self.up:
            x = torch.cat([x, skips.pop()], 1)
            for part in parts:
                x = part(x) if isinstance(part, Attention) else part(x, emb)
        return self.last(F.silu(self.norm(x)))


def twin_training(cfg: diffusion.Config, batch: int, updates: int) -> Callable[[], None]:
    model = UNet(cfg).to(memory_format=torch.channels_last)
    ours = jax.eval_shape(diffusion.algorithm(cfg, batch_size=batch).init, jax.random.key(0), _batch(cfg, batch))
    counts = sum(p.numel() for p in model.parameters()), sum(p.size for p in jax.tree.leaves(ours.params["network"]))
    assert counts[0] == counts[1], counts
    compiled = torch.compile(model, disable=not torch.cuda.is_available())
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.0, fused=True)
    average = [p.detach().clone() for p in model.parameters()]
    x = torch.tensor(_batch(cfg, batch)["image"]).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    x = x.to(memory_format=torch.channels_last)
    label = torch.tensor(_batch(cfg, batch)["label"], dtype=torch.long)

    def run():
        for _ in range(updates):
            sigma = torch.exp(-1.2 + 1.2 * torch.randn(batch, 1, 1, 1))
            y = x + sigma * torch.randn_like(x)
            total = cfg.data_std**2 + sigma**2
            out = compiled(y / total.sqrt(), torch.log(sigma).flatten(), label)
            denoised = y * cfg.data_std**2 / total + out * sigma * cfg.data_std / total.sqrt()
            loss = ((denoised - x).square() * total / (sigma * cfg.data_std) ** 2).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(average, list(model.parameters()), 1e-4)

    return run


def _batch(cfg: diffusion.Config, batch: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (batch, *cfg.space.shape)).astype(np.uint8)
    return {"image": image, "label": rng.integers(0, cfg.classes, batch).astype(np.int32)}


def on_gpu(our_updates: Callable, dry: bool) -> dict[str, tuple[int, dict[str, Callable[[], Callable[[], None]]]]]:
    """As `comparisons`, for a GPU: images per second of training EDM's network for CIFAR-10."""
    cfg, batch, updates = (DRY, 4, 1) if dry else (CIFAR, 128, 8)
    competitors = {
        "ours": partial(our_updates, diffusion.algorithm, cfg, _batch(cfg, batch), updates, 1),
        "torch": partial(twin_training, cfg, batch, updates),
    }
    return {f"EDM 32x32, width {cfg.width}, batch {batch}, images/s": (updates * batch, competitors)}


# ---- what is compared ------------------------------------------------------------------------------------------------


def comparisons(our_updates: Callable) -> dict[str, tuple[int, dict[str, Callable[[], Callable[[], None]]]]]:
    """What is compared -> (units of work in one call, competitor -> how to set it up; ours is the first).

    our_updates: of `experiments/benchmarks.py`.
    """
    torch.set_num_threads(os.cpu_count())
    ours = lambda devices: our_updates(diffusion.algorithm, SMALL, {"image": _images()}, UPDATES, devices)  # noqa: E731
    step = {
        "ours": lambda: ours(1),
        **({"ours, 2 devices": lambda: ours(2)} if jax.device_count() > 1 else {}),
        "torch": theirs_training,
    }
    return {
        "U-Net 32x32, batch 16, updates/s": (UPDATES, step),
        "U-Net 32x32, batch 16, evaluations/s": (EVALUATIONS, {"ours": ours_sampling, "torch": theirs_sampling}),
    }


def _denoise(model, y, sigma):
    """EDM's scaling, for data of standard deviation 1."""
    variance = 1.0 + sigma**2
    out = model(y / variance.sqrt(), torch.log(sigma).flatten()).sample
    return y / variance + out * sigma / variance.sqrt()


def _theirs():
    import diffusers  # here, because the twin for GPUs does not need it

    channels = tuple(SIZES["width"] * m for m in SIZES["channel_mult"])
    return diffusers.UNet2DModel(
        sample_size=32,
        in_channels=1,
        out_channels=1,
        layers_per_block=SIZES["blocks"],
        block_out_channels=channels,
        down_block_types=("ResnetDownsampleBlock2D", "ResnetDownsampleBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "ResnetUpsampleBlock2D", "ResnetUpsampleBlock2D"),
        attention_head_dim=SIZES["head_width"],
        downsample_type="resnet",
        upsample_type="resnet",
        resnet_time_scale_shift="scale_shift",
    )


def _images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (BATCH, 32, 32, 1)).astype(np.uint8)
