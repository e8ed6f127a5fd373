"""What public functions check at their edge: shapes while tracing, values where they are known."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np


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


def known_within(values: Any, levels: int) -> bool:
    """Whether all values are among 0..levels-1. Values that are not known yet, while tracing, pass.

    A lookup takes an index past the end for the last, and a negative one for one from the end: it must not see them.
    """
    if isinstance(values, jax.core.Tracer) or not np.size(values):
        return True
    values = np.asarray(values)  # within a compiled function even jax.numpy of known values would be traced
    return bool(0 <= np.min(values) and np.max(values) < levels)


def expect_label(label: Any, batch: int | None, classes: int | None, none: bool = False) -> None:
    """Raises ValueError, unless labels are integers [batch] in 0..classes-1 and come exactly with a conditional model.

    batch: the number of examples; None for any.
    classes: of the model, None for an unconditional one, which takes no labels.
    none: whether the number `classes` is allowed too, as the label that stands for "none".
    """
    if label is None and classes is None:
        return
    if classes is None:
        raise ValueError("label must be None: this model is unconditional; give no labels, or set classes")
    if label is None:
        raise ValueError(f"this model is conditional, classes={classes}: give a label for each example")
    expect((batch,), label=label)
    if not jnp.issubdtype(jnp.result_type(label), jnp.integer):
        raise ValueError(f"label is {jnp.result_type(label)}: give integers, 0..{classes - 1 + none}")
    if not known_within(label, classes + none):
        raise ValueError(f"label holds values outside 0..{classes - 1 + none}, the classes={classes} of this model")
