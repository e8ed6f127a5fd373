"""Differentiable augmentation of the images that a discriminator sees: DiffAugment and StyleGAN2-ADA's pipeline.

Both players see only augmented images, real and generated alike, so that a small data set is not learnt by heart and
yet no augmentation shows in the samples. Each transform is applied to each image with probability p:

    p = 1                                     DiffAugment, Zhao et al. 2020 (https://arxiv.org/abs/2006.10738)
    p set by how sure D is of real images     ADA, Karras et al. 2020 (https://arxiv.org/abs/2006.06676)

Images are float32 [B, H, W, C] around [-1, 1]. There are two sorts of transform. Those of pixels (`PIXELS`) are applied
one by one. Those that are matrices (`MATRICES`: moves of the plane, maps of colour, gains of frequency bands) are drawn
first, and neighbours of one sort are multiplied together and applied once, so that an image is resampled only once.

Every transform is linear in the image, up to a constant and the mean that `colour` keeps; all gradients, of any order,
are those of sums and products.

Differs from the papers: of ADA's transforms, the flip, the right angles and the shift by whole pixels are exact copies
of pixels made before the image is resampled; its cutout is DiffAugment's, around a whole pixel.
"""

import math
from collections import Counter
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from genmap_jax.nn.wavelets import filter_bands, mirror, separable, warp
from genmap_jax.shapes import expect

Array = jax.Array

DIFFAUGMENT = ("colour", "translation", "cutout")
"""The transforms of DiffAugment, all with p = 1."""
BLIT = ("flip", "turn", "integer_translation")
GEOMETRY = ("isotropic_scaling", "rotation", "anisotropic_scaling", "rotation", "fractional_translation")
COLOUR = ("brightness", "contrast", "luma_flip", "hue", "saturation")
BANDS = ("band_0", "band_1", "band_2", "band_3")
BGC = (*BLIT, *GEOMETRY, *COLOUR)
"""What ADA's paper found best, "bgc": pixel blitting, geometry and colour."""
ADA = (*BGC, *BANDS, "noise", "cutout")
"""All of ADA's transforms, in its order (appendix B)."""


def augment(x: Array, keys: Array, p: Array | float, transforms: tuple[str, ...]) -> Array:
    """Each transform, in the order given, on each image with probability p. [B, H, W, C], keys [B] -> [B, H, W, C]

    A transform named k times has probability 1 - (1 - p)^(1 / k) each time, so that it happens at all with probability
    p, as ADA's two rotations. An image on which no matrix is used is returned without resampling. Raises ValueError
    through `check` where a transform does not suit the images.
    """
    expect((None, None, None, None), x=x)
    check(transforms, x.shape[1:])
    times = Counter(transforms)
    applies = [MATRICES[name][1] if name in MATRICES else None for name in transforms]

    def one(x: Array, key: Array) -> Array:
        product: Array | None = None
        used: Array | bool = False
        for i, (name, apply) in enumerate(zip(transforms, applies, strict=True)):
            key_coin, key = jax.random.split(jax.random.fold_in(key, i))
            chance = p if times[name] == 1 else 1.0 - (1.0 - p) ** (1.0 / times[name])
            use = jax.random.uniform(key_coin) < chance
            if apply is None:
                x = jnp.where(use, PIXELS[name](x, key), x)
                continue
            matrix = MATRICES[name][0](key, x.shape)
            matrix = jnp.where(use, matrix, jnp.eye(len(matrix)))
            product = matrix if product is None else jnp.matmul(product, matrix, precision="highest")
            used = used | use
            if i + 1 == len(applies) or applies[i + 1] is not apply:
                x = jnp.where(used, apply(x, product), x)
                product, used = None, False
        return x

    return jax.vmap(one)(x, keys)


def check(transforms: tuple[str, ...], shape: tuple[int, ...]) -> None:
    """Raises ValueError that names the transform, unless all are known and suit images of this shape (H, W, C)."""
    for name in transforms:
        if name not in TRANSFORMS:
            raise ValueError(f"augment={transforms}: {name!r} is unknown; there are {', '.join(TRANSFORMS)}")
        if name == "turn" and shape[0] != shape[1]:
            raise ValueError(f"augment={transforms}: 'turn' needs square images, not {shape}; leave it out")
        if name in COLOUR and shape[2] not in (1, 3):
            raise ValueError(
                f"augment={transforms}: {name!r} needs images of 1 or 3 channels, not {shape}; leave it out"
            )


# ---- transforms of pixels: (image [H, W, C], key) -> [H, W, C] -------------------------------------------------------


def flip(x: Array, key: Array) -> Array:
    """Left and right change places, half of the time."""
    return jnp.where(jax.random.bernoulli(key), x[:, ::-1], x)


def turn(x: Array, key: Array) -> Array:
    """Rotation by 0, 1, 2 or 3 right angles. Square images only."""
    turned = jnp.stack([jnp.rot90(x, k) for k in range(4)])
    return (jax.nn.one_hot(jax.random.randint(key, (), 0, 4), 4)[:, None, None, None] * turned).sum(0)


def translation(x: Array, key: Array) -> Array:
    """DiffAugment's shift by whole pixels, up to an eighth of each side; zeros move in."""
    reach = jnp.array([max(1, side // 8) for side in x.shape[:2]])
    shift = jax.random.randint(key, (2,), -reach, reach + 1)
    return _zoomed(x, jnp.ones(2), shift.astype(x.dtype))


def integer_translation(x: Array, key: Array) -> Array:
    """ADA's shift by whole pixels: U(-1/8, 1/8) of each side, rounded; the mirrored image moves in."""
    H, W, _ = x.shape
    shift = jnp.round(jax.random.uniform(key, (2,), minval=-0.125, maxval=0.125) * jnp.array([H, W])).astype(jnp.int32)
    rows, columns = (mirror(jnp.arange(side) - s, side) for side, s in zip((H, W), shift, strict=True))
    return x[rows][:, columns]


def scaling(x: Array, key: Array) -> Array:
    """Zoom about the centre by 2 to the power N(0, 0.2^2), with linear interpolation; zeros outside of the image."""
    zoom = 2.0 ** (0.2 * jax.random.normal(key))
    return _zoomed(x, jnp.full(2, zoom), jnp.zeros(2))


def colour(x: Array, key: Array) -> Array:
    """DiffAugment's brightness by up to half, saturation by a factor up to 2, contrast by a factor of 1/2 to 3/2."""
    b, s, c = jax.random.uniform(key, (3,))
    x = x + (b - 0.5)
    grey = x.mean(axis=-1, keepdims=True)
    x = (x - grey) * (2.0 * s) + grey
    middle = x.mean()
    return (x - middle) * (c + 0.5) + middle


def noise(x: Array, key: Array) -> Array:
    """Gaussian noise, whose standard deviation |N(0, 0.1^2)| is that of the whole image."""
    key_sd, key = jax.random.split(key)
    return x + 0.1 * jnp.abs(jax.random.normal(key_sd)) * jax.random.normal(key, x.shape)


def cutout(x: Array, key: Array) -> Array:
    """A rectangle of half of each side becomes 0, its centre anywhere, at the first and the last pixel alike."""
    sides = np.array(x.shape[:2])
    cut = (sides + 1) // 2
    # An even side is centred between two pixels, for which there is one more place than there are pixels.
    first = jax.random.randint(key, (2,), 0, sides + 1 - cut % 2) - cut // 2

    def inside(axis: int) -> Array:
        at = jnp.arange(x.shape[axis])
        return (first[axis] <= at) & (at < first[axis] + cut[axis])

    return jnp.where((inside(0)[:, None] & inside(1)[None])[..., None], 0.0, x)


def _zoomed(x: Array, zoom: Array, shift: Array) -> Array:
    """Zoom about the centre, then move down and right; pixels between pixels are interpolated linearly.

    Products with small matrices from the left and the right, which are faster than gathers.
    """
    H, W, _ = x.shape

    def weights(side: int, zoom: Array, shift: Array) -> Array:  # [out, in]
        here = (side - 1) / 2
        source = (jnp.arange(side) - here - shift) / zoom + here
        return jax.nn.relu(1.0 - jnp.abs(source[:, None] - jnp.arange(side)[None]))

    return separable(weights(H, zoom[0], shift[0]), weights(W, zoom[1], shift[1]), x)


# ---- moves of the plane: matrices [3, 3] from (row, column, 1) of a pixel to those of where it is taken from ---------
# Coordinates are in pixels from the centre of the image, so each matrix is the inverse of what is done to the image,
# and matrices multiply from the left in the order in which the moves are made.


def isotropic_scaling(key: Array, shape: tuple[int, ...]) -> Array:
    """Zoom by 2 to the power N(0, 0.2^2)."""
    zoom = 2.0 ** (0.2 * jax.random.normal(key))
    return jnp.diag(jnp.stack([1.0 / zoom, 1.0 / zoom, 1.0]))


def anisotropic_scaling(key: Array, shape: tuple[int, ...]) -> Array:
    """Zoom of the columns by 2 to the power N(0, 0.2^2), and of the rows by its inverse."""
    zoom = 2.0 ** (0.2 * jax.random.normal(key))
    return jnp.diag(jnp.stack([zoom, 1.0 / zoom, 1.0]))


def rotation(key: Array, shape: tuple[int, ...]) -> Array:
    """Rotation by an angle that is uniform on the circle."""
    angle = jax.random.uniform(key, minval=-math.pi, maxval=math.pi)
    return rotation_matrix(angle)


def rotation_matrix(angle: Array | float) -> Array:
    """Where pixels are taken from when an image is rotated by `angle`, counter-clockwise. -> [3, 3]"""
    c, s = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([jnp.stack([c, s, 0.0 * c]), jnp.stack([-s, c, 0.0 * c]), jnp.array([0.0, 0.0, 1.0])])


def fractional_translation(key: Array, shape: tuple[int, ...]) -> Array:
    """Shift by N(0, (1/8)^2) of each side."""
    shift = 0.125 * jax.random.normal(key, (2,)) * jnp.array(shape[:2])
    return jnp.eye(3).at[:2, 2].set(-shift)


# ---- maps of colour: matrices [4, 4] that multiply (red, green, blue, 1) from the right ------------------------------

LUMA = np.array([1.0, 1.0, 1.0, 0.0], np.float32) / math.sqrt(3.0)  # the axis of greys


def brightness(key: Array, shape: tuple[int, ...]) -> Array:
    """Adds N(0, 0.2^2)."""
    return jnp.eye(4).at[3, :3].set(0.2 * jax.random.normal(key))


def contrast(key: Array, shape: tuple[int, ...]) -> Array:
    """Multiplies by 2 to the power N(0, 0.5^2)."""
    gain = 2.0 ** (0.5 * jax.random.normal(key))
    return jnp.diag(jnp.stack([gain, gain, gain, 1.0]))


def luma_flip(key: Array, shape: tuple[int, ...]) -> Array:
    """Reflects colours in the plane without luma, half of the time: light becomes dark, hue and saturation stay."""
    return jnp.eye(4) - 2.0 * jax.random.bernoulli(key) * np.outer(LUMA, LUMA)


def hue(key: Array, shape: tuple[int, ...]) -> Array:
    """Rotates colours about the axis of greys by an angle that is uniform on the circle."""
    return hue_matrix(jax.random.uniform(key, minval=-math.pi, maxval=math.pi))


def hue_matrix(angle: Array | float) -> Array:
    """Rotation about the axis of greys (Rodrigues' formula); 2 pi / 3 takes red to green to blue to red. -> [4, 4]"""
    axis = np.outer(LUMA, LUMA)
    cross = np.zeros((4, 4), np.float32)
    cross[:3, :3] = np.array([[0, 1, -1], [-1, 0, 1], [1, -1, 0]]) / math.sqrt(3.0)  # v -> axis x v, on rows
    last = np.diag([0.0, 0.0, 0.0, 1.0]).astype(np.float32)
    return jnp.cos(angle) * (np.eye(4, dtype=np.float32) - axis - last) + jnp.sin(angle) * cross + axis + last


def saturation(key: Array, shape: tuple[int, ...]) -> Array:
    """Multiplies the distance to the axis of greys by 2 to the power N(0, 1)."""
    return saturation_matrix(2.0 ** jax.random.normal(key))


def saturation_matrix(gain: Array | float) -> Array:
    """The distance to the axis of greys times `gain`: 0 makes an image grey. -> [4, 4]"""
    kept = np.outer(LUMA, LUMA) + np.diag([0.0, 0.0, 0.0, 1.0]).astype(np.float32)
    return kept + gain * (np.eye(4, dtype=np.float32) - kept)


def recolour(x: Array, matrix: Array) -> Array:
    """Every pixel's colour, as a row with a 1 behind it, times `matrix` [4, 4]. [H, W, 3 or 1] -> the same

    Grey images count as three equal channels, whose mean is taken afterwards: hue and saturation do nothing to them.
    """
    rgb = jnp.broadcast_to(x, (*x.shape[:2], 3))
    rgb = jnp.einsum("hwi,ij->hwj", rgb, matrix[:3, :3], precision="highest") + matrix[3, :3].reshape(1, 1, 3)
    return rgb if x.shape[2] == 3 else rgb.mean(axis=2, keepdims=True)


# ---- gains of frequency bands: diagonal matrices [4, 4] --------------------------------------------------------------

POWER = (
    np.array([10.0, 1.0, 1.0, 1.0], np.float32) / 13.0
)  # of the bands of natural images, whose spectrum is about 1/f


def band_gains(band: int, gain: Array | float) -> Array:
    """Gain of one of four bands, then all scaled so that natural images keep their power. -> [4, 4], diagonal"""
    gains = jnp.ones(4).at[band].set(gain)
    return jnp.diag(gains / jnp.sqrt((POWER * gains**2).sum()))


def _band(band: int) -> Callable[[Array, tuple[int, ...]], Array]:
    return lambda key, shape: band_gains(band, 2.0 ** jax.random.normal(key))


PIXELS: dict[str, Callable[[Array, Array], Array]] = {
    "flip": flip,
    "turn": turn,
    "translation": translation,
    "integer_translation": integer_translation,
    "scaling": scaling,
    "colour": colour,
    "noise": noise,
    "cutout": cutout,
}
"""Transforms of one image: (image, key) -> image."""
MATRICES: dict[str, tuple[Callable[[Array, tuple[int, ...]], Array], Callable[[Array, Array], Array]]] = {
    "isotropic_scaling": (isotropic_scaling, warp),
    "rotation": (rotation, warp),
    "anisotropic_scaling": (anisotropic_scaling, warp),
    "fractional_translation": (fractional_translation, warp),
    "brightness": (brightness, recolour),
    "contrast": (contrast, recolour),
    "luma_flip": (luma_flip, recolour),
    "hue": (hue, recolour),
    "saturation": (saturation, recolour),
    **{f"band_{i}": (_band(i), filter_bands) for i in range(4)},
}
"""Transforms that are matrices: how one is drawn, (key, shape) -> matrix, and applied, (image, matrix) -> image."""
TRANSFORMS = (*PIXELS, *MATRICES)
"""The names of all transforms."""
