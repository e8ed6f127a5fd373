"""Adversarial losses on logits and the gradient penalties that make them converge. Per example, [B], no reduction.

A loss is a pair (discriminator's, generator's), both to be minimised, both of `(real, fake)`: the logits D(x) and
D(G(z)) of the i-th real and the i-th generated example. With p the data and q the generator's density, the best D is

    minimax, nonsaturating   log p/q                 Goodfellow et al. 2014 (arXiv:1406.2661), prop. 1
    hinge                    sign(p - q)             Lim & Ye 2017 (arXiv:1705.02894)
    least_squares            p / (p + q)             Mao et al. 2017 (arXiv:1611.04076), targets 0 and 1
    wasserstein              none without a penalty  Arjovsky et al. 2017 (arXiv:1701.07875), eq. 2
    relativistic             log p/q + constant      Jolicoeur-Martineau 2019 (arXiv:1807.00734), RpGAN; R3GAN's loss

which tests/test_gan.py checks on two Gaussians.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

Array = jax.Array
Critic = Callable[[Array], Array]  # x [B, ...] -> logits [B], each from its own x alone
Loss = Literal["minimax", "nonsaturating", "hinge", "least_squares", "wasserstein", "relativistic"]


def logistic_d(real: Array, fake: Array) -> Array:
    """-log sigmoid(D(x)) - log(1 - sigmoid(D(G(z)))): binary cross-entropy, the negated value of the min-max game."""
    return jax.nn.softplus(-real) + jax.nn.softplus(fake)


def minimax_g(real: Array, fake: Array) -> Array:
    """log(1 - sigmoid(D(G(z)))): the other side of the same game. Its gradient vanishes where D is sure."""
    return -jax.nn.softplus(fake)


def nonsaturating_g(real: Array, fake: Array) -> Array:
    """-log sigmoid(D(G(z))): same fixed point, strongest gradient where D is sure (Goodfellow et al. 2014, sec. 3)."""
    return jax.nn.softplus(-fake)


def hinge_d(real: Array, fake: Array) -> Array:
    """Margins: D(x) above 1, D(G(z)) below -1. Its minimum is 2 (1 - total variation distance)."""
    return jax.nn.relu(1.0 - real) + jax.nn.relu(1.0 + fake)


def least_squares_d(real: Array, fake: Array) -> Array:
    """Regression on the targets 1 for real and 0 for generated."""
    return 0.5 * (real - 1.0) ** 2 + 0.5 * fake**2


def least_squares_g(real: Array, fake: Array) -> Array:
    """Generated examples are to score the target of real ones."""
    return 0.5 * (fake - 1.0) ** 2


def wasserstein_d(real: Array, fake: Array) -> Array:
    """The negated difference of means: a transport distance only as far as a penalty bounds D's slope."""
    return fake - real


def raise_fake_g(real: Array, fake: Array) -> Array:
    """The generator of the Wasserstein and the hinge game."""
    return -fake


def relativistic_d(real: Array, fake: Array) -> Array:
    """Real example i is to look more real than generated example i.

    Its landscape has no bad basins, in which separable losses drop modes (Sun et al. 2020, arXiv:2011.04926).
    """
    return jax.nn.softplus(fake - real)


def relativistic_g(real: Array, fake: Array) -> Array:
    """`relativistic_d` with the roles swapped."""
    return jax.nn.softplus(real - fake)


LOSSES: dict[Loss, tuple[Callable[[Array, Array], Array], Callable[[Array, Array], Array]]] = {
    "minimax": (logistic_d, minimax_g),
    "nonsaturating": (logistic_d, nonsaturating_g),
    "hinge": (hinge_d, raise_fake_g),
    "least_squares": (least_squares_d, least_squares_g),
    "wasserstein": (wasserstein_d, raise_fake_g),
    "relativistic": (relativistic_d, relativistic_g),
}


def squared_slope(critic: Critic, x: Array) -> tuple[Array, Array]:
    """Logits D(x) and |grad_x D(x)|^2, both [B], from one forward pass.

    On real x the second is R1, on generated x it is R2 (Mescheder et al. 2018, arXiv:1801.04406, eq. 9 and 10, there
    with the factor gamma / 2). `critic` must not mix examples (no batch statistics): its rows then have own gradients.
    """
    logits, pullback = jax.vjp(critic, x)
    (slope,) = pullback(jnp.ones_like(logits))
    return logits, (slope**2).reshape(slope.shape[0], -1).sum(axis=1)
