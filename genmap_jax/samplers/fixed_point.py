"""Iteration to a fixed point: all parts of an example at once from a guess, again until nothing changes any more."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Array = jax.Array


def iterate(step: Callable[[Array], Array], start: Array, most: int, tolerance: float = 0.0) -> tuple[Array, Array]:
    """Iterate x <- step(x) until no entry moves by more than `tolerance`, at most `most` times. (x, iterations made)

    Where part i of step(x) depends on the parts of x before it alone, it is right after i + 1 iterations, whatever the
    start (Song et al. 2021, arXiv:2002.03629: Jacobi iteration); often far fewer are enough. An example with NaN does
    not end the iteration of the others.
    """

    def unfinished(carry):
        _, moved, made = carry
        return ~(moved <= tolerance) & (made < most)  # NaN is not "no more than"

    def again(carry):
        x, _, made = carry
        new = step(x)
        return new, jnp.max(jnp.abs(new - x)), made + 1

    moved, made = jnp.full((), jnp.inf, start.dtype), jnp.zeros((), jnp.int32)
    x, _, made = jax.lax.while_loop(unfinished, again, (start, moved, made))
    return x, made
