"""Augmentations keep shapes, types and labels, change each example by its own key, and move pixels as they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genmap_jax.data.augmentation import AUGMENTATIONS
from genmap_jax.keys import example_keys

KEYS = example_keys(jax.random.key(0), 400)
each = pytest.mark.parametrize("name", AUGMENTATIONS)


def positions(height, width, n=400):
    """n copies of an image whose pixel (i, j) holds (i + 1, j + 1)."""
    image = np.stack(np.meshgrid(np.arange(1, height + 1), np.arange(1, width + 1), indexing="ij"), axis=-1)
    return jnp.asarray(np.broadcast_to(image.astype(np.uint8), (n, height, width, 2)))


def windows(height, width, mode):
    """All images that a padding of an eighth can give, as a set of bytes."""
    (a, b), image = (height // 8, width // 8), np.asarray(positions(height, width, 1)[0])
    padded = np.pad(image, ((a, a), (b, b), (0, 0)), mode=mode)
    return {padded[i : i + height, j : j + width].tobytes() for i in range(2 * a + 1) for j in range(2 * b + 1)}


ALLOWED = {
    "flip": lambda h, w: {np.asarray(x).tobytes() for x in (positions(h, w, 1)[0], positions(h, w, 1)[0][:, ::-1])},
    "shift": lambda h, w: windows(h, w, "edge"),
    "crop": lambda h, w: windows(h, w, "symmetric"),
}


@each
def test_every_image_is_one_of_those_allowed_and_all_of_them_come(name):
    """Sides that differ, so height and width cannot be exchanged; 400 draws of at most 15 images miss none."""
    x = positions(16, 24)
    y = np.asarray(jax.jit(AUGMENTATIONS[name])({"image": x}, KEYS)["image"])
    assert y.shape == x.shape and y.dtype == np.uint8
    assert {image.tobytes() for image in y} == ALLOWED[name](16, 24)


@each
def test_images_alone_are_changed_and_by_the_key_of_the_example(name):
    """Labels stay; a second image of the same size is changed alike; the batch around an example does not matter."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(0, 256, (8, 16, 16, 3), np.uint8))
    batch = {"image": x, "source": x[..., :1], "label": jnp.arange(8), "x": jnp.ones((8, 3))}
    y = AUGMENTATIONS[name](batch, KEYS[:8])
    assert all(y[field] is batch[field] for field in ("label", "x"))
    np.testing.assert_array_equal(y["image"][..., :1], y["source"])
    alone = AUGMENTATIONS[name]({"image": x[3:5]}, KEYS[3:5])["image"]
    np.testing.assert_array_equal(y["image"][3:5], alone)
    assert not np.array_equal(y["image"], x)


def test_half_of_the_images_are_mirrored():
    x = positions(2, 3)
    mirrored = (np.asarray(AUGMENTATIONS["flip"]({"image": x}, KEYS)["image"]) != x).any((1, 2, 3)).mean()
    assert abs(mirrored - 0.5) < 4 * 0.5 / np.sqrt(400)


def test_images_too_small_to_move_stay():
    x = positions(7, 7, 2)
    for name in ("shift", "crop"):
        np.testing.assert_array_equal(AUGMENTATIONS[name]({"image": x}, KEYS[:2])["image"], x)


@each
def test_batches_without_images_are_refused(name):
    with pytest.raises(ValueError, match="x, label holds no images; leave augment empty"):
        AUGMENTATIONS[name]({"x": jnp.ones((2, 2)), "label": jnp.ones(2, jnp.int32)}, KEYS[:2])
