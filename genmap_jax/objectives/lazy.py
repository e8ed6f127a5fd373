"""Lazy terms: a costly term of a loss, such as a gradient penalty, at every n-th step only, n times as heavy.

The mean gradient over n steps stays the same (Karras et al. 2020, https://arxiv.org/abs/1912.04958, appendix B). The
term can share the optimizer step of the loss (`every`), or have an optimizer step of its own, as in StyleGAN2
(`own_step`), whose constants then have to be `corrected`.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from genmap_jax.algorithm import Array, Params, player
from genmap_jax.optim import Optim


def every(interval: int, step: Array | int, terms: Callable[[], dict[str, Array]]) -> dict[str, Array]:
    """`interval` times the terms at every `interval`-th step, else zeros of the same shapes."""
    if interval == 1:
        return terms()
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(terms))
    scaled = lambda: jax.tree.map(lambda x: interval * x, terms())  # noqa: E731
    return jax.lax.cond(step % interval == 0, scaled, lambda: zeros)


def own_step(
    interval: int,
    step: Array | int,
    loss: Callable,
    params: Params,
    opt_state: optax.OptState,
    tx: optax.GradientTransformation,
    axis_name: str | None,
    examples: tuple = (),
    accumulate: int = 1,
):
    """`algorithm.player` with `interval` times the loss at every `interval`-th step; in the others nothing changes.

    loss: (params, *examples) -> (scalar, aux), as `player` takes it.
    Returns (params, opt_state, loss, aux), loss and aux without the factor, and 0 in the other steps.
    """

    def scaled(params: Params, *examples):
        value, aux = loss(params, *examples)
        return interval * value, aux

    def update():
        new, opt, value, aux = player(scaled, params, opt_state, tx, axis_name, examples, accumulate)
        return new, opt, value / interval, aux

    def skip():
        *_, value, aux = jax.eval_shape(update)
        return params, opt_state, *jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (value, aux))

    return jax.lax.cond(step % interval == 0, update, skip)


def corrected(optim: Optim, interval: int) -> Optim:
    """Adam for `interval` steps of the loss and one `own_step` of its penalty, in place of `interval` steps of both.

    The learning rate times c and both decay rates to the power c, c = interval / (interval + 1), so that the average
    speed and memory stay the same (Karras et al. 2020, appendix B).
    """
    c = interval / (interval + 1)
    return dataclasses.replace(optim, lr=c * optim.lr, b1=optim.b1**c, b2=optim.b2**c)
