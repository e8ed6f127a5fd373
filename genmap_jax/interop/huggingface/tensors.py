"""The tensors of GPT-2, Qwen2 and Llama, to and from our parameters: one table of names for both directions.

GPT-2 keeps matrices as [in, out], like ours. Qwen2 and Llama keep them as [out, in], with queries, keys and values
apart.
"""

import dataclasses
import functools
import warnings
from typing import Any

import jax
import numpy as np
from flax.traverse_util import unflatten_dict

from genmap_jax.algorithm import Params
from genmap_jax.interop import weights
from genmap_jax.interop.huggingface.configuration import NAMES, About
from genmap_jax.tractable import gpt

Layers = dict[str, tuple[str, ...]]

GPT2: Layers = {
    "embedding": ("wte",),
    "positions": ("wpe",),
    "head": ("lm_head",),
    "final_norm": ("ln_f",),
    "block": ("h",),
    "attention_norm": ("ln_1",),
    "attention/qkv": ("attn.c_attn",),
    "attention/out": ("attn.c_proj",),
    "mlp_norm": ("ln_2",),
    "up": ("mlp.c_fc",),
    "down": ("mlp.c_proj",),
}
LLAMA: Layers = {
    "embedding": ("embed_tokens",),
    "head": ("lm_head",),
    "final_norm": ("norm",),
    "block": ("layers",),
    "attention_norm": ("input_layernorm",),
    "attention/qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention/out": ("self_attn.o_proj",),
    "mlp_norm": ("post_attention_layernorm",),
    "gate": ("mlp.gate_proj",),
    "up": ("mlp.up_proj",),
    "down": ("mlp.down_proj",),
}
LAYERS = {"gpt2": GPT2, "qwen2": LLAMA, "llama": LLAMA}
"""Our layers -> theirs, by `model_type`."""
PREFIX = {"gpt2": "transformer.", "qwen2": "model.", "llama": "model."}
"""Of every name but that of the head. Files of the network without a head leave it out."""
BUFFERS = {
    "gpt2": r"^h\.\d+\.attn\.(masked_)?bias$",
    "qwen2": r"rotary_emb\.inv_freq$",
    "llama": r"rotary_emb\.inv_freq$",
}
"""Constants that older files hold: causal masks, rotary frequencies."""


def names_of(kind: str, parameter: str) -> list[str]:
    """The tensors that are one of our parameters, side by side, without the prefix.

    "block_3/attention/qkv/kernel" -> ["layers.3.self_attn.q_proj.weight", ...]
    """
    *layer, field = parameter.split("/")
    if not layer:  # a table: it has no fields
        layer, field = [field], "kernel"
    stem = ""
    if layer[0].startswith("block_"):
        stem = f"{LAYERS[kind]['block'][0]}.{layer.pop(0).removeprefix('block_')}."
    return [f"{stem}{name}.{'bias' if field == 'bias' else 'weight'}" for name in LAYERS[kind]["/".join(layer)]]


def turned(kind: str, parameter: str) -> bool:
    """Whether the format has the matrix the other way round."""
    return kind != "gpt2" and parameter.endswith("kernel")


def parts_of(cfg: gpt.Config, shape: tuple[int, ...], parts: int) -> list[tuple[int, ...]]:
    """The shapes of queries, keys and values along the last axis of our parameter, or that of the whole."""
    sizes = [heads * cfg.head_size for heads in (cfg.heads, cfg.groups, cfg.groups)] if parts > 1 else [shape[-1]]
    return [(*shape[:-1], size) for size in sizes]


@functools.cache
def shapes_of(cfg: gpt.Config) -> dict[str, Any]:
    """The shapes of our parameters by their paths. With rotary positions any length gives the same."""
    cfg = dataclasses.replace(cfg, length=1) if cfg.positions == "rope" else cfg
    return weights.flat(jax.eval_shape(functools.partial(gpt.init_params, cfg), jax.random.key(0)))


def to_ours(about: About, tensors: weights.Tensors) -> dict[str, Any]:
    """Our parameters, but for the start vector. Takes every tensor, or raises ValueError that names one."""
    kind, cfg = about.kind, about.config
    path, last = tensors.path, f"{LAYERS[kind]['block'][0]}.{cfg.layers - 1}."
    if not any(name.startswith(last) for name in tensors):
        raise ValueError(f"weights={path}: {NAMES[kind]['layers']}={cfg.layers}, but there is no tensor of {last}*")
    tensors.drop(BUFFERS[kind])
    params = {}
    for parameter, like in shapes_of(cfg).items():
        if parameter == "start":
            continue
        names = names_of(kind, parameter)
        parts = []
        for name, shape in zip(names, parts_of(cfg, like.shape, len(names)), strict=True):
            x, shape = tensors.take(name), shape[::-1] if turned(kind, parameter) else shape
            if parameter in ("embedding", "head") and x.shape[1:] == shape[1:] and not x[shape[0] :].any():
                x = x[: shape[0]]  # tables are padded with zeros to a round number of rows
            if x.shape != shape:
                raise ValueError(f"weights={path}: {name} has shape {x.shape}, but {shape} is needed by config.json")
            parts.append(x.T if turned(kind, parameter) else x)
        params[parameter] = np.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]
    if cfg.tied and "lm_head.weight" in tensors and not same_table(tensors.take("lm_head.weight"), params["embedding"]):
        warnings.warn(
            f"{path}: lm_head.weight is not used, for tie_word_embeddings is true; if the model has a head of its own, "
            "set that to false in config.json",
            stacklevel=3,
        )
    tensors.expect_none()
    return unflatten_dict(params, sep="/")


def same_table(head: np.ndarray, embedding: np.ndarray) -> bool:
    """Whether the rows of a head are those of the embedding, but for padding."""
    return head.shape[1:] == embedding.shape[1:] and np.array_equal(head[: len(embedding)], embedding)


def to_theirs(cfg: gpt.Config, kind: str, params: Params) -> dict[str, np.ndarray]:
    """The tensors of a folder by their names, of parameters with one more token in their tables."""
    tensors = {}
    for parameter, x in weights.flat(params).items():
        if parameter == "start":
            continue
        names = names_of(kind, parameter)
        sizes = [shape[-1] for shape in parts_of(cfg, x.shape, len(names))]
        parts = np.split(x, np.cumsum(sizes)[:-1], axis=-1)
        for name, part in zip(names, parts, strict=True):
            prefix = "" if parameter == "head" else PREFIX[kind]
            tensors[f"{prefix}{name}"] = np.ascontiguousarray(part.T if turned(kind, parameter) else part)
    return tensors
