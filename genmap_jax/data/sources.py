"""A split of a dataset by random access, and batches of it as a function of (seed, step): `Source`, `batch`, `pair`."""

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from genmap_jax.data.text import Tokenizer

if TYPE_CHECKING:  # jax is heavy: `genmap prepare` does without
    from genmap_jax.data.toy import Density
    from genmap_jax.spaces import Space

Examples = dict[str, np.ndarray]
"""Rows of a split as a batch holds them, on the host: what `Source.take` gives."""
SHUFFLED = 2**24  # examples; beyond it the permutation of an epoch is no longer small, see `batch`


@dataclasses.dataclass(frozen=True)
class Source:
    """One split of a dataset, by random access.

    spaces: what a batch holds, by name: the example first ("image", "tokens" or "x"), then what comes with it, such as
        {"image": images(8, 8, 1, 17), "label": labels(10)}.
    take: rows [B] -> {"image": uint8 [B,H,W,C], "label": int32 [B]} (no label where there is none),
        {"tokens": int32 [B, L]} for text (and "segments", see `load`), {"x": float32 [B, D]} for vectors.
    tokenizer: of text, None for other data.
    bytes_per_token: of text, over the whole split.
    lossless: whether the tokens spell the text of the split exactly.
    density: the law that points of toy data are drawn from, None for other data.
    domains: of a pair of domains its two sets, each drawn on its own; see `pair`.
    aligned: of a pair of domains, whether each image is the true translation of the source beside it in `take`.
    """

    name: str
    split: str
    size: int
    spaces: dict[str, "Space"]
    take: Callable[[np.ndarray], Examples] = dataclasses.field(repr=False)
    tokenizer: Tokenizer | None = None
    bytes_per_token: float = 1.0
    lossless: bool = True
    density: "Density | None" = dataclasses.field(default=None, repr=False)
    domains: tuple["Source", ...] = dataclasses.field(default=(), repr=False)
    aligned: bool = False

    @property
    def field(self) -> str:
        """What an example is called in a batch: "image", "tokens" or "x"."""
        return next(iter(self.spaces))

    @property
    def space(self) -> "Space":
        """The space of an example."""
        return self.spaces[self.field]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an example: (H, W, C), (L,) or (D,)."""
        return self.space.shape

    @property
    def levels(self) -> int | None:
        """Grey values of an image, so pixels are 0..levels-1; the vocabulary of text; None for vectors."""
        return self.space.levels

    @property
    def classes(self) -> int | None:
        """The number of labels, None without labels."""
        return self.spaces["label"].levels if "label" in self.spaces else None

    @property
    def dims(self) -> float:
        """What bits per dimension are divided by: the numbers of an example; for text its mean length in bytes."""
        return self.space.dims * self.bytes_per_token

    def kind(self, kind: str) -> str:
        """What the log-probability of an example, as a batch holds it, is of the data: see `text`."""
        if not self.lossless:
            return "estimate"
        ambiguous = self.tokenizer is not None and not self.tokenizer.unique
        return "lower_bound" if ambiguous and kind == "exact" else kind

    def spaced(self, count: int) -> np.ndarray:
        """At most `count` rows, evenly spaced over the split. int64 [min(size, count)]"""
        return np.linspace(0, self.size - 1, min(self.size, count)).round().astype(np.int64)


# ---- batches ---------------------------------------------------------------------------------------------------------


def batch(
    source: Source, seed: int, step: int, batch_size: int, process_index: int = 0, process_count: int = 1
) -> Examples:
    """This process's rows of global batch `step`: a function of (seed, step) and nothing else.

    The examples come as one endless stream, a fresh permutation per epoch after another, cut into batches: none is
    dropped or repeated where an epoch ends inside a batch. Process p has the contiguous rows p B / P ... (p + 1) B / P.
    Sources of more than 2^24 examples (windows of a long text) are drawn independently instead, with replacement.
    The two sets of a pair of domains have permutations and epochs of their own.
    Raises ValueError if the processes cannot share the batch evenly.
    """
    if batch_size % process_count:
        raise ValueError(f"batch_size={batch_size} does not divide over {process_count} processes")
    count = batch_size // process_count
    mine = slice(process_index * count, (process_index + 1) * count)
    parts = [
        each.take(_rows(each.size, seed, step, batch_size, mine, stream))
        for stream, each in enumerate(source.domains or (source,))
    ]
    return {field: array for part in parts for field, array in part.items()}


def _rows(size: int, seed: int, step: int, batch_size: int, mine: slice, stream: int) -> np.ndarray:
    """The rows of a set of `size` examples in part `mine` of global batch `step`; streams are independent."""
    if size > SHUFFLED:
        return np.random.default_rng([seed, step, stream]).integers(size, size=batch_size)[mine]
    epoch, place = np.divmod(step * batch_size + np.arange(mine.start, mine.stop), size)
    rows = np.empty(len(place), np.int64)
    for e in np.unique(epoch):
        rows[epoch == e] = _permutation(size, seed, int(e), stream)[place[epoch == e]]
    return rows


@functools.lru_cache(maxsize=16)  # the seeds of an ablation run side by side
def _permutation(size: int, seed: int, epoch: int, stream: int) -> np.ndarray:
    # A trailing zero does not change the seed: stream 0 is that of a set alone.
    return np.random.default_rng([seed, epoch, stream]).permutation(np.arange(size, dtype=np.int32))


# ---- pairs of domains ------------------------------------------------------------------------------------------------


def pair(name: str, split: str, source: Source, target: Source, aligned: bool = False) -> Source:
    """Two sets of images in one batch: "image" from `target`, "source" from `source`.

    `batch` draws them independently: each set has its own permutations, and each of its epochs is complete. `take`
    gives a fixed pairing for evaluation: row i of the larger set beside the row of the smaller one that is as far along
    (row i of both where they are equally large), so evenly spaced rows cover both. Labels are left out.
    aligned: the images of row i of both sets are known to be translations of each other.
    Raises ValueError unless both are images, and equally many where they are aligned.
    """
    for each in (source, target):
        if not each.space.image:
            raise ValueError(f"{name} pairs images, but {each.name} holds {each.space.text and 'text' or 'vectors'}")
    size = max(source.size, target.size)
    if aligned and source.size != target.size:
        raise ValueError(f"{name}: {source.size} sources and {target.size} images cannot be pairs")
    domains = (_domain("image", target), _domain("source", source))

    def take(rows):
        parts = [each.take(_along(rows, size, each.size)) for each in domains]
        return {field: array for part in parts for field, array in part.items()}

    spaces = {"image": target.space, "source": source.space}
    return Source(name, split, size, spaces, take, domains=domains, aligned=aligned)


def together(name: str, pairs: Source) -> Source:
    """The same pair of domains, of which a `batch` holds each image beside its own source.

    Raises ValueError unless which belong together is known.
    """
    if not pairs.aligned:
        raise ValueError(f"{name}: which images of {pairs.name} belong together is not known; leave aligned/ out")
    return dataclasses.replace(pairs, name=name, domains=())


def _domain(field: str, source: Source) -> Source:
    """The images of a set alone, under another name."""
    take = lambda rows: {field: source.take(rows)[source.field]}  # noqa: E731
    return dataclasses.replace(source, spaces={field: source.space}, take=take)


def _along(rows: np.ndarray, size: int, own: int) -> np.ndarray:
    """Rows of `size` -> those of `own` that are as far along; the first and last correspond."""
    return np.round(np.asarray(rows) * ((own - 1) / max(size - 1, 1))).astype(np.int64)
