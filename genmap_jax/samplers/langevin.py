"""Langevin dynamics at temperature 1: the chains whose law is p(x) = exp(-E(x)) / Z and nothing hotter or colder.

Discretised Langevin diffusion with step eps (Rossky, Doll & Friedman 1978; Neal 2011, section 5.2):

    x' = x - (eps^2 / 2) grad E(x) + eps noise,    noise ~ N(0, I)

Drift and noise belong together. Much code for energy-based models takes a long drift with a small noise and so samples
a colder law than the one it trains. Here the only error left is that of the step size: on N(0, 1) the unadjusted chain
(`ula`) has variance 1 / (1 - eps^2 / 4); the Metropolis-adjusted one (`mala`) has none.

An `energy` maps [N, ...] to [N]. Every chain has its own key, so a chain does not depend on how many run beside it.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from genmap_jax import keys as per_example

Array = jax.Array
Energy = Callable[[Array], Array]


def ula(energy: Energy, x: Array, keys: Array, eps: float, steps: int) -> Array:
    """Unadjusted Langevin chains: x [N, ...] after `steps` steps. `keys`: [N]."""
    body = ula_step(energy, keys, eps)
    return jax.lax.scan(lambda x, i: (body(i, x), None), x, jnp.arange(steps))[0]


def ula_step(energy: Energy, keys: Array, eps: float) -> Callable[[Array, Array], Array]:
    """Step i of `ula` as a function (i, x [N, ...]) -> x."""
    gradient = value_and_grad(energy)

    def step(i, x):
        noise, _ = randomness(keys, i, x.shape[1:])
        return move(x, gradient(x)[1], noise, eps)

    return step


def mala(energy: Energy, x: Array, keys: Array, eps: float, steps: int) -> tuple[Array, Array]:
    """Metropolis-adjusted Langevin chains (Roberts & Tweedie 1996): p is exactly invariant for any eps.

    Returns x [N, ...] after `steps` steps and the fraction [N] of moves each chain accepted; near 0.57 is efficient.
    """
    evaluate = value_and_grad(energy)

    def body(carry, i):
        here, accepted = carry
        noise, log_u = randomness(keys, i, x.shape[1:])
        there = move(here[0], here[2], noise, eps)
        there = there, *evaluate(there)
        accept = log_u < log_acceptance(here, there, eps)
        return (select(accept, there, here), accepted + accept / steps), None

    start = (x, *evaluate(x)), jnp.zeros(x.shape[0])
    (here, accepted), _ = jax.lax.scan(body, start, jnp.arange(steps))
    return here[0], accepted


# ---- one step, in pieces: noise is an argument -----------------------------------------------------------------------


def move(x: Array, grad: Array, noise: Array, eps: float | Array) -> Array:
    """The Langevin step from x, where grad = grad E(x). Shapes [N, ...]."""
    return x - (eps**2 / 2) * grad + eps * noise.astype(x.dtype)


def log_acceptance(here: tuple, there: tuple, eps: float | Array) -> Array:
    """Log of the Metropolis-Hastings ratio of the move here -> there, each a triple (x, E(x), grad E(x)). [N]"""
    (x, e, g), (x_new, e_new, g_new) = here, there
    log_q = lambda to, x, g: -_square_norm(to - x + (eps**2 / 2) * g) / (2 * eps**2)  # noqa: E731
    return e - e_new + log_q(x, x_new, g_new) - log_q(x_new, x, g)


def value_and_grad(energy: Energy) -> Callable[[Array], tuple[Array, Array]]:
    """x [N, ...] -> (energies [N], gradients [N, ...]) in one backward pass: the chains do not see each other."""

    def evaluate(x):
        e, pullback = jax.vjp(energy, x)
        return e, pullback(jnp.ones_like(e))[0]

    return evaluate


def select(accept: Array, new, old):
    """Per chain, `new` where accept [N] and `old` elsewhere, in every leaf [N, ...]."""
    return jax.tree.map(lambda a, b: jnp.where(accept.reshape(-1, *[1] * (a.ndim - 1)), a, b), new, old)


def randomness(keys: Array, i: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """The randomness of step i: noise ~ N(0, I) [N, *shape] and log u, u ~ U(0, 1] [N]."""

    noise, uniform = per_example.split(per_example.fold(keys, i))
    return per_example.normal(noise, shape), -jax.vmap(jax.random.exponential)(uniform)


def _square_norm(x: Array) -> Array:
    return jnp.sum(x**2, axis=tuple(range(1, x.ndim)))
