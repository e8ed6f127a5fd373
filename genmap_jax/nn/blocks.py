"""Blocks of deep networks: recomputed in the backward pass to save memory, or compiled once to save time."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def block(module: nn.Module, remat: bool, run: Callable, *args: Any) -> Any:
    """run(*args), a block of a network, inside the compact method of `module`.

    remat: the backward pass keeps the arguments of the block only and recomputes what is inside of it (Chen et al.
        2016, arXiv:1604.06174). Layers that `run` makes have the same names and initial parameters in both ways.
    args: arrays, or trees of them. What is no array, `run` takes from around it.
    """
    return nn.remat(lambda _, *args: run(*args))(module, *args) if remat else run(*args)


def through_equal(
    run: Callable[[Any, Any], tuple[Any, Any]], each: Sequence[Any], x: Any, remat: bool = False
) -> tuple[Any, Any]:
    """x through blocks that differ in their parameters alone, compiled once and looped over.

    run: (what a block has for itself, x) -> (x of the same shape, what else it puts out).
    each: of each block, a tree of arrays of the same shapes.
    remat: as `block` takes it.
    Returns x, and what the blocks put out, stacked.
    """
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    run = jax.checkpoint(run) if remat else run
    return jax.lax.scan(lambda x, own: run(own, x), x, stacked)
