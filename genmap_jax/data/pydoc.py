"""`pydoc`: the Python language reference as text, about 370 kB, from the standard library. Needs no network.

`pydoc_data.topics` holds the reference in some 80 overlapping topics. They are joined in sorted order, and a paragraph
(of more than 60 characters) that an earlier topic already had is left out: a fifth of the raw text is such repeats, and
they would put training text into the test split. Whole topics go to train, validation or test by where their middle
falls: the first 80, next 10 and last 10 per cent of the bytes.

The text is a function of the Python version, which is therefore the name of the TFDS config (`pydoc/python3.11.7`):
bits per byte are comparable within one version only.
"""

import platform
from collections.abc import Mapping

import tensorflow_datasets as tfds

SEPARATOR = "\n\n\n"
ENDS = {"train": 0.8, "validation": 0.9, "test": 1.0}  # of the bytes
SHORT = 60  # characters; shorter repeats are headings and labels such as "See also:"


class Pydoc(tfds.core.GeneratorBasedBuilder):
    """One example per split, as in `tiny_shakespeare`: {"text": all of it, UTF-8}."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=f"python{platform.python_version()}")]

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict({"text": tfds.features.Text()}),
            metadata=tfds.core.MetadataDict(python=platform.python_version()),
        )

    def _split_generators(self, dl_manager):
        from pydoc_data.topics import topics

        return {split: self._generate_examples(text) for split, text in split_topics(topics).items()}

    def _generate_examples(self, text):
        yield 0, {"text": text}


def split_topics(topics: Mapping[str, str]) -> dict[str, str]:
    """Topics -> the text of each split, by the rule above."""
    seen: set[str] = set()
    texts = []
    for name in sorted(topics):
        paragraphs = topics[name].strip().split("\n\n")
        texts.append("\n\n".join(p for p in paragraphs if len(p) <= SHORT or p.strip() not in seen))
        seen.update(p.strip() for p in paragraphs)
    sizes = [len(text.encode()) for text in texts]
    parts: dict[str, list[str]] = {split: [] for split in ENDS}
    first = 0
    for text, size in zip(texts, sizes, strict=True):
        middle = (first + size / 2) / sum(sizes)
        parts[next(split for split, end in ENDS.items() if middle < end)].append(text)
        first += size
    return {split: SEPARATOR.join(part) + "\n" for split, part in parts.items()}
