"""Rotary position embeddings (RoPE), and ways to read further than a model was trained.

Su et al. 2021 (https://arxiv.org/abs/2104.09864): queries and keys are rotated by angles proportional to their
positions, so that their products depend on the distance alone. A head of size d has d / 2 planes, of the coordinates i
and i + d / 2; plane i turns by `frequencies`[i] per position.

Distances beyond those of the training are angles that no weight has seen. `Scaling` changes the angles; dual chunk
attention (`chunked_distances`) never presents such a distance.
"""

import dataclasses
import math
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np

from genmap_jax.options import Natural, Positive, Range, check_options

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Scaling:
    """How the angles of a model trained at length `original` are stretched to `factor` times as many positions."""

    kind: Literal["none", "linear", "ntk", "yarn", "llama3"] = "none"
    """The method of stretching. "linear" divides positions by the factor (Chen et al. 2023,
    https://arxiv.org/abs/2306.15595). "ntk" takes a larger base, so that the fastest plane stays and the slowest is
    stretched by the factor ("NTK-aware", Peng et al. 2023, section 3.1). "yarn" keeps the planes that turn often within
    `original`, stretches those that turn less than once, with a ramp between, and sharpens the attention (Peng et al.
    2023, https://arxiv.org/abs/2309.00071, sections 3.2 to 3.4). "llama3" does so with a ramp in the number of turns,
    and without sharpening (Llama 3.1; Grattafiori et al. 2024, https://arxiv.org/abs/2407.21783). "none" changes
    nothing."""
    factor: Annotated[float, Range(1)] = 1.0
    """The stretched model reads this many times as many positions."""
    original: Natural = 0
    """With yarn and llama3, the model was trained at this many positions."""
    fast: Positive = 32.0
    """With yarn and llama3, a plane that makes more than this many full turns within `original` stays (YaRN's beta: 32;
    Llama 3.1's high_freq_factor: 4)."""
    slow: Positive = 1.0
    """With yarn and llama3, a plane that makes fewer than this many full turns within `original` is stretched by the
    whole factor (YaRN's alpha and Llama 3.1's low_freq_factor: 1)."""


def check(scaling: Scaling) -> None:
    """Raise ValueError that names the field of a scaling that cannot work."""
    check_options(scaling, "scaling.")
    if scaling.kind in ("yarn", "llama3"):
        if scaling.original < 1:
            raise ValueError(f"scaling.original={scaling.original}: {scaling.kind} needs the length of the training")
        if scaling.slow >= scaling.fast:
            raise ValueError(f"scaling.slow={scaling.slow}: give less than scaling.fast={scaling.fast}")


def frequencies(d: int, theta: float, scaling: Scaling = Scaling()) -> np.ndarray:
    """Radians per position of each plane, float64 [d / 2]: theta^(-2 i / d), scaled."""
    exponent = np.arange(0, d, 2) / d
    base = theta**-exponent
    if scaling.kind == "linear":
        return base / scaling.factor
    if scaling.kind == "ntk":
        return (theta * scaling.factor ** (d / (d - 2))) ** -exponent
    if scaling.kind == "yarn":
        # The plane that makes `turns` turns within the original length; fractional.
        plane = lambda turns: d * math.log(scaling.original / (turns * 2 * math.pi)) / (2 * math.log(theta))  # noqa: E731
        low, high = max(math.floor(plane(scaling.fast)), 0), min(math.ceil(plane(scaling.slow)), d - 1)
        stretched = np.clip((np.arange(d // 2) - low) / max(high - low, 1e-3), 0, 1)
        return stretched * base / scaling.factor + (1 - stretched) * base
    if scaling.kind == "llama3":
        turns = scaling.original * base / (2 * math.pi)
        stays = np.clip((turns - scaling.slow) / (scaling.fast - scaling.slow), 0, 1)
        return (1 - stays) * base / scaling.factor + stays * base
    return base


def sharpness(scaling: Scaling) -> float:
    """Factor on queries and on keys: 0.1 ln(factor) + 1 for yarn (eq. 22), else 1."""
    return 0.1 * math.log(scaling.factor) + 1.0 if scaling.kind == "yarn" and scaling.factor > 1 else 1.0


def rotate(x: Array, positions: Array, theta: float, scaling: Scaling = Scaling()) -> Array:
    """Rotate queries or keys [..., T, d] by their positions, int [T] or anything that broadcasts to [..., T].

    Angles and rotation are float32, whatever the dtype of x.
    """
    positions = positions.reshape((1,) * (x.ndim - 1 - positions.ndim) + positions.shape + (1,))
    radians = frequencies(x.shape[-1], theta, scaling).reshape((1,) * (x.ndim - 1) + (-1,))
    angles = positions.astype(jnp.float32) * jnp.asarray(radians, jnp.float32)
    cos, sin = jnp.cos(angles) * sharpness(scaling), jnp.sin(angles) * sharpness(scaling)
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


# ---- dual chunk attention --------------------------------------------------------------------------------------------
# An et al. 2024, https://arxiv.org/abs/2402.17463. Text is cut into chunks of s positions. A key is rotated by its
# position within its chunk, always. A query is rotated by one of three positions, which depends on where the key is: in
# the query's own chunk, in the one before, or earlier. With a window of c trained positions, s < c:


def chunk_positions(positions: Array, chunk: int, window: int) -> tuple[Array, Array, Array, Array]:
    """(keys, queries to the same chunk, to the chunk before, to all earlier ones). Same shape as `positions`."""
    within = positions % chunk
    before = jnp.minimum(within + chunk, window - 1)  # exact for the first c - s positions, then as far as is trained
    return within, within, before, jnp.full_like(within, window - 1)


def chunks_apart(queries: Array, keys: Array, chunk: int) -> Array:
    """How many chunks lie between a query's position and a key's: 0, 1, or 2 and more, which are treated alike."""
    return queries // chunk - keys // chunk


def chunked_distances(length: int, chunk: int, window: int) -> np.ndarray:
    """The relative positions [length, length] that dual chunk attention presents to RoPE, of query i and key j <= i."""
    at = jnp.arange(length)
    keys, *queries = chunk_positions(at, chunk, window)
    apart = jnp.clip(chunks_apart(at[:, None], at[None, :], chunk), 0, 2)
    return np.asarray(jnp.select([apart == k for k in range(3)], [q[:, None] - keys[None, :] for q in queries]))
