"""GPT: a causal transformer over tokens, with the exact log-probability of every string.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners" (GPT-2), after Radford et al. 2018 (GPT) and
Vaswani et al. 2017 (arXiv:1706.03762).

    log p(x_1..x_L) = sum_t log p(x_t | x_1..x_{t-1})

The defaults are GPT-2: LayerNorm before each block, learned positions, tanh-approximated GELU, output head tied to the
embedding, N(0, 0.02) initialisation with residual projections scaled by 1 / sqrt(2 layers). `LLAMA` and `QWEN2` are the
choices of those models as changes to a configuration: dataclasses.replace(cfg, **gpt.LLAMA).

Differs from the papers: the first token is predicted too, from a learned start vector, so that p is a density over
strings of length L and sums to one over all V^L of them; a label, where data have one, is a vector added to every
input; dropout, where it is asked for, is not in the attention's weights.

    config      the options, the choices of published models
    network     attention, blocks, the network from tokens to logits
    model       log p of strings, decoding with a cache; `algorithm`

To continue prompts: `tractable.completion`. Weights of others, and for others: `interop.huggingface`.
"""

from genmap_jax.tractable.gpt.config import LLAMA, QWEN2, SAMPLING, Config, check, check_stops
from genmap_jax.tractable.gpt.model import (
    FAMILY,
    algorithm,
    check_label,
    check_tokens,
    decoding_step,
    empty_cache,
    init_params,
    log_prob,
    logits,
    prefill,
    token_log_prob,
)
from genmap_jax.tractable.gpt.network import GPT, At, Attention, Block, Cache, apply_rope

__all__ = [
    "FAMILY",
    "GPT",
    "LLAMA",
    "QWEN2",
    "SAMPLING",
    "At",
    "Attention",
    "Block",
    "Cache",
    "Config",
    "algorithm",
    "apply_rope",
    "check",
    "check_label",
    "check_stops",
    "check_tokens",
    "decoding_step",
    "empty_cache",
    "init_params",
    "log_prob",
    "logits",
    "prefill",
    "token_log_prob",
]
