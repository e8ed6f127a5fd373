"""Text as tokens: bytes, characters, or the tokens of a Hugging Face tokenizer file.

A tokenizer splits a text in one way, but other strings of tokens may spell the same text (never with bytes or
characters). An exact log-probability of the tokens is then a lower bound on that of the text, and is called one. Where
a tokenizer loses text (an unknown token, lower case), it is neither a bound nor exact, and is called an estimate.
"""

import dataclasses
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from genmap_jax.data.folders import publish, scratch

ENDS = ("<|endoftext|>", "</s>", "[SEP]")
"""Tokens that stand between documents, in a tokenizer that has one of them; else a newline does."""


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """encode: texts -> the tokens of each, integers below `vocab`. decode: tokens [T] -> text, whatever the tokens."""

    name: str
    """Tells tokenizers apart, also in file names."""
    vocab: int
    encode: Callable[[Sequence[str]], list[np.ndarray]] = dataclasses.field(repr=False)
    decode: Callable[[np.ndarray], str] = dataclasses.field(repr=False)
    between: tuple[int, ...]
    """What stands between two documents."""
    unit: str
    """bytes, characters or tokens."""
    unique: bool = True
    """No two strings of tokens spell the same text."""
    file: str | None = None
    """Of Hugging Face: what its tokenizer.json holds."""

    @property
    def dtype(self) -> np.dtype:
        """The smallest unsigned integers that hold a token."""
        return np.min_scalar_type(self.vocab - 1)


def utf8() -> Tokenizer:
    """The bytes of UTF-8."""
    encode = lambda texts: [np.frombuffer(text.encode(), np.uint8) for text in texts]  # noqa: E731
    decode = lambda tokens: bytes(np.asarray(tokens, np.uint8)).decode("utf-8", errors="replace")  # noqa: E731
    return Tokenizer("bytes", 256, encode, decode, (ord("\n"),), "bytes")


def characters(alphabet: str) -> Tokenizer:
    """One token for each character of `alphabet`, in the order of their code points; `encode` raises on others."""
    alphabet = "".join(sorted(set(alphabet) | {"\n"}))
    points = _code_points(alphabet)

    def encode(texts):
        return [encoded(text) for text in texts]

    def encoded(text):
        these = _code_points(text)
        tokens = np.minimum(np.searchsorted(points, these), len(points) - 1)
        if (points[tokens] != these).any():
            raise ValueError(f"{text[int((points[tokens] != these).argmax())]!r} is not one of the known characters")
        return tokens.astype(np.min_scalar_type(len(points) - 1))

    decode = lambda tokens: "".join(alphabet[t] for t in np.asarray(tokens))  # noqa: E731
    name = f"characters-{hashlib.sha256(alphabet.encode()).hexdigest()[:16]}"
    return Tokenizer(name, len(alphabet), encode, decode, tuple(encoded("\n").tolist()), "characters")


def huggingface(path: Path) -> Tokenizer:
    """A tokenizer.json, as `tokenizers` and `transformers` write it. Special tokens are never read out of a text.

    Raises FileNotFoundError; ValueError if it is not such a file; ImportError without the package `tokenizers`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file; give bytes, characters or a tokenizer.json")
    tokenizers = _package()
    try:
        file = path.read_text(encoding="utf-8")
        tokenizer = tokenizers.Tokenizer.from_str(file)
    except Exception as error:  # what its Rust code raises has no narrower type
        raise ValueError(f"{path} is not a tokenizer.json: {error}") from error
    if not tokenizer.get_vocab_size():
        raise ValueError(f"{path}: its vocabulary is empty; give a trained tokenizer.json")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True  # "</s>" in a text is four characters, not the end of a document
    vocab = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values())
    dtype = np.min_scalar_type(vocab - 1)

    def encode(texts):
        return [np.asarray(each.ids, dtype) for each in tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    decode = lambda tokens: tokenizer.decode(np.asarray(tokens).tolist(), skip_special_tokens=False)  # noqa: E731
    ends = [tokenizer.token_to_id(end) for end in ENDS if tokenizer.token_to_id(end) is not None]
    between = tuple(ends[:1]) or tuple(encode(["\n"])[0].tolist())
    name = f"{path.stem}-{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
    return Tokenizer(name, vocab, encode, decode, between, "tokens", unique=False, file=file)


def as_huggingface(tokenizer: Tokenizer, start: int, name: str = "<|start|>") -> str:
    """The tokenizer.json of a tokenizer, with one more token, number `start`, that begins every text.

    Raises ValueError if the tokenizer has that number already; ImportError without the package `tokenizers`.
    """
    tokenizers = _package()
    if tokenizer.file is not None:
        made = tokenizers.Tokenizer.from_str(tokenizer.file)
    elif tokenizer.unit == "bytes":
        symbols = _symbols_of_bytes()
        made = tokenizers.Tokenizer(tokenizers.models.BPE({c: i for i, c in enumerate(symbols)}, []))
        made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        made.decoder = tokenizers.decoders.ByteLevel()
    else:
        alphabet = tokenizer.decode(np.arange(tokenizer.vocab))
        made = tokenizers.Tokenizer(tokenizers.models.BPE({c: i for i, c in enumerate(alphabet)}, []))
        made.decoder = tokenizers.decoders.Fuse()
    if tokenizer.vocab > start:
        raise ValueError(f"the tokenizer has {tokenizer.vocab} tokens, the model {start}: they do not belong together")
    made.add_tokens([f"<|unused{i}|>" for i in range(tokenizer.vocab, start)])
    made.add_special_tokens([name])
    if made.token_to_id(name) != start:
        raise ValueError(f"the tokenizer's tokens are not numbered 0 to {tokenizer.vocab - 1} without gaps")
    made.post_processor = tokenizers.processors.TemplateProcessing(f"{name} $A", special_tokens=[(name, start)])
    return made.to_str(pretty=True)


def _package():
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError('this needs the package tokenizers: pip install "genmap_jax[text]"') from error
    return tokenizers


def _symbols_of_bytes() -> list[str]:
    """The printable characters by which byte-level tokenizers write the bytes 0 to 255 (Radford et al. 2019).

    A byte that is a visible Latin-1 character stands for itself, the others for the characters from number 256 on.
    """
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = iter(range(256, 512))
    return [chr(byte if byte in visible else next(hidden)) for byte in range(256)]


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), np.uint32)


# ---- a split on disk -------------------------------------------------------------------------------------------------


class Tokens(NamedTuple):
    """A split as one long string of tokens."""

    tokenizer: Tokenizer
    tokens: np.ndarray  # [T], mapped from disk
    starts: np.ndarray  # int64 [documents], where each begins
    bytes: int  # of its text
    lost: int = 0  # documents that their tokens do not spell exactly


def read(folder_of: Callable[[str], Path], split: str, how: str, root: Path) -> Tokens:
    """Open a split: bytes as they are, other tokens from a folder that is made at the first use.

    folder_of: split -> the folder of its text.bin and starts.npy, where one newline stands between documents.
    how: "bytes", "characters" or the path of a tokenizer.json.
    Raises ValueError for text that is not UTF-8, unless how is "bytes"; and as `huggingface`.
    """
    folder = folder_of(split)
    size = (folder / "text.bin").stat().st_size
    if how == "bytes":
        return Tokens(utf8(), _mapped(folder / "text.bin", np.uint8), np.load(folder / "starts.npy"), size)
    tokenizer = _all_characters(folder_of, root) if how == "characters" else huggingface(Path(how).expanduser())
    final = folder.with_name(f"{folder.name},{tokenizer.name}")
    if not final.is_dir():
        print(f"the tokens of {folder.name} (once), in {final}", file=sys.stderr)
        with scratch(root) as temporary:
            publish(_write(tokenizer, folder, temporary / "tokens"), final)
    tokens, starts = _mapped(final / "tokens.bin", tokenizer.dtype), np.load(final / "starts.npy")
    return Tokens(tokenizer, tokens, starts, size, json.loads((final / "about.json").read_text())["lost"])


def _write(tokenizer: Tokenizer, folder: Path, made: Path) -> Path:
    made.mkdir()
    between = np.array(tokenizer.between, tokenizer.dtype)
    starts: list[int] = []
    place = lost = 0
    with (made / "tokens.bin").open("wb") as f:
        for chunk in _documents(folder):
            for text, tokens in zip(chunk, tokenizer.encode(chunk), strict=True):
                # A tokenizer that has nothing for a newline joins a document to the one before it.
                joined = bool(starts) and not len(between)
                lost += joined or (not tokenizer.unique and tokenizer.decode(tokens) != text)
                if starts:
                    f.write(between.tobytes())
                    place += len(between)
                starts.append(place)
                f.write(tokens.astype(tokenizer.dtype).tobytes())
                place += len(tokens)
    np.save(made / "starts.npy", np.array(starts, np.int64))
    (made / "about.json").write_text(json.dumps({"lost": lost}))
    if lost:
        print(
            f"{tokenizer.name} loses text of {lost} of {len(starts)} documents: likelihoods are estimates",
            file=sys.stderr,
        )
    return made


def _documents(folder: Path, size: int = 1024) -> Iterator[list[str]]:
    """The documents of a split, a thousand at a time."""
    text, starts = _mapped(folder / "text.bin", np.uint8), np.load(folder / "starts.npy")
    ends = np.append(starts[1:] - 1, len(text))
    for first in range(0, len(starts), size):
        part = zip(starts[first : first + size], ends[first : first + size], strict=True)
        try:
            yield [text[a:b].tobytes().decode() for a, b in part]
        except UnicodeDecodeError as error:
            raise ValueError(f"{folder} is not UTF-8 ({error}): it can only be read as bytes") from error


def _all_characters(folder_of: Callable[[str], Path], root: Path) -> Tokenizer:
    """Of the whole dataset, whatever the split: a token must mean the same in each."""
    found: set[str] = set()
    for split in ("train", "validation", "test"):
        folder = folder_of(split)
        known = folder.with_name(f"{folder.name},alphabet")
        if not known.is_dir():
            with scratch(root) as temporary:
                (temporary / "made").mkdir()
                each = {character for chunk in _documents(folder) for text in chunk for character in text}
                (temporary / "made" / "alphabet.json").write_text(json.dumps(sorted(each)))
                publish(temporary / "made", known)
        found.update(json.loads((known / "alphabet.json").read_text()))
    return characters("".join(found))


def _mapped(path: Path, dtype: DTypeLike) -> np.ndarray:
    if not path.stat().st_size:  # nothing can be mapped
        return np.zeros(0, dtype)
    return np.asarray(np.memmap(path, dtype, "r"))  # the same pages without memmap's overhead
