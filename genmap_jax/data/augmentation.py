"""Augmentation of training images: pure functions (batch, keys) -> batch, named in an experiment's field `augment`.

Every function changes all images of a batch (uint8 [B, H, W, C]; in a pair of domains both) and nothing else, such as
labels. keys [B] are one PRNG key per example, fresh for every function. An image that accompanies another of the same
size is changed in the same way. Shapes and types stay as they are.

A model of augmented images learns their law: mirrored images, for example, are then as likely as the others.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Array = jax.Array
Batch = dict[str, Array]
MARGIN = 8  # images move by at most one part in so many of their side


def flip(batch: Batch, keys: Array) -> Batch:
    """Mirror each image left to right with probability one half."""

    def one(key, image):
        return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)

    return _each_image(one, batch, keys)


def shift(batch: Batch, keys: Array) -> Batch:
    """Move each image by whole pixels, at most an eighth of its sides; its edge fills what becomes free."""
    return _each_image(lambda key, image: _window(key, image, "edge"), batch, keys)


def crop(batch: Batch, keys: Array) -> Batch:
    """Pad each image by its mirror image, an eighth of its sides, and crop a window of its own size at random."""
    return _each_image(lambda key, image: _window(key, image, "symmetric"), batch, keys)


AUGMENTATIONS: dict[str, Callable[[Batch, Array], Batch]] = {"flip": flip, "shift": shift, "crop": crop}
"""By the names in an experiment."""


def _window(key: Array, image: Array, fill: str) -> Array:
    """A window of the image's size, uniformly placed on the padded image. [H, W, C]"""
    height, width, _ = image.shape
    margins = jnp.array([height // MARGIN, width // MARGIN])
    padded = jnp.pad(image, [(height // MARGIN,) * 2, (width // MARGIN,) * 2, (0, 0)], mode=fill)
    top, left = jax.random.randint(key, (2,), 0, 2 * margins + 1)
    return jax.lax.dynamic_slice(padded, (top, left, 0), image.shape)


def _each_image(one: Callable[[Array, Array], Array], batch: Batch, keys: Array) -> Batch:
    """Apply `one`, (key, image [H, W, C]) -> image, to every image of a batch. Raises ValueError without any."""
    images = {field: x for field, x in batch.items() if x.ndim == 4 and x.dtype == jnp.uint8}
    if not images:
        raise ValueError(f"augment: a batch of {', '.join(batch)} holds no images; leave augment empty")
    return batch | {field: jax.vmap(one)(keys, x) for field, x in images.items()}
