"""Our CycleGAN beside the same game in PyTorch, written from the paper: the same networks, losses, pools, optimizers.

Training: one update of both generators and both discriminators, with the networks of cyclegan_fonts. The tests compare
these networks and this update with ours, number by number (`load` copies our parameters).
"""

import os
import random
from collections.abc import Callable
from functools import partial

import jax
import numpy as np
import torch
from torch import nn

from genmap_jax.implicit import cyclegan
from genmap_jax.optim import Optim
from genmap_jax.spaces import images

FONTS = cyclegan.Config(
    space=images(32, 32, 1), width=16, blocks=3, patch_layers=2, pool=6, optim=Optim(lr=2e-4, b1=0.5, clip=0.0)
)


class Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width), nn.ReLU(),
            nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width),
        )  # fmt: skip

    def forward(self, x):
        return x + self.body(x)


def resnet(cfg: cyclegan.Config) -> nn.Module:
    w, channels = cfg.width, cfg.space.shape[-1]
    layers = [nn.ReflectionPad2d(3), nn.Conv2d(channels, w, 7), nn.InstanceNorm2d(w), nn.ReLU()]
    for i in (1, 2):
        layers += [nn.Conv2d(w * i, 2 * w * i, 3, 2, 1), nn.InstanceNorm2d(2 * w * i), nn.ReLU()]
    layers += [Residual(4 * w) for _ in range(cfg.blocks)]
    for i in (2, 1):
        layers += [nn.ConvTranspose2d(2 * w * i, w * i, 3, 2, 1, 1), nn.InstanceNorm2d(w * i), nn.ReLU()]
    return nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(w, channels, 7), nn.Tanh())


class UNet(nn.Module):
    """Without dropout."""

    def __init__(self, cfg: cyclegan.Config):
        super().__init__()
        widths, channels = [cfg.width * min(2**i, 8) for i in range(cfg.depth)], cfg.space.shape[-1]
        into = [channels, *widths[:-1]]
        self.down = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1) for a, b in zip(into, widths, strict=True))
        out = [*widths[-2::-1], channels]
        into = [widths[-1], *(2 * width for width in out[:-1])]
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 4, 2, 1) for a, b in zip(into, out, strict=True))

    def forward(self, x):
        skips, normal = [], nn.functional.instance_norm
        for i, layer in enumerate(self.down):
            x = layer(nn.functional.leaky_relu(x, 0.2) if i else x)
            x = normal(x) if 0 < i < len(self.down) - 1 else x
            skips.append(x)
        skips.pop()
        for layer in self.up[:-1]:
            x = torch.cat([normal(layer(torch.relu(x))), skips.pop()], 1)
        return torch.tanh(self.up[-1](torch.relu(x)))


def patchgan(cfg: cyclegan.Config, channels: int) -> nn.Module:
    widths = [channels, *(cfg.width * min(2**i, 8) for i in range(cfg.patch_layers + 1))]
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(zip(widths, widths[1:], strict=False)):
        layers.append(nn.Conv2d(a, b, 4, 2 if i < cfg.patch_layers else 1, 1))
        layers += [nn.InstanceNorm2d(b), nn.LeakyReLU(0.2)] if i else [nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, 1, 1))


def load(network: nn.Module, params) -> nn.Module:
    """The network with our parameters: convolutions are numbered in their order, of each kind by itself."""
    counts = {"Conv": 0, "Up": 0}
    for layer in network.modules():
        kind = {nn.Conv2d: "Conv", nn.ConvTranspose2d: "Up"}.get(type(layer))
        if kind is None:
            continue
        ours = params[f"{kind}_{counts[kind]}"]
        kernel = np.asarray(ours["kernel"])  # [H, W, in, out]; ours is turned before it is used, theirs is not
        kernel = kernel.transpose(3, 2, 0, 1) if kind == "Conv" else kernel[::-1, ::-1].transpose(2, 3, 0, 1)
        layer.weight.data, layer.bias.data = torch.tensor(kernel.copy()), torch.tensor(np.asarray(ours["bias"]).copy())
        counts[kind] += 1
    assert sum(counts.values()) == len(params)
    return network


class Pool:
    """A list of images: until it is full it keeps and shows the new one, then every other time an old one."""

    def __init__(self, size: int):
        self.size, self.kept = size, []

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        shown = []
        for image in images:
            if len(self.kept) < self.size:
                self.kept.append(image)
            elif random.random() < 0.5:
                place = random.randrange(self.size)
                self.kept[place], image = image, self.kept[place]
            shown.append(image)
        return torch.stack(shown)


class Game:
    """Both generators and both discriminators, by direction, with an optimizer each for the two kinds."""

    def __init__(self, cfg: cyclegan.Config, params_g=None, params_d=None):
        self.cfg, channels = cfg, cfg.space.shape[-1]
        self.g = {way: resnet(cfg) for way in ("ab", "ba")}
        self.d = {way: patchgan(cfg, channels) for way in ("ab", "ba")}
        for way in self.g:
            if params_g is not None:
                load(self.g[way], params_g[way])
                load(self.d[way], params_d[way])
        betas = cfg.optim.b1, cfg.optim.b2
        both = lambda nets: [p for net in nets.values() for p in net.parameters()]  # noqa: E731
        self.adam_g, self.adam_d = (torch.optim.Adam(both(nets), cfg.optim.lr, betas) for nets in (self.g, self.d))

    def update(self, a: torch.Tensor, b: torch.Tensor, pools: dict[str, Callable]) -> None:
        """One update on images of A and of B. pools: by direction, what makes of translations those shown to D."""
        cfg, g, d = self.cfg, self.g, self.d
        away, home, l1 = {"ab": a, "ba": b}, {"ab": b, "ba": a}, nn.functional.l1_loss
        fake = {way: g[way](x) for way, x in away.items()}
        for p in self.adam_d.param_groups[0]["params"]:
            p.requires_grad_(False)
        loss = 0.0
        for way, back in (("ab", "ba"), ("ba", "ab")):
            loss = loss + (d[way](fake[way]) - 1.0).square().mean()
            loss = loss + cfg.cycle * l1(g[back](fake[way]), away[way])
            loss = loss + cfg.cycle * cfg.identity * l1(g[way](home[way]), home[way])
        self.adam_g.zero_grad(set_to_none=True)
        loss.backward()
        self.adam_g.step()

        for p in self.adam_d.param_groups[0]["params"]:
            p.requires_grad_(True)
        loss = 0.0
        for way in ("ab", "ba"):
            real, seen = d[way](home[way]), d[way](pools[way](fake[way].detach()))
            loss = loss + 0.5 * ((real - 1.0).square().mean() + seen.square().mean())
        self.adam_d.zero_grad(set_to_none=True)
        loss.backward()
        self.adam_d.step()


def theirs(cfg: cyclegan.Config, batch: int, updates: int) -> Callable[[], None]:
    data = {name: torch.tensor(x).permute(0, 3, 1, 2).float() for name, x in _images(cfg, batch).items()}
    a, b = (2.0 * data[name] / (cfg.space.grey_levels - 1) - 1.0 for name in ("source", "image"))
    game, pools = Game(cfg), {way: Pool(cfg.pool * batch) for way in ("ab", "ba")}

    def run() -> None:
        for _ in range(updates):
            game.update(a, b, pools)

    return run


def comparisons(our_updates: Callable) -> dict[str, tuple[int, dict[str, Callable[[], Callable[[], None]]]]]:
    """As in peers/gan.py."""
    torch.set_num_threads(os.cpu_count())
    batch, updates = 8, 4
    ours = partial(our_updates, cyclegan.algorithm, FONTS, _images(FONTS, batch), updates)
    competitors = {"ours": partial(ours, devices=1)}
    if jax.device_count() > 1:
        competitors["ours, 2 devices"] = partial(ours, devices=2)
    competitors["torch"] = partial(theirs, FONTS, batch, updates)
    return {"CycleGAN of cyclegan_fonts, updates/s": (updates, competitors)}


def _images(cfg: cyclegan.Config, batch: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    draw = lambda: rng.integers(0, cfg.space.grey_levels, (batch, *cfg.space.shape)).astype(np.uint8)  # noqa: E731
    return {"image": draw(), "source": draw()}
