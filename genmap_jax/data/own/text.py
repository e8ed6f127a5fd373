"""Own text: files of UTF-8, or JSON lines {"text": ...}; see `own`."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from genmap_jax.data.own.files import ALL, Files, Part, deal, digest, refuse


def read(files: Files, temporary: Path) -> Part:
    """Documents stay in their order within a split. Raises ValueError that names files and lines."""
    groups = files.groups()
    broken: list[tuple[str, str]] = []
    digests = {
        group: np.array([digest(document) for _, document in _documents(files, paths, broken)], np.uint64)
        for group, paths in groups.items()
    }
    refuse(broken, files.base)

    def examples(group, rows):
        chosen = np.zeros(len(digests[group]), bool)
        chosen[rows] = True
        for i, (_, document) in enumerate(_documents(files, groups[group], [])):
            if chosen[i]:
                yield {"text": document}

    alone = next((group for group in (ALL, "train") if group in groups), None)
    if alone is not None and len(digests[alone]) == 1 and set(groups) <= {ALL, "train", "test"}:
        ((_, document),) = _documents(files, groups[alone], [])
        pieces = _cut(document, "test" in groups)
        if not all(piece["text"] for piece in pieces.values()):
            raise ValueError(
                f"{files.base}: a text of {len(document.decode())} characters is too short to be cut into "
                f"{', '.join(pieces)}: give at least {2 if 'test' in groups else 6}"
            )
        splits = {split: partial(iter, [part]) for split, part in pieces.items()}
        if "test" in groups:
            splits["test"] = partial(examples, "test", range(len(digests["test"])))
    else:
        splits = {split: partial(examples, *part) for split, part in deal(digests).items()}
    return Part({"text": tfds.features.Text()}, splits)


def _cut(document: bytes, tested: bool) -> dict[str, dict[str, str]]:
    """The splits of a text of one document, by its characters. tested: there is a test split beside it."""
    text = document.decode()
    ends = [len(text) * 8 // 10, len(text) * 9 // 10, len(text)]
    first = ends[1] if tested else ends[0]
    pieces = {"train": text[:first], "validation": text[first : ends[tested + 1]]}
    if not tested:
        pieces["test"] = text[ends[1] :]
    return {split: {"text": piece} for split, piece in pieces.items()}


def _documents(files: Files, paths: list[Path], broken: list[tuple[str, str]]) -> Iterator[tuple[str, bytes]]:
    """(where, UTF-8) of every document. What cannot be read is added to `broken`."""
    for path in paths:
        name = files.name(path)
        if files.kind == "text":
            try:
                body = path.read_bytes()
                body.decode()
                yield name, body
            except (OSError, UnicodeDecodeError) as error:
                broken.append((name, f"not UTF-8: {error}" if isinstance(error, UnicodeDecodeError) else str(error)))
            continue
        with path.open("rb") as lines:  # only b"\n" ends a line: JSON may hold the other separators of Unicode
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                where = f"{name}, line {number}"
                try:
                    yield where, json.loads(line)["text"].encode()
                except (ValueError, LookupError, TypeError, AttributeError):
                    broken.append((where, 'not {"text": ...}'))
