"""Shapes asserted while tracing, with the argument's name in the message: what public functions do at their edge."""

from typing import Any

import chex
import jax.numpy as jnp


def expect(shape: tuple[int | None, ...], **arrays: Any) -> None:
    """Raises ValueError that names the argument, unless every array has this shape; None stands for any size.

    Costs nothing at run time: shapes are known while tracing. The first axis is the batch, so arrays given together
    must also agree in every size that is None.

        expect((None, *cfg.space.shape), x=x)
        expect((None,), sigma=sigma, label=label)
    """
    for name, array in arrays.items():
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        message = f"{name} has shape {jnp.shape(array)}, but ({wanted}) is needed"
        chex.assert_shape(
            array, shape, custom_message=message, include_default_message=False, exception_type=ValueError
        )
    message = f"{' and '.join(arrays)} must have the same shape, but have {[jnp.shape(x) for x in arrays.values()]}"
    chex.assert_equal_shape(list(arrays.values()), custom_message=message, exception_type=ValueError)
