"""Differentiable augmentation of what a discriminator sees, and the control of how much of it.

Both players see only augmented images, real and generated alike, so that few examples are not learnt by heart and yet
the augmentation does not show in the samples. Every transform is applied to each image with probability p:

    p = 1                                     DiffAugment, Zhao et al. 2020 (https://arxiv.org/abs/2006.10738)
    p follows how sure D is of real images    ADA, Karras et al. 2020 (https://arxiv.org/abs/2006.06676)

Images are float32 [B, H, W, C] around [-1, 1]; what moves in from outside is 0. Moving and scaling multiply by small
matrices from the left and the right, which is exact and has cheap gradients of any order, where gathers have not.

Differs from the papers: of ADA's transforms those listed here, no arbitrary rotation, colour rotation or filters.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Array = jax.Array


def augment(x: Array, keys: Array, p: Array | float, transforms: tuple[str, ...]) -> Array:
    """Each transform, in the order given, on each image with probability p. [B, H, W, C], keys [B] -> [B, H, W, C]"""

    def one(x: Array, key: Array) -> Array:
        for i, name in enumerate(transforms):
            key_coin, key = jax.random.split(jax.random.fold_in(key, i))
            x = jnp.where(jax.random.uniform(key_coin) < p, TRANSFORMS[name](x, key), x)
        return x

    return jax.vmap(one)(x, keys)


# ---- transforms of one image [H, W, C] -------------------------------------------------------------------------------


def flip(x: Array, key: Array) -> Array:
    """Left and right change places, half of the time."""
    return jnp.where(jax.random.bernoulli(key), x[:, ::-1], x)


def turn(x: Array, key: Array) -> Array:
    """By 0, 1, 2 or 3 right angles. Square images only."""
    turned = jnp.stack([jnp.rot90(x, k) for k in range(4)])
    return (jax.nn.one_hot(jax.random.randint(key, (), 0, 4), 4)[:, None, None, None] * turned).sum(0)


def translation(x: Array, key: Array) -> Array:
    """By whole pixels, up to an eighth of each side."""
    reach = jnp.array([max(1, side // 8) for side in x.shape[:2]])
    shift = jax.random.randint(key, (2,), -reach, reach + 1)
    return _resample(x, jnp.ones(2), shift.astype(x.dtype))


def scaling(x: Array, key: Array) -> Array:
    """Zoom about the centre by 2 to the power N(0, 0.2^2), with linear interpolation."""
    zoom = 2.0 ** (0.2 * jax.random.normal(key))
    return _resample(x, jnp.full(2, zoom), jnp.zeros(2))


def colour(x: Array, key: Array) -> Array:
    """Brightness by up to half, saturation by a factor up to 2, contrast by a factor of 1/2 to 3/2."""
    b, s, c = jax.random.uniform(key, (3,))
    x = x + (b - 0.5)
    grey = x.mean(axis=-1, keepdims=True)
    x = (x - grey) * (2.0 * s) + grey
    middle = x.mean()
    return (x - middle) * (c + 0.5) + middle


def cutout(x: Array, key: Array) -> Array:
    """A rectangle of half of each side becomes 0, its centre anywhere."""
    H, W, _ = x.shape
    centre = jax.random.randint(key, (2,), 0, jnp.array([H, W]))
    rows, columns = jnp.arange(H) - centre[0], jnp.arange(W) - centre[1]
    rows, columns = (-H // 4 <= rows) & (rows < H // 4), (-W // 4 <= columns) & (columns < W // 4)
    return jnp.where((rows[:, None] & columns[None])[..., None], 0.0, x)


TRANSFORMS: dict[str, Callable[[Array, Array], Array]] = {
    "flip": flip,
    "turn": turn,
    "translation": translation,
    "scaling": scaling,
    "colour": colour,
    "cutout": cutout,
}
DIFFAUGMENT = ("colour", "translation", "cutout")


def _resample(x: Array, zoom: Array, shift: Array) -> Array:
    """Zoom about the centre, then move down and right; pixels between pixels are interpolated linearly."""
    H, W, _ = x.shape

    def weights(side: int, zoom: Array, shift: Array) -> Array:  # [out, in]
        here = (side - 1) / 2
        source = (jnp.arange(side) - here - shift) / zoom + here
        return jax.nn.relu(1.0 - jnp.abs(source[:, None] - jnp.arange(side)[None]))

    rows, columns = weights(H, zoom[0], shift[0]), weights(W, zoom[1], shift[1])
    return jnp.einsum("hi,wj,ijc->hwc", rows, columns, x, precision="highest")


# ---- ADA -------------------------------------------------------------------------------------------------------------

EVERY = 4  # updates between two adjustments


def adjusted(p: Array, signs: Array, step: Array, batch: int, target: float, ramp: int) -> tuple[Array, Array]:
    """The probability after `step` more updates, every fourth of them: up if D is too sure of real images, else down.

    signs: sum over the updates since the last adjustment of the mean of sign(D(real)), which overfitting drives to 1.
    target: of that mean (0.6). ramp: examples in which p can go from 0 to 1 (500,000). batch: global.
    Returns (p, signs), with the sum begun anew after an adjustment. Karras et al. 2020, section 3.1.
    """
    due = step % EVERY == 0
    moved = jnp.clip(p + jnp.sign(signs / EVERY - target) * (EVERY * batch / ramp), 0.0, 1.0)
    return jnp.where(due, moved, p), jnp.where(due, 0.0, signs)
