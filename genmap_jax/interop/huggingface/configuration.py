"""config.json of GPT-2, Qwen2 and Llama, to and from `gpt.Config`.

`GPT2`, `Llama`, `Qwen2` and the tables of rotary positions list the fields that the meaning of weights depends on, with
the values that we know and the defaults of `transformers`. `WITHOUT_EFFECT` lists those that change nothing. Any other
field is refused: it may mean that the weights are those of another network.
"""

import dataclasses
import json
import re
import reprlib
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from genmap_jax.nn import rope
from genmap_jax.options import Positive, Range, fits, words
from genmap_jax.tractable import gpt

T = TypeVar("T")

Size = Annotated[int, Range(1, 2**31 - 1)]
Token = Annotated[int, Range(0, 2**31 - 1)]
Epsilon = Annotated[float, Range(above=0, below=1)]


# ---- what the files may say ------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ends:
    """What generation_config.json says too; its other fields are for those who draw from a model."""

    eos_token_id: Token | tuple[Token, ...] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Format(Ends):
    """The fields of all formats."""

    vocab_size: Size
    bos_token_id: Token | None = None
    is_encoder_decoder: Literal[False] = False
    add_cross_attention: Literal[False] = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class GPT2(Format):
    """LayerNorm, learned positions, GELU in its tanh approximation, biases everywhere."""

    n_positions: Size
    n_layer: Size
    n_head: Size
    n_embd: Size
    n_inner: Size | None = None
    layer_norm_epsilon: Epsilon = 1e-5
    tie_word_embeddings: bool = True
    activation_function: Literal["gelu_new", "gelu_pytorch_tanh"] = "gelu_new"
    scale_attn_weights: Literal[True] = True
    scale_attn_by_inverse_layer_idx: Literal[False] = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rotated(Format):
    """RMSNorm, rotary positions, SwiGLU: what Llama and Qwen2 share. `rotary` reads the fields of the positions."""

    max_position_embeddings: Size
    num_hidden_layers: Size
    num_attention_heads: Size
    num_key_value_heads: Size | None = None
    head_dim: Size | None = None
    hidden_size: Size
    intermediate_size: Size
    rms_norm_eps: Epsilon = 1e-6
    tie_word_embeddings: bool = False
    hidden_act: Literal["silu"] = "silu"
    mlp_bias: Literal[False] = False
    use_sliding_window: Literal[False] = False
    layer_types: tuple[Literal["full_attention"], ...] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Llama(Rotated):
    """No biases."""

    attention_bias: Literal[False] = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Qwen2(Rotated):
    """Queries, keys and values have biases."""

    attention_bias: Literal[True] = True
    use_mrope: Literal[False] = False


FORMATS: dict[str, type[Format]] = {"gpt2": GPT2, "qwen2": Qwen2, "llama": Llama}
"""By `model_type`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rotary:
    """Rotary positions that are not stretched."""

    rope_theta: Annotated[float, Range(above=1)] = 10_000.0
    partial_rotary_factor: Literal[1] = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear(Rotary):
    """Positions divided by a factor."""

    factor: Annotated[float, Range(1)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Yarn(Linear):
    """YaRN. `attention_factor` may say what it is anyway: 0.1 ln(factor) + 1."""

    original_max_position_embeddings: Size
    beta_fast: Positive = 32.0
    beta_slow: Positive = 1.0
    attention_factor: Positive | None = None
    truncate: Literal[True] = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Llama3(Linear):
    """The stretching of Llama 3.1."""

    original_max_position_embeddings: Size
    high_freq_factor: Positive
    low_freq_factor: Positive


ROTARY: dict[str, type[Rotary]] = {"default": Rotary, "linear": Linear, "yarn": Yarn, "llama3": Llama3}
"""By `rope_type`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ours:
    """The field `genmap_jax`: of a folder written here, the number of tokens without the first."""

    vocab: Size


WITHOUT_EFFECT = frozenset(
    # about the file, and how weights are stored or computed with
    """_attn_implementation_autoset _commit_hash _name_or_path architectures attn_implementation dtype finetuning_task
    gradient_checkpointing model_type output_attentions output_hidden_states return_dict tokenizer_class torch_dtype
    torchscript transformers_version use_bfloat16 use_cache name_or_path reorder_and_upcast_attn pretraining_tp
    chunk_size_feed_forward"""
    # training
    """ attention_dropout attn_pdrop embd_pdrop initializer_range resid_pdrop"""
    # other tasks than language modelling, and names that repeat another field
    """ id2label label2id num_labels problem_type summary_activation summary_first_dropout summary_proj_to_labels
    summary_type summary_use_proj task_specific_params n_ctx is_decoder tie_encoder_decoder
    cross_attention_hidden_size tf_legacy_loss"""
    # windows, with `use_sliding_window` false
    """ sliding_window max_window_layers"""
    # generation: whoever draws from a model chooses these
    """ bad_words_ids begin_suppress_tokens decoder_start_token_id diversity_penalty do_sample early_stopping
    encoder_no_repeat_ngram_size exponential_decay_length_penalty forced_bos_token_id forced_eos_token_id length_penalty
    max_length min_length no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_scores pad_token_id
    prefix remove_invalid_values repetition_penalty return_dict_in_generate sep_token_id suppress_tokens temperature
    top_k top_p typical_p""".split()
)
HINTS = {
    "quantization_config": "these weights are quantised: save them dequantised",
    "auto_map": "it names code of the folder, which is never run: only the networks of transformers are known",
}
NAMES = {
    "gpt2": {
        "vocab": "vocab_size",
        "length": "n_positions",
        "layers": "n_layer",
        "heads": "n_head",
        "width": "n_embd",
        "hidden": "n_inner",
        "norm_eps": "layer_norm_epsilon",
        "tied": "tie_word_embeddings",
    },
    "llama": {
        "vocab": "vocab_size",
        "length": "max_position_embeddings",
        "layers": "num_hidden_layers",
        "heads": "num_attention_heads",
        "kv_heads": "num_key_value_heads",
        "head_dim": "head_dim",
        "width": "hidden_size",
        "hidden": "intermediate_size",
        "norm_eps": "rms_norm_eps",
        "tied": "tie_word_embeddings",
    },
}
NAMES["qwen2"] = NAMES["llama"]
"""Fields of `gpt.Config` -> those of config.json."""
STRETCH = {
    "yarn": {"fast": "beta_fast", "slow": "beta_slow"},
    "llama3": {"fast": "high_freq_factor", "slow": "low_freq_factor"},
}
"""Fields of `rope.Scaling` -> those of config.json, by `rope_type`."""
FIXED: dict[str, dict[str, Any]] = {
    "gpt2": {"norm": "layer", "positions": "learned", "mlp": "gelu", "bias": "all"},
    "qwen2": {"norm": "rms", "positions": "rope", "mlp": "swiglu", "bias": "qkv"},
    "llama": {"norm": "rms", "positions": "rope", "mlp": "swiglu", "bias": "none"},
}
"""What the format says by its name."""
PLAIN = {"classes": None, "qk_norm": False, "softcap": None, "residual_scales": False, "window": None, "chunk": None}
"""The options that no format has, at the values that leave them out."""


# ---- reading ---------------------------------------------------------------------------------------------------------


class About(NamedTuple):
    """What config.json and generation_config.json say."""

    kind: str
    """`model_type`: gpt2, qwen2 or llama."""
    config: gpt.Config
    """With all tokens of the folder, also the one that `to_huggingface` added."""
    first: int | None
    """The token that begins a text."""
    vocab: int
    """The number of tokens without the one that `to_huggingface` added."""


def read(folder: Path) -> About:
    """Raises FileNotFoundError; ValueError that names the file, the field and what to give instead."""
    path = folder / "config.json"
    about = read_file(path)
    kind = about.get("model_type")
    if not isinstance(kind, str) or kind not in FORMATS:
        raise ValueError(f"{path}: model_type={short(kind)}: give one of {', '.join(FORMATS)}")
    ours = about.pop("genmap_jax", None)
    positions = {} if kind == "gpt2" else rotary(about, path)
    values = fields(FORMATS[kind], about, str(path), WITHOUT_EFFECT)
    changes = {name: getattr(values, theirs) for name, theirs in NAMES[kind].items()}
    if changes.get("head_dim") == changes["width"] / changes["heads"]:
        changes["head_dim"] = None
    cfg = gpt.Config(**changes, **FIXED[kind], **positions)
    vocab = cfg.vocab
    if ours is not None:
        vocab = fields(Ours, table(ours, "genmap_jax", path), f"{path}: genmap_jax").vocab
        if (vocab, vocab + 1) != (values.bos_token_id, cfg.vocab):
            raise ValueError(
                f"{path}: genmap_jax.vocab={vocab} does not fit bos_token_id={values.bos_token_id} and "
                f"vocab_size={cfg.vocab}, its last token and one more; without it the folder is read like any other"
            )
    cfg = dataclasses.replace(cfg, stop=ends(folder, values.eos_token_id, vocab))
    try:
        gpt.check(dataclasses.replace(cfg, vocab=vocab))
    except ValueError as error:
        theirs = NAMES[kind] | {f"scaling.{name}": field for name, field in STRETCH.get(cfg.scaling.kind, {}).items()}
        named = re.sub(r"[\w.]+(?==)", lambda word: theirs.get(word[0], word[0]), str(error))
        raise ValueError(f"{path}: {named}") from error
    return About(kind, cfg, values.bos_token_id, vocab)


def rotary(about: dict[str, Any], path: Path) -> dict[str, Any]:
    """`gpt.Config.theta` and `.scaling` by the fields of rotary positions, which are taken out of `about`.

    They stand in `rope_parameters`, or in older files in `rope_scaling` and beside it. Where several are given they
    must agree, but for the type "default", which says nothing.
    """
    beside = {name: about.pop(name) for name in ("rope_theta", "partial_rotary_factor") if name in about}
    values: dict[str, Any] = {}
    for name, given in (("", beside), *((name, about.pop(name, None)) for name in ("rope_parameters", "rope_scaling"))):
        for field, value in (table(given, name, path) if given is not None else {}).items():
            field = "rope_type" if field == "type" else field
            if value is None or (field, value) == ("rope_type", "default"):
                continue
            if values.setdefault(field, value) != value:
                raise ValueError(
                    f"{path}: {name}.{field}={short(value)} contradicts {field}={short(values[field])} in the same "
                    "file; remove one of them"
                )
    kind = values.pop("rope_type", "default")
    if not isinstance(kind, str) or kind not in ROTARY:
        raise ValueError(f"{path}: rope_type={short(kind)}: give one of {', '.join(ROTARY)}")
    if kind in STRETCH:
        values.setdefault("original_max_position_embeddings", about.get("max_position_embeddings"))
    found = fields(ROTARY[kind], values, f"{path}: rope_type={kind}")
    if not isinstance(found, Linear):
        return {"theta": found.rope_theta}
    stretch = {ours: getattr(found, theirs) for ours, theirs in STRETCH.get(kind, {}).items()}
    original = getattr(found, "original_max_position_embeddings", 0)
    scaling = rope.Scaling(kind, found.factor, original, **stretch)  # type: ignore[arg-type]  # a key of ROTARY
    sharpness, wanted = rope.sharpness(scaling), getattr(found, "attention_factor", None)
    if wanted is not None and abs(wanted - sharpness) > 1e-6:
        raise ValueError(f"{path}: attention_factor={wanted}: only 0.1 ln(factor) + 1 = {sharpness:.6f} is known")
    return {"theta": found.rope_theta, "scaling": scaling}


def ends(folder: Path, eos: int | tuple[int, ...] | None, vocab: int) -> int | tuple[int, ...] | None:
    """The tokens that end a text: those of generation_config.json, where there are some, or those of config.json.

    A number that is no token ends nothing, and is left out with a warning: `transformers` writes 50256 for every small
    GPT-2 that was told nothing else.
    """
    path = folder / "generation_config.json"
    if path.exists():
        given = read_file(path)
        found = fields(Ends, given, str(path), without_effect=given).eos_token_id
        eos = eos if found is None or found == () else found
    tokens = () if eos is None else eos if isinstance(eos, tuple) else (eos,)
    known = tuple(token for token in tokens if token < vocab)
    if known != tokens:
        warnings.warn(
            f"{folder}: eos_token_id={short(eos)}: only 0..{vocab - 1} are tokens, others end no text", stacklevel=4
        )
    return known if len(known) > 1 else known[0] if known else None


def fields(kind: type[T], values: dict[str, Any], where: str, without_effect: Collection[str] = ()) -> T:
    """The dataclass `kind` made of JSON values, checked. Raises ValueError that names the first that is not right."""
    known = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]  # T is a dataclass
    for name, value in values.items():
        if value is not None and name not in known and name not in without_effect:
            hint = HINTS.get(name, "remove it if it changes nothing")
            raise ValueError(f"{where}: {name}={short(value)} is not known here, and may mean another network; {hint}")
    given = {name: tuple(x) if isinstance(x, list) else x for name, x in values.items() if name in known}
    for name, field in known.items():
        if name not in given and field.default is dataclasses.MISSING:
            raise ValueError(f"{where}: {name} is missing: give {words(field.type)}")
        value = given.get(name)
        huge = isinstance(value, int) and abs(value) >= 2**63  # no float holds it
        if name in given and (huge or not fits(value, field.type)):
            raise ValueError(f"{where}: {name}={short(value)}: give {words(field.type)}")
    return kind(**given)


def read_file(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a folder. Raises FileNotFoundError or ValueError that names the file."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: there is no such file; give a folder as transformers' save_pretrained writes it"
        )
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged, it is not JSON ({error}); take an undamaged file") from error
    return table(value, "the file", path)


def table(value: Any, name: str, path: Path) -> dict[str, Any]:
    """A value that must be an object."""
    if not isinstance(value, dict):
        raise ValueError(f"{path}: {name} holds {short(value)}: give an object with fields")
    return value


def short(value: Any) -> str:
    """A value in a message of one line."""
    return reprlib.repr(value)


# ---- writing ---------------------------------------------------------------------------------------------------------


def format_of(cfg: gpt.Config) -> str:
    """The `model_type` of a configuration. Raises ValueError that names the first option which the format has not."""
    kind = next(kind for kind, fixed in FIXED.items() if fixed["bias"] == cfg.bias)
    for name, value in (PLAIN | FIXED[kind]).items():
        if getattr(cfg, name) != value:
            raise ValueError(f"{name}={getattr(cfg, name)!r} does not exist in the format {kind}, only {value!r}")
    if kind == "gpt2" and cfg.groups != cfg.heads:
        raise ValueError(f"kv_heads={cfg.kv_heads} does not exist in the format {kind}, only {cfg.heads}")
    if kind == "gpt2" and cfg.head_size * cfg.heads != cfg.width:
        raise ValueError(f"head_dim={cfg.head_dim} does not exist in the format {kind}, only width / heads")
    if kind == "llama" and cfg.width % cfg.heads:
        raise ValueError(f"width={cfg.width}: transformers refuses a llama whose width is no multiple of heads")
    if cfg.scaling.kind == "ntk":
        raise ValueError(
            "scaling.kind='ntk' does not exist in the format: write its theta * factor^(d / (d - 2)) instead"
        )
    return kind


def write(cfg: gpt.Config) -> dict[str, Any]:
    """What config.json says of the network, with one more token, which begins a text. `format_of` must have passed."""
    kind = format_of(cfg)
    about = {theirs: getattr(cfg, name) for name, theirs in NAMES[kind].items()} | {
        "architectures": [{"gpt2": "GPT2LMHeadModel", "qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM"}[kind]],
        "model_type": kind,
        "vocab_size": cfg.vocab + 1,
        "dtype": "float32",
        "genmap_jax": {"vocab": cfg.vocab},
    }
    if kind == "gpt2":
        nothing = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        return about | {"activation_function": "gelu_new"} | nothing
    stretch = {"rope_type": "default" if cfg.scaling.kind == "none" else cfg.scaling.kind, "rope_theta": cfg.theta}
    if cfg.scaling.kind != "none":
        stretch["factor"] = cfg.scaling.factor
    if cfg.scaling.kind in STRETCH:
        stretch["original_max_position_embeddings"] = cfg.scaling.original
        stretch |= {theirs: getattr(cfg.scaling, ours) for ours, theirs in STRETCH[cfg.scaling.kind].items()}
    return about | {
        "num_key_value_heads": cfg.groups,
        "head_dim": cfg.head_size,
        "intermediate_size": cfg.hidden or 4 * cfg.width,
        "hidden_act": "silu",
        "rope_theta": cfg.theta,  # read by versions of transformers before 5
        "rope_parameters": stretch,
    }
