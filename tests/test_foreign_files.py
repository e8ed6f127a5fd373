"""Weights and tokenizers of others, malformed in over a hundred ways: one line that names the file and the field.

One small good folder of each format is written once; every row of a table changes one thing in it.
"""

import functools
import json
import shutil
import struct
from pathlib import Path

import flax.linen as nn
import numpy as np
import pytest
import safetensors.numpy
from families import perturbed
from test_features import tiny_dinov2

from genmap_jax.data import text
from genmap_jax.evaluate.features import efficientnet, inception, record, vit
from genmap_jax.interop import weights
from genmap_jax.interop.huggingface import from_huggingface, to_huggingface
from genmap_jax.tractable import gpt

MODELS = {"gpt2": {}, "llama": gpt.LLAMA, "qwen2": gpt.QWEN2 | {"kv_heads": 1, "tied": True}}
GONE = object()
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 4}
LLAMA3 = YARN | {"rope_type": "llama3", "high_freq_factor": 4.0, "low_freq_factor": 1.0}


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """A folder of each format: 7 tokens and the first one, one layer."""
    root = tmp_path_factory.mktemp("good")
    for kind, changes in MODELS.items():
        cfg = gpt.Config(**({"vocab": 7, "length": 8, "layers": 1, "heads": 2, "width": 8, "theta": 1e4} | changes))
        to_huggingface(root / kind, cfg, perturbed(cfg))
    return root


def copy(good: Path, kind: str, into: Path, remove: tuple[str, ...] = (), **changes) -> Path:
    """A good folder with fields of config.json changed. What a folder written here says of itself is left out."""
    folder = into / kind
    shutil.copytree(good / kind, folder)
    about = json.loads((folder / "config.json").read_text()) | {"genmap_jax": GONE} | changes
    about = {name: value for name, value in about.items() if value is not GONE}
    (folder / "config.json").write_text(json.dumps(about))
    return folder


def refused(read, *words: str) -> None:
    """Reading raises one of the two errors, with one line that has all of these words."""
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        read()
    assert error.type in (ValueError, FileNotFoundError)
    message = str(error.value)
    assert "\n" not in message and len(message) < 400
    assert all(word in message for word in words), message


def test_good_folders_are_read(good, tmp_path):
    """Also as others would have written them, without the field of ours."""
    for kind in MODELS:
        assert from_huggingface(good / kind)[0].vocab == 7
        assert from_huggingface(copy(good, kind, tmp_path))[0].vocab == 8


# ---- config.json -----------------------------------------------------------------------------------------------------

ROTARY = [
    ({"rope_type": "dynamic", "factor": 2.0}, "rope_type='dynamic'"),
    ({"rope_type": "longrope", "factor": 2.0}, "rope_type='longrope'"),
    ({"rope_type": ["yarn"]}, "rope_type=['yarn']"),
    ({"rope_type": "linear"}, "factor is missing"),
    ({"rope_type": "linear", "factor": "4"}, "factor='4'"),
    ({"rope_type": "linear", "factor": 0.5}, "factor=0.5"),
    ({"rope_type": "linear", "factor": float("nan")}, "factor=nan"),
    ({"rope_type": "linear", "factor": 2.0, "rope_theta": -1}, "rope_theta=-1"),
    ({"rope_theta": 1.0}, "rope_theta=1.0"),
    ({"rope_theta": "10000"}, "rope_theta='10000'"),
    ({"rope_theta": 10**400}, "rope_theta=1000"),
    ({"rope_type": "default", "factor": 4.0}, "factor=4.0"),
    ({"rope_type": "default", "partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
    ({"full_attention": {"rope_type": "default"}}, "full_attention"),
    (YARN | {"factor": None}, "factor"),
    (YARN | {"original_max_position_embeddings": 0}, "original_max_position_embeddings=0"),
    (YARN | {"attention_factor": 2.0}, "attention_factor=2.0"),
    (YARN | {"mscale": 1.0}, "mscale=1.0"),
    (YARN | {"truncate": False}, "truncate=False"),
    (YARN | {"beta_fast": 1.0, "beta_slow": 2.0}, "beta_slow=2.0"),
    (YARN | {"beta_fast": "32"}, "beta_fast='32'"),
    (LLAMA3 | {"low_freq_factor": None}, "low_freq_factor is missing"),
    (LLAMA3 | {"low_freq_factor": 4.0}, "low_freq_factor=4.0"),
    (LLAMA3 | {"high_freq_factor": -4.0}, "high_freq_factor=-4.0"),
    (LLAMA3 | {"attention_factor": 1.0}, "attention_factor"),
    ([], "rope_parameters"),
    ("yarn", "rope_parameters"),
]
CONFIG = [
    ("gpt2", {"model_type": GONE}, "model_type=None"),
    ("gpt2", {"model_type": "bert"}, "model_type='bert'"),
    ("gpt2", {"model_type": ["gpt2"]}, "model_type=['gpt2']"),
    *(("gpt2", {name: GONE}, f"{name} is missing") for name in ("vocab_size", "n_positions", "n_layer", "n_head")),
    ("gpt2", {"n_embd": GONE}, "n_embd is missing"),
    ("gpt2", {"n_head": None}, "n_head=None"),
    ("gpt2", {"n_head": "2"}, "n_head='2'"),
    ("gpt2", {"n_head": 0}, "n_head=0"),
    ("gpt2", {"n_head": 3}, "n_embd=8 does not divide over n_head=3"),
    ("gpt2", {"n_head": 2.0}, "n_head=2.0"),
    ("gpt2", {"n_layer": True}, "n_layer=True"),
    ("gpt2", {"n_layer": -1}, "n_layer=-1"),
    ("gpt2", {"n_layer": 2}, "n_layer=2"),
    ("gpt2", {"n_layer": 10**9}, "n_layer=1000000000"),
    ("gpt2", {"n_embd": [8]}, "n_embd=(8,)"),
    ("gpt2", {"n_embd": 16}, "(16,) is needed by config.json"),
    ("gpt2", {"n_inner": 0}, "n_inner=0"),
    ("gpt2", {"n_inner": 64}, "(64, 8) is needed by config.json"),
    ("gpt2", {"n_positions": 9}, "wpe.weight has shape"),
    ("gpt2", {"vocab_size": 10**12}, "vocab_size=1000000000000"),
    ("gpt2", {"vocab_size": 10**400}, "vocab_size=1000"),
    ("gpt2", {"vocab_size": 9}, "wte.weight has shape (8, 8)"),
    ("gpt2", {"vocab_size": 7}, "bos_token_id=7"),
    ("gpt2", {"vocab_size": 7, "bos_token_id": 0}, "wte.weight has shape (8, 8)"),
    ("gpt2", {"bos_token_id": None}, "bos_token_id=None"),
    ("gpt2", {"bos_token_id": True}, "bos_token_id=True"),
    ("gpt2", {"bos_token_id": -1}, "bos_token_id=-1"),
    ("gpt2", {"bos_token_id": "1"}, "bos_token_id='1'"),
    ("gpt2", {"eos_token_id": -1}, "eos_token_id=-1"),
    ("gpt2", {"eos_token_id": {"0": 1}}, "eos_token_id={'0': 1}"),
    ("gpt2", {"eos_token_id": [1, "2"]}, "eos_token_id=(1, '2')"),
    ("gpt2", {"layer_norm_epsilon": -1}, "layer_norm_epsilon=-1"),
    ("gpt2", {"layer_norm_epsilon": float("nan")}, "layer_norm_epsilon=nan"),
    ("gpt2", {"layer_norm_epsilon": "1e-5"}, "layer_norm_epsilon='1e-5'"),
    ("gpt2", {"layer_norm_epsilon": 10**400}, "layer_norm_epsilon=1000"),
    ("gpt2", {"tie_word_embeddings": "no"}, "tie_word_embeddings='no'"),
    ("gpt2", {"tie_word_embeddings": False}, "lm_head.weight"),
    ("gpt2", {"activation_function": "relu"}, "activation_function='relu'"),
    ("gpt2", {"activation_function": None}, "activation_function=None"),
    ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights=False"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True"),
    ("gpt2", {"add_cross_attention": True}, "add_cross_attention=True"),
    ("gpt2", {"quantization_config": {"load_in_8bit": True}}, "quantization_config"),
    ("gpt2", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling"),
    ("gpt2", {"some_future_field": 3}, "some_future_field=3"),
    ("gpt2", {"auto_map": {"AutoModel": "modeling.Model"}}, "auto_map"),
    ("gpt2", {"genmap_jax": 5}, "genmap_jax holds 5"),
    ("gpt2", {"genmap_jax": {}}, "genmap_jax: vocab is missing"),
    ("gpt2", {"genmap_jax": {"vocab": "7"}}, "genmap_jax: vocab='7'"),
    ("gpt2", {"genmap_jax": {"vocab": 3}}, "genmap_jax.vocab=3"),
    ("gpt2", {"genmap_jax": {"vocab": 7, "heads": 3}}, "genmap_jax: heads=3"),
    *(("llama", {n: GONE}, f"{n} is missing") for n in ("hidden_size", "intermediate_size", "num_attention_heads")),
    ("llama", {"num_hidden_layers": "1"}, "num_hidden_layers='1'"),
    ("llama", {"num_key_value_heads": 0}, "num_key_value_heads=0"),
    ("qwen2", {"num_key_value_heads": 3}, "num_key_value_heads=3"),
    ("llama", {"num_key_value_heads": 1}, "k_proj.weight has shape"),
    ("llama", {"head_dim": 3}, "head_dim"),
    ("llama", {"head_dim": 8}, "(8, 16) is needed by config.json"),
    ("llama", {"hidden_size": 9, "head_dim": GONE}, "hidden_size=9"),
    ("llama", {"max_position_embeddings": 10**12}, "max_position_embeddings=1000000000000"),
    ("llama", {"rms_norm_eps": float("nan")}, "rms_norm_eps=nan"),
    ("llama", {"rms_norm_eps": 1}, "rms_norm_eps=1"),
    ("llama", {"hidden_act": "gelu"}, "hidden_act='gelu'"),
    ("llama", {"attention_bias": True}, "attention_bias=True"),
    ("qwen2", {"attention_bias": False}, "attention_bias=False"),
    ("llama", {"mlp_bias": True}, "mlp_bias=True"),
    ("qwen2", {"use_sliding_window": True}, "use_sliding_window=True"),
    ("qwen2", {"layer_types": ["sliding_attention"]}, "layer_types"),
    ("llama", {"tie_word_embeddings": 3}, "tie_word_embeddings=3"),
    ("llama", {"rope_theta": 5e5}, "rope_theta=10000.0 contradicts rope_theta=500000.0"),
    ("llama", {"rope_parameters": YARN, "rope_scaling": YARN | {"factor": 2.0}}, "rope_scaling.factor=2.0"),
    ("llama", {"rope_parameters": YARN, "rope_scaling": {"type": "linear"}}, "rope_type='linear' contradicts"),
    ("llama", {"per_layer_config": {"0": {"hidden_size": 4}}}, "per_layer_config"),
    *(("llama", {"rope_theta": GONE, "rope_parameters": value}, field) for value, field in ROTARY),
]


@pytest.mark.parametrize(("kind", "changes", "words"), CONFIG, ids=[row[2] for row in CONFIG])
def test_a_configuration_that_we_do_not_have_is_refused_by_the_name_of_its_field(good, tmp_path, kind, changes, words):
    folder = copy(good, kind, tmp_path, **changes)
    refused(lambda: from_huggingface(folder), words, str(folder))


@pytest.mark.parametrize(
    "held",
    [
        *(b"", b"{", b"[]", b"5", b"null", b'"gpt2"', b"\xff\xfe\x00", b"[" * 100_000),
        *(b'{"model_type": "gpt2"', b'{"a": 1' + b"0" * 5000 + b"}"),
    ],
    ids=lambda held: repr(held[:12]),
)
@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "model.safetensors.index.json"])
def test_json_that_is_none_is_refused(good, tmp_path, name, held):
    folder = copy(good, "gpt2", tmp_path)
    if name.endswith("index.json"):
        (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / name).write_bytes(held)
    refused(lambda: from_huggingface(folder), name)


def test_missing_files_are_named(good, tmp_path):
    for name in ("config.json", "model.safetensors"):
        folder = copy(good, "gpt2", tmp_path / name)
        (folder / name).unlink()
        refused(lambda folder=folder: from_huggingface(folder), name)
        (folder / name).mkdir()
        refused(lambda folder=folder: from_huggingface(folder), name)
    refused(lambda: from_huggingface(tmp_path / "nowhere"), "nowhere/config.json")
    refused(lambda: from_huggingface(good / "gpt2", first=8), "first=TOKEN")


# ---- tensors ---------------------------------------------------------------------------------------------------------


def change(name: str, how):
    return lambda tensors: tensors.update({name: how(tensors[name])})


def nan(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flat[-1] = np.nan
    return x


C_ATTN, Q_PROJ = "transformer.h.0.attn.c_attn.weight", "model.layers.0.self_attn.q_proj.weight"
TENSORS = [
    ("gpt2", lambda t: t.pop("transformer.wte.weight"), "wte.weight"),
    ("gpt2", lambda t: t.pop("transformer.h.0.ln_1.bias"), "h.0.ln_1.bias"),
    ("gpt2", lambda t: t.clear(), "h.0."),
    ("gpt2", change(C_ATTN, nan), "attn.c_attn.weight holds NaN"),
    ("gpt2", change(C_ATTN, lambda x: x / 0.0), "attn.c_attn.weight holds NaN or infinite"),
    ("gpt2", change(C_ATTN, lambda x: x * np.float64(1e300)), "attn.c_attn.weight holds NaN or infinite"),
    ("gpt2", change(C_ATTN, lambda x: x.astype(np.int8)), "attn.c_attn.weight holds int8"),
    ("gpt2", change(C_ATTN, lambda x: x > 0), "attn.c_attn.weight holds bool"),
    ("gpt2", change(C_ATTN, lambda x: x.astype(np.complex64)), "attn.c_attn.weight holds complex64"),
    ("gpt2", change(C_ATTN, lambda x: x.T), "attn.c_attn.weight has shape"),
    ("gpt2", change(C_ATTN, np.ravel), "attn.c_attn.weight has shape"),
    ("gpt2", change(C_ATTN, lambda x: x[:0]), "attn.c_attn.weight"),
    ("gpt2", change(C_ATTN, lambda x: np.float32(1.0)), "attn.c_attn.weight has shape (1,)"),
    ("gpt2", change("transformer.wte.weight", lambda x: np.pad(x, ((0, 1), (0, 0)), constant_values=1)), "wte.weight"),
    ("gpt2", lambda t: t.update({"wte.weight": t["transformer.wte.weight"]}), "wte.weight a second time"),
    ("gpt2", lambda t: t.update({"transformer.h.0.attn.c_attn.SCB": np.ones(3, np.float32)}), "attn.c_attn.SCB"),
    ("gpt2", lambda t: t.update({"transformer.h.1.ln_1.bias": np.ones(8, np.float32)}), "h.1.ln_1.bias"),
    ("gpt2", lambda t: t.update({"score.weight": np.ones((2, 8), np.float32)}), "score.weight"),
    ("llama", lambda t: t.pop("lm_head.weight"), "lm_head.weight"),
    ("llama", lambda t: t.pop(Q_PROJ), "q_proj.weight"),
    ("llama", change(Q_PROJ, nan), "q_proj.weight holds NaN"),
    ("llama", change(Q_PROJ, lambda x: x[:4]), "q_proj.weight has shape (4, 8)"),
    ("llama", lambda t: t.update({Q_PROJ.replace("weight", "bias"): np.ones(8, np.float32)}), "q_proj.bias"),
    ("llama", lambda t: t.update({Q_PROJ.replace("weight", "weight_scale"): np.ones(8, np.float32)}), "weight_scale"),
    ("qwen2", lambda t: t.pop(Q_PROJ.replace("weight", "bias")), "q_proj.bias"),
    ("qwen2", lambda t: t.update({"model.layers.0.self_attn.q_norm.weight": np.ones(4, np.float32)}), "q_norm.weight"),
]


@pytest.mark.parametrize(("kind", "how", "words"), TENSORS, ids=[f"{row[0]} {row[2]}" for row in TENSORS])
def test_every_tensor_is_used_or_named(good, tmp_path, kind, how, words):
    folder = copy(good, kind, tmp_path)
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    with np.errstate(divide="ignore", invalid="ignore"):
        how(tensors)
    safetensors.numpy.save_file({n: np.ascontiguousarray(x) for n, x in tensors.items()}, folder / "model.safetensors")
    refused(lambda: from_huggingface(folder), words, str(folder))


def file_of(header: dict | bytes, data: bytes = b"") -> bytes:
    """A safetensors file of any header."""
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header)) + header + data


BROKEN = {
    "empty": b"",
    "short": b"no tensors here",
    "header too long": struct.pack("<Q", 2**60) + b"{}",
    "header not JSON": file_of(b"{nothing}"),
    "offsets past the end": file_of({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, b"\0" * 8),
    "offsets of another size": file_of({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 8]}}, b"\0" * 8),
    "unknown type": file_of({"a": {"dtype": "Q4", "shape": [4], "data_offsets": [0, 4]}}, b"\0" * 4),
    "float8": file_of({"a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}, b"\0" * 4),
    "float4": file_of({"a": {"dtype": "F4", "shape": [8], "data_offsets": [0, 4]}}, b"\0" * 4),
    "negative shape": file_of({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"\0" * 4),
    "of another format": b"PK\x03\x04" + b"\0" * 100,
}


@pytest.mark.parametrize("held", BROKEN.values(), ids=BROKEN)
def test_files_that_are_no_safetensors_are_refused(good, tmp_path, held):
    folder = copy(good, "gpt2", tmp_path)
    (folder / "model.safetensors").write_bytes(held)
    refused(lambda: from_huggingface(folder), str(folder))


SHARD = "model-00001-of-00001.safetensors"
INDEXES = [
    ({}, "weight_map=None"),
    ({"weight_map": {}}, "weight_map={}"),
    ({"weight_map": [SHARD]}, "weight_map="),
    ({"weight_map": {"wte.weight": 3}}, "3 is not the name"),
    ({"weight_map": {"wte.weight": "../outside.safetensors"}}, "'../outside.safetensors' is not the name"),
    ({"weight_map": {"wte.weight": "pytorch_model.bin"}}, "'pytorch_model.bin' is not the name"),
    ({"weight_map": {"wte.weight": "model-00002-of-00002.safetensors"}}, "model-00002-of-00002.safetensors"),
    ({"weight_map": {"transformer.wte.weight": SHARD}}, "is in weight_map or in"),
    ({"weight_map": "all"}, "is in weight_map or in"),
]


@pytest.mark.parametrize(("index", "words"), INDEXES, ids=[row[1] for row in INDEXES])
def test_an_index_says_what_is_in_which_file(good, tmp_path, index, words):
    folder = copy(good, "gpt2", tmp_path)
    names = safetensors.numpy.load_file(folder / "model.safetensors").keys()
    if index == {"weight_map": "all"}:
        index = {"weight_map": dict.fromkeys([*names, "transformer.h.7.ln_1.bias"], SHARD)}
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    refused(lambda: from_huggingface(folder), str(folder), "holds both model.safetensors and")
    (folder / "model.safetensors").rename(folder / SHARD)
    refused(lambda: from_huggingface(folder), str(folder), words)
    path.write_text(json.dumps({"weight_map": dict.fromkeys(names, SHARD)}))
    assert from_huggingface(folder)[0].vocab == 8


# ---- weights of feature extractors -----------------------------------------------------------------------------------


def dinov2(path: Path):
    return vit.load(path, 1e-6, functools.partial(nn.gelu, approximate=False), 28)


QKV = "blocks.0.attn.qkv"
EXTRACTORS = [
    (lambda t: t.update(cls_token=np.ones((1, 1, 32), np.float32)), "cls_token"),
    (lambda t: t.update(pos_embed=np.ones((1, 10, 63), np.float32)), "pos_embed"),
    (lambda t: t.update(pos_embed=np.ones((1, 1, 64), np.float32)), "square"),
    (lambda t: t.update({"patch_embed.proj.weight": np.ones((64, 3), np.float32)}), "patch_embed.proj.weight"),
    (lambda t: t.update({"patch_embed.proj.weight": np.ones((64, 3, 14, 0), np.float32)}), "patch_embed.proj.weight"),
    (lambda t: t.update({"patch_embed.proj.weight": np.float32(1)}), "patch_embed.proj.weight"),
    (lambda t: t.update({"patch_embed.proj.weight": np.ones((63, 3, 14, 14), np.float32)}), "63"),
    (lambda t: t.update({f"{QKV}.weight": np.ones((192, 64), np.int8)}), f"{QKV}.weight holds int8"),
    (lambda t: t.update({f"{QKV}.weight": nan(t[f"{QKV}.weight"])}), f"{QKV}.weight holds NaN"),
    (lambda t: t.update({f"{QKV}.weight": np.float32(1)}), "qkv"),
    (lambda t: t.update({f"{QKV}.SCB": np.ones(192, np.float32)}), f"{QKV}.SCB"),
    (lambda t: t.update({f"{QKV}.weight_scale": np.ones(192, np.float32)}), f"{QKV}.weight_scale"),
    (lambda t: t.update({"blocks.0.ls1.gamma": np.ones(32, np.float32)}), "blocks.0.ls1.gamma"),
    (lambda t: t.update({"blocks.0.ls1.gamma": np.ones((), np.float32)}), "blocks.0.ls1.gamma"),
    (lambda t: t.update({"blocks.0.ls1.gamma": nan(t["blocks.0.ls1.gamma"])}), "blocks.0.ls1.gamma"),
    (lambda t: t.update({"embeddings.cls_token": t["cls_token"]}), "cls_token twice"),
    (lambda t: t.update({"blocks.0.mlp.fc1.weight": np.ones(128, np.float32)}), "blocks.0.mlp.fc1.weight"),
    (lambda t: t.update({"blocks.2.norm1.weight": np.ones(64, np.float32)}), "blocks."),
    (lambda t: t.update({"head.bias": np.ones(64, np.float32)}), "head.weight"),
    (lambda t: t.update({"head.weight": np.ones(64, np.float32)}), "head.weight"),
    (lambda t: t.update({"blocks.1.attn.q.weight": np.ones((64, 64), np.float32)}), "blocks.1.attn.k.weight"),
    (
        lambda t: t.update({f"blocks.1.attn.{c}.weight": np.ones((64, 64 + (c == "v")), np.float32) for c in "qkv"}),
        "blocks.1.attn.q.weight",
    ),
    (lambda t: t.clear(), "patch_embed.proj.weight"),
]


@pytest.mark.parametrize(("how", "words"), EXTRACTORS, ids=[row[1] for row in EXTRACTORS])
def test_weights_of_transformers_are_used_or_named(tmp_path, how, words):
    path, tensors = tmp_path / "dinov2.safetensors", tiny_dinov2()
    how(tensors)
    safetensors.numpy.save_file({n: np.ascontiguousarray(x) for n, x in tensors.items()}, path)
    refused(lambda: dinov2(path), words, str(path))


def convolution(conv: str, norm: str) -> dict[str, np.ndarray]:
    """The first convolution of a network and its batch norm, alone."""
    ones = {f"{norm}.{field}": np.ones(32, np.float32) for field in ("weight", "bias", "running_mean", "running_var")}
    return {f"{conv}.weight": np.ones((32, 3, 3, 3), np.float32), **ones}


NETWORKS = {
    "inception": (inception.load, "Conv2d_1a_3x3.conv", "Conv2d_1a_3x3.bn", "fc", 1008, 2048),
    "efficientnet": (efficientnet.load, "_conv_stem", "_bn0", "_fc", 1000, 1280),
}
FOLDED = [
    (lambda t, conv, norm, fc: t.pop(f"{norm}.running_var"), "{norm}.running_var"),
    (lambda t, conv, norm, fc: t.update({f"{norm}.running_var": -np.ones(32, np.float32)}), "{norm}"),
    (lambda t, conv, norm, fc: t.update({f"{norm}.running_var": nan(np.ones(32, np.float32))}), "{norm}.running_var"),
    (lambda t, conv, norm, fc: t.update({f"{norm}.bias": np.ones(1, np.float32)}), "{norm}"),
    (lambda t, conv, norm, fc: t.update({f"{conv}.weight": np.ones(32, np.float32)}), "{conv}.weight"),
    (lambda t, conv, norm, fc: t.update({f"{conv}.weight": np.ones((32, 3, 3, 3), np.int8)}), "{conv}.weight"),
    (lambda t, conv, norm, fc: t.pop(f"{fc}.weight"), "{fc}.weight"),
    (lambda t, conv, norm, fc: t.update({f"{fc}.scale": np.ones(3, np.float32)}), "{fc}.scale"),
    pytest.param(lambda t, conv, norm, fc: None, "is needed", marks=pytest.mark.slow),
    pytest.param(
        *(lambda t, conv, norm, fc: t.update({f"{fc}.weight": np.ones(3, np.float32)}), "is needed"),
        marks=pytest.mark.slow,
    ),
]


@pytest.mark.parametrize(("how", "words"), FOLDED)
@pytest.mark.parametrize("name", NETWORKS)
def test_weights_of_convolutions_are_used_or_named(tmp_path, monkeypatch, name, how, words):
    load, conv, norm, fc, classes, width = NETWORKS[name]
    tensors = convolution(conv, norm) | {f"{fc}.weight": np.ones((classes, width), np.float32)}
    tensors |= {f"{norm}.num_batches_tracked": np.array(3)}
    how(tensors, conv, norm, fc)
    path = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file(tensors, path)
    refused(lambda: load(path), words.format(conv=conv, norm=norm, fc=fc), str(path))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*(quantize_per_tensor|TypedStorage)")
def test_state_dicts_of_odd_tensors_are_refused(tmp_path):
    torch = pytest.importorskip("torch", reason="reads .pth; in the extra parity")
    odd = {
        "sparse": torch.eye(3).to_sparse(),
        "complex": torch.ones(2, dtype=torch.complex64),
        "float8": torch.ones(2).to(torch.float8_e4m3fn),
        "quantised": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
    }
    for name, tensor in odd.items():
        torch.save({"a": tensor}, tmp_path / f"{name}.pth")
        refused(lambda name=name: weights.read(tmp_path / f"{name}.pth"), f"{name}.pth")
    torch.save({3: torch.ones(2)}, tmp_path / "numbered.pth")
    refused(lambda: weights.read(tmp_path / "numbered.pth"), "numbered.pth")
    torch.save({"a": torch.nn.Parameter(torch.ones(2))}, tmp_path / "parameter.pth")
    np.testing.assert_array_equal(weights.read(tmp_path / "parameter.pth")["a"], np.ones(2))


# ---- features kept on disk, tokenizers -------------------------------------------------------------------------------


def test_damaged_features_are_fitted_again(tmp_path, capsys):
    """Whatever a file of features holds that is not what was fitted, it is made again, once."""
    fitted, calls = {"a": np.arange(6.0).reshape(2, 3), "b": np.ones(2, np.float32)}, []

    def kept():
        arrays, note = record.kept("own64", "digits", tmp_path, {"images": np.ones(3)}, fit)
        np.testing.assert_array_equal(arrays["a"], fitted["a"])
        assert note == "0.5" and arrays.keys() == fitted.keys()

    def fit():
        calls.append(None)
        return fitted, "0.5"

    kept()
    kept()
    (path,) = (tmp_path / "features").glob("own64-digits-*.safetensors")
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-1] ^= 1
    save = safetensors.numpy.save
    damaged = [whole[:20], whole[:-1], bytes(flipped), *BROKEN.values()]
    damaged += [save(fitted), save(fitted, {"note": "0.5"}), save({"c": np.ones(2)}, {"note": "0.5", "hash": "0" * 12})]
    damaged += [whole.replace(b'"0.5"', b'"0.7"')]
    assert len(calls) == 1 and len(set(damaged) - {whole}) == len(damaged)
    capsys.readouterr()
    for i, held in enumerate(damaged):
        path.write_bytes(held)
        kept()
        assert len(calls) == i + 2 and str(path) in capsys.readouterr().err
        kept()
        assert len(calls) == i + 2
    path.unlink()
    path.mkdir()
    refused(kept, str(path), "folder")


TOKENIZERS = {
    "empty": b"",
    "not JSON": b"{",
    "a list": b"[]",
    "a number": b"5",
    "not UTF-8": b"\xff\xfe\x00",
    "without a model": b'{"version": "1.0"}',
    "no vocabulary": json.dumps({"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}).encode(),
    "another model": json.dumps({"version": "1.0", "model": {"type": "Markov", "vocab": {}}}).encode(),
    "merges without tokens": json.dumps({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["b c"]}}).encode(),
    "negative number": json.dumps({"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}).encode(),
    "huge number": json.dumps({"model": {"type": "BPE", "vocab": {"a": 2**40}, "merges": []}}).encode(),
    "deep": b"[" * 100_000,
    "other version": json.dumps({"version": "9", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}).encode(),
}


@pytest.mark.parametrize("held", TOKENIZERS.values(), ids=TOKENIZERS)
def test_malformed_tokenizers_are_refused(tmp_path, held):
    pytest.importorskip("tokenizers", reason="reads tokenizer.json; in the extra text")
    path = tmp_path / "tokenizer.json"
    path.write_bytes(held)
    refused(lambda: text.huggingface(path), str(path))
