"""A loop that also returns evenly spaced states: an iterative sampler and the way it took."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def loop_frames(body: Callable[[jax.Array, Any], Any], x: Any, steps: int, frames: int) -> Any:
    """x after steps / frames, 2 steps / frames, ..., steps calls of `body(i, x)`, stacked: [frames, ...].

    The last frame is `jax.lax.fori_loop(0, steps, body, x)`. Memory holds the frames, not the steps.
    """
    stops = np.rint(np.linspace(0, steps, frames + 1)).astype(np.int32)

    def chunk(x, ends):
        x = jax.lax.fori_loop(ends[0], ends[1], body, x)
        return x, x

    return jax.lax.scan(chunk, x, np.stack([stops[:-1], stops[1:]], axis=1))[1]
