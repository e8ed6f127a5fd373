"""Computing in bfloat16 with float32 parameters: to it and back, and products whose results are float32.

For the last, `preferred_element_type` alone is not enough: the cotangent of a float32 result is float32, and JAX then
multiplies it with a bfloat16 array in float32, at a fraction of the speed of tensor cores.
"""

from functools import partial

import jax
import jax.numpy as jnp

Array = jax.Array


def in_type(dtype: str, *arrays: Array) -> tuple[Array, ...]:
    """The arrays in bfloat16, if that is the dtype of a configuration; else as they are, which may be float64."""
    return tuple(x.astype(jnp.bfloat16) for x in arrays) if dtype == "bfloat16" else arrays


def widened(x: Array) -> Array:
    """What a network puts out, in float32 at least."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def einsum_float32(equation: str, a: Array, b: Array) -> Array:
    """`jnp.einsum` of two arrays, accumulated and returned in float32.

    equation: with an arrow, every letter of an array in the other one or in the result, none twice in one array.
    Gradients of bfloat16 arrays are products of bfloat16 arrays, accumulated in float32.
    """
    if a.dtype == b.dtype == jnp.float32:
        return jnp.einsum(equation, a, b)
    return _of_halves(equation, a, b)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _of_halves(equation: str, a: Array, b: Array) -> Array:
    return jnp.einsum(equation, a, b, preferred_element_type=jnp.float32)


def _forwards(equation: str, a: Array, b: Array):
    return _of_halves(equation, a, b), (a, b)


def _backwards(equation: str, arrays: tuple[Array, Array], slope: Array):
    (left, right), out = equation.split("->")[0].split(","), equation.split("->")[1]
    a, b = arrays
    slope = slope.astype(a.dtype)
    return (
        einsum_float32(f"{out},{right}->{left}", slope, b).astype(a.dtype),
        einsum_float32(f"{left},{out}->{right}", a, slope).astype(b.dtype),
    )


_of_halves.defvjp(_forwards, _backwards)
