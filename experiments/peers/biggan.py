"""Our BigGAN beside the same game in PyTorch: the same networks, losses and optimizers, on the same cores.

Training: one update of G after two of D, on 32x32 colour images with labels; both networks with the spectral norm.

The networks are written from the paper as functions of a tree of tensors that has the shape of our parameters, so that
tests/test_biggan_parity.py can give both the same ones.
"""

import os
from collections.abc import Callable
from functools import partial

import jax
import numpy as np
import torch
from torch.nn import functional as F

from genmap_jax.algorithm import like_batch
from genmap_jax.implicit import biggan
from genmap_jax.optim import Optim
from genmap_jax.spaces import images

UPDATES, BATCH = 4, 32
SMALL = biggan.Config(
    images(32, 32, 3),
    **{"classes": 10, "latent": 64, "width": 32, "channels": (4, 4, 4, 4), "attention": 16, "embedding": 64},
    orthogonal=0.0,
    optim=Optim(lr=2e-4, b1=0.0, b2=0.999, clip=0.0),
)


def tensors(tree: dict) -> dict:
    """Our parameters as tensors: kernels of convolutions as [out, in, h, w], all others as they are."""
    if isinstance(tree, dict):
        return {name: tensors(sub) for name, sub in tree.items()}
    array = np.array(tree)
    return torch.tensor(array.transpose(3, 2, 0, 1).copy() if array.ndim == 4 else array)


def leaves(tree: dict) -> list[torch.Tensor]:
    return [leaf for sub in tree.values() for leaf in (leaves(sub) if isinstance(sub, dict) else [sub])]


# ---- layers ----------------------------------------------------------------------------------------------------------


def conv(p, x):
    return F.conv2d(x, p["kernel"], p.get("bias"), padding=p["kernel"].shape[2] // 2)


def batch_norm(x):
    return F.batch_norm(x, None, None, training=True, eps=1e-5)


def norm(p, x, code):
    gain, bias = (code @ p[name]["kernel"] for name in ("gain", "bias"))
    return F.relu(batch_norm(x) * (1.0 + gain[:, :, None, None]) + bias[:, :, None, None])


def attention(p, x):
    B, C, H, W = x.shape
    queries = conv(p["Conv_0"], x).flatten(2)
    keys, values = (F.max_pool2d(conv(p[f"Conv_{i}"], x), 2).flatten(2) for i in (1, 2))
    weights = torch.softmax(queries.transpose(1, 2) @ keys, -1)  # [B, queries, keys]
    return x + p["gain"] * conv(p["Conv_3"], (values @ weights.transpose(1, 2)).reshape(B, -1, H, W))


def double(x):
    return F.interpolate(x, scale_factor=2, mode="nearest")


def up(p, x, code):
    y = conv(p["Conv_0"], double(norm(p["Norm_0"], x, code)))
    y = conv(p["Conv_1"], norm(p["Norm_1"], y, code))
    return y + conv(p["Conv_2"], double(x))


def deep_up(p, x, code, features, resize):
    change = double if resize else lambda x: x
    y = conv(p["Conv_0"], norm(p["Norm_0"], x, code))
    y = conv(p["Conv_1"], change(norm(p["Norm_1"], y, code)))
    y = conv(p["Conv_2"], norm(p["Norm_2"], y, code))
    y = conv(p["Conv_3"], norm(p["Norm_3"], y, code))
    return y + change(x[:, :features])


def generator(cfg: biggan.Config, p, z, label):
    """Images [B, C, H, W] before their tanh, normalised by the batch."""
    shared, depth, (H, W, _) = p["label"][label], cfg.depth, cfg.space.shape
    if cfg.deep:
        first, parts = torch.cat([shared, z], 1), [z] * depth
    else:
        first, *parts = z.chunk(depth + 1, 1)
    x = first @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"]
    x = x.reshape(len(z), H >> depth, W >> depth, -1).permute(0, 3, 1, 2)
    for i, part in enumerate(parts):
        code, width = torch.cat([shared, part], 1), cfg.width * cfg.channels[i + 1]
        if cfg.deep:
            x = deep_up(p[f"DeepUp_{2 * i}"], x, code, x.shape[1], resize=False)
            x = deep_up(p[f"DeepUp_{2 * i + 1}"], x, code, width, resize=True)
        else:
            x = up(p[f"Up_{i}"], x, code)
        x = attention(p["Attention_0"], x) if x.shape[2] == cfg.attention else x
    last = p["BatchNorm_0"]
    x = batch_norm(x) * last["gain"][None, :, None, None] + last["bias"][None, :, None, None]
    return conv(p["Conv_0"], F.relu(x))


def down(p, x, resize, first=False):
    change = (lambda x: F.avg_pool2d(x, 2)) if resize else lambda x: x
    y = conv(p["Conv_0"], x if first else F.relu(x))
    y = change(conv(p["Conv_1"], F.relu(y)))
    return y + (change(conv(p["Conv_2"], x)) if "Conv_2" in p else x)


def deep_down(p, x, resize):
    change = (lambda x: F.avg_pool2d(x, 2)) if resize else lambda x: x
    y = x
    for i in range(4):
        y = F.relu(y)
        y = conv(p[f"Conv_{i}"], change(y) if i == 3 else y)
    x = change(x)
    return y + (torch.cat([x, conv(p["Conv_4"], x)], 1) if "Conv_4" in p else x)


def discriminator(cfg: biggan.Config, p, x, label):
    """x [B, C, H, W] -> logits [B]"""
    attend = lambda x: attention(p["Attention_0"], x) if x.shape[2] == cfg.attention else x  # noqa: E731
    x = conv(p["Conv_0"], x) if cfg.deep else down(p["Down_0"], x, resize=True, first=True)
    for i in range(cfg.depth):
        if cfg.deep:
            x = attend(deep_down(p[f"DeepDown_{2 * i + 1}"], deep_down(p[f"DeepDown_{2 * i}"], x, True), False))
        else:
            x = down(p[f"Down_{i + 1}"], attend(x), resize=i < cfg.depth - 1)
    h = F.relu(x).sum((2, 3))
    logits = (h @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"])[:, 0]
    return logits + (p["Embed_0"]["embedding"][label] * h).sum(1)


# ---- training --------------------------------------------------------------------------------------------------------


def normalised(tree: dict, vectors: dict[int, torch.Tensor]) -> dict:
    """The tree with every matrix divided by its norm. vectors: by the identity of the tensor, moved by one step."""

    def one(name, w):
        if isinstance(w, dict):
            return {n: one(n, sub) for n, sub in w.items()}
        if name not in ("kernel", "embedding"):
            return w
        m = w.flatten(1).T if w.ndim == 4 else w  # [in, out]
        with torch.no_grad():
            u = vectors.get(id(w), torch.randn(m.shape[1]))
            u = F.normalize(m.T @ F.normalize(m @ u, dim=0), dim=0)
            vectors[id(w)] = u
        return w / ((m @ u).norm() + 1e-6)

    return one("", tree)


def theirs(cfg: biggan.Config, batch: int, updates: int) -> Callable[[], None]:
    algorithm = biggan.algorithm(cfg, batch_size=batch)
    state = jax.jit(algorithm.init)(jax.random.key(0), like_batch(algorithm.reads, batch))
    G, D = tensors(state.params_g), tensors(state.params_d)
    for leaf in leaves(G) + leaves(D):
        leaf.requires_grad_(True)
    adam_g, adam_d = (
        torch.optim.Adam(leaves(net), rate * cfg.optim.lr, (0.0, 0.999), fused=True) for net, rate in ((G, 1), (D, 4))
    )
    average, vectors = [leaf.detach().clone() for leaf in leaves(G)], ({}, {})
    cell, part = 2.0 / cfg.space.levels, batch // cfg.critic_steps
    data, label = torch.tensor(_batch(cfg, batch)["image"]).permute(0, 3, 1, 2).float(), torch.arange(batch) % 10

    def draw(label):
        x = torch.tanh(generator(cfg, normalised(G, vectors[0]), torch.randn(len(label), cfg.latent), label))
        return x + (torch.rand_like(x) - 0.5) * cell

    def trainable(net, on):
        for leaf in leaves(net):
            leaf.requires_grad_(on)

    def run():
        for _ in range(updates):
            real = (data + torch.rand_like(data)) * cell - 1.0
            trainable(D, True)
            for i in range(cfg.critic_steps):
                rows = slice(i * part, (i + 1) * part)
                net = normalised(D, vectors[1])
                with torch.no_grad():
                    fake = draw(label[rows])
                on_real, on_fake = (discriminator(cfg, net, x, label[rows]) for x in (real[rows], fake))
                adam_d.zero_grad(set_to_none=True)
                (F.relu(1.0 - on_real) + F.relu(1.0 + on_fake)).mean().backward()
                adam_d.step()
            trainable(D, False)
            adam_g.zero_grad(set_to_none=True)
            (-discriminator(cfg, normalised(D, vectors[1]), draw(label[rows]), label[rows]).mean()).backward()
            adam_g.step()
            with torch.no_grad():
                torch._foreach_lerp_(average, leaves(G), 0.001)

    return run


def comparisons(our_updates: Callable) -> dict[str, tuple[int, dict[str, Callable[[], Callable[[], None]]]]]:
    """Title -> (updates in one call, competitor -> a function that prepares its call); ours is the first competitor.

    our_updates: the function of `experiments/benchmarks.py` that prepares our training.
    """
    torch.set_num_threads(os.cpu_count())
    ours = partial(our_updates, biggan.algorithm, SMALL, _batch(SMALL, BATCH), UPDATES)
    competitors = {"ours": partial(ours, devices=1), "torch": partial(theirs, SMALL, BATCH, UPDATES)}
    return {"BigGAN 32x32, two updates of D and one of G, updates/s": (UPDATES, competitors)}


def _batch(cfg: biggan.Config, batch: int) -> dict[str, np.ndarray]:
    x = np.random.default_rng(0).integers(0, cfg.space.levels, (batch, *cfg.space.shape)).astype(np.uint8)
    return {"image": x, "label": np.arange(batch, dtype=np.int32) % cfg.classes}
