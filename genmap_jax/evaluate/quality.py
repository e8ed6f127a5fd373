"""Sample quality as a table of numbers, each with its interval and with what real data score in its place.

Everything here compares feature vectors, whatever they are features of. Three sets take part, all of one size N, since
most of these numbers are biased in N: *generated* samples, a *reference* half of the held-out data, and random halves
of the held-out data, which stand in for a perfect model: the **null floor**. A value within the spread of its null
floor cannot be told from perfect at this N.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from genmap_jax.evaluate import diversity, frechet, kernel, manifold, memorisation
from genmap_jax.evaluate.distance import energy_distance
from genmap_jax.evaluate.resampling import bootstrap, halves, jackknife, null_floor, proportion

SUSPICIOUS = -3.0
"""C_T below this is not chance."""


@dataclasses.dataclass(frozen=True)
class Number:
    """One measured number and what is needed to read it."""

    value: float
    low: float | None = None
    high: float | None = None
    """95 % interval, for the mean of many repetitions with as many examples; None where there is none."""
    null: float | None = None
    null_sd: float | None = None
    """Mean and standard deviation of the same number with real data in the place of the generated, at the same N."""
    n: tuple[int, int] = (0, 0)
    """Real (or training) and generated examples."""
    better: str = "lower"
    """"lower", "higher", or "null": the nearer to the null floor the better."""
    seed: int = 0
    """Of the choice of halves and of the resampling."""


def distances(*, held_out: np.ndarray, generated: np.ndarray, name: str, seed: int = 0) -> dict[str, Number]:
    """Fréchet and kernel distance between features [R, d], [M, d]. `name`: of the extractor, part of every name."""
    compare = _comparison(held_out, generated, seed)
    return {
        f"FD-{name}": compare(frechet.frechet_distance, "lower", distance=True),
        f"KD-{name}": compare(lambda **sets: kernel.kernel_distance(**sets).value, "lower", distance=True),
    }


def directions(*, held_out: np.ndarray, generated: np.ndarray, name: str, seed: int = 0) -> dict[str, Number]:
    """CMMD and Vendi score, which look at the directions of feature vectors [R, d], [M, d] alone."""
    compare = _comparison(_unit(held_out), _unit(generated), seed)
    return {
        f"CMMD-{name}": compare(lambda **sets: kernel.cmmd(**sets).value, "lower", distance=True),
        f"Vendi-{name}": compare(lambda real, generated: diversity.vendi_score(generated), "null"),
    }


def neighbours(*, held_out: np.ndarray, generated: np.ndarray, name: str, seed: int = 0) -> dict[str, Number]:
    """Precision, recall, density and coverage of features [R, d], [M, d], with k = 5."""
    real, _, generated = _halves(held_out, generated, seed)
    n, numbers = len(real), {}
    terms = manifold.prdc(real=real, generated=generated)
    fields = ("precision", "recall", "density", "coverage")
    means = lambda **sets: np.array([getattr(manifold.prdc(**sets), f).mean() for f in fields])  # noqa: E731
    lows, highs = halves(lambda x, y: means(real=x, generated=y), real, generated, seed=seed)
    null, null_sd = null_floor(means, held_out, n=n, seed=seed)
    for i, field in enumerate(fields):
        each, low, high, better = getattr(terms, field), float(lows[i]), float(highs[i]), "null"
        if field != "density":  # a share: halves may all have 0 or 1 of it
            least, most = proportion(each)
            low, high, better = max(min(low, least), 0.0), min(max(high, most), 1.0), "higher"
        value = float(each.mean())
        numbers[f"{field}-{name}"] = Number(value, low, high, float(null[i]), float(null_sd[i]), (n, n), better, seed)
    return numbers


def class_score(*, held_out: np.ndarray, generated: np.ndarray, name: str, seed: int = 0) -> dict[str, Number]:
    """The Inception-style score of class probabilities [R, K], [M, K]."""
    compare = _comparison(held_out, generated, seed)
    return {f"IS-{name}": compare(lambda real, generated: diversity.inception_score(generated), "higher")}


def class_balance(*, held_out: np.ndarray, generated: np.ndarray, name: str, seed: int = 0) -> dict[str, Number]:
    """Total variation between the shares of classes, each example in its likeliest: of probabilities [R, K], [M, K]."""
    shares = lambda p: np.bincount(p.argmax(1), minlength=p.shape[1]) / len(p)  # noqa: E731
    variation = lambda real, generated: 0.5 * float(np.abs(shares(real) - shares(generated)).sum())  # noqa: E731
    return {f"TV-{name}": _comparison(held_out, generated, seed)(variation, "lower")}


def energy(*, held_out: np.ndarray, generated: np.ndarray, seed: int = 0) -> dict[str, Number]:
    """Energy distance in the space of the data themselves, which needs no extractor. [R, ...], [M, ...]"""
    compare = _comparison(held_out.reshape(len(held_out), -1), generated.reshape(len(generated), -1), seed)
    return {"energy": compare(lambda **sets: energy_distance(**sets).value, "lower", distance=True)}


def memorised(
    *, train: np.ndarray, held_out: np.ndarray, generated: np.ndarray, seed: int = 0
) -> tuple[dict[str, Number], bool, str]:
    """Are generated examples nearer to the training data than held-out examples are? [T, d], [R, d], [M, d].

    Returns the numbers, the verdict and its reason. The verdict is yes if *both* tests say so: C_T below -3, and a
    share of authentic samples below that of held-out data by three standard errors; each alone also fires on samples
    that are merely too typical.
    """
    half, rest, _ = _halves(held_out, generated, seed)
    z = memorisation.c_t(train=train, held_out=held_out, generated=generated, seed=seed)
    null_z = memorisation.c_t(train=train, held_out=half, generated=rest, seed=seed)
    authentic = 100.0 * memorisation.authenticity(train=train, generated=generated)
    fresh = 100.0 * memorisation.authenticity(train=train, generated=held_out)
    low, high = (100.0 * end for end in proportion(authentic > 0))
    percent, floor = float(authentic.mean()), float(fresh.mean())
    error = np.hypot(*(x.std(ddof=1) / np.sqrt(len(x)) for x in (authentic, fresh)))
    numbers = {
        "C_T": Number(z, None, None, null_z, None, (len(train), len(generated)), "null", seed),
        "AuthPct": Number(
            percent,
            low,
            high,
            floor,
            float(fresh.std(ddof=1) / np.sqrt(len(fresh))),
            (len(train), len(generated)),
            "null",
            seed,
        ),
    }
    verdict = z < SUSPICIOUS and percent < floor - 3.0 * error
    return numbers, bool(verdict), f"C_T z = {z:.1f}; AuthPct {percent:.0f} where held-out data have {floor:.0f}"


def _halves(held_out: np.ndarray, generated: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The reference half of the held-out data, others of them, and samples: N = min(R // 2, M) of each."""
    n = min(len(held_out) // 2, len(generated))
    order = np.random.default_rng(seed).permutation(len(held_out))
    return held_out[order[:n]], held_out[order[n : 2 * n]], generated[:n]


def _comparison(held_out: np.ndarray, generated: np.ndarray, seed: int) -> Callable[..., Number]:
    """(statistic(real=, generated=) -> float, better, whether it is a squared distance) -> its Number on these sets."""
    real, _, generated = _halves(held_out, generated, seed)
    n = len(real)

    def compare(statistic: Callable[..., float], better: str, distance: bool = False) -> Number:
        both = lambda x, y: statistic(real=x, generated=y)  # noqa: E731
        null, null_sd = null_floor(statistic, held_out, n=n, seed=seed)
        if distance:
            low, high = jackknife(both, real, generated, null_sd=float(null_sd))
        else:
            low, high = bootstrap(both, real, generated, seed=seed)
        return Number(float(both(real, generated)), low, high, float(null), float(null_sd), (n, n), better, seed)

    return compare


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
