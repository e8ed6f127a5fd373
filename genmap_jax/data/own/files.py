"""The files of own data, their splits, and how examples without splits are dealt out; see `own`."""

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from genmap_jax.data import image_files

KINDS = {
    "images": image_files.SUFFIXES,
    "arrays": (".npy", ".npz"),
    "lines": (".jsonl",),
    "text": (".txt",),
}
SPLITS = {"train": "train", "validation": "validation", "val": "validation", "valid": "validation", "test": "test"}
SPLITS |= {f"{word}{domain.lower()}": f"{split}{domain}" for word, split in SPLITS.items() for domain in "AB"}
DOMAINS = ("A", "B")
ALL = ""  # the group of what belongs to no split yet
NAMED = 10  # files that an error names


class Files(NamedTuple):
    """Files of one kind, sorted. base: what their names are relative to. size, crop: of images, see `image_files`."""

    kind: str
    base: Path
    paths: list[Path]
    size: tuple[int, int] | None
    crop: bool

    def name(self, path: Path) -> str:
        return str(path.relative_to(self.base))

    def content(self) -> str:
        """A hash of names, bytes and options: tells other data from these."""
        sha = hashlib.sha256(f"{self.kind} {self.size} {self.crop}".encode())
        for path in self.paths:
            with path.open("rb") as f:
                sha.update(f"\n{self.name(path)} {hashlib.file_digest(f, 'sha256').hexdigest()}".encode())
        return sha.hexdigest()

    def groups(self) -> dict[str, list[Path]]:
        """The files of each split by the first word of their names; all in the group ALL where none names a split.

        Images in two folders A and B are two domains, in the groups "A" and "B". Raises ValueError where only some
        files name a split.
        """
        groups: dict[str, list[Path]] = {}
        folders = {path.relative_to(self.base).parts[0] for path in self.paths}
        named = {domain: domain for domain in DOMAINS} if self.kind == "images" and folders == set(DOMAINS) else SPLITS
        for path in self.paths:
            first = path.relative_to(self.base).parts[0]
            word = first if self.kind == "images" or first != path.name else path.stem
            groups.setdefault(named.get(word, named.get(word.lower(), ALL)), []).append(path)
        return checked_groups(groups, lambda path: self.name(path), self.base)


class Part(NamedTuple):
    """What a reader makes of files. splits: name -> what iterates over its examples. aligned: whether the images of two
    domains are pairs."""

    features: dict[str, Any]
    splits: Mapping[str, Callable[[], Iterator[dict[str, Any]]]]
    levels: int | None = None
    aligned: bool = False


def find_files(path: Path, size: tuple[int, int] | None = None, crop: bool = False) -> Files:
    """The files of own data under a folder (or one file), of the first kind that there is.

    Folders that hold nothing but one folder are entered.
    Raises FileNotFoundError; ValueError without data, or for options that are not of this kind.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is neither a folder nor a file")
    found = sorted(path.rglob("*")) if path.is_dir() else [path]
    base = path if path.is_dir() else path.parent
    found = [p for p in found if p.is_file() and not any(part[0] == "." for part in p.relative_to(base).parts)]
    of_kind = {kind: [p for p in found if p.suffix.lower() in suffixes] for kind, suffixes in KINDS.items()}
    kind, paths = next(((kind, paths) for kind, paths in of_kind.items() if paths), ("", []))
    if not paths:
        known = ", ".join(suffix for suffixes in KINDS.values() for suffix in suffixes)
        raise ValueError(f"{path} holds no data that can be read: there is no file that ends in {known}")
    if others := [str(p.relative_to(base)) for p in found if p not in set(paths)]:
        print(f"left out, as they are not {kind}: {listed(others)}", file=sys.stderr)
    if kind != "images" and (size is not None or crop):
        raise ValueError(f"--size and --crop are of files of images, but {path} holds {kind}")
    if crop and size is None:
        raise ValueError("--crop cuts out the centre before images are resized: give --size as well")
    while len({p.relative_to(base).parts[0] for p in paths}) == 1 and paths[0].parent != base:
        base = base / paths[0].relative_to(base).parts[0]
    return Files(kind, base, paths, size, crop)


def listed(names: Sequence[str]) -> str:
    """Names in words, the first few of many."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def refuse(broken: Sequence[tuple[str, str]], base: Path) -> None:
    """Raises ValueError that names what could not be read, [(name, reason)], if there is any."""
    if broken:
        what = listed([f"{name} ({' '.join(reason.split())})" for name, reason in broken])
        raise ValueError(f"{base}: {len(broken)} could not be read: {what}. Mend or remove them: none is skipped")


# ---- splits ----------------------------------------------------------------------------------------------------------


def checked_groups(groups: dict[str, list], name_of: Callable[[Any], str], base: Path) -> dict[str, list]:
    """The groups, if all or none name a split. Raises ValueError."""
    if ALL in groups and len(groups) > 1:
        splits, rest = [split for split in groups if split != ALL], listed([name_of(x) for x in groups[ALL]])
        raise ValueError(f"{base} holds the splits {', '.join(splits)}, but these belong to none: {rest}")
    return groups


def digest(body: bytes) -> int:
    """64 bits of a hash of an example."""
    return int.from_bytes(hashlib.sha256(body).digest()[:8], "big")


def deal(digests: dict[str, np.ndarray]) -> dict[str, tuple[str, np.ndarray]]:
    """Digests [N] of the examples of each group -> {split: (group, rows)}, by the rule of `own`; rows sorted by digest.

    Raises ValueError for too few examples and for splits that are not enough.
    """
    names = set(digests)
    if names == set(DOMAINS):
        parts = {domain: _tenths(domain, digests[domain], 2) for domain in DOMAINS}
        order = ("test", "validation", "train")
        return {f"{split}{d}": part for d in DOMAINS for split, part in zip(order, parts[d], strict=True)}
    if names in ({ALL}, {"train"}):
        (group,) = names
        return dict(zip(("test", "validation", "train"), _tenths(group, digests[group], 2), strict=True))
    splits = {split: (split, np.argsort(digests[split], kind="stable")) for split in sorted(digests)}
    if names == {"train", "test"}:
        splits |= dict(zip(("validation", "train"), _tenths("train", digests["train"], 1), strict=True))
    elif not names >= {"train", "validation", "test"} and not names >= {"trainA", "trainB", "testA", "testB"}:
        wanted = "train and test, or trainA, trainB, testA and testB"
        raise ValueError(f"the splits {', '.join(sorted(names))} are not enough: give {wanted}, or none at all")
    return splits


def _tenths(group: str, digests: np.ndarray, count: int) -> list[tuple[str, np.ndarray]]:
    """`count` times a tenth of the examples, at least one, and the rest; equal ones stay together."""
    order = np.argsort(digests, kind="stable")
    sorted_, parts, first = digests[order], [], 0
    for _ in range(count):
        last = first + max(1, len(order) // 10)
        while last < len(order) and sorted_[last] == sorted_[last - 1]:
            last += 1
        parts.append((group, order[first:last]))
        first = last
    if first >= len(order):
        raise ValueError(f"{len(order)} examples are too few: give at least {count + 1} different ones")
    return [*parts, (group, order[first:])]
