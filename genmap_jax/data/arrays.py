"""One split of a prepared dataset as memory-mapped numpy arrays, made at the first use: `materialise`.

Under the data folder:

    NAME[/CONFIG]/VERSION/           the dataset as TFDS prepares it, in array_record files
    arrays/NAME-FINGERPRINT/SPLIT/   image.npy, x.npy or text.bin and starts.npy; label.npy; about.json
    arrays/NAME-FINGERPRINT/SPLIT,TOKENIZER/       the tokens of a text, where they are not its bytes

All these folders appear by one atomic rename, so any number of processes may prepare and load at once.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from genmap_jax.data import image_files
from genmap_jax.data.folders import publish, scratch

FORMAT = b"3"  # of the arrays
DOMAINS = ("", "A", "B")  # what may follow the name of a split


def materialise(name: str, split: str, prepared: Path, root: Path) -> Path:
    """The folder of a split's arrays, filled from the prepared dataset if it is not there yet.

    Raises ValueError for an unknown split, and for data that are not one image, text or vector.
    """
    sha = hashlib.sha256(FORMAT + (prepared / "dataset_info.json").read_bytes())
    for path in sorted(prepared.iterdir()):
        status = path.stat()
        sha.update(f"{path.name} {status.st_size} {status.st_mtime_ns}".encode())
    final = root / "arrays" / f"{name.replace('/', '-')}-{sha.hexdigest()[:16]}" / quote(split, safe="")
    if final.is_dir():
        return final
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(prepared)
    features = dict(builder.info.features.items())
    kind, field = _example(name, features)
    label = features.get("label")
    classes = label.num_classes if isinstance(label, tfds.features.ClassLabel) else None
    # TFDS would read the numbers of a palette as if they were colours: files of images are decoded here.
    encoded = isinstance(features[field], tfds.features.Image)
    examples = _examples(builder, name, split, {field: tfds.decode.SkipDecoding()} if encoded else None)
    with scratch(root) as temporary:
        folder = temporary / "split"
        folder.mkdir()
        if kind == "text":
            _write_text(folder, examples, field)
            about: dict[str, Any] = {"kind": "text"}
        else:
            channels = features[field].shape[-1]
            decode = (lambda body: image_files.decode(body, channels or 3)) if encoded else np.asarray
            largest = _write_arrays(folder, name, kind, field, examples, decode, classes is not None)
            about = {"kind": kind, "classes": classes}
            if kind == "image":
                known = dict(builder.info.metadata or {})
                about |= {"levels": known.get("levels"), "max": int(largest), "aligned": known.get("aligned", False)}
        (folder / "about.json").write_text(json.dumps(about))
        return publish(folder, final)


def splits_of(prepared: Path) -> list[str]:
    """The names of the splits of a prepared dataset."""
    return [split["name"] for split in json.loads((prepared / "dataset_info.json").read_text())["splits"]]


def _example(name: str, features: dict[str, Any]) -> tuple[str, str]:
    """("image", "text" or "x", the feature): an example is the only image, else the only text, else the only vector."""
    import tensorflow_datasets as tfds

    rank = {field: len(feature.shape or ()) for field, feature in features.items()}
    kinds = {
        "image": [k for k, f in features.items() if f.np_dtype == np.uint8 and rank[k] == 3],
        "text": [k for k, f in features.items() if isinstance(f, tfds.features.Text)],
        "x": [k for k, f in features.items() if f.np_dtype in (np.float32, np.float64) and rank[k] == 1],
    }
    for kind, found in kinds.items():
        if len(found) == 1:
            return kind, found[0]
    raise ValueError(f"{name} has not exactly one image, text or vector; its features are {list(features)}")


def _examples(builder: Any, name: str, split: str, decoders: dict | None) -> Any:
    """The random-access examples of a split, with the last tenth of "train" for a "validation" that does not exist."""
    splits, part = list(builder.info.splits), split
    for domain in DOMAINS:
        if f"validation{domain}" not in splits and f"train{domain}" in splits:
            splits.append(f"validation{domain}")
            lent = {f"train{domain}": f"train{domain}[:90%]", f"validation{domain}": f"train{domain}[90%:]"}
            part = lent.get(split, part)
    if re.split(r"[\[+]", split)[0] not in splits:
        raise ValueError(f"{name} has no split {split!r}; it has {', '.join(splits)}")
    try:
        examples = builder.as_data_source(split=part, decoders=decoders)
    except ValueError as error:
        raise ValueError(
            f"{name}: cannot read {split!r}; a slice looks like 'train[:50%]' or 'test[100:200]'"
        ) from error
    if len(examples) == 0:
        raise ValueError(f"the split {split!r} of {name} is empty")
    return examples


def _write_arrays(
    folder: Path, name: str, kind: str, field: str, examples: Any, decode: Callable, labelled: bool
) -> np.ndarray:
    """Write image.npy or x.npy, and label.npy; return the largest value. Raises ValueError that names an example."""
    array: np.memmap | None = None
    label = np.zeros(len(examples), np.int32)
    for i, example in enumerate(each for chunk in _chunks(examples) for each in chunk):
        try:
            value = decode(example[field])
        except ValueError as error:
            raise ValueError(f"{name}, example {i}: {error}") from error
        if array is None:
            dtype = np.uint8 if kind == "image" else np.float32
            array = np.lib.format.open_memmap(folder / f"{kind}.npy", "w+", dtype, (len(examples), *value.shape))
        if value.shape != array.shape[1:]:
            sizes = f"example 0 has {array.shape[1:]}, example {i} has {value.shape}"
            raise ValueError(f"the examples of {name} differ in size ({sizes}); prepare a dataset of one fixed size")
        if kind == "x" and not np.isfinite(value).all():
            raise ValueError(f"{name}, example {i}: NaN or infinite values")
        array[i] = value
        if labelled:
            label[i] = example["label"]
    assert array is not None  # an empty split was refused
    array.flush()
    if labelled:
        np.save(folder / "label.npy", label)
    return array.max()


def _write_text(folder: Path, examples: Any, field: str) -> None:
    """Write text.bin, the documents with a newline between them, and starts.npy, where each begins."""
    starts: list[int] = []
    place = 0
    with (folder / "text.bin").open("wb") as f:
        for chunk in _chunks(examples):
            for example in chunk:
                place += f.write(b"\n") if starts else 0
                starts.append(place)
                place += f.write(example[field])
    np.save(folder / "starts.npy", np.array(starts, np.int64))


def _chunks(examples: Any, size: int = 1024) -> Iterator[list[dict]]:
    for first in range(0, len(examples), size):
        yield examples.__getitems__(list(range(first, min(first + size, len(examples)))))
