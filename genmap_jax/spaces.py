"""An example's space: how a batch holds it, how a network sees it, what its units are.

Images, vectors, tokens and labels are told apart by their shape and by the number of their values:

    images    shape (H, W, C), levels grey values    uint8    bits/dim
    vectors   shape (D,), levels None                float32  nats
    tokens    shape (L,), levels the vocabulary      int32    bits/byte
    labels    shape (), levels the classes           int32

Integers become real numbers in one of two ways, one per kind of model:
* discrete decoders (VAE, diffusion) see the grid  x = 2 v / (levels - 1) - 1  in [-1, 1];
* densities (EBM, score, flow) see uniformly dequantised values  x = 2 (v + u) / levels - 1  in [-1, 1), u ~ U[0, 1).

The way back, `from_grid` and `requantise`, ends in whole grey values as float32, among which NaN stays NaN: as uint8 it
would be black, and nobody could tell it from a sample. `Space.as_batch` looks for it and makes the uint8 of a batch.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from genmap_jax import keys as per_example
from genmap_jax.options import Count
from genmap_jax.shapes import expect, known_within

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Space:
    """The space of one example or of one label; see the module."""

    shape: tuple[Count, ...]
    """Shape of one example: (H, W, C) of images, (D,) of vectors, (L,) of tokens, () of labels."""
    levels: Count | None = None
    """Number of different values: grey values, tokens or classes. None: real numbers."""

    @property
    def image(self) -> bool:
        """Whether examples are images."""
        return len(self.shape) == 3

    @property
    def text(self) -> bool:
        """Whether examples are strings of tokens."""
        return len(self.shape) == 1 and self.levels is not None

    @property
    def field(self) -> str:
        """The name of an example in a batch: "image", "tokens" or "x"."""
        return "image" if self.image else "tokens" if self.text else "x"

    @property
    def dims(self) -> int:
        """How many numbers an example has."""
        return math.prod(self.shape)

    @property
    def dtype(self):
        """The type in which a batch holds examples."""
        return jnp.uint8 if self.image else jnp.float32 if self.levels is None else jnp.int32

    @property
    def unit(self) -> str:
        """The unit in which a likelihood of these data is told."""
        return "bits/dim" if self.image else "bits/byte" if self.text else "nats"

    def like(self, n: int) -> jax.ShapeDtypeStruct:
        """Shape and type of n examples in a batch."""
        return jax.ShapeDtypeStruct((n, *self.shape), self.dtype)

    def zeros(self, n: int) -> Array:
        """n examples of zeros, for shapes."""
        return jnp.zeros((n, *self.shape), self.dtype)

    def check(self) -> None:
        """Raises ValueError that names the field and the fix, unless these are images or vectors."""
        if len(self.shape) not in (1, 3) or min(self.shape) < 1:
            raise ValueError(f"space.shape={self.shape}: give (H, W, C) for images or (D,) for vectors")
        if self.image and not (self.levels and 2 <= self.levels <= 256):
            raise ValueError(f"space.levels={self.levels}: uint8 images have 2 to 256 grey values")
        if not self.image and self.levels is not None:
            raise ValueError(f"space.levels={self.levels}: vectors have real values, so levels must be None")

    @property
    def grey_levels(self) -> int:
        """`levels` of images. Raises ValueError for any other space."""
        if not self.image or self.levels is None:
            raise ValueError(f"space.shape={self.shape}, space.levels={self.levels}: only images have grey values")
        return self.levels

    def expect(self, **arrays: Array | np.ndarray) -> None:
        """Raises ValueError that names the argument, unless each is examples of this space as a batch holds them.

        Shape and kind of number are known while tracing; where the values are known too, outside of compiled code, so
        is their range.
        """
        kind = jnp.floating if self.levels is None else jnp.integer
        for name, x in arrays.items():
            expect((None, *self.shape), **{name: x})
            if not jnp.issubdtype(jnp.result_type(x), kind):
                raise ValueError(f"{name} is {jnp.result_type(x)}, but a batch holds {jnp.dtype(self.dtype)}")
            if self.levels is not None and not known_within(x, self.levels):
                raise ValueError(f"{name} holds {np.min(x)} to {np.max(x)}, but its values are 0..{self.levels - 1}")

    def as_batch(self, samples: Array | np.ndarray) -> np.ndarray:
        """Samples [n, ...] of an algorithm as a batch holds them: images, rounded and clipped, as uint8.

        Raises ValueError that counts them if some hold NaN, infinite values, or tokens that could not be drawn.
        """
        x = np.asarray(samples)
        fine = x >= 0 if self.text else np.isfinite(x)
        if bad := int((~fine.reshape(len(x), -1).all(1)).sum()):
            what = "tokens that no probabilities were given for" if self.text else "NaN or infinite values"
            raise ValueError(f"{bad} of {len(x)} samples hold {what}")
        return np.clip(np.rint(x), 0, self.grey_levels - 1).astype(np.uint8) if self.image else x

    # ---- how a network sees it: images change, vectors stay as they are

    def to_grid(self, data: Array) -> Array:
        """Data as a batch holds them -> real numbers, images on the grid from -1 to 1. [B, ...] -> [B, ...]

        Raises ValueError as `expect`.
        """
        self.expect(**{self.field: data})
        return to_grid(data, self.grey_levels) if self.image else data

    def from_grid(self, x: Array) -> Array:
        """The inverse of `to_grid`: the nearest grey value, in float32."""
        return from_grid(x, self.grey_levels) if self.image else x

    def dequantise(self, data: Array, keys: Array) -> Array:
        """Data as a batch holds them -> real numbers, images uniformly dequantised to [-1, 1). keys [B]

        Raises ValueError as `expect`.
        """
        self.expect(**{self.field: data})
        return dequantise(data, keys, self.grey_levels) if self.image else data

    def requantise(self, x: Array) -> Array:
        """The inverse of `dequantise`: the grey value in whose cell x lies, in float32."""
        return requantise(x, self.grey_levels) if self.image else x

    def grey_values(self, x: Array) -> Array:
        """`requantise` without rounding: real grey values, whole in the middle of a cell; vectors pass as they are."""
        return (x + 1.0) * (self.grey_levels / 2.0) - 0.5 if self.image else x

    @property
    def log_cell(self) -> float:
        """What `dequantise` costs: log P(data) >= E[log p(x)] + log_cell, in nats; 0 for vectors."""
        return log_cell(self.dims, self.grey_levels) if self.image else 0.0


def images(height: int, width: int, channels: int, levels: int = 256) -> Space:
    """The space of images with values 0..levels-1."""
    return Space((height, width, channels), levels)


def vectors(dims: int) -> Space:
    """The space of real vectors."""
    return Space((dims,))


def tokens(length: int, vocab: int) -> Space:
    """The space of strings of `length` tokens 0..vocab-1."""
    return Space((length,), vocab)


def labels(classes: int) -> Space:
    """The space of labels 0..classes-1."""
    return Space((), classes)


# ---- integers and real numbers ---------------------------------------------------------------------------------------


def to_grid(v: Array, levels: int) -> Array:
    """Integers 0..levels-1 -> float32 in [-1, 1], both ends reached."""
    return v.astype(jnp.float32) * (2.0 / (levels - 1)) - 1.0


def from_grid(x: Array, levels: int) -> Array:
    """Nearest integer of `to_grid`, clipped to 0..levels-1, as float32; NaN where x is not finite."""
    return nearest_grey((x + 1.0) * ((levels - 1) / 2.0), levels)


def nearest_grey(v: Array, levels: int) -> Array:
    """Real grey values, rounded and clipped to 0..levels-1, as float32; NaN where v is not finite."""
    return _clipped(jnp.round(v), levels)


def dequantise(v: Array, keys: Array, levels: int) -> Array:
    """Integers [B,...] -> float32 in [-1, 1), with one uniform draw per pixel. `keys`: [B], one per example."""
    return (v.astype(jnp.float32) + per_example.uniform(keys, v.shape[1:])) * (2.0 / levels) - 1.0


def dither(x: Array, keys: Array, levels: int) -> Array:
    """Generated images plus the noise that `dequantise` gives real ones, centred: x is the middle of its cell.

    Without it a discriminator could tell real from generated images by the grid of grey values alone. keys: [B].
    """
    return x + (per_example.uniform(keys, x.shape[1:]) - 0.5) * (2.0 / levels)


def squash(x: Array, levels: int) -> Array:
    """A tanh that ends at the middles of the outermost cells of `dequantise`: where generated images may lie."""
    return jnp.tanh(x) * (1.0 - 1.0 / levels)


def requantise(x: Array, levels: int) -> Array:
    """The cell of `dequantise` that holds x, as float32; values outside [-1, 1) go to the end cells, NaN stays NaN."""
    return _clipped(jnp.floor((x + 1.0) * (levels / 2.0)), levels)


def _clipped(v: Array, levels: int) -> Array:
    return jnp.where(jnp.isfinite(v), jnp.clip(v, 0, levels - 1), jnp.nan)


def log_cell(dims: int, levels: int) -> float:
    """Log-volume of a cell, in nats: log P(v) >= E_u[log p(x)] + log_cell (Theis et al. 2016, eq. 3)."""
    return dims * math.log(2.0 / levels)
