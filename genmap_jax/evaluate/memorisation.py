"""Are samples copies of training examples? None of these numbers is reliable alone: read them together.

Held-out data are the reference: copies lie nearer to the training set than held-out data do.
"""

import numpy as np

from genmap_jax.evaluate.checks import checked
from genmap_jax.evaluate.distance import distances

LEAST = 20
"""Held-out and generated examples that a cell must hold: the rank sum is then normal to a few per cent."""


def c_t(*, train: np.ndarray, held_out: np.ndarray, generated: np.ndarray, cells: int = 1, seed: int = 0) -> float:
    """Data-copying z statistic C_T (Meehan et al. 2020): far below 0 for copies, far above 0 for underfitting.

    train, held_out, generated: features [N, ...], [H, ...], [M, ...]. In each cell of a k-means partition of the
    training set, the Mann-Whitney z of whether generated examples lie farther from their nearest training example in
    the cell than held-out ones do; then the mean over cells, weighted by held-out examples. Cells that are too small
    (`LEAST`) are left out. With one cell it is standard normal for fresh samples, and a share s of exact copies moves
    it by -s sqrt(3 H M / (H + M + 1)): -3.9 for 10 % of 1000. More cells make both smaller, but set apart samples that
    have the modes in wrong proportions, whose distances to the training set differ without any copying.
    Raises ValueError on NaN or infinity, feature dimensions that differ, fewer training examples than cells, or if no
    cell is large enough.
    """
    from scipy.stats import mannwhitneyu
    from sklearn.cluster import KMeans

    t, p, q = checked(1, train=train, held_out=held_out, generated=generated)
    if len(t) < cells:
        raise ValueError(f"train has {len(t)} examples for {cells} cells: give fewer cells")
    partition = KMeans(cells, n_init=1, random_state=seed).fit(t)
    t_cell, p_cell, q_cell = (partition.predict(x) for x in (t, p, q))
    scores, weights = [], []
    for cell in range(cells):
        inside, held, drawn = t[t_cell == cell], p[p_cell == cell], q[q_cell == cell]
        if min(len(held), len(drawn)) < LEAST:
            continue
        n, m = len(held), len(drawn)
        (_, held), (_, drawn) = _nearest(inside, held), _nearest(inside, drawn)
        farther = mannwhitneyu(drawn, held, method="asymptotic").statistic  # pairs with drawn > held, ties count half
        scores.append((farther - n * m / 2) / np.sqrt(n * m * (n + m + 1) / 12))
        weights.append(n)
    if not scores:
        raise ValueError(
            f"no cell holds {LEAST} held_out and {LEAST} generated examples: give fewer cells or more data"
        )
    return float(np.average(scores, weights=weights))


def authenticity(*, train: np.ndarray, generated: np.ndarray) -> np.ndarray:
    """Per generated example: is it farther from its nearest training example than that one is from the others?

    train [N, ...], generated [M, ...]: features -> bool [M] (Alaa et al. 2022); AuthPct is 100 times the mean. A copy
    of a training example that occurs twice is not authentic either. There is no fixed null: it depends on the
    distribution and its dimension, so report it beside `authenticity(train=train, generated=held_out)`.
    Raises ValueError on fewer than 2 training examples, NaN or infinity, or feature dimensions that differ.
    """
    (t,) = checked(2, train=train)
    t, y = checked(1, train=t, generated=generated)
    indices, apart = _nearest(t, y)
    _, spacing = _nearest(t, t, leave_self=True)
    return apart > spacing[indices]


def nearest(*, train: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of, and Euclidean distance to, the nearest training example of each generated one: int [M], float64 [M].

    train [N, ...], generated [M, ...]: features. Raises ValueError on NaN or infinity, or dimensions that differ.
    """
    return _nearest(*checked(1, train=train, generated=generated))


def copied(*, train: np.ndarray, generated: np.ndarray, window: int = 32) -> np.ndarray:
    """Per generated row, the fraction of its windows of tokens that occur verbatim within a row of the training set.

    train [N, T], generated [M, L]: integer tokens or bytes -> float64 [M]; the mean is the fraction over all windows.
    Memory grows with the generated windows only. Raises ValueError on non-integers or rows shorter than the window.
    """
    for name, rows in (("train", train), ("generated", generated)):
        if np.ndim(rows) != 2 or not np.issubdtype(np.asarray(rows).dtype, np.integer):
            raise ValueError(
                f"{name} has shape {np.shape(rows)} and type {np.asarray(rows).dtype}: give integers [N, L]"
            )
        if np.shape(rows)[1] < window:
            raise ValueError(
                f"{name} has rows of {np.shape(rows)[1]} tokens: give a window of at most that, not {window}"
            )
    drawn = [_windows(row, window) for row in generated]
    wanted = set().union(*drawn)
    found: set[bytes] = set()
    for row in train:
        found.update(wanted.intersection(_windows(row, window)))
    return np.array([np.mean([piece in found for piece in pieces]) for pieces in drawn])


def _windows(row: np.ndarray, window: int) -> list[bytes]:
    text = np.asarray(row, np.int32).tobytes()
    return [text[start : start + 4 * window] for start in range(0, len(text) - 4 * window + 1, 4)]


def _nearest(t: np.ndarray, y: np.ndarray, *, leave_self: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Nearest row of t [N, D] to each row of y [M, D], block by block; `leave_self` for y = t: the nearest other."""
    indices, nearest_by = [], []
    for rows, apart in distances(y, t):
        if leave_self:
            np.fill_diagonal(apart[:, rows.start :], np.inf)
        indices.append(apart.argmin(1))
        nearest_by.append(apart.min(1))
    return np.concatenate(indices), np.concatenate(nearest_by)
