"""From the log-probabilities of batches to the number in a table, with its unit, its error and its kind."""

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from genmap_jax.algorithm import Batch, Key, LogProb
from genmap_jax.data import Examples
from genmap_jax.units import bits_per_dim


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """Mean log-probability of a data split."""

    nats: float
    """Mean over examples of the log-probability, summed over dimensions."""
    bits_per_dim: float
    stderr: float
    """Standard error of `nats` over examples; their Monte-Carlo noise, independent, is part of their spread."""
    bits_per_dim_stderr: float
    kind: str
    """What `nats` is of the true log-probability: "exact", "lower_bound", "upper_bound" or "estimate"."""
    n: int
    """Examples."""


def log_probs(
    log_prob: Callable[[Any, Any, Key], LogProb],
    state: Any,
    batches: Iterable[Batch | Examples],
    key: Key,
) -> tuple[np.ndarray, str, np.ndarray | None]:
    """Every example's log-probability in nats, float64 [N]; their kind; and their upper bounds [N], if there are any.

    log_prob: compiled (state, batch, key) -> LogProb, as `Placement.map_examples(algorithm.log_prob)` makes it.
    batches: each example once. Batches of one size compile once; a smaller last one is counted right.
    key: batch i is evaluated under `fold_in(key, i)`.
    Raises ValueError if the batches differ in kind.
    """
    kinds, nats, uppers = set(), [np.zeros(0)], []
    for i, batch in enumerate(batches):
        value = log_prob(state, batch, jax.random.fold_in(key, i))
        kinds.add(value.kind)
        nats.append(np.asarray(value.nats, np.float64))
        if value.upper is not None:
            uppers.append(np.asarray(value.upper, np.float64))
    if len(kinds) > 1:
        raise ValueError(f"cannot average log-probabilities of different kinds: {sorted(kinds)}")
    return np.concatenate(nats), kinds.pop() if kinds else "", np.concatenate(uppers) if uppers else None


def summary(nats: np.ndarray, kind: str, dims: float) -> Likelihood:
    """Mean and standard error of log-probabilities [N] of one kind.

    dims: dimensions of one example, for text bytes on average: `Source.dims`.
    Raises ValueError if there are fewer than two examples.
    """
    n = len(nats)
    if n < 2:
        raise ValueError(f"{n} example(s) to evaluate: a mean with a standard error needs at least 2")
    mean, stderr = float(nats.mean()), float(nats.std(ddof=1) / math.sqrt(n))
    return Likelihood(mean, bits_per_dim(mean, dims), stderr, -bits_per_dim(stderr, dims), kind, n)
