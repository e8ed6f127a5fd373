"""`fonts`: 1,984 letters and digits in DejaVu Sans (A) and as many in DejaVu Serif (B), 32 x 32. Needs no network.

A pair of domains whose truth is known: row i of both is the same character in the same style (plain, bold, italic, bold
italic), turned, scaled, sheared and shifted by the same numbers, 8 times over; see `glyphs`, whose drawing this is. A
batch draws both domains on their own, so that nothing says which belong together, unless it is asked for as
`aligned/fonts`.

Splits hold out combinations of style s and character c: test where (s + c) % 7 is 0, validation where it is 1.
"""

from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from genmap_jax.data.glyphs import SIDE, distort, drawn, info

STYLES = {
    "A": [f"DejaVuSans{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")],
    "B": [f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")],
}
VARIANTS = 8


class Fonts(tfds.core.GeneratorBasedBuilder):
    """{"image": uint8 [32, 32, 1], white on black, "label": one of 62 characters}, in the splits trainA to testB."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return info(self, __doc__, (SIDE, SIDE, 1), aligned=True)

    def _split_generators(self, dl_manager):
        splits = ("train", "validation", "test")
        return {f"{split}{domain}": self._generate_examples(split, domain) for split in splits for domain in STYLES}

    def _generate_examples(self, split, domain):
        yield from enumerate(examples(split, domain))


def examples(split: str, domain: str) -> Iterator[dict]:
    """The images of a split of a domain, in their order."""
    for s, c, variant, glyph in drawn(STYLES[domain], split, VARIANTS):
        yield {"image": distort(glyph, np.random.default_rng([s, c, variant])), "label": c}
