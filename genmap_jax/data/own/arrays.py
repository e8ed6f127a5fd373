"""Own arrays: .npy and .npz files of images, or of vectors, and of labels; see `own`."""

import re
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from genmap_jax.data.own.files import ALL, SPLITS, Files, Part, checked_groups, deal, digest, refuse

LABELS = {"label", "labels", "y"}
Named = tuple[str, np.ndarray]


def read(files: Files, temporary: Path) -> Part:
    """Raises ValueError that names files and arrays, and how to change them."""
    found = _open(files)
    groups: dict[str, list[Named]] = {}
    for name, array in found:
        split = next((SPLITS[word] for word in _words(name) if word in SPLITS), ALL)
        groups.setdefault(split, []).append((name, array))
    checked_groups(groups, lambda named: named[0], files.base)
    parts = {group: _example_and_label(group, named) for group, named in groups.items()}
    shapes = {(x.dtype == np.uint8, x.shape[1:], y is None) for x, y in parts.values()}
    if len(shapes) > 1:
        raise ValueError(f"{files.base}: the splits differ in type, shape or in having labels: {_told(found)}")
    ((image, shape, unlabelled),) = shapes
    field, dtype = ("image", np.uint8) if image else ("x", np.float32)
    features = {field: tfds.features.Tensor(shape=shape, dtype=dtype)}
    if not unlabelled:
        classes = 1 + max(int(y.max()) for _, y in parts.values() if y is not None)
        features["label"] = tfds.features.ClassLabel(num_classes=classes)

    def examples(group, rows):
        x, y = parts[group]
        for row in rows:
            yield {field: x[row].astype(dtype)} | ({} if y is None else {"label": int(y[row])})

    digests = {group: np.array([digest(row.tobytes()) for row in x], np.uint64) for group, (x, _) in parts.items()}
    return Part(features, {split: partial(examples, *part) for split, part in deal(digests).items()})


def _open(files: Files) -> list[Named]:
    """All arrays with their names: FILE, or FILE: KEY in an .npz."""
    found, broken = [], []
    for path in files.paths:
        name = files.name(path)
        try:
            opened = np.load(path, mmap_mode="r", allow_pickle=False)
            if isinstance(opened, np.ndarray):
                found.append((name, opened))
            else:
                with opened:
                    found += [(f"{name}: {key}", opened[key]) for key in opened.files]
        except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
            broken.append((name, str(error)))
    refuse(broken, files.base)
    return found


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z]+", name.lower().replace(".npy", "").replace(".npz", ""))


def _told(named: list[Named]) -> str:
    return ", ".join(f"{name} is {array.dtype} {list(array.shape)}" for name, array in named)


def _example_and_label(group: str, named: list[Named]) -> tuple[np.ndarray, np.ndarray | None]:
    """The one array of examples, [N, H, W, C] or [N, D], and the one of labels, of a split."""
    labels = [each for each in named if LABELS & set(_words(each[0]))]
    examples = [each for each in named if not LABELS & set(_words(each[0]))]
    if len(examples) != 1 or len(labels) > 1:
        raise ValueError(
            f"there must be one array of examples and at most one of labels (called label, labels or y) "
            f"{f'of {group}' if group else 'in all, or in each split'}, but {_told(named)}"
        )
    x = _checked(*examples[0])
    if not labels:
        return x, None
    name, y = labels[0]
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if not np.issubdtype(y.dtype, np.integer) or y.shape != (len(x),) or y.min() < 0:
        raise ValueError(
            f"{name}: labels are integers from 0 on, one for each of {len(x)} examples, but {_told(labels)}"
        )
    return x, y


def _checked(name: str, x: np.ndarray) -> np.ndarray:
    """Images [N, H, W, C] or vectors [N, D]. Raises ValueError that says how to change the array."""
    if x.ndim == 0 or not x.size:
        raise ValueError(f"{name} is empty")
    if x.dtype == np.uint8 and x.ndim in (3, 4):
        x = x[..., None] if x.ndim == 3 else x
        if x.shape[3] > 4:
            raise ValueError(
                f"{name} has {x.shape[3]} channels: images are [N, H, W, C], so move the axis of colours last"
            )
        return x
    if np.issubdtype(x.dtype, np.floating) and x.ndim == 2:
        if wrong := np.flatnonzero(~np.isfinite(x).all(1)).tolist():
            raise ValueError(f"{name} has NaN or infinite values in {len(wrong)} rows, the first of them {wrong[:5]}")
        return x
    raise ValueError(
        f"{name} is {x.dtype} {list(x.shape)}: images must be uint8 [N, H, W, C] or [N, H, W] with values from 0 to "
        "255 at most, vectors floating-point [N, D]"
    )
