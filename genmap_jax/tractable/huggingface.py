"""GPT weights in and out of Hugging Face folders: config.json and safetensors. Nothing is ever unpickled.

    cfg, params = from_huggingface(folder)      GPT-2, Qwen2 and Llama
    to_huggingface(folder, cfg, params)

A folder written here is read by `transformers` and by the engines that serve its format. Our models predict the first
token too, from a start vector; in that format it is the embedding of a token that begins a text (`bos_token_id`):

    reading   the embedding of the folder's first token becomes the start vector: logits(x)[t] are what the model says
              after the first token and x_1..x_t
    writing   the start vector becomes the embedding of one more token, number `vocab`, which config.json names as the
              first and generation_config.json forbids to draw
"""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from genmap_jax import train
from genmap_jax.algorithm import Params
from genmap_jax.evaluate.features import weights
from genmap_jax.nn import rope
from genmap_jax.tractable import gpt

FORMATS = {"all": "gpt2", "qkv": "qwen2", "none": "llama"}
"""`Config.bias` -> model_type."""
CLASSES = {"gpt2": "GPT2LMHeadModel", "qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM"}


def from_huggingface(folder: str | os.PathLike, first: int | None = None) -> tuple[gpt.Config, Params]:
    """Read a model. Returns its configuration and float32 parameters.

    first: the token that begins a text; None takes the folder's `bos_token_id`.
    Raises FileNotFoundError for a missing file; ValueError for a format or an option that our GPT does not have, and
        for weights that are not safetensors.
    """
    folder = Path(folder).expanduser()
    about = _json(folder / "config.json")
    kind = about.get("model_type")
    if kind not in CLASSES:
        raise ValueError(f"{folder}: model_type={kind!r} is not one of {', '.join(CLASSES)}")
    cfg = _config_gpt2(about) if kind == "gpt2" else _config_llama(about, kind)
    first = about.get("bos_token_id") if first is None else first
    if not isinstance(first, int) or not 0 <= first < cfg.vocab:
        raise ValueError(
            f"{folder}: no token begins a text (bos_token_id={first}): give first=TOKEN, below {cfg.vocab}"
        )
    gpt.check(cfg)
    tensors = {name.removeprefix("transformer.").removeprefix("model."): x for name, x in _tensors(folder).items()}
    try:
        params = _params_gpt2(cfg, tensors) if kind == "gpt2" else _params_llama(cfg, tensors)
    except KeyError as error:
        raise ValueError(f"{folder}: there is no tensor {error} among its weights") from error
    params["start"] = params["embedding"][first]
    ours = about.get("genmap_jax", {}).get("vocab", cfg.vocab)  # without the token that `to_huggingface` added
    for name in {"embedding", "head"} & set(params):
        params[name] = params[name][:ours]
    cfg = dataclasses.replace(cfg, vocab=ours)
    shapes = jax.eval_shape(gpt.algorithm(cfg, batch_size=1).init, jax.random.key(0)).params
    wrong = jax.tree.map(lambda x, want: x.shape != want.shape, params, shapes)
    for path, differs in jax.tree_util.tree_leaves_with_path(wrong):
        if differs:
            raise ValueError(f"{folder}: {jax.tree_util.keystr(path)} has another shape than config.json says")
    return cfg, jax.tree.map(lambda x: np.asarray(x, np.float32), params)


def to_huggingface(folder: str | os.PathLike, cfg: gpt.Config, params: Params) -> Path:
    """Write config.json, generation_config.json and model.safetensors, in float32. Returns the folder.

    Raises ValueError naming the first option of the configuration that the format does not have.
    """
    import safetensors.numpy

    kind = FORMATS[cfg.bias]
    wanted = {"classes": None, "qk_norm": False, "softcap": None, "residual_scales": False, "window": None} | {
        "chunk": None,
        **({"norm": "layer", "positions": "learned", "mlp": "gelu", "tied": True} if kind == "gpt2" else {}),
        **({"norm": "rms", "positions": "rope", "mlp": "swiglu"} if kind != "gpt2" else {}),
    }
    for name, value in wanted.items():
        if getattr(cfg, name) != value:
            raise ValueError(f"{name}={getattr(cfg, name)!r} does not exist in the format {kind}, only {value!r}")
    if cfg.scaling.kind == "ntk":
        raise ValueError(
            "scaling.kind='ntk' does not exist in the format: write its theta * factor^(d / (d - 2)) instead"
        )
    params = jax.tree.map(lambda x: np.asarray(x, np.float32), params)
    table = {"embedding": np.concatenate([params["embedding"], params["start"][None]])}
    if not cfg.tied:
        table["head"] = np.concatenate([params["head"], np.zeros_like(params["start"][None])])
    tensors = (_tensors_gpt2 if kind == "gpt2" else _tensors_llama)(cfg, params | table)
    about = (_about_gpt2 if kind == "gpt2" else _about_llama)(cfg) | {
        "architectures": [CLASSES[kind]],
        "model_type": kind,
        "vocab_size": cfg.vocab + 1,
        "bos_token_id": cfg.vocab,
        "eos_token_id": None,
        "tie_word_embeddings": cfg.tied,
        "dtype": "float32",
        "genmap_jax": {"vocab": cfg.vocab},
    }
    folder = Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    train.write_json(folder / "config.json", about)
    train.write_json(
        folder / "generation_config.json",
        {"bos_token_id": cfg.vocab, "eos_token_id": None, "suppress_tokens": [cfg.vocab], "do_sample": False},
    )
    safetensors.numpy.save_file(
        {name: np.ascontiguousarray(x) for name, x in tensors.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    return folder


# ---- files -----------------------------------------------------------------------------------------------------------


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: there is no such file; give a folder as transformers' save_pretrained writes it"
        )
    return json.loads(path.read_text())


def _tensors(folder: Path) -> weights.Tensors:
    """All tensors, of one file or of those that the index of a large model names."""
    index = folder / "model.safetensors.index.json"
    names = sorted(set(_json(index)["weight_map"].values())) if index.exists() else ["model.safetensors"]
    outside = [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]
    if outside:
        raise ValueError(f"{index}: {outside[0]!r} is not the name of a .safetensors file in this folder")
    if not (folder / names[0]).exists() and list(folder.glob("*.bin")):
        raise ValueError(
            f"{folder}: its weights are not safetensors but pickled, which may run code: convert them first"
        )
    return {name: x for file in names for name, x in weights.read(folder / file).items()}


# ---- GPT-2: matrices as [in, out], like ours -------------------------------------------------------------------------

GPT2_LAYERS = {
    "attention_norm": "ln_1",
    "attention/qkv": "attn.c_attn",
    "attention/out": "attn.c_proj",
    "mlp_norm": "ln_2",
    "up": "mlp.c_fc",
    "down": "mlp.c_proj",
}


def _config_gpt2(about: dict[str, Any]) -> gpt.Config:
    activation = about.get("activation_function", "gelu_new")
    if activation not in ("gelu_new", "gelu_pytorch_tanh"):
        raise ValueError(f"activation_function={activation!r}: our GELU is GPT-2's tanh approximation, gelu_new")
    if about.get("scale_attn_by_inverse_layer_idx") or not about.get("scale_attn_weights", True):
        raise ValueError("scale_attn_weights, scale_attn_by_inverse_layer_idx: only GPT-2's own values are known")
    return gpt.Config(
        vocab=about["vocab_size"],
        length=about["n_positions"],
        layers=about["n_layer"],
        heads=about["n_head"],
        width=about["n_embd"],
        hidden=about.get("n_inner"),
        norm_eps=about.get("layer_norm_epsilon", 1e-5),
    )


def _about_gpt2(cfg: gpt.Config) -> dict[str, Any]:
    return {
        "n_positions": cfg.length,
        "n_layer": cfg.layers,
        "n_head": cfg.heads,
        "n_embd": cfg.width,
        "n_inner": cfg.hidden,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": cfg.norm_eps,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    }


def _params_gpt2(cfg: gpt.Config, tensors: weights.Tensors) -> dict[str, Any]:
    def layer(name: str, norm: bool) -> dict[str, np.ndarray]:
        return {"scale" if norm else "kernel": tensors[f"{name}.weight"], "bias": tensors[f"{name}.bias"]}

    params = {"embedding": tensors["wte.weight"], "positions": tensors["wpe.weight"], "final_norm": layer("ln_f", True)}
    for i in range(cfg.layers):
        block = {ours: layer(f"h.{i}.{theirs}", "norm" in ours) for ours, theirs in GPT2_LAYERS.items()}
        params[f"block_{i}"] = _nested(block)
    return params


def _tensors_gpt2(cfg: gpt.Config, params: Params) -> weights.Tensors:
    tensors = {"wte.weight": params["embedding"], "wpe.weight": params["positions"]}
    layers = {"ln_f": params["final_norm"]}
    for i in range(cfg.layers):
        block = _flat(params[f"block_{i}"])
        layers |= {f"h.{i}.{theirs}": block[ours] for ours, theirs in GPT2_LAYERS.items()}
    for name, layer in layers.items():
        tensors[f"{name}.weight"] = layer["scale"] if "scale" in layer else layer["kernel"]
        tensors[f"{name}.bias"] = layer["bias"]
    return {f"transformer.{name}": x for name, x in tensors.items()}


# ---- Qwen2 and Llama: matrices as [out, in], queries, keys and values apart ------------------------------------------

LLAMA_MATRICES = {
    "attention/out": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
LLAMA_NORMS = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}


def _config_llama(about: dict[str, Any], kind: str) -> gpt.Config:
    if about.get("hidden_act", "silu") != "silu":
        raise ValueError(f"hidden_act={about['hidden_act']!r}: only silu is known")
    for option in ("use_sliding_window", "attention_bias", "mlp_bias"):
        if about.get(option):
            raise ValueError(f"{option}={about[option]}: only false is known for {kind}")
    heads, width = about["num_attention_heads"], about["hidden_size"]
    if about.get("head_dim") not in (None, width // heads):
        raise ValueError(f"head_dim={about['head_dim']}: only hidden_size / num_attention_heads is known")
    rotary = about.get("rope_parameters") or about.get("rope_scaling") or {}
    stretch = rotary.get("rope_type", rotary.get("type", "default"))
    if stretch not in ("default", "linear", "yarn"):
        raise ValueError(f"rope_type={stretch!r}: default, linear and yarn are known")
    scaling = rope.Scaling()
    if stretch != "default":
        original = rotary.get("original_max_position_embeddings") or about["max_position_embeddings"]
        ramp = {"fast": rotary.get("beta_fast") or 32.0, "slow": rotary.get("beta_slow") or 1.0}
        scaling = rope.Scaling(stretch, rotary["factor"], original, **ramp)
    return gpt.Config(
        vocab=about["vocab_size"],
        length=about["max_position_embeddings"],
        layers=about["num_hidden_layers"],
        heads=heads,
        kv_heads=about.get("num_key_value_heads"),
        width=width,
        hidden=about["intermediate_size"],
        norm_eps=about.get("rms_norm_eps", 1e-6),
        theta=rotary.get("rope_theta") or about.get("rope_theta") or 10_000.0,
        scaling=scaling,
        **({"norm": "rms", "positions": "rope", "mlp": "swiglu", "bias": "qkv" if kind == "qwen2" else "none"}),
        tied=about.get("tie_word_embeddings", False),
    )


def _about_llama(cfg: gpt.Config) -> dict[str, Any]:
    rotary = {"rope_type": "default", "rope_theta": cfg.theta}
    if cfg.scaling.kind != "none":
        rotary |= {"rope_type": cfg.scaling.kind, "factor": cfg.scaling.factor}
    if cfg.scaling.kind == "yarn":
        rotary |= {"original_max_position_embeddings": cfg.scaling.original}
        rotary |= {"beta_fast": cfg.scaling.fast, "beta_slow": cfg.scaling.slow}
    return {
        "max_position_embeddings": cfg.length,
        "num_hidden_layers": cfg.layers,
        "num_attention_heads": cfg.heads,
        "num_key_value_heads": cfg.groups,
        "hidden_size": cfg.width,
        "intermediate_size": cfg.hidden or 4 * cfg.width,
        "hidden_act": "silu",
        "rms_norm_eps": cfg.norm_eps,
        "rope_theta": cfg.theta,  # read by versions of transformers before 5
        "rope_parameters": rotary,
    }


def _params_llama(cfg: gpt.Config, tensors: weights.Tensors) -> dict[str, Any]:
    params: dict[str, Any] = {
        "embedding": tensors["embed_tokens.weight"],
        "final_norm": {"scale": tensors["norm.weight"]},
    }
    if not cfg.tied:
        params["head"] = tensors["lm_head.weight"]
    for i in range(cfg.layers):
        here = f"layers.{i}"
        parts = [f"{here}.self_attn.{part}_proj" for part in "qkv"]
        qkv = {"kernel": np.concatenate([tensors[f"{part}.weight"] for part in parts]).T}
        if cfg.bias == "qkv":
            qkv["bias"] = np.concatenate([tensors[f"{part}.bias"] for part in parts])
        block = {"attention/qkv": qkv}
        block |= {ours: {"kernel": tensors[f"{here}.{theirs}.weight"].T} for ours, theirs in LLAMA_MATRICES.items()}
        block |= {ours: {"scale": tensors[f"{here}.{theirs}.weight"]} for ours, theirs in LLAMA_NORMS.items()}
        params[f"block_{i}"] = _nested(block)
    return params


def _tensors_llama(cfg: gpt.Config, params: Params) -> weights.Tensors:
    tensors = {"model.embed_tokens.weight": params["embedding"], "model.norm.weight": params["final_norm"]["scale"]}
    if not cfg.tied:
        tensors["lm_head.weight"] = params["head"]
    d = cfg.width // cfg.heads
    for i in range(cfg.layers):
        here, block = f"model.layers.{i}", _flat(params[f"block_{i}"])
        for kind, value in block["attention/qkv"].items():
            each = np.split(value, [cfg.heads * d, (cfg.heads + cfg.groups) * d], axis=-1)
            name = "weight" if kind == "kernel" else "bias"
            tensors |= {f"{here}.self_attn.{p}_proj.{name}": x.T for p, x in zip("qkv", each, strict=True)}
        tensors |= {f"{here}.{theirs}.weight": block[ours]["kernel"].T for ours, theirs in LLAMA_MATRICES.items()}
        tensors |= {f"{here}.{theirs}.weight": block[ours]["scale"] for ours, theirs in LLAMA_NORMS.items()}
    return tensors


def _nested(block: dict[str, Any]) -> dict[str, Any]:
    """{"attention/qkv": layer, "up": layer} -> {"attention": {"qkv": layer}, "up": layer}."""
    inside = {name.removeprefix("attention/"): layer for name, layer in block.items() if "/" in name}
    return {name: layer for name, layer in block.items() if "/" not in name} | {"attention": inside}


def _flat(block: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `_nested`."""
    inside = {f"attention/{name}": layer for name, layer in block["attention"].items()}
    return {name: layer for name, layer in block.items() if name != "attention"} | inside
