"""Adversarial losses on logits and the penalties that make them converge. Per example, [B], no reduction.

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

from genmap_jax.keys import normal, uniform

Array = jax.Array
Critic = Callable[[Array], Array]  # x [B, ...] -> logits [B], each from its own x alone
Loss = Literal["minimax", "nonsaturating", "hinge", "least_squares", "wasserstein", "relativistic"]


def logistic_d(real: Array, fake: Array) -> Array:
    """-log sigmoid(D(x)) - log(1 - sigmoid(D(G(z)))): binary cross-entropy, the negated value of the min-max game."""
    return jax.nn.softplus(-real) + jax.nn.softplus(fake)


def minimax_g(real: Array, fake: Array) -> Array:
    """log(1 - sigmoid(D(G(z)))): the same game from G's side, whose gradient vanishes where D is sure."""
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
    """The negated difference of means: a transport distance only as far as a penalty bounds the gradient of D."""
    return fake - real


def wasserstein_g(real: Array, fake: Array) -> Array:
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
    "hinge": (hinge_d, wasserstein_g),
    "least_squares": (least_squares_d, least_squares_g),
    "wasserstein": (wasserstein_d, wasserstein_g),
    "relativistic": (relativistic_d, relativistic_g),
}


# ---- penalties: [B], without their weight ----------------------------------------------------------------------------


def input_gradient(critic: Critic, x: Array) -> Array:
    """grad_x D(x), in the shape of x. `critic` must not mix examples: its rows then have gradients of their own."""
    logits, pullback = jax.vjp(critic, x)
    return pullback(jnp.ones_like(logits))[0]


def zero_centred_gradient_penalty(critic: Critic, x: Array) -> Array:
    """|grad D(x)|^2: R1 on real examples, R2 on generated ones.

    Mescheder et al. 2018 (arXiv:1801.04406), eq. 9 and 10, there with the factor gamma / 2.
    """
    return _squares(input_gradient(critic, x))


def one_centred_gradient_penalty(critic: Critic, x: Array) -> Array:
    """(|grad D(x)| - 1)^2, at the points of `interpolate` (WGAN-GP, eq. 3) or of `perturb` (DRAGAN)."""
    return (jnp.sqrt(_squares(input_gradient(critic, x)) + 1e-12) - 1.0) ** 2  # a square root has no gradient at 0


def interpolate(real: Array, fake: Array, keys: Array) -> Array:
    """A uniform point on the line from real example i to generated example i.

    Gulrajani et al. 2017 (arXiv:1704.00028), algorithm 1. With the one-centred penalty there, the best D of two
    point masses at distance d does not estimate d but d (1 + d / (2 weight)).
    """
    u = uniform(keys).reshape(-1, *[1] * (real.ndim - 1))
    return real + u * (fake - real)


def perturb(real: Array, keys: Array, sd: float) -> Array:
    """Real examples with Gaussian noise (DRAGAN, Kodali et al. 2017, arXiv:1705.07215)."""
    return real + sd * normal(keys, real.shape[1:])


def lecam(real: Array, fake: Array, anchors: Array) -> Array:
    """Squared distance of logits to the running means of the *other* kind: (D(x) - a_fake)^2 + (D(G(z)) - a_real)^2.

    anchors: [2], running means (a_real, a_fake) of the logits. Tseng et al. 2021 (arXiv:2104.03310).
    """
    return (real - anchors[1]) ** 2 + (fake - anchors[0]) ** 2


def consistency(logits: Array, logits_moved: Array) -> Array:
    """Squared change of the logits when an image is moved a little (Zhang et al. 2020, arXiv:1910.12027).

    Applied to generated images too, it is balanced consistency (Zhao et al. 2021, arXiv:2002.04724).
    """
    return (logits - logits_moved) ** 2


def _squares(x: Array) -> Array:
    return (x**2).reshape(x.shape[0], -1).sum(axis=1)
