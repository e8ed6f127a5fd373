"""Two-dimensional densities that are known exactly: where every family of the map can be checked to the last digit.

Each `Density` samples, and gives log-density, score and differential entropy in closed form (two moons: one smooth
integral, exact to rounding). The familiar look-alikes are not enough: scikit-learn's moons have no density, and a ring
whose density divides by 2 pi R instead of 2 pi r is not normalised to better than 0.4 per cent.

    p = toy.DENSITIES["gaussians8"]
    x = p.sample(key, 100_000)                                  # [N, 2] float32
    kl = -p.entropy - model_log_prob(x).mean()                  # KL(data || model), nats

Everything is `jax.numpy`, jittable, and follows the dtype of its input (float64 under `jax.enable_x64`).
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Density:
    """One exact law on the plane.

    sample: (key, n) -> [n, 2], independent draws.
    log_prob: [..., 2] -> [...], nats; -inf outside the support.
    entropy: differential entropy in nats, from float64 quadrature (recomputed in tests/test_toy.py).
    window: (low, high) of both axes, holding all but 1e-8 of the mass: where to plot and to integrate.
    log_prob_noised: (x [..., 2], sigma) -> [...]: log-density of x + sigma * N(0, I), where it has a closed form.
    modes, std: centres [K, 2] and standard deviation of a mixture of separate Gaussians of equal weight.
    """

    sample: Callable[[Array, int], Array]
    log_prob: Callable[[Array], Array]
    entropy: float
    window: tuple[float, float]
    log_prob_noised: Callable[[Array, Array | float], Array] | None = None
    modes: np.ndarray | None = None
    std: float | None = None

    def modes_found(self, x: np.ndarray, share: float = 0.1) -> tuple[int, float]:
        """(modes that have at least `share` of their fair part of x, share of x within three std of a mode). [N, 2]

        The second is 1 - exp(-9 / 2) = 98.9 % under the law itself.
        """
        counts = self._near(x)
        return int((counts >= share * len(x) / len(counts)).sum()), float(counts.sum() / len(x))

    def mode_kl(self, x: np.ndarray) -> float:
        """KL(q || uniform) in nats, q the shares of the modes among the points of x near one: 0 if all are equal.

        About (modes - 1) / 2N for N fair points, log(modes) if there is one mode, infinite without any.
        """
        counts = self._near(x)
        q = counts / counts.sum() if counts.any() else np.full(len(counts), np.inf)
        return float(np.where(q > 0, q * np.log(np.maximum(q, 1e-30) * len(q)), 0.0).sum())

    def _near(self, x: np.ndarray) -> np.ndarray:
        """How many points are within three std of each mode. [K]"""
        if self.modes is None or self.std is None:
            raise ValueError("this density is no mixture of separate modes: use gaussians8 or gaussians25")
        distances = np.linalg.norm(np.asarray(x)[:, None] - self.modes[None], axis=-1)  # [N, K]
        near = distances.min(1) < 3.0 * self.std
        return np.bincount(distances.argmin(1)[near], minlength=len(self.modes))

    def score(self, x: Array, sigma: Array | float = 0.0) -> Array:
        """Gradient of the log-density, of the noised law when sigma > 0. [..., 2] -> [..., 2], finite everywhere."""
        noised = self.log_prob_noised
        if noised is not None:
            return jax.grad(lambda x: noised(x, sigma).sum())(x)
        if not (isinstance(sigma, float) and sigma == 0.0):
            raise ValueError("this density has no closed form under noise: use gaussians8, gaussians25 or moons")
        return jax.grad(lambda x: self.log_prob(x).sum())(x)


def _per_point(log_prob: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """A function of one point [2] -> of any batch of points [..., 2]."""
    return jnp.vectorize(log_prob, signature="(d)->()")


# ---- mixtures of isotropic Gaussians: closed under Gaussian noise ----------------------------------------------------


def _log_mixture(centres: np.ndarray, weights: np.ndarray, std: float) -> Callable[[Array, Array | float], Array]:
    """(x, sigma) -> log sum_k w_k N(x; c_k, (std^2 + sigma^2) I). centres [K, 2], weights [K]"""

    def one(x, sigma):
        variance = std**2 + sigma**2
        squares = jnp.square(x[None, :] - jnp.asarray(centres, x.dtype)).sum(-1)  # [K]
        log_terms = jnp.asarray(np.log(weights), x.dtype) - squares / (2 * variance)
        return jax.nn.logsumexp(log_terms) - jnp.log(2 * jnp.pi * variance)

    return jnp.vectorize(one, signature="(d),()->()")


def gaussian_mixture(centres: np.ndarray, std: float, entropy: float, window: tuple[float, float]) -> Density:
    """Equal weights, one standard deviation. `centres`: [K, 2]."""
    log_prob_noised = _log_mixture(centres, np.full(len(centres), 1 / len(centres)), std)

    def sample(key, n):
        which, noise = jax.random.split(key)
        centre = jnp.asarray(centres)[jax.random.randint(which, (n,), 0, len(centres))]
        return centre + std * jax.random.normal(noise, (n, 2))

    return Density(sample, lambda x: log_prob_noised(x, 0.0), entropy, window, log_prob_noised, centres, std)


def _circle(n: int, radius: float) -> np.ndarray:
    angle = 2 * np.pi * np.arange(n) / n
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=-1)  # [n, 2]


def _grid(side: np.ndarray) -> np.ndarray:
    return np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)


# ---- two moons: a mixture with a continuum of centres ----------------------------------------------------------------

MOON_CENTRES, MOON_NOISE = np.array([[-0.5, -0.25], [0.5, 0.25]]), 0.1


def _moons() -> Density:
    """The upper half of a unit circle and the lower half of another, uniform angle, Gaussian noise."""
    # Gauss-Legendre in the angle. The integrand is a bump of width noise / sqrt(|x|), which 160 nodes resolve to the
    # rounding of float64 in the whole window (400 agree). The two arcs are each other's mirror image in the origin.
    nodes, weights = np.polynomial.legendre.leggauss(160)
    angle = np.pi * (nodes + 1) / 2
    arc = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    centres = np.concatenate([MOON_CENTRES[0] + arc, MOON_CENTRES[1] - arc])
    log_prob_noised = _log_mixture(centres, np.concatenate([weights, weights]) / 4, MOON_NOISE)

    def sample(key, n):
        angle_key, which_key, noise_key = jax.random.split(key, 3)
        angle = jax.random.uniform(angle_key, (n,), maxval=jnp.pi)
        which = jax.random.randint(which_key, (n,), 0, 2)
        sign = (1 - 2 * which)[:, None]
        arc = sign * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)
        return jnp.asarray(MOON_CENTRES)[which] + arc + MOON_NOISE * jax.random.normal(noise_key, (n, 2))

    return Density(sample, lambda x: log_prob_noised(x, 0.0), 1.007585, (-2.2, 2.2), log_prob_noised)


# ---- densities in polar coordinates ----------------------------------------------------------------------------------

RING_RADII, RING_STD = np.array([1.0, 2.0, 3.0, 4.0]), 0.15
BLADES, BLADE_CENTRE, BLADE_STD, BLADE_TWIST = 5, np.array([1.5, 0.0]), np.array([0.4, 0.1]), 0.9


def _radius(x):
    """|x| of one point, with a finite gradient at the origin."""
    return jnp.sqrt(jnp.maximum(jnp.square(x).sum(), 1e-12))


def _rotate(x, angle):
    """One point, counter-clockwise."""
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([cos * x[0] - sin * x[1], sin * x[0] + cos * x[1]])


def _rings() -> Density:
    """Uniform angle; radius from an equal mixture of N(R, 0.15^2). The shell of radius r has length 2 pi r."""
    log_constant = math.log(len(RING_RADII) * RING_STD * math.sqrt(2 * math.pi)) + math.log(2 * math.pi)

    def log_prob(x):
        r = _radius(x)
        squares = jnp.square((r - jnp.asarray(RING_RADII, x.dtype)) / RING_STD)
        return jax.nn.logsumexp(-squares / 2) - jnp.log(r) - log_constant

    def sample(key, n):
        ring_key, radius_key, angle_key = jax.random.split(key, 3)
        r = jnp.asarray(RING_RADII)[jax.random.randint(ring_key, (n,), 0, len(RING_RADII))]
        r = r + RING_STD * jax.random.normal(radius_key, (n,))  # negative with probability 3e-12: never in float32
        angle = jax.random.uniform(angle_key, (n,), maxval=2 * jnp.pi)
        return r[:, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)

    return Density(sample, _per_point(log_prob), 3.534527, (-5.0, 5.0))


def _pinwheel() -> Density:
    """Five Gaussians along the spokes of a wheel, then every circle of radius r turned by the angle 0.9 r.

    Turning each circle preserves area, so the density is that of the straight mixture at the point turned back.
    """
    spokes = 2 * np.pi * np.arange(BLADES) / BLADES
    log_constant = math.log(BLADES * 2 * math.pi * BLADE_STD.prod())

    def log_prob(x):
        straight = _rotate(x, -BLADE_TWIST * _radius(x))
        local = jax.vmap(lambda spoke: _rotate(straight, -spoke))(jnp.asarray(spokes, x.dtype))  # [K, 2]
        centre, std = jnp.asarray(BLADE_CENTRE, x.dtype), jnp.asarray(BLADE_STD, x.dtype)
        squares = jnp.square((local - centre[None]) / std[None]).sum(-1)
        return jax.nn.logsumexp(-squares / 2) - log_constant

    def sample(key, n):
        which_key, noise_key = jax.random.split(key)
        local = BLADE_CENTRE[None] + BLADE_STD[None] * jax.random.normal(noise_key, (n, 2))
        straight = jax.vmap(_rotate)(local, jnp.asarray(spokes)[jax.random.randint(which_key, (n,), 0, BLADES)])
        return jax.vmap(lambda x: _rotate(x, BLADE_TWIST * _radius(x)))(straight)

    return Density(sample, _per_point(log_prob), 1.227425, (-4.5, 4.5))


# ---- checkerboard ----------------------------------------------------------------------------------------------------


def _checkerboard() -> Density:
    """Uniform on eight cells of side 2 of a 4 x 4 board on [-4, 4)^2; [0, 2)^2 is one of them. The score is 0."""

    def log_prob(x):
        cell = jnp.floor(x / 2)
        inside = (cell.sum() % 2 == 0) & ((cell >= -2) & (cell < 2)).all()
        return jnp.where(inside, jnp.asarray(-math.log(32), x.dtype), -jnp.inf)

    def sample(key, n):
        column_key, row_key, within_key = jax.random.split(key, 3)
        column = jax.random.randint(column_key, (n,), -2, 2)
        row = 2 * jax.random.randint(row_key, (n,), -1, 1) + column % 2
        return 2 * (jnp.stack([column, row], axis=-1) + jax.random.uniform(within_key, (n, 2)))

    return Density(sample, _per_point(log_prob), math.log(32), (-4.0, 4.0))


DENSITIES: dict[str, Density] = {
    "gaussians8": gaussian_mixture(_circle(8, radius=2.0), std=0.2, entropy=1.698061, window=(-3.5, 3.5)),
    "gaussians25": gaussian_mixture(_grid(np.arange(-2.0, 3.0)), std=0.1, entropy=1.451580, window=(-3.0, 3.0)),
    "moons": _moons(),
    "rings": _rings(),
    "pinwheel": _pinwheel(),
    "checkerboard": _checkerboard(),
}
