"""Our diffusion beside the U-Net of Hugging Face diffusers on PyTorch: the same network and solver, on the same cores.

Training: EDM's loss, ADM's U-Net (32 channels, 32x32 images, batch 16), AdamW, one update.
Sampling: 18 steps of Heun, 35 evaluations, 16 images. theirs is a loop in Python, as in diffusers' pipelines.
"""

import os
from collections.abc import Callable

import diffusers
import jax
import numpy as np
import torch

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


def _theirs() -> diffusers.UNet2DModel:
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
