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
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import unflatten_dict

from genmap_jax.algorithm import Params
from genmap_jax.data import text
from genmap_jax.files import write_json
from genmap_jax.interop import weights
from genmap_jax.nn import rope
from genmap_jax.tractable import gpt

START = "<|start|>"
FORMATS = {"all": "gpt2", "qkv": "qwen2", "none": "llama"}
"""The dense layers with biases, `Config.bias`, tell the three formats apart: bias -> model_type."""
GPT2 = {"norm": "layer", "positions": "learned", "mlp": "gelu", "tied": True}
LLAMA = {name: gpt.LLAMA[name] for name in ("norm", "positions", "mlp")}
PLAIN = {"classes": None, "qk_norm": False, "softcap": None, "residual_scales": False, "window": None, "chunk": None}
"""The options that no format has, at the values that leave them out: a configuration must have these to be written."""
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
    params = _params_gpt2(cfg, tensors) if kind == "gpt2" else _params_llama(cfg, tensors)
    params["start"] = params["embedding"][first]
    ours = about.get("genmap_jax", {}).get("vocab", cfg.vocab)  # without the token that `to_huggingface` added
    for name in {"embedding", "head"} & set(params):
        params[name] = params[name][:ours]
    cfg = dataclasses.replace(cfg, vocab=ours)
    weights.must_match(params, jax.eval_shape(partial(gpt.init_params, cfg), jax.random.key(0)), folder)
    return cfg, jax.tree.map(lambda x: np.asarray(x, np.float32), params)


def to_huggingface(
    folder: str | os.PathLike, cfg: gpt.Config, params: Params, tokenizer: text.Tokenizer | None = None
) -> Path:
    """Write config.json, generation_config.json and model.safetensors, in float32. Returns the folder.

    tokenizer: of the text the model was trained on; writes tokenizer.json and tokenizer_config.json too.
    Sampling options (temperature, stop and so on) are not written: whoever draws from the folder chooses them.
    Raises ValueError naming the first option of the configuration that the format does not have.
    """
    import safetensors.numpy

    kind = FORMATS[cfg.bias]
    wanted = PLAIN | (GPT2 if kind == "gpt2" else LLAMA)
    for name, value in wanted.items():
        if getattr(cfg, name) != value:
            raise ValueError(f"{name}={getattr(cfg, name)!r} does not exist in the format {kind}, only {value!r}")
    if kind == "gpt2" and cfg.groups != cfg.heads:
        raise ValueError(f"kv_heads={cfg.kv_heads} does not exist in the format {kind}, only {cfg.heads}")
    if cfg.scaling.kind == "ntk":
        raise ValueError(
            "scaling.kind='ntk' does not exist in the format: write its theta * factor^(d / (d - 2)) instead"
        )
    if tokenizer is not None:
        if kind == "qwen2" and tokenizer.unit == "characters":
            raise ValueError("transformers reads every qwen2 folder with a byte-level tokenizer: train it on bytes")
        tokenizer_json = text.as_huggingface(tokenizer, cfg.vocab, START)
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
    if tokenizer is not None:
        (folder / "tokenizer.json").write_text(tokenizer_json)
        write_json(
            folder / "tokenizer_config.json",
            {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": START, "model_max_length": cfg.length}
            | {"clean_up_tokenization_spaces": False},
        )
    write_json(folder / "config.json", about)
    write_json(
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

GPT2_TABLES = {"embedding": "wte", "positions": "wpe"}
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
    def layer(name: str) -> dict[str, np.ndarray]:
        params = weights.layer(tensors, name)
        return params | {"kernel": params["kernel"].T} if "kernel" in params else params

    params: dict[str, Any] = {name: weights.find(tensors, f"{theirs}.weight") for name, theirs in GPT2_TABLES.items()}
    params["final_norm"] = layer("ln_f")
    for i in range(cfg.layers):
        params |= {f"block_{i}/{ours}": layer(f"h.{i}.{theirs}") for ours, theirs in GPT2_LAYERS.items()}
    return unflatten_dict(params, sep="/")


def _tensors_gpt2(cfg: gpt.Config, params: Params) -> weights.Tensors:
    ours = weights.flat(params)
    tensors = {f"{theirs}.weight": ours[name] for name, theirs in GPT2_TABLES.items()}
    layers = {"final_norm": "ln_f"}
    for i in range(cfg.layers):
        layers |= {f"block_{i}/{name}": f"h.{i}.{theirs}" for name, theirs in GPT2_LAYERS.items()}
    for name, theirs in layers.items():
        tensors[f"{theirs}.weight"] = ours[f"{name}/{'scale' if 'norm' in name else 'kernel'}"]
        tensors[f"{theirs}.bias"] = ours[f"{name}/bias"]
    return {f"transformer.{name}": x for name, x in tensors.items()}


# ---- Qwen2 and Llama: matrices as [out, in], queries, keys and values apart ------------------------------------------

LLAMA_LAYERS = {
    "attention_norm": "input_layernorm",
    "attention/out": "self_attn.o_proj",
    "mlp_norm": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}


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
        bias="qkv" if kind == "qwen2" else "none",
        **LLAMA,
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
    params = {
        "embedding": weights.find(tensors, "embed_tokens.weight"),
        "final_norm": weights.layer(tensors, "norm"),
    }
    if not cfg.tied:
        params["head"] = weights.find(tensors, "lm_head.weight")
    for i in range(cfg.layers):
        parts = [weights.layer(tensors, f"layers.{i}.self_attn.{part}_proj") for part in "qkv"]
        params[f"block_{i}/attention/qkv"] = {
            field: np.concatenate([part[field] for part in parts], axis=-1) for field in parts[0]
        }
        for ours, theirs in LLAMA_LAYERS.items():
            params[f"block_{i}/{ours}"] = weights.layer(tensors, f"layers.{i}.{theirs}")
    return unflatten_dict(params, sep="/")


def _tensors_llama(cfg: gpt.Config, params: Params) -> weights.Tensors:
    ours = weights.flat(params)
    tensors = {"model.embed_tokens.weight": ours["embedding"], "model.norm.weight": ours["final_norm/scale"]}
    if not cfg.tied:
        tensors["lm_head.weight"] = ours["head"]
    d = cfg.width // cfg.heads
    for i in range(cfg.layers):
        here = f"model.layers.{i}"
        for field in params[f"block_{i}"]["attention"]["qkv"]:
            each = np.split(
                ours[f"block_{i}/attention/qkv/{field}"], [cfg.heads * d, (cfg.heads + cfg.groups) * d], axis=-1
            )
            name = "weight" if field == "kernel" else field
            tensors |= {f"{here}.self_attn.{p}_proj.{name}": x.T for p, x in zip("qkv", each, strict=True)}
        for name, theirs in LLAMA_LAYERS.items():
            field = "scale" if "norm" in name else "kernel"
            tensors[f"{here}.{theirs}.weight"] = ours[f"block_{i}/{name}/{field}"].T
    return tensors
