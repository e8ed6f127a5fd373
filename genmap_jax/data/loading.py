"""Open a split of a dataset by its name, checked against what a model reads: `load`."""

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from genmap_jax.data import text as texts
from genmap_jax.data.arrays import materialise, splits_of
from genmap_jax.data.folders import root_folder
from genmap_jax.data.preparation import locate, unknown
from genmap_jax.data.renderings import RENDERINGS
from genmap_jax.data.sources import Source, pair, together

if TYPE_CHECKING:  # jax is heavy: `genmap prepare` does without
    from genmap_jax.spaces import Space

TOY_SPLITS = {"train": 50_000, "validation": 10_000, "test": 10_000}


@dataclasses.dataclass(frozen=True)
class Opening:
    """How a dataset is opened: where it is, and the options of `load`."""

    root: Path
    reads: "dict[str, Space]"
    tokenizer: str
    packed: bool
    length: int | None


def load(
    name: str,
    split: str = "train",
    *,
    reads: "dict[str, Space] | None" = None,
    data_dir: str | os.PathLike | None = None,
    tokenizer: str = "bytes",
    packed: bool = False,
    length: int | None = None,
) -> Source:
    """Open one split. Never touches the network.

    name: "digits", "glyphs" or "pydoc", prepared at first use; "toy/gaussians8" ...; own data, by the name given to
        `prepare`; a TFDS name, as "mnist" or "imagenet_resized/32x32", that `prepare` or TFDS itself prepared as
        array_record; or "part/10,glyphs", of whose training split there is every tenth example only, and all of the
        others; or a pair of domains, of which a batch holds a "source" and an "image", see `sources.pair`:
        "pair/SOURCE,TARGET", two sets of images; "rendered/RENDERING,NAME", the images of NAME as the target and one of
        `renderings.RENDERINGS` of them as the source; or a dataset with splits trainA and trainB (as "fonts", or
        cycle_gan of TFDS), with A as the source. "aligned/PAIR" draws images beside their own sources, where they are
        known.
    split: a split, or a TFDS slice of one, as "train[:50%]". Where there is no "validation", it is the last tenth of
        what TFDS calls train, and "train" the first nine ("train[:100%]" is all of it).
    reads: what the model expects of a batch, `Algorithm.reads`: the space of the example first, then those of its
        conditions (of a pair of domains either may be the example). The dataset must hold exactly that, except that a
        vocabulary may be larger than the dataset's.
    tokenizer: of text: "bytes"; "characters", all that the dataset has; or the path of a tokenizer.json.
    packed: "segments" in a batch number the documents of a window, so that a GPT keeps them apart.
    length: the number of tokens in an example of text, where it is not that of `reads`. Training examples are the
        windows at every offset, those of other splits do not overlap (fewer than `length` tokens at the end belong to
        none). A TFDS example is a document; the next one follows after `Tokenizer.between`.
    Raises ValueError for an unknown name or split or an expectation not met, FileNotFoundError for a dataset that is
    not prepared; each says what to do.
    """
    reads = reads or {}
    if length is None and "tokens" in reads:
        (length,) = reads["tokens"].shape
    source = _open(name, split, Opening(root_folder(data_dir), reads, tokenizer, packed, length))
    if reads:
        first = next(iter(reads))
        if first in source.spaces:
            source = dataclasses.replace(source, spaces={first: source.spaces[first]} | source.spaces)
        _check(source, reads)
    if source.tokenizer is None and (tokenizer != "bytes" or packed):
        raise ValueError(f"{name} is not text: leave text.tokenizer={tokenizer!r} and text.packed={packed} out")
    if source.tokenizer is None and length is not None:
        raise ValueError(f"{name} is not text but {_words(source.space)}; length={length} asks for text")
    return source


def target(name: str) -> str:
    """The data that a pair of domains translates into, where they have a name of their own; else the name itself."""
    kind, _, rest = name.partition("/")
    if kind == "aligned":
        return target(rest)
    return rest.partition(",")[2] or name if kind in ("pair", "rendered") else name


# ---- what the model expects ------------------------------------------------------------------------------------------


def _check(source: Source, reads: "dict[str, Space]") -> None:
    """Raises ValueError that says what the data have, what the model expects, and how to change it."""
    (field, expected), *conditions = reads.items()
    if field != source.field:
        raise _other_kind(source.name, _words(source.space), expected)
    name, space = source.name, source.space
    there, wanted = space.levels or 0, expected.levels or 0
    if field == "tokens":
        if wanted < there:
            raise ValueError(
                f"{name} has tokens 0..{there - 1}, but the model expects 0..{wanted - 1}: "
                f"set --model.vocab to at least {there}"
            )
    elif expected.shape != space.shape:
        flag = f"--model.space.shape {' '.join(map(str, space.shape))} (of a GPT --model.shape)"
        raise ValueError(f"{name} has examples of shape {space.shape}, but the model expects {expected.shape}: {flag}")
    elif wanted != there:
        raise ValueError(
            f"{name} has grey values 0..{there - 1}, but the model expects 0..{wanted - 1}: "
            f"--model.space.levels {there} (of a GPT --model.vocab)"
        )
    for condition, condition_space in conditions:
        _check_condition(source, condition, condition_space)


def _check_condition(source: Source, condition: str, expected: "Space") -> None:
    name, space = source.name, source.spaces.get(condition)
    if condition == "label":
        if space is None:
            raise ValueError(
                f"{name} has no labels, but the model is conditioned on {expected.levels} classes: "
                "leave model.classes out"
            )
        if space.levels != expected.levels:
            raise ValueError(
                f"{name} has {space.levels} classes, but the model expects {expected.levels}: "
                f"--model.classes {space.levels}"
            )
    elif space is None:
        fix = f": give two sets, as --data pair/SOURCE,{name}" if condition in ("source", "image") else ""
        there = " and ".join(source.spaces)
        raise ValueError(f"a batch of {name} holds {there}, but the model also reads {condition!r}{fix}")
    elif space != expected:
        raise ValueError(
            f"{condition!r} of {name} is {_words(space)} with {space.levels} values, but the model expects "
            f"{_words(expected)} with {expected.levels}: both sets must be alike, so prepare one of them again, or "
            "choose another pair"
        )


def _other_kind(name: str, there: str, expected: "Space") -> ValueError:
    return ValueError(
        f"{name} is {there}, but the model reads {_words(expected)}: choose other --data or another model"
    )


def _words(space: "Space") -> str:
    if space.text:
        return f"text in windows of {space.shape[0]} tokens"
    return f"{'images' if space.image else 'vectors'} of shape {space.shape}"


# ---- opening ---------------------------------------------------------------------------------------------------------


def _open(name: str, split: str, how: Opening) -> Source:
    if name.startswith("toy/"):
        return _toy(name, split)
    if name.startswith("part/"):
        return _part(name, split, how)
    if name.startswith("aligned/"):
        return together(name, _open(name.removeprefix("aligned/"), split, how))
    if name.startswith("rendered/"):
        return _rendered(name, split, how)
    if name.startswith("pair/"):
        sets = name.removeprefix("pair/").split(",")
        if len(sets) != 2 or not all(sets) or any(each.startswith("pair/") for each in sets):
            raise ValueError(f"{name}: a pair is two sets of images, pair/SOURCE,TARGET, as pair/digits,glyphs")
        return _pair(name, split, (sets[0], split), (sets[1], split), how)
    prepared = locate(name, how.root)
    base = re.split(r"\W", split)[0]
    part = split.removeprefix(base)
    splits = splits_of(prepared)
    if base not in splits and {"trainA", "trainB"} <= set(splits) and base in ("train", "validation", "test"):
        return _pair(name, split, (name, f"{base}A{part}"), (name, f"{base}B{part}"), how)
    return _stored(name, split, prepared, how)


def _part(name: str, split: str, how: Opening) -> Source:
    """Every n-th training example of a set, and its other splits as they are."""
    every, _, whole = name.removeprefix("part/").partition(",")
    if not (every.isdecimal() and int(every)) or not whole or whole.startswith("part/"):
        raise ValueError(f"{name}: a part is every n-th training example of a set, part/N,SET, as part/10,glyphs")
    source, step = _open(whole, split, how), int(every)
    if source.domains:
        raise ValueError(f"{name}: {whole} is a pair, whose sets differ in length; take a part of one set")
    if not split.startswith("train"):
        return dataclasses.replace(source, name=name)
    take = lambda rows: source.take(np.asarray(rows) * step)  # noqa: E731
    return dataclasses.replace(source, name=name, size=-(-source.size // step), take=take)


def whole(name: str) -> str:
    """The name of the set of which a name is a part; any other name as it is."""
    return name.partition(",")[2] if name.startswith("part/") else name


def _pair(name: str, split: str, source: tuple[str, str], target: tuple[str, str], how: Opening) -> Source:
    """A pair of (name, split) of the source and of the target."""
    opened = []
    for field, (one, part) in (("source", source), ("image", target)):
        alone = {"image": how.reads[field]} if field in how.reads else {}  # what the model expects of this set
        opened.append(_open(one, part, dataclasses.replace(how, reads=alone, length=1)))
    first, second = opened
    return pair(name, split, first, second, aligned=first.aligned and second.aligned)


def _rendered(name: str, split: str, how: Opening) -> Source:
    """A pair of a rendering of images and the images themselves."""
    rendering, _, base = name.removeprefix("rendered/").partition(",")
    if rendering not in RENDERINGS or not base:
        known = ", ".join(RENDERINGS)
        raise ValueError(f"{name}: a rendering is rendered/RENDERING,NAME with one of {known}, as rendered/bold,digits")
    alone = {"image": how.reads["image"]} if "image" in how.reads else {}
    original = _open(base, split, dataclasses.replace(how, reads=alone, length=1))
    if not original.space.image:
        raise ValueError(f"{name} is of images, but {base} is {_words(original.space)}")

    def take(rows):
        return {original.field: RENDERINGS[rendering](original.take(rows)[original.field], original.space.grey_levels)}

    return pair(name, split, dataclasses.replace(original, take=take), original, aligned=True)


def _toy(name: str, split: str) -> Source:
    import jax

    from genmap_jax.data import toy
    from genmap_jax.spaces import vectors

    if name.removeprefix("toy/") not in toy.DENSITIES:
        raise unknown(name)
    if split not in TOY_SPLITS:
        raise ValueError(f"{name} has no split {split!r}; it has {', '.join(TOY_SPLITS)}")
    density = toy.DENSITIES[name.removeprefix("toy/")]
    with jax.enable_x64(False):  # the same numbers whatever the defaults of precision and generator are
        key = jax.random.key(list(TOY_SPLITS).index(split), impl="threefry2x32")
        x = np.asarray(jax.jit(density.sample, static_argnums=1)(key, TOY_SPLITS[split]))
    return Source(name, split, len(x), {"x": vectors(2)}, lambda rows: {"x": x[rows]}, density=density)


def _stored(name: str, split: str, prepared: Path, how: Opening) -> Source:
    """A prepared split: its arrays, mapped from disk, or windows of its text."""
    from genmap_jax.spaces import images, labels, vectors

    folder = materialise(name, split, prepared, how.root)
    about = json.loads((folder / "about.json").read_text())
    if about["kind"] == "text":
        return _windows(name, split, prepared, how)
    arrays = {path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))}
    arrays = {field: np.asarray(array) for field, array in arrays.items()}  # the same pages without memmap's overhead
    if about["kind"] == "x":
        spaces = {"x": vectors(arrays["x"].shape[1])}
    else:
        levels = about["levels"]
        if levels is None:  # the dataset does not say: the model may, if all values fit
            expected = how.reads["image"].levels if "image" in how.reads else None
            levels = expected if expected and about["max"] < expected else 256
        if about["max"] >= levels:
            raise ValueError(f"{name}: {split!r} has grey values up to {about['max']}, but is said to have {levels}")
        height, width, channels = arrays["image"].shape[1:]
        spaces = {"image": images(height, width, channels, levels)}
    if "label" in arrays and _labelled(name, split, arrays["label"], about["classes"], "label" in how.reads):
        spaces["label"] = labels(about["classes"])
    arrays = {field: arrays[field] for field in spaces}

    def take(rows):
        return {field: array[rows] for field, array in arrays.items()}

    size, aligned = len(next(iter(arrays.values()))), about.get("aligned", False)
    return Source(name, split, size, spaces, take, aligned=aligned)


def _labelled(name: str, split: str, label: np.ndarray, classes: int, wanted: bool) -> bool:
    """Whether a split has its labels. TFDS writes -1 where they are not public, as in the test split of a competition.

    Raises ValueError for labels of no class, and for hidden ones where they are wanted: as an index, -1 is the last.
    """
    if label.max() >= classes or label.min() < -1:
        raise ValueError(f"{name}: {split!r} has labels {label.min()} to {label.max()}, but {classes} classes")
    hidden = int((label < 0).sum())
    if hidden and wanted:
        raise ValueError(
            f"{name}: {hidden} of {len(label)} labels of {split!r} are hidden (-1), and the model is conditioned on "
            "labels: leave model.classes out, or take other data"
        )
    return not hidden


def _windows(name: str, split: str, prepared: Path, how: Opening) -> Source:
    """Windows of the tokens of a text."""
    from genmap_jax.spaces import tokens as strings

    example = next(iter(how.reads.values()), None)
    if example is not None and not example.text:
        raise _other_kind(name, "text", example)
    length = how.length
    if length is None:
        raise ValueError(f"{name} is text: it needs a length, as load(..., length=64) or a model of text has it")
    parts = lambda split: materialise(name, split, prepared, how.root)  # noqa: E731
    text = texts.read(parts, split, how.tokenizer, how.root)
    if not len(text.tokens):
        raise ValueError(f"the {split} split of {name} holds no {text.tokenizer.unit}")
    if not 1 <= length <= len(text.tokens):
        has = f"{len(text.tokens)} {text.tokenizer.unit}"
        raise ValueError(f"--model.length {length}: the {split} split of {name} has {has}, so give 1 to that many")
    within = np.arange(length)
    stride = 1 if split.startswith("train") else length
    size = (len(text.tokens) - length) // stride + 1

    def take(rows):
        where = np.asarray(rows)[:, None] * stride + within
        batch = {"tokens": text.tokens[where].astype(np.int32)}
        if how.packed:
            document = np.searchsorted(text.starts, where, side="right")
            batch["segments"] = (document - document[:, :1]).astype(np.int32)
        return batch

    spaces = {"tokens": strings(length, text.tokenizer.vocab)}
    if how.packed:
        spaces["segments"] = strings(length, length)
    per_token = text.bytes / len(text.tokens)
    return Source(name, split, size, spaces, take, text.tokenizer, per_token, lossless=not text.lost)
