"""What a network may predict, each as an adapter to the one contract `denoise(y, sigma, cond) -> x_hat`.

Noised data are y = x + sigma noise. Every prediction in use is one line,

    x_hat = c_skip y + c_out network(c_in y)

(Karras et al. 2022, arXiv:2206.00364, eq. 7), so converting between two of them goes through x_hat:

    eps       the noise                                             Ho et al. 2020
    x0        the data
    v         alpha noise - std x, in variance preserving units     Salimans & Ho 2022 (arXiv:2202.00512)
    F         of unit variance at every noise level                 EDM: Karras et al. 2022, table 1
    velocity  noise - x, the slope of a straight path               flow matching: Lipman et al. 2023 (arXiv:2210.02747)

v is -F for data of unit variance. `levels_denoiser` is the exception: the network puts out a distribution over the
grey values of integer data.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from genmap_jax.processes import Array, Denoise, expand

Name = Literal["eps", "x0", "v", "F", "velocity"]


class Coefficients(NamedTuple):
    """The three factors of x_hat = c_skip y + c_out network(c_in y); arrays like sigma."""

    c_in: Array
    c_skip: Array
    c_out: Array


def coefficients(name: Name, sigma: Array, data_std: float = 1.0) -> Coefficients:
    """sigma: any shape. data_std: standard deviation of the data, which only F knows.

    c_in scales to the process the prediction comes from: z = alpha y for eps, x0 and v; (1 - s) y for velocity.
    """
    vp = 1.0 / jnp.sqrt(1.0 + sigma**2)  # alpha; std = sigma alpha
    total = jnp.sqrt(sigma**2 + data_std**2)
    flow = 1.0 / (1.0 + sigma)  # 1 - s
    return {
        "eps": lambda: Coefficients(vp, jnp.ones_like(sigma), -sigma),
        "x0": lambda: Coefficients(vp, jnp.zeros_like(sigma), jnp.ones_like(sigma)),
        "v": lambda: Coefficients(vp, vp**2, -sigma * vp),
        "F": lambda: Coefficients(1.0 / total, (data_std / total) ** 2, sigma * data_std / total),
        "velocity": lambda: Coefficients(flow, flow, -sigma / (1.0 + sigma)),
    }[name]()


def denoiser(name: Name, network: Callable[..., Array], data_std: float = 1.0) -> Denoise:
    """A network (scaled y, log sigma [B], cond) as a denoiser (y [B, ...], sigma [B], cond=None) -> x_hat [B, ...]."""

    def denoise(y, sigma, cond=None):
        c = coefficients(name, sigma, data_std)
        out = network(expand(c.c_in, y) * y, jnp.log(sigma), cond)
        return expand(c.c_skip, y) * y + expand(c.c_out, y) * out

    return denoise


def levels_denoiser(network: Callable[..., Array], levels: int, data_std: float = 1.0) -> Denoise:
    """A network that puts out log-probabilities of the grey values of each pixel, as a denoiser of images on the grid.

    x_hat = sum_v p(v) x_v,  p(v) ~ softmax(logits)_v N(y; x_v, sigma^2): the network gives what the rest of the image
    says of a pixel, Bayes' rule what its own noised value says (as in Graves et al. 2023, arXiv:2308.07037, and
    Dieleman et al. 2022, arXiv:2211.15089). So rounding at low noise, which a bound on integers pays for, need not be
    learned.

    network: (scaled y, log sigma [B], cond) -> [B, *shape, levels].
    """
    values = jnp.linspace(-1.0, 1.0, levels)

    def denoise(y, sigma, cond=None):
        logits = network(expand(1.0 / jnp.sqrt(sigma**2 + data_std**2), y) * y, jnp.log(sigma), cond)
        x = values.astype(y.dtype).reshape((1,) * y.ndim + (-1,))
        likelihood = -0.5 * jnp.square((y[..., None] - x) / expand(sigma, logits))
        return (jax.nn.softmax(logits + likelihood, axis=-1) * x).sum(-1)

    return denoise


def from_data(name: Name, x_hat: Array, y: Array, sigma: Array, data_std: float = 1.0) -> Array:
    """The prediction that says the data are x_hat; at the true x, the target of the regression. [B, ...], sigma [B]."""
    c = coefficients(name, sigma, data_std)
    return (x_hat - expand(c.c_skip, y) * y) / expand(c.c_out, y)


def to_data(name: Name, out: Array, y: Array, sigma: Array, data_std: float = 1.0) -> Array:
    """The inverse of `from_data`: x_hat from a prediction."""
    c = coefficients(name, sigma, data_std)
    return expand(c.c_skip, y) * y + expand(c.c_out, y) * out
