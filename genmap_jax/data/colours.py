"""`colours`: 3,968 letters and digits in colour, 16 x 16, of a law of colours that no exchange of colours leaves alone.

Needs no network. Letters are bright on dark paper. In ink red outshines green and green outshines blue, in paper it is
the other way around, and all are skewed, so that a map of the colours can be told from any other by what it makes of
the whole set; `rendered/rotated,colours` is such a map. Ink and paper change their colours smoothly across an image,
because networks with instance normalisation cannot see the mean and the contrast of an image. See `glyphs`, whose
drawing this is.

Splits hold out combinations of style s and character c: test where (s + c) % 7 is 0, validation where it is 1.
"""

from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from genmap_jax.data.glyphs import distort, drawn, info

SIDE = 16
STYLES = ["DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSerif-Bold"]
VARIANTS = 16
INK, PAPER = np.array([[160, 255], [90, 190], [40, 130]]), np.array([[0, 30], [10, 60], [20, 90]])
"""Darkest and brightest red, green and blue."""
POINTS = 4  # of the grid, on either side of an image


class Colours(tfds.core.GeneratorBasedBuilder):
    """{"image": uint8 [16, 16, 3], "label": one of 62 characters}."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return info(self, __doc__, (SIDE, SIDE, 3))

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in ("train", "validation", "test")}

    def _generate_examples(self, split):
        yield from enumerate(examples(split))


def examples(split: str) -> Iterator[dict]:
    """The images of a split, in their order."""
    for s, c, variant, glyph in drawn(STYLES, split, VARIANTS):
        rng = np.random.default_rng([s, c, variant])
        mask = distort(glyph, rng).reshape(SIDE, 2, SIDE, 2).mean((1, 3))[..., None] / 255.0
        ink, paper = (field(limits, rng) for limits in (INK, PAPER))
        yield {"image": np.rint(paper + mask * (ink - paper)).astype(np.uint8), "label": c}


def field(limits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Colours [SIDE, SIDE, 3] between limits [3, 2], interpolated between points of a grid, where they are near the
    brighter end more often than near the darker one."""
    low, high = limits.T
    share = np.einsum("ih,jw,ijc->hwc", _WEIGHTS, _WEIGHTS, rng.beta(4.0, 1.5, (POINTS, POINTS, 3)))
    return low + (high - low) * share


_WEIGHTS = np.array([np.interp(np.linspace(0, POINTS - 1, SIDE), range(POINTS), row) for row in np.eye(POINTS)])
