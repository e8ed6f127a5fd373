"""Our GPT beside GPT-2 of Hugging Face transformers on PyTorch: the same sizes, data and optimizer, on the same cores.

Training: nanoGPT's recipe for a laptop CPU (4 layers, 128 wide, 64 tokens, batch 12, AdamW), one update.
Decoding: 256 tokens from a model of that size, drawn at temperature 1; uncached is how nanoGPT samples.

On a GPU: GPT-2 small, 124 M parameters, beside a twin written from the paper with PyTorch's fused attention, compiled.
"""

import dataclasses
import os
from collections.abc import Callable
from functools import partial

import jax
import numpy as np
import torch
import transformers
from torch import nn
from torch.nn import functional as F

from genmap_jax.optim import Optim
from genmap_jax.samplers import decoding
from genmap_jax.tractable import gpt

BATCH, LENGTH = 12, 256
SMALL = gpt.Config(vocab=65, length=64, layers=4, heads=4, width=128, optim=Optim(lr=1e-3, b2=0.99, weight_decay=0.1))
UPDATES = 20  # between two looks at the clock

ACCUMULATE, MICRO = 5, 12
"""Micro-batches of an update, and strings in one, on each of the eight GPUs of nanoGPT's recipe."""
GPT2 = gpt.Config(
    **{"vocab": 50_257, "length": 1024, "layers": 12, "heads": 12, "width": 768},
    **{"dtype": "bfloat16", "accumulate": ACCUMULATE},
    optim=Optim(lr=6e-4, b2=0.95, weight_decay=0.1),
)
DRY = dataclasses.replace(SMALL, vocab=97, layers=2, width=32, heads=2, dtype="bfloat16", accumulate=2)


def flops_per_token(cfg: gpt.Config) -> float:
    """Of an update: 6 N + 12 L D T, see `experiments/gpu_check.py`."""
    params = jax.eval_shape(partial(gpt.init_params, cfg), jax.random.key(0))
    count = sum(leaf.size for leaf in jax.tree.leaves(params)) - params["positions"].size
    return 6.0 * count + 12.0 * cfg.layers * cfg.width * cfg.length


def theirs_training(bf16: bool) -> Callable[[], None]:
    model = _theirs(SMALL).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, (0.9, 0.99), weight_decay=0.1, fused=True)
    tokens = torch.tensor(_tokens(), dtype=torch.long)

    def run():
        for _ in range(UPDATES):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = model(tokens, labels=tokens).loss
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    return run


def ours_decoding(n: int, cfg: gpt.Config) -> Callable[[], None]:
    params = jax.jit(partial(gpt.init_params, cfg))(jax.random.key(0))
    draw = jax.jit(
        lambda params, keys: decoding.decode(
            gpt.decoding_step(cfg, params), gpt.empty_cache(cfg, n), cfg.length, keys=keys
        )
    )
    keys = jax.random.split(jax.random.key(0), n)
    return lambda: jax.block_until_ready(draw(params, keys))


def theirs_decoding(n: int, cached: bool) -> Callable[[], None]:
    model = _theirs(dataclasses.replace(SMALL, length=LENGTH)).eval()
    start = torch.zeros((n, 1), dtype=torch.long)
    how = {
        "do_sample": True,
        "top_k": 0,
        "use_cache": cached,
        "pad_token_id": 0,
        "attention_mask": torch.ones_like(start),
    }

    def run():
        with torch.inference_mode():
            model.generate(start, min_new_tokens=LENGTH - 1, max_new_tokens=LENGTH - 1, **how)

    return run


# ---- on a GPU --------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    """A block of GPT-2, with PyTorch's fused attention."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        B, T, D = x.shape
        q, k, v = (
            h.view(B, T, self.heads, D // self.heads).transpose(1, 2) for h in self.qkv(self.norms[0](x)).split(D, 2)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, D)
        x = x + self.out(y)
        return x + self.down(F.gelu(self.up(self.norms[1](x)), approximate="tanh"))


class Twin(nn.Module):
    """GPT-2: tokens and their targets [B, T] -> the mean loss. The vocabulary is padded to tiles, as in nanoGPT."""

    def __init__(self, cfg: gpt.Config):
        super().__init__()
        self.embedding = nn.Embedding(-(-cfg.vocab // 64) * 64, cfg.width)
        self.positions = nn.Embedding(cfg.length, cfg.width)
        self.blocks = nn.ModuleList([Block(cfg.width, cfg.heads) for _ in range(cfg.layers)])
        self.norm = nn.LayerNorm(cfg.width)
        for p in self.parameters():
            if p.ndim == 2:
                nn.init.normal_(p, std=0.02)

    def forward(self, tokens, targets):
        x = self.embedding(tokens) + self.positions.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.norm(x), self.embedding.weight)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def twin_training(cfg: gpt.Config, batch: int, updates: int) -> Callable[[], None]:
    model = Twin(cfg)
    compiled = torch.compile(model, disable=not torch.cuda.is_available())
    optimizer = torch.optim.AdamW(model.parameters(), 6e-4, (0.9, 0.95), weight_decay=0.1, fused=True)
    tokens = torch.randint(0, cfg.vocab, (cfg.accumulate, batch // cfg.accumulate, cfg.length + 1))

    def run():
        for _ in range(updates):
            for micro in tokens:
                with torch.autocast(tokens.device.type, torch.bfloat16):
                    loss = compiled(micro[:, :-1], micro[:, 1:]) / len(tokens)
                loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return run


def on_gpu(our_updates: Callable, dry: bool) -> dict[str, tuple[int, dict[str, Callable[[], Callable[[], None]]]]]:
    """As `comparisons`, for a GPU: tokens per second of GPT-2 small."""
    cfg = DRY if dry else GPT2
    batch, updates = (4, 1) if dry else (ACCUMULATE * MICRO, 4)
    ours = lambda cfg: our_updates(gpt.algorithm, cfg, {"tokens": _tokens(cfg, batch)}, updates, 1)  # noqa: E731
    competitors = {"ours": lambda: ours(cfg), "torch": lambda: twin_training(cfg, batch, updates)}
    title = f"GPT-2 {cfg.layers}x{cfg.width}, {cfg.accumulate} x {batch // cfg.accumulate} x {cfg.length}, tokens/s"
    return {title: (updates * batch * cfg.length, competitors)}


def decoding_on_gpu(our_updates: Callable, dry: bool) -> dict[str, tuple[int, dict[str, Callable]]]:
    """As `comparisons`, for a GPU: tokens per second drawn from GPT-2 small."""
    length = 16 if dry else LENGTH
    cfg = dataclasses.replace(DRY if dry else GPT2, length=length, accumulate=1)

    def theirs(n: int) -> Callable[[], None]:
        model = _theirs(cfg).to(torch.bfloat16).eval()
        start = torch.zeros((n, 1), dtype=torch.long)
        how = {"do_sample": True, "top_k": 0, "cache_implementation": "static", "pad_token_id": 0}

        def run():
            with torch.inference_mode():
                model.generate(start, attention_mask=torch.ones_like(start), min_new_tokens=length - 1,
                               max_new_tokens=length - 1, **how)  # fmt: skip

        return run

    return {
        f"GPT-2 {cfg.layers}x{cfg.width}, {n} strings of {length}, tokens/s": (
            n * length,
            {"ours": partial(ours_decoding, n, cfg), "torch, static cache": partial(theirs, n)},
        )
        for n in (1, 2 if dry else 64)
    }


# ---- what is compared ------------------------------------------------------------------------------------------------


def comparisons(our_updates: Callable) -> dict[str, tuple[int, dict[str, Callable[[], Callable[[], None]]]]]:
    """What is compared -> (units of work in one call, competitor -> how to set it up; ours is the first).

    our_updates: of `experiments/benchmarks.py`.
    """
    torch.set_num_threads(os.cpu_count())
    ours = lambda devices: our_updates(gpt.algorithm, SMALL, {"tokens": _tokens()}, UPDATES, devices)  # noqa: E731
    step = {
        "ours": lambda: ours(1),
        **({"ours, 2 devices": lambda: ours(2)} if jax.device_count() > 1 else {}),
        "torch": lambda: theirs_training(False),
        "torch bf16": lambda: theirs_training(True),
    }
    decode = lambda n: {  # noqa: E731
        "ours": lambda: ours_decoding(n, dataclasses.replace(SMALL, length=LENGTH)),
        "torch, cached": lambda: theirs_decoding(n, True),
        "torch, uncached": lambda: theirs_decoding(n, False),
    }
    return {
        "GPT 4x128, updates/s": (UPDATES, step),
        "decoding, batch 1, tokens/s": (LENGTH, decode(1)),
        "decoding, batch 16, tokens/s": (16 * LENGTH, decode(16)),
    }


def _theirs(cfg: gpt.Config) -> transformers.GPT2LMHeadModel:
    dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    sizes = {"n_positions": cfg.length, "n_embd": cfg.width, "n_layer": cfg.layers, "n_head": cfg.heads}
    about = transformers.GPT2Config(vocab_size=cfg.vocab, bos_token_id=0, eos_token_id=None, **sizes, **dropout)
    return transformers.GPT2LMHeadModel(about)


def _tokens(cfg: gpt.Config = SMALL, batch: int = BATCH) -> np.ndarray:
    return np.random.default_rng(0).integers(0, cfg.vocab, (batch, cfg.length)).astype(np.int32)
