"""What an extractor is; and what several share: batches, what a network sees of an image, keeping what was fitted."""

import hashlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from genmap_jax.data.folders import root_folder, scratch
from genmap_jax.evaluate.resize import clean_resize


class Extractor(NamedTuple):
    """A fixed map from images to feature vectors, with enough of a name that two numbers cannot be confused."""

    name: str
    """Goes into the names of metrics: "own64", "efficientnet-lite0-pca16", "inception", "dinov2", "clip", "xy"."""
    hash: str
    """First 12 hex digits of the sha256 of the weights, and of the PCA where there is one."""
    fit: str
    """What it was fitted on, in a sentence."""
    features: Callable[..., np.ndarray]
    """uint8 [N,H,W,C] with values 0..levels-1 -> float64 [N,d]. Raises ValueError for other images, floats among them,
    whose unit nobody could know; with `rounded=False` they are floats in the unit of grey levels, before rounding."""
    probabilities: Callable[[np.ndarray], np.ndarray] | None
    """The same images -> float64 [N,K], of the classes it was trained to tell; None without."""
    accuracy: float | None
    """Fraction right on the validation split of its data, if it was trained on that data."""


def fingerprint(arrays: Mapping[str, np.ndarray]) -> str:
    """First 12 hex digits of a sha256 of names, types, shapes and bytes."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        sha.update(f"{name} {array.dtype} {array.shape} ".encode())
        sha.update(array.data)
    return sha.hexdigest()[:12]


def batched(function: Callable, batch_size: int) -> Callable[[np.ndarray], np.ndarray]:
    """Run a function [B, ...] -> [B, d] over any number of rows, at least one: [N, ...] -> float64 [N, d].

    Each call sees exactly `batch_size` rows, so it compiles once: the last batch is filled up with rows of its own,
    and their results dropped. In full float32, for an accelerator's default precision moves Fréchet distances.
    """

    def run(rows: np.ndarray) -> np.ndarray:
        parts = []
        with jax.default_matmul_precision("highest"):
            for start in range(0, len(rows), batch_size):
                part = rows[start : start + batch_size]
                full = np.resize(part, (batch_size, *part.shape[1:]))
                parts.append(np.asarray(function(full), np.float64)[: len(part)])
        return np.concatenate(parts)

    return run


def check_images(
    images: np.ndarray, levels: int, shape: tuple[int, ...] | None = None, rounded: bool = True
) -> np.ndarray:
    """The images, if an extractor can take them; else ValueError. rounded: see `Extractor.features`."""
    images = np.asarray(images)
    floats = np.issubdtype(images.dtype, np.floating)
    if images.ndim != 4 or len(images) == 0 or not (images.dtype == np.uint8 or floats):
        raise ValueError(f"images: {images.dtype} {images.shape}; give uint8 [N,H,W,C] with at least one image")
    if floats and rounded:
        raise ValueError(f"images: {images.dtype}; give uint8 grey levels 0..{levels - 1}, as a batch holds them")
    if shape is not None and images.shape[1:] != shape:
        raise ValueError(f"images of shape {images.shape[1:]}, but this extractor was fitted on {shape}")
    if floats and not np.isfinite(images).all():
        raise ValueError("images: some hold NaN or infinite values; leave those out")
    if not floats and images.max() >= levels:
        raise ValueError(f"images: values up to {images.max()}, but levels={levels} allows 0..{levels - 1}")
    return images


def photographs(images: np.ndarray, levels: int, size: int, mean, std) -> np.ndarray:
    """Images in grey levels as a network trained on photographs sees them: float32 [N,size,size,3], (x - mean) / std.

    mean, std: of the channels, of values in [0, 1]. Grey images get three equal channels.
    """
    if images.shape[3] not in (1, 3):
        raise ValueError(f"images of shape {images.shape[1:]}: a network trained on photographs takes 1 or 3 channels")
    x = clean_resize(np.asarray(images, np.float32) / np.float32(levels - 1), (size, size))
    mean, std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    return (np.broadcast_to(x, (*x.shape[:3], 3)) - mean) / std


def kept(
    name: str,
    data: str,
    data_dir: str | os.PathLike | None,
    inputs: Mapping[str, np.ndarray],
    fit: Callable[[], tuple[dict[str, np.ndarray], str]],
) -> tuple[dict[str, np.ndarray], str]:
    """What `fit()` returns, arrays and a note, from disk if it was made of the same `inputs` before.

    A file that is damaged is made again. Raises ValueError for a folder in the place of the file.
    """
    from safetensors.numpy import save

    file = f"{name}-{data.replace('/', '-')}-{fingerprint(inputs)}.safetensors"
    path = root_folder(data_dir) / "features" / file
    if path.is_dir():
        raise ValueError(f"{path} is a folder where a file of fitted features belongs: remove it")
    stored = _stored(path)
    if stored is None:
        again = " again, for the file is damaged or of an earlier version" if path.exists() else ""
        print(f"fitting the features {name} of {data} (once) for {path}{again}", file=sys.stderr)
        arrays, note = fit()
        with scratch(path.parent) as folder:
            made = folder / "fitted"
            made.write_bytes(save(arrays, {"note": note, "hash": _hash(arrays, note)}))
            stored = _stored(path)
            if stored is None:  # else another process was first: all must use the same
                made.replace(path)
                stored = arrays, note
    return stored


def _stored(path: Path) -> tuple[dict[str, np.ndarray], str] | None:
    """The arrays and the note of a file that `kept` wrote; None without one, or if it is damaged."""
    from safetensors import safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as file:
            arrays, about = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except Exception:  # damaged files raise almost anything
        return None
    note = about.get("note", "")
    return (arrays, note) if about.get("hash") == _hash(arrays, note) else None


def _hash(arrays: Mapping[str, np.ndarray], note: str) -> str:
    return fingerprint({**arrays, "note": np.array(list(note.encode()), np.uint8)})
