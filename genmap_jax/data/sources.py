"""Prepare a dataset once, read it in microseconds: `prepare`, `load`, `Source`, `batch`.

On disk, under the data folder (argument `data_dir`, else $GENMAP_DATA, else ~/.cache/genmap_jax/data):

    NAME[/CONFIG]/VERSION/         the dataset as TFDS prepares it, in array_record files
    arrays/NAME-FINGERPRINT/SPLIT/ one split as memory-mapped numpy arrays, made from it at the first `load`
    arrays/NAME-FINGERPRINT/SPLIT,TOKENIZER/       the tokens of a text, where they are not its bytes

All these folders appear by one atomic rename, so any number of processes may prepare and load at once.
"""

import contextlib
import dataclasses
import difflib
import functools
import hashlib
import importlib
import importlib.util
import json
import math
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from genmap_jax.data import text as texts
from genmap_jax.data.folders import publish, root_folder, scratch

TFDS_DIR = "~/tensorflow_datasets"  # where TFDS itself prepares; searched after ours
EMBEDDED = {"digits": "Digits", "glyphs": "Glyphs", "pydoc": "Pydoc"}
"""Module of this package: builder in it."""
RAW = (
    "mnist",
    "fashion_mnist",
    "kmnist",
    "cifar10",
    "cifar100",
    "tiny_shakespeare",
    "openwebtext",
)  # `raw.BUILDERS`, known without importing TFDS
TOY_SPLITS = {"train": 50_000, "validation": 10_000, "test": 10_000}
FORMAT = b"2"  # of the arrays
SHUFFLED = 2**24  # examples; beyond it the permutation of an epoch is no longer small, see `batch`


@dataclasses.dataclass(frozen=True)
class Source:
    """One split of a dataset, by random access.

    take: indices [B] -> {"image": uint8 [B,H,W,C], "label": int32 [B]} (no label where there is none),
        {"tokens": int32 [B, L]} for text (and "segments", see `load`), {"x": float32 [B, D]} for vectors.
    shape: of one example: (H, W, C), (L,) or (D,).
    levels: grey values of an image, so pixels are 0..levels-1; the vocabulary of text; None for vectors.
    classes: number of labels, None without labels.
    tokenizer: of text, None for other data.
    bytes_per_token: of text, over the whole split.
    """

    name: str
    split: str
    size: int
    shape: tuple[int, ...]
    levels: int | None
    classes: int | None
    take: Callable[[np.ndarray], dict[str, np.ndarray]] = dataclasses.field(repr=False)
    tokenizer: texts.Tokenizer | None = None
    bytes_per_token: float = 1.0

    @property
    def dims(self) -> float:
        """What bits per dimension are divided by: the numbers of an example; for text its mean length in bytes."""
        return math.prod(self.shape) * self.bytes_per_token

    def kind(self, kind: str) -> str:
        """What the log-probability of an example, as a batch holds it, is of the data: see `text`."""
        ambiguous = self.tokenizer is not None and not self.tokenizer.unique
        return "lower_bound" if ambiguous and kind == "exact" else kind

    @property
    def field(self) -> str:
        """What an example is called in a batch: "image", "tokens" or "x"."""
        return "image" if len(self.shape) == 3 else "x" if self.levels is None else "tokens"

    def spaced(self, count: int) -> np.ndarray:
        """At most `count` rows, evenly spaced over the split. int64 [min(size, count)]"""
        return np.linspace(0, self.size - 1, min(self.size, count)).round().astype(np.int64)


# ---- batches ---------------------------------------------------------------------------------------------------------


def batch(
    source: Source, seed: int, step: int, batch_size: int, process_index: int = 0, process_count: int = 1
) -> dict[str, np.ndarray]:
    """This process's rows of global batch `step`: a function of (seed, step) and nothing else.

    The examples come as one endless stream, a fresh permutation per epoch after another, cut into batches: none is
    dropped or repeated where an epoch ends inside a batch. Process p has the contiguous rows p B / P ... (p + 1) B / P.
    Sources of more than 2^24 examples (windows of a long text) are drawn independently instead, with replacement.
    Raises ValueError if the processes cannot share the batch evenly.
    """
    if batch_size % process_count:
        raise ValueError(f"batch_size={batch_size} does not divide over {process_count} processes")
    rows = batch_size // process_count
    first = process_index * rows
    if source.size > SHUFFLED:
        indices = np.random.default_rng([seed, step]).integers(source.size, size=batch_size)[first : first + rows]
    else:
        epoch, place = np.divmod(step * batch_size + first + np.arange(rows), source.size)
        indices = np.empty(rows, np.int64)
        for e in np.unique(epoch):
            indices[epoch == e] = _permutation(source.size, seed, int(e))[place[epoch == e]]
    return source.take(indices)


@functools.lru_cache(maxsize=16)  # the seeds of an ablation run side by side
def _permutation(size: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(np.arange(size, dtype=np.int32))


# ---- loading ---------------------------------------------------------------------------------------------------------


def load(
    name: str,
    split: str = "train",
    *,
    data_dir: str | os.PathLike | None = None,
    shape: tuple[int, ...] | None = None,
    levels: int | None = None,
    length: int | None = None,
    vocab: int | None = None,
    classes: int | None = None,
    tokenizer: str = "bytes",
    packed: bool = False,
) -> Source:
    """Open one split. Never touches the network.

    name: "digits", "glyphs" or "pydoc", prepared at first use; "toy/gaussians8" ...; or a TFDS name, as "mnist" or
        "imagenet_resized/32x32", that `prepare` or TFDS itself prepared as array_record.
    split: a split, or a TFDS slice of one, as "train[:50%]". Where there is no "validation", it is the last tenth of
        what TFDS calls train, and "train" the first nine ("train[:100%]" is all of it).
    shape, levels, length: what the model expects, checked against the dataset. Text needs `length`: its training
        examples are the windows at every offset, those of other splits do not overlap (fewer than `length` tokens at
        the end belong to none). A TFDS example is a document; the next one follows after `Tokenizer.between`.
    vocab, classes: the same; `vocab` is of text, and may be more than it has.
    tokenizer: of text: "bytes"; "characters", all that the dataset has; or the path of a tokenizer.json.
    packed: "segments" in a batch number the documents of a window, so that a GPT keeps them apart.
    Raises ValueError for an unknown name or split or an expectation not met, FileNotFoundError for a dataset that is
    not prepared; each says what to do.
    """
    if name.startswith("toy/"):
        source = _toy(name, split)
    else:
        source = _stored(name, split, root_folder(data_dir), length, levels, tokenizer, packed)
    if source.tokenizer is None and (tokenizer != "bytes" or packed):
        raise ValueError(f"{name} is not text: leave text.tokenizer={tokenizer!r} and text.packed={packed} out")
    if length is not None and source.tokenizer is None:
        raise ValueError(f"{name} is not text but examples of shape {source.shape}; model.length asks for text")
    if shape is not None and tuple(shape) != source.shape:
        raise ValueError(f"{name} has examples of shape {source.shape}, but model.shape={tuple(shape)}")
    if levels is not None and source.levels not in (None, levels):
        raise ValueError(f"{name} has values 0..{source.levels - 1}, but model.levels={levels}: set {source.levels}")
    if vocab is not None and source.field == "tokens" and vocab < source.levels:
        raise ValueError(
            f"model.vocab={vocab}, but {name} has tokens 0..{source.levels - 1}: set at least {source.levels}"
        )
    if classes is not None and classes != source.classes:
        there = f"has {source.classes} classes: set that" if source.classes else "has no labels: leave it out"
        raise ValueError(f"model.classes={classes}, but {name} {there}")
    return source


def _toy(name: str, split: str) -> Source:
    import jax

    from genmap_jax.data import toy

    if name.removeprefix("toy/") not in toy.DENSITIES:
        raise _unknown(name)
    if split not in TOY_SPLITS:
        raise ValueError(f"{name} has no split {split!r}; it has {', '.join(TOY_SPLITS)}")
    density = toy.DENSITIES[name.removeprefix("toy/")]
    with jax.enable_x64(False):  # the same numbers whatever the defaults of precision and generator are
        key = jax.random.key(list(TOY_SPLITS).index(split), impl="threefry2x32")
        x = np.asarray(jax.jit(density.sample, static_argnums=1)(key, TOY_SPLITS[split]))
    return Source(name, split, len(x), (2,), None, None, lambda indices: {"x": x[indices]})


def _stored(
    name: str, split: str, root: Path, length: int | None, levels: int | None, tokenizer: str, packed: bool
) -> Source:
    if name in EMBEDDED:
        prepared = prepare(name, root)
    else:
        prepared = _find(name, (root, Path(TFDS_DIR).expanduser()))
    folder = _materialise(name, split, prepared, root)
    about = json.loads((folder / "about.json").read_text())
    if about["kind"] == "text":
        parts = lambda split: _materialise(name, split, prepared, root)  # noqa: E731
        return _windows(name, split, texts.read(parts, split, tokenizer, root), length, packed)
    arrays = {path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))}
    arrays = {field: np.asarray(array) for field, array in arrays.items()}  # the same pages without memmap's overhead
    if about["levels"] is None:  # TFDS does not say: the model may, if all values fit
        about["levels"] = levels if levels and about["max"] < levels else 256

    def take(indices):
        return {field: array[indices] for field, array in arrays.items()}

    size, *shape = arrays["image"].shape
    return Source(name, split, size, tuple(shape), about["levels"], about["classes"], take)


def _windows(name: str, split: str, text: texts.Tokens, length: int | None, packed: bool) -> Source:
    if length is None:
        raise ValueError(f"{name} is text: it needs a length, so a model that has model.length")
    if not 1 <= length <= len(text.tokens):
        has = f"{len(text.tokens)} {text.tokenizer.unit}"
        raise ValueError(f"model.length={length}, but the {split} split of {name} has {has}")
    within = np.arange(length)
    stride = 1 if split.startswith("train") else length
    size = (len(text.tokens) - length) // stride + 1

    def take(indices):
        where = np.asarray(indices)[:, None] * stride + within
        batch = {"tokens": text.tokens[where].astype(np.int32)}
        if packed:
            document = np.searchsorted(text.starts, where, side="right")
            batch["segments"] = (document - document[:, :1]).astype(np.int32)
        return batch

    vocab = text.tokenizer.vocab
    return Source(name, split, size, (length,), vocab, None, take, text.tokenizer, text.bytes / len(text.tokens))


# ---- preparing -------------------------------------------------------------------------------------------------------


def prepare(name: str, data_dir: str | os.PathLike | None = None, raw: str | os.PathLike | None = None) -> Path:
    """Build a dataset on disk, once, and return its folder; a dataset already there is left as it is.

    name: an embedded set (no network); with `raw`, the folder of the original files, a name of `raw.BUILDERS` (no
        network); else any TFDS name, which TFDS downloads: that takes the extra `tf`.
    Raises ValueError for an unknown name, damaged raw files, or data prepared before from other files;
    FileNotFoundError for missing ones; ImportError without TensorFlow where it is needed.
    """
    root = root_folder(data_dir)
    if name.startswith("toy/"):
        raise ValueError(f"{name} is drawn when it is loaded: there is nothing to prepare")
    if raw is not None:
        return _prepare_raw(name, root, Path(raw).expanduser())
    if name in EMBEDDED:
        module = importlib.import_module(f"genmap_jax.data.{name}")
        return _build(getattr(module, EMBEDDED[name]), root)
    with contextlib.suppress(FileNotFoundError):
        return _find(name, (root,))
    if importlib.util.find_spec("tensorflow") is None:
        instead = ", or give the original files with --raw FOLDER" if name in RAW else ""
        raise ImportError(f'TFDS needs TensorFlow to prepare {name}: pip install "genmap_jax[tf]"{instead}')
    import tensorflow_datasets as tfds

    tfds.builder(name, data_dir=root, file_format="array_record").download_and_prepare()
    return _find(name, (root,))


def _prepare_raw(name: str, root: Path, folder: Path) -> Path:
    from genmap_jax.data import raw

    if name not in raw.BUILDERS:
        raise ValueError(f"no raw layout is known for {name!r}, only for {', '.join(raw.BUILDERS)}")
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    if not any(folder.iterdir()):
        raw.BUILDERS[name].content(folder)  # says which files are missing; TFDS would fail an assertion
    try:
        prepared = _find(name, (root,))
    except FileNotFoundError:
        return _build(raw.BUILDERS[name], root, folder)
    about = prepared / "metadata.json"
    known = json.loads(about.read_text()).get("content") if about.exists() else None
    if known != raw.BUILDERS[name].content(folder):
        raise ValueError(f"{prepared} was prepared from other files than those in {folder}: remove it first")
    return prepared


def _build(builder_class: Any, root: Path, raw: Path | None = None) -> Path:
    """Run a TFDS builder in a folder of its own, then move the result into place."""
    import tensorflow_datasets as tfds

    final = Path(builder_class(data_dir=root, file_format="array_record").data_dir)
    if final.is_dir():
        return final
    print(f"preparing {builder_class.name} (once) in {final}", file=sys.stderr)
    tfds.disable_progress_bar()
    with scratch(root) as temporary:
        builder = builder_class(data_dir=temporary, file_format="array_record")
        with contextlib.redirect_stdout(None):
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=raw))
        return publish(Path(builder.data_dir), final)


def _materialise(name: str, split: str, prepared: Path, root: Path) -> Path:
    """The folder of a split's arrays, filled from the prepared dataset if it is not there yet."""
    sha = hashlib.sha256(FORMAT + (prepared / "dataset_info.json").read_bytes())
    for path in sorted(prepared.iterdir()):
        status = path.stat()
        sha.update(f"{path.name} {status.st_size} {status.st_mtime_ns}".encode())
    final = root / "arrays" / f"{name.replace('/', '-')}-{sha.hexdigest()[:16]}" / quote(split, safe="")
    if final.is_dir():
        return final
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(prepared)
    examples = _examples(builder, name, split)
    features = dict(builder.info.features.items())
    fields = [k for k, f in features.items() if isinstance(f, tfds.features.Text)]
    images = [k for k, f in features.items() if f.np_dtype == np.uint8 and len(f.shape or ()) == 3]
    with scratch(root) as temporary:
        folder = temporary / "split"
        folder.mkdir()
        if len(images) == 1:
            label = features.get("label")
            classes = label.num_classes if isinstance(label, tfds.features.ClassLabel) else None
            largest = _write_images(folder, name, examples, images[0], features[images[0]].shape, classes is not None)
            levels = dict(builder.info.metadata or {}).get("levels")
            about = {"kind": "image", "levels": levels, "max": largest, "classes": classes}
        elif len(fields) == 1:
            about = {"kind": "text"}
            starts, place = [], 0
            with (folder / "text.bin").open("wb") as f:
                for chunk in _chunks(examples):
                    for document in (example[fields[0]] for example in chunk):
                        place += f.write(b"\n") if starts else 0
                        starts.append(place)
                        place += f.write(document)
            np.save(folder / "starts.npy", np.array(starts, np.int64))
        else:
            raise ValueError(f"{name} has not exactly one image or text feature; its features are {list(features)}")
        (folder / "about.json").write_text(json.dumps(about))
        return publish(folder, final)


def _examples(builder: Any, name: str, split: str) -> Any:
    """The random-access examples of a split, with the last tenth of "train" for a "validation" that does not exist."""
    splits = list(builder.info.splits)
    if "validation" not in splits and "train" in splits:
        splits.append("validation")
        part = {"train": "train[:90%]", "validation": "train[90%:]"}.get(split, split)
    else:
        part = split
    if re.split(r"[\[+]", split)[0] not in splits:
        raise ValueError(f"{name} has no split {split!r}; it has {', '.join(splits)}")
    try:
        examples = builder.as_data_source(split=part)
    except ValueError as error:
        raise ValueError(
            f"{name}: cannot read {split!r}; a slice looks like 'train[:50%]' or 'test[100:200]'"
        ) from error
    if len(examples) == 0:
        raise ValueError(f"the split {split!r} of {name} is empty")
    return examples


def _write_images(folder: Path, name: str, examples: Any, field: str, shape: tuple, labelled: bool) -> int:
    """Write image.npy, and label.npy; return the largest pixel value."""
    if None in shape:
        raise ValueError(f"the images of {name} differ in size {shape}; prepare a dataset of one fixed size")
    image = np.lib.format.open_memmap(folder / "image.npy", "w+", np.uint8, (len(examples), *shape))
    label = np.zeros(len(examples), np.int32)
    largest = first = 0
    for chunk in _chunks(examples):
        last = first + len(chunk)
        image[first:last] = [example[field] for example in chunk]
        if labelled:
            label[first:last] = [example["label"] for example in chunk]
        largest = max(largest, int(image[first:last].max()))
        first = last
    image.flush()
    if labelled:
        np.save(folder / "label.npy", label)
    return largest


def _chunks(examples: Any, size: int = 1024):
    for first in range(0, len(examples), size):
        yield examples.__getitems__(list(range(first, min(first + size, len(examples)))))


# ---- finding ---------------------------------------------------------------------------------------------------------


def _find(name: str, roots: tuple[Path, ...]) -> Path:
    """The folder of a prepared dataset: the newest version under the first root that has one."""
    if not re.fullmatch(r"\w+(/\w[\w.+-]*)?", name):
        raise _unknown(name)
    other = []
    for root in roots:
        found: dict[Path, list[Path]] = {}  # config -> versions
        for path in (root / name).glob("**/dataset_info.json"):
            if json.loads(path.read_text()).get("fileFormat") != "array_record":
                other.append(path.parent)
            elif re.fullmatch(r"\d+\.\d+\.\d+", path.parent.name):
                found.setdefault(path.parent.parent, []).append(path.parent)
        if len(found) > 1:
            configs = sorted(str(path.relative_to(root)) for path in found)
            raise ValueError(f"{name} is prepared in several configs in {root}; choose one of {', '.join(configs)}")
        for versions in found.values():
            return max(versions, key=lambda path: [int(part) for part in path.name.split(".")])
    if name not in RAW:
        import tensorflow_datasets as tfds

        if name.split("/")[0] not in tfds.list_builders(with_community_datasets=False):
            raise _unknown(name)
    text = f"{name} is not prepared: looked in {' and '.join(str(root / name) for root in roots)}"
    if other:
        text += f" ({other[0]} is not in array_record files, the only ones read without TensorFlow)"
    option = " [--raw FOLDER_OF_THE_ORIGINAL_FILES]" if name in RAW else ""
    raise FileNotFoundError(f"{text}. Run: genmap prepare {name}{option}")


def _unknown(name: str) -> ValueError:
    """The error for a name that neither we nor TFDS know, with the nearest that one of us does."""
    import tensorflow_datasets as tfds

    from genmap_jax.data import toy

    ours = [*EMBEDDED, *(f"toy/{density}" for density in toy.DENSITIES)]
    near = difflib.get_close_matches(name, [*ours, *tfds.list_builders(with_community_datasets=False)], n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(ours)}, and the names of TFDS"
    return ValueError(f"unknown dataset {name!r}: {hint}")
