"""`glyphs`: 20,832 grey 32 x 32 images of A-Z a-z 0-9 in the 21 fonts that matplotlib bundles. Needs no network.

Every (font, character) pair is drawn once at twice the resolution and then, 16 times over, turned, scaled, sheared
and shifted a little, with numbers seeded by (font, character, variant). The same Pillow gives the same bytes.

Splits hold out *combinations*: pair (f, c) is test where (f + c) % 7 == 0 and validation where it is 1. All variants of
a pair are on one side, so no test image is a training image moved by a pixel; yet every font and every character has
training examples: the test split asks whether a model composes style and content. (Fonts of one family do resemble each
other; the rule holds out three fonts of each character, seven apart in the list.)
14,880 train / 2,976 validation / 2,976 test.
"""

import string
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tensorflow_datasets as tfds

if TYPE_CHECKING:
    from PIL import Image

CHARACTERS = string.ascii_uppercase + string.ascii_lowercase + string.digits
# matplotlib's other faces hold symbols only, and draw letters blank or as one placeholder.
FONTS = [
    *(f"DejaVuSans{style}" for style in ("", "-Bold", "-BoldOblique", "-Oblique")),
    *(f"DejaVuSansMono{style}" for style in ("", "-Bold", "-BoldOblique", "-Oblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-BoldItalic", "-Italic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "BolIta", "Italic")),
    *("cmb10", "cmr10", "cmss10", "cmti10", "cmtt10"),
]
VARIANTS = 16
SIDE, OVERSAMPLING = 32, 2
FONT_SIZE, BASELINE = 21, 23  # pixels of the final image: with the distortions below no ink reaches the border
TURN, LOG_SCALE, SHEAR, SHIFT = 0.12, 0.08, 0.12, 1.5  # half-widths: radians, nats, ratio, pixels


class Glyphs(tfds.core.GeneratorBasedBuilder):
    """{"image": uint8 [32, 32, 1], white on black, "label": one of 62 characters, "font": one of 21}."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return info(self, __doc__, (SIDE, SIDE, 1), {"font": tfds.features.ClassLabel(names=FONTS)})

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in ("train", "validation", "test")}

    def _generate_examples(self, split):
        for f, c, variant, glyph in drawn(FONTS, split, VARIANTS):
            image = distort(glyph, np.random.default_rng([f, c, variant]))
            yield (f * len(CHARACTERS) + c) * VARIANTS + variant, {"image": image, "label": c, "font": f}


def info(builder, description, shape: tuple[int, int, int], features: dict | None = None, **known):
    """What TFDS is told of a set of images of characters [H, W, C] with 256 levels, in the order of its examples.

    features: beside image and label. known: more about the set, see `arrays`.
    """
    image = tfds.features.Tensor(shape=shape, dtype=np.uint8)
    label = tfds.features.ClassLabel(names=list(CHARACTERS))
    return tfds.core.DatasetInfo(
        builder=builder,
        description=description,
        features=tfds.features.FeaturesDict({"image": image, "label": label} | (features or {})),
        metadata=tfds.core.MetadataDict(levels=256, **known),
        disable_shuffling=True,  # the order of examples is the order on disk, whatever TFDS's shuffling does
    )


def drawn(fonts: list[str], split: str, variants: int) -> Iterator[tuple[int, int, int, "Image.Image"]]:
    """(number of the font, number of the character, variant, the drawn character), of all that are in a split."""
    for f, name in enumerate(fonts):
        font = open_font(name)
        for c, character in enumerate(CHARACTERS):
            if split_of(f, c) == split:
                glyph = draw(font, character)
                yield from ((f, c, variant, glyph) for variant in range(variants))


def split_of(f: int, c: int) -> str:
    """The split of font f and character c."""
    return {0: "test", 1: "validation"}.get((f + c) % 7, "train")


def open_font(name: str):
    """A bundled font at the oversampled size."""
    import matplotlib
    from PIL import ImageFont

    path = Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf")
    # The basic layout engine is always compiled in; the other depends on a system library.
    return ImageFont.truetype(path, FONT_SIZE * OVERSAMPLING, layout_engine=ImageFont.Layout.BASIC)


def draw(font, character: str):
    """One character, centred, on the common baseline: a grey PIL image at the oversampled size."""
    from PIL import Image, ImageDraw

    image = Image.new("L", (SIDE * OVERSAMPLING, SIDE * OVERSAMPLING))
    left, _, right, _ = font.getbbox(character, anchor="ls")
    x = (SIDE * OVERSAMPLING - left - right) / 2
    ImageDraw.Draw(image).text((round(x), BASELINE * OVERSAMPLING), character, fill=255, font=font, anchor="ls")
    return image


def distort(glyph, rng: np.random.Generator) -> np.ndarray:
    """A small random affine map about the centre, then down to size. uint8 [32, 32, 1]"""
    from PIL import Image

    turn, log_scale, shear, *shift = rng.uniform(-1, 1, 5) * [TURN, LOG_SCALE, SHEAR, SHIFT, SHIFT]
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    inverse = np.linalg.inv(np.exp(log_scale) * rotation @ [[1, shear], [0, 1]])  # PIL maps output pixels to input
    centre = np.full(2, glyph.width / 2)
    offset = centre - inverse @ (centre + np.array(shift) * OVERSAMPLING)
    matrix = np.concatenate([inverse, offset[:, None]], axis=1)
    moved = glyph.transform(glyph.size, Image.Transform.AFFINE, matrix.ravel().tolist(), Image.Resampling.BICUBIC)
    return np.asarray(moved.reduce(OVERSAMPLING))[..., None]
