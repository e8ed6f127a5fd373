"""Our GAN beside the same game in PyTorch: the same networks, losses, penalties and optimizers, on the same cores.

Training: one update of both players, of the fully connected GAN of gan_digits (relativistic loss, R1 and R2), and of a
DCGAN on 32x32 colour images (non-saturating loss, R1 through the strided convolutions).
"""

import dataclasses
import os
from collections.abc import Callable
from functools import partial

import jax
import numpy as np
import torch
from torch import nn
from torch.nn.functional import softplus

from genmap_jax.implicit import gan
from genmap_jax.optim import Optim
from genmap_jax.spaces import images

ADAM = Optim(lr=1e-3, b1=0.0, b2=0.99, clip=0.0)
MLP = gan.Config(space=images(8, 8, 1, levels=17), latent=64, width=256, depth=3, optim=ADAM)
DCGAN = gan.Config(
    space=images(32, 32, 3), network="dcgan", latent=64, width=128, depth=3, loss="nonsaturating", r2=0.0
)
DCGAN = dataclasses.replace(DCGAN, squash=True, optim=ADAM)


def theirs(cfg: gan.Config, batch: int, updates: int) -> Callable[[], None]:
    G, D = mlp(cfg) if cfg.network == "mlp" else dcgan(cfg)
    average = [p.detach().clone() for p in G.parameters()]
    adam_g, adam_d = (torch.optim.Adam(net.parameters(), 1e-3, (0.0, 0.99), fused=True) for net in (G, D))
    data = torch.tensor(_images(cfg, batch)).permute(0, 3, 1, 2).float()
    cell = 2.0 / cfg.space.levels

    def draw():
        x = G(torch.randn(batch, cfg.latent))
        return x + (torch.rand_like(x) - 0.5) * cell

    def judged(x, weight):
        x = x.detach().requires_grad_(weight > 0)
        logits = D(x)[:, 0]
        if not weight:
            return logits, 0.0
        (slope,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
        return logits, 0.5 * weight * slope.square().flatten(1).sum(1)

    def run():
        for _ in range(updates):
            real = (data + torch.rand_like(data)) * cell - 1.0
            with torch.no_grad():
                fake = draw()
            (logit_real, r1), (logit_fake, r2) = judged(real, cfg.r1), judged(fake, cfg.r2)
            relativistic = cfg.loss == "relativistic"
            loss = softplus(logit_fake - logit_real) if relativistic else softplus(-logit_real) + softplus(logit_fake)
            adam_d.zero_grad(set_to_none=True)
            (loss + r1 + r2).mean().backward()
            adam_d.step()

            for p in D.parameters():
                p.requires_grad_(False)
            logit_fake = D(draw())[:, 0]
            loss = softplus(D(real)[:, 0] - logit_fake) if relativistic else softplus(-logit_fake)
            adam_g.zero_grad(set_to_none=True)
            loss.mean().backward()
            adam_g.step()
            for p in D.parameters():
                p.requires_grad_(True)
            with torch.no_grad():
                torch._foreach_lerp_(average, list(G.parameters()), 0.01)

    return run


def mlp(cfg: gan.Config) -> tuple[nn.Module, nn.Module]:
    def layers(into: int, out: int) -> list[nn.Module]:
        widths = [into, *[cfg.width] * cfg.depth]
        hidden = [m for a, b in zip(widths, widths[1:], strict=False) for m in (nn.Linear(a, b), nn.LeakyReLU(0.2))]
        return [*hidden, nn.Linear(cfg.width, out)]

    H, W, C = cfg.space.shape
    generator = nn.Sequential(*layers(cfg.latent, H * W * C), nn.Unflatten(1, (C, H, W)))
    return generator, nn.Sequential(nn.Flatten(), *layers(H * W * C, 1))


def dcgan(cfg: gan.Config) -> tuple[nn.Module, nn.Module]:
    H, W, C = cfg.space.shape
    h, w, widths = H >> cfg.depth, W >> cfg.depth, [cfg.width >> i for i in range(cfg.depth + 1)]
    up = [
        nn.Linear(cfg.latent, cfg.width * h * w),
        nn.Unflatten(1, (cfg.width, h, w)),
        nn.BatchNorm2d(cfg.width),
        nn.ReLU(),
    ]
    for a, b in zip(widths, widths[1:], strict=False):
        up += [nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
    down, last = [], C
    for i in range(cfg.depth):
        width = cfg.width >> (cfg.depth - i)
        down += [
            nn.Conv2d(last, width, 3, 1, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, width, 4, 2, 1),
            nn.LeakyReLU(0.2),
        ]
        last = width
    down += [nn.Conv2d(last, cfg.width, 3, 1, 1), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(cfg.width * h * w, 1)]
    generator = nn.Sequential(*up, nn.Conv2d(widths[-1], C, 3, 1, 1), nn.Tanh())
    return generator, nn.Sequential(*down)


def comparisons(our_updates: Callable) -> dict[str, tuple[int, dict[str, Callable[[], Callable[[], None]]]]]:
    """Title -> (updates in one call, competitor -> a function that prepares its call); ours is the first competitor.

    our_updates: the function of `experiments/benchmarks.py` that prepares our training.
    """
    torch.set_num_threads(os.cpu_count())
    rows = {"GAN of gan_digits, updates/s": (MLP, 128, 40), "DCGAN 32x32 with R1, updates/s": (DCGAN, 64, 3)}
    many = ["ours, 2 devices"] if jax.device_count() > 1 else []
    found = {}
    for title, (cfg, batch, updates) in rows.items():
        work = {"cfg": cfg, "batch": batch, "updates": updates}
        ours = partial(our_updates, gan.algorithm, cfg, {"image": _images(cfg, batch)}, updates)
        found[title] = (
            updates,
            {
                "ours": partial(ours, devices=1),
                **{name: partial(ours, devices=2) for name in many},
                "torch": partial(theirs, **work),
            },
        )
    return found


def _images(cfg: gan.Config, batch: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, cfg.space.levels, (batch, *cfg.space.shape)).astype(np.uint8)
