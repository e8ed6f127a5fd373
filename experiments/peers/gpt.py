"""Our GPT beside GPT-2 of Hugging Face transformers on PyTorch: the same sizes, data and optimizer, on the same cores.

Training: nanoGPT's recipe for a laptop CPU (4 layers, 128 wide, 64 tokens, batch 12, AdamW), one update.
Decoding: 256 tokens from a model of that size, drawn at temperature 1; uncached is how nanoGPT samples.
"""

import dataclasses
import os
from collections.abc import Callable
from functools import partial

import jax
import numpy as np
import torch
import transformers

from genmap_jax.optim import Optim
from genmap_jax.samplers import decoding
from genmap_jax.tractable import gpt

BATCH, LENGTH = 12, 256
SMALL = gpt.Config(vocab=65, length=64, layers=4, heads=4, width=128, optim=Optim(lr=1e-3, b2=0.99, weight_decay=0.1))
UPDATES = 20  # between two looks at the clock


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


def ours_decoding(n: int) -> Callable[[], None]:
    cfg = dataclasses.replace(SMALL, length=LENGTH)
    params = jax.jit(partial(gpt.init_params, cfg))(jax.random.key(0))
    draw = jax.jit(
        lambda params, keys: decoding.decode(gpt.decoding_step(cfg, params), gpt.empty_cache(cfg, n), LENGTH, keys=keys)
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
        "ours": lambda: ours_decoding(n),
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


def _tokens() -> np.ndarray:
    return np.random.default_rng(0).integers(0, SMALL.vocab, (BATCH, SMALL.length)).astype(np.int32)
