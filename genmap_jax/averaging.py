"""Post-hoc EMA: how long to average the parameters, decided after training.

Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models" (arXiv:2312.02696), section 3
and appendix C. An average after t updates weighs the parameters of update i in proportion to i^gamma: it forgets at a
rate that is a share of t, its *width*, the standard deviation of the weights over t. Snapshots of two such averages,
taken while training, combine to nearly any other width.

    tracked = power_update(tracked, params, updates, widths)            in the train step
    weights = combination(widths, snapshots, wanted)                    afterwards, least squares

Differs from the paper: nothing. Counted in updates, not in images: the weights are the same.
"""

import jax
import jax.numpy as jnp
import numpy as np

from genmap_jax.algorithm import Array, Params

WIDEST = 1.0 / np.sqrt(12.0)
"""Width of the plain mean of all parameters, gamma = 0."""

TOLERANCE = 0.1
"""By so much, as a share of its norm, a profile put together after training may differ from the wanted one."""


def exponent(width: float) -> float:
    """gamma of a width in (0, 0.288], eq. 16: width^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)).

    Raises ValueError for widths outside.
    """
    if not 0.0 < width <= WIDEST:
        raise ValueError(f"width={width}: a share of the run, above 0 and at most {WIDEST:.3f} (the plain mean)")
    square = width**-2.0
    return float(np.roots([1.0, 7.0, 16.0 - square, 12.0 - square]).real.max())


def power_update(tracked: tuple[Params, ...], params: Params, updates: Array, widths: tuple[float, ...]):
    """The averages of each width, after `updates` updates, the last of which made `params`. The first is `params`."""

    def one(average, width):
        keep = jnp.exp((exponent(width) + 1.0) * jnp.log1p(-1.0 / updates))
        return jax.tree.map(lambda a, p: p + keep.astype(p.dtype) * (a - p), average, params)

    return tuple(one(average, width) for average, width in zip(tracked, widths, strict=True))


def combination(widths: tuple[float, ...], snapshots: list[int], width: float) -> np.ndarray:
    """Weights [snapshots, widths] with which averages of `widths`, seen at those updates, sum to that of `width` at the
    last of them. Float64, and their sum is 1.

    Least squares between profiles, the densities of weight over updates (algorithm 3): exact for a width that is there.
    Raises ValueError if the profile that the weights make misses the wanted one by more than `TOLERANCE` of its norm.
    """
    held = [(exponent(w), t) for t in snapshots for w in widths]
    wanted = (exponent(width), max(snapshots))
    gram = np.array([[_overlap(a, b) for b in held] for a in held])
    right = np.array([_overlap(a, wanted) for a in held])
    norm = np.sqrt(np.diag(gram))  # profiles of early snapshots are narrow and tall: measure all by their own size
    weights = np.linalg.lstsq(gram / np.outer(norm, norm), right / norm, rcond=1e-15)[0] / norm
    weights /= weights.sum()  # every profile integrates to 1, and so must their sum
    squares = weights @ gram @ weights - 2.0 * weights @ right + _overlap(wanted, wanted)
    missed = np.sqrt(max(squares, 0.0) / _overlap(wanted, wanted))
    if not missed <= TOLERANCE:  # or it is NaN
        raise ValueError(
            f"width={width}: the averages of widths {widths} at {len(snapshots)} snapshots miss its profile by "
            f"{100 * missed:.0f} %; ask for a width nearer to theirs, or keep more snapshots of the run"
        )
    return weights.reshape(len(snapshots), len(widths))


def _overlap(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Integral of the product of two profiles (gamma + 1) i^gamma / t^(gamma + 1) on [0, t], in logarithms."""
    (g, t), (h, s) = a, b
    logs = (g + h + 1.0) * np.log(min(t, s)) - (g + 1.0) * np.log(t) - (h + 1.0) * np.log(s)
    return (g + 1.0) * (h + 1.0) / (g + h + 1.0) * np.exp(logs)
