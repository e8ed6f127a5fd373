"""A Hugging Face folder as a whole: read, and written in the place of what was there."""

import dataclasses
import os
import shutil
import tempfile
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import jax
import numpy as np

from genmap_jax.algorithm import Params
from genmap_jax.data import text
from genmap_jax.files import write_json
from genmap_jax.interop import weights
from genmap_jax.interop.huggingface import configuration, tensors
from genmap_jax.interop.huggingface.configuration import read_file, short
from genmap_jax.tractable import gpt

START = "<|start|>"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
REPLACED = (
    *("config.json", "generation_config.json", "model*.safetensors", INDEX, "pytorch_model*.bin*"),
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "chat_template.jinja*", ".building-*"),
)
"""What a folder of this format holds: another model's is removed when one is written."""
KEPT = ("README*", "LICENSE*", ".*")
"""What nobody reads as a part of the model."""


def from_huggingface(folder: str | os.PathLike, first: int | None = None) -> tuple[gpt.Config, Params]:
    """Read a model. Returns its configuration, with the tokens that end a text as `stop`, and float32 parameters.

    first: the token that begins a text; None takes the folder's `bos_token_id`.
    Raises FileNotFoundError for a missing file; ValueError that names the file and the field or the tensor, for what
        our GPT does not have, for what is damaged, and for weights that are not safetensors.
    """
    folder = Path(folder).expanduser()
    about = configuration.read(folder)
    cfg, first = about.config, about.first if first is None else first
    if not isinstance(first, int) or isinstance(first, bool) or not 0 <= first < cfg.vocab:
        raise ValueError(
            f"{folder / 'config.json'}: no token begins a text (bos_token_id={first}): give first=TOKEN, below "
            f"{cfg.vocab}"
        )
    params = tensors.to_ours(about, _tensors(folder, about.kind))
    params["start"] = params["embedding"][first]
    for name in {"embedding", "head"} & set(params):
        params[name] = params[name][: about.vocab]
    return dataclasses.replace(cfg, vocab=about.vocab), jax.tree.map(lambda x: np.asarray(x, np.float32), params)


def to_huggingface(
    folder: str | os.PathLike, cfg: gpt.Config, params: Params, tokenizer: text.Tokenizer | None = None
) -> Path:
    """Write config.json, generation_config.json and model.safetensors, in float32. Returns the folder.

    A model that the folder holds is replaced: its weights, its tokenizer and all. The tokens that end a text,
    `cfg.stop`, are written; other sampling options are not: whoever draws from the folder chooses them.

    tokenizer: of the text the model was trained on; writes tokenizer.json and tokenizer_config.json too.
    Raises ValueError naming the first option of the configuration that the format does not have, a parameter that does
        not fit it, or a file in the folder that is of no such model.
    """
    import safetensors.numpy

    gpt.check(cfg)
    kind, folder = configuration.format_of(cfg), Path(folder).expanduser()
    if tokenizer is not None:
        if kind == "qwen2" and tokenizer.unit == "characters":
            raise ValueError("transformers reads every qwen2 folder with a byte-level tokenizer: train it on bytes")
        tokenizer_json = text.as_huggingface(tokenizer, cfg.vocab, START)
    params = jax.tree.map(lambda x: np.asarray(x, np.float32), params)
    weights.must_match(params, tensors.shapes_of(cfg), "params")
    for name, x in weights.flat(params).items():
        if not np.isfinite(x).all():
            raise ValueError(f"params: {name} holds NaN or infinite values; write an earlier checkpoint")
    table = {"embedding": np.concatenate([params["embedding"], params["start"][None]])}
    if not cfg.tied:
        table["head"] = np.concatenate([params["head"], np.zeros_like(params["start"][None])])
    stops = list(cfg.stops or [None])
    ends = {"bos_token_id": cfg.vocab, "eos_token_id": stops if len(stops) > 1 else stops[0]}
    _expect_replaceable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=folder) as temporary:
        made = Path(temporary)
        written: dict[str, dict[str, Any]] = {}
        if tokenizer is not None:
            (made / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
            written["tokenizer_config.json"] = {
                **{"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": START, "model_max_length": cfg.length},
                "clean_up_tokenization_spaces": False,
            }
        written["config.json"] = configuration.write(cfg) | ends
        written["generation_config.json"] = ends | {"suppress_tokens": [cfg.vocab], "do_sample": False}
        safetensors.numpy.save_file(tensors.to_theirs(cfg, kind, params | table), made / WEIGHTS, {"format": "pt"})
        for name, value in written.items():
            write_json(made / name, value)
        _replace(folder, made)
    return folder


def _tensors(folder: Path, kind: str) -> weights.Tensors:
    """All tensors, of one file or of those that the index of a large model names, without the prefix of their names."""
    index = folder / INDEX
    if index.exists() and (folder / WEIGHTS).exists():
        raise ValueError(
            f"{folder}: holds both {WEIGHTS} and {INDEX}, of different weights perhaps: remove one of them"
        )
    where = _weight_map(index) if index.exists() else None
    files = sorted(set(where.values())) if where is not None else [WEIGHTS]
    if not (folder / files[0]).exists() and list(folder.glob("*.bin")):
        raise ValueError(
            f"{folder}: its weights are not safetensors but pickled, which may run code: convert them first"
        )
    found = weights.Tensors({}, folder)
    for file in files:
        part = weights.read(folder / file)
        wrong = set() if where is None else part.keys() ^ {name for name, place in where.items() if place == file}
        if wrong:
            raise ValueError(f"{index}: {min(wrong)!r} is in weight_map or in {file}, but not in both")
        for name, tensor in part.items():
            name = name.removeprefix(tensors.PREFIX[kind])
            if name in found:
                raise ValueError(f"weights={folder / file}: holds {name} a second time, under another name")
            found[name] = tensor
    return found


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor -> file, of the index of a model in several files."""
    where = read_file(index).get("weight_map")
    if not isinstance(where, dict) or not where:
        raise ValueError(f"{index}: weight_map={short(where)}: give an object of tensors and the files they are in")
    for file in where.values():
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
            raise ValueError(f"{index}: {short(file)} is not the name of a .safetensors file in this folder")
    return where


def _expect_replaceable(folder: Path) -> None:
    """Raise ValueError if writing a model here would leave or remove something of another kind."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; give the path of a folder")
    for path in sorted(folder.iterdir()) if folder.exists() else ():
        if not any(fnmatch(path.name, pattern) for pattern in REPLACED + KEPT):
            raise ValueError(f"{folder}: holds {path.name}, which is of no such model; give a new folder, or remove it")


def _replace(folder: Path, made: Path) -> None:
    """Move new files in, in the place of the old ones. config.json goes first and comes last: a part is not a model."""
    old = [path for path in folder.iterdir() if path != made and any(fnmatch(path.name, each) for each in REPLACED)]
    for path in sorted(old, key=lambda path: path.name != "config.json"):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for path in sorted(made.iterdir(), key=lambda path: path.name == "config.json"):
        path.replace(folder / path.name)
