"""How true translated images are: to the truth where it is known, and to their source after the way back.

Errors are mean absolute differences of grey values, as percent of the range from black to white.
"""

import numpy as np

from genmap_jax.evaluate.quality import Number
from genmap_jax.evaluate.resampling import bootstrap, proportion


def errors(x: np.ndarray, y: np.ndarray, levels: int) -> np.ndarray:
    """The error of each image, in percent. Two sets [N, H, W, C] of grey values 0..levels-1 -> [N]"""
    difference = np.abs(x.astype(np.float64) - y.astype(np.float64))
    return 100.0 * difference.reshape(len(x), -1).mean(1) / (levels - 1)


def to_truth(
    *, translated: np.ndarray, truth: np.ndarray, levels: int, seed: int = 0, way: str = ""
) -> dict[str, Number]:
    """Error to the known truth, and how many translations are inverted: nearer to the negative of their truth than to
    it, which is how unpaired training fails. [N, H, W, C] each. `way`: what the names say of the direction."""
    error, negative = errors(translated, truth, levels), errors(translated, levels - 1 - truth.astype(np.int64), levels)
    inverted = negative < error
    low, high = (100.0 * end for end in proportion(inverted.astype(np.float64)))
    n = (len(truth), len(translated))
    return {
        f"error to truth{way}, %": _mean(error, n, seed),
        f"inverted{way}, %": Number(100.0 * float(inverted.mean()), low, high, n=n, seed=seed),
    }


def of_nothing(*, source: np.ndarray, truth: np.ndarray, levels: int, seed: int = 0) -> dict[str, Number]:
    """Error of sources to their truth, [N, H, W, C]: what is to be improved on, in either direction."""
    return {"error untranslated, %": _mean(errors(source, truth, levels), (len(truth), len(source)), seed)}


def of_cycle(*, source: np.ndarray, returned: np.ndarray, levels: int, seed: int = 0) -> dict[str, Number]:
    """Error of sources that were translated and back, [N, H, W, C]; no truth is needed."""
    return {"cycle error, %": _mean(errors(source, returned, levels), (len(source), len(returned)), seed)}


def _mean(each: np.ndarray, n: tuple[int, int], seed: int) -> Number:
    low, high = bootstrap(np.mean, each, seed=seed)
    return Number(float(each.mean()), low, high, n=n, seed=seed)
