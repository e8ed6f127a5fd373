"""Adaptive discriminator augmentation (ADA): the probability of augmentation follows how sure D is of real images.

Karras et al. 2020 (https://arxiv.org/abs/2006.06676), section 3.1. The transforms are in `nn.augment`.
"""

import flax.struct
import jax.numpy as jnp

from genmap_jax.algorithm import Array

EVERY = 4  # updates between two adjustments


@flax.struct.dataclass
class State:
    """What the control remembers. p: probability of a transform. signs: sum of `statistic` since p was adjusted."""

    p: Array
    signs: Array


def start() -> State:
    """No augmentation yet."""
    return State(p=jnp.zeros(()), signs=jnp.zeros(()))


def statistic(logit_real: Array, logit_fake: Array | float = 0.0) -> Array:
    """The sign of D(real), [B]; overfitting drives its mean to 1.

    The relativistic loss knows D only up to a constant: with logit_fake, it is the sign of D(real) - D(generated).
    """
    return jnp.sign(logit_real - logit_fake)


def adjust(state: State, sign: Array | float, step: Array, batch: int, target: float, ramp: int) -> State:
    """The control after update number `step`, counted from 1. At every fourth, p goes up if D is too sure, else down.

    sign: mean of `statistic` over this update. target: of that mean (0.6 in the paper). ramp: number of examples in
    which p can go from 0 to 1 (500,000). batch: global number of examples in an update.
    """
    signs = state.signs + sign
    due = step % EVERY == 0
    moved = jnp.clip(state.p + jnp.sign(signs / EVERY - target) * (EVERY * batch / ramp), 0.0, 1.0)
    return State(p=jnp.where(due, moved, state.p), signs=jnp.where(due, 0.0, signs))
