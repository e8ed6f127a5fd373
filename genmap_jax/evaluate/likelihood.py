"""From the log-probabilities of batches to the number in a table, with its unit, its error and its kind."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
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
    """Standard error of `nats`: over examples, whose own Monte-Carlo noise is part of their spread, and of what they
    have in common."""
    bits_per_dim_stderr: float
    kind: str
    """What `nats` is of the true log-probability: "exact", "lower_bound", "upper_bound" or "estimate"."""
    n: int
    """Examples."""


@dataclasses.dataclass(frozen=True)
class LogProbs:
    """Log-probabilities of the examples of a data split: `LogProb`, over all batches and on the host."""

    nats: np.ndarray  # float64 [N]
    kind: str
    common_stderr: float = 0.0  # nats: of what all examples have in common
    upper: "LogProbs | None" = None


def log_probs(
    log_prob: Callable[[Any, Any, Key], LogProb],
    state: Any,
    batches: Iterable[Batch | Examples],
    key: Key,
) -> LogProbs:
    """The log-probability of every example.

    log_prob: compiled (state, batch, key) -> LogProb, as `Placement.map_examples(algorithm.log_prob)` makes it.
    state: what `Algorithm.prepare` made, if the family has it: what the batches have in common is then one error.
    batches: each example once. Batches of one size compile once; a smaller last one is counted right.
    key: batch i is evaluated under `fold_in(key, i)`.
    Raises ValueError if the batches differ in kind.
    """
    return joined(
        [jax.device_get(log_prob(state, batch, jax.random.fold_in(key, i))) for i, batch in enumerate(batches)]
    )


def joined(values: Sequence[LogProb]) -> LogProbs:
    """The log-probabilities of several batches as one. Raises ValueError if they differ in kind."""
    kinds = {value.kind for value in values}
    if len(kinds) > 1:
        raise ValueError(f"cannot average log-probabilities of different kinds: {sorted(kinds)}")
    nats = np.concatenate([np.zeros(0), *(value.nats for value in values)])
    common = max((float(value.common_stderr[0]) for value in values if value.common_stderr is not None), default=0.0)
    uppers = [value.upper for value in values if value.upper is not None]
    return LogProbs(nats, kinds.pop() if kinds else "", common, joined(uppers) if uppers else None)


def summary(nats: np.ndarray, kind: str, dims: float, common_stderr: float = 0.0) -> Likelihood:
    """Mean and standard error of log-probabilities [N] of one kind.

    dims: dimensions of one example, for text bytes on average: `Source.dims`.
    common_stderr: of what all of them have in common, nats; it is added in quadrature.
    Raises ValueError if there are fewer than two examples.
    """
    n = len(nats)
    if n < 2:
        raise ValueError(f"{n} example(s) to evaluate: a mean with a standard error needs at least 2")
    mean, stderr = float(nats.mean()), math.hypot(float(nats.std(ddof=1)) / math.sqrt(n), common_stderr)
    return Likelihood(mean, bits_per_dim(mean, dims), stderr, -bits_per_dim(stderr, dims), kind, n)
