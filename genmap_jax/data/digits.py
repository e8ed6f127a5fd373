"""`digits`: the 1,797 handwritten digits of scikit-learn, 8 x 8 pixels of 17 grey values 0..16. Needs no network.

The test half of the UCI "Optical Recognition of Handwritten Digits" set (Alpaydin & Kaynak 1998), which ships inside
scikit-learn. It has no official split; ours is a fixed permutation: train 1,297 / validation 200 / test 300.
"""

import numpy as np
import tensorflow_datasets as tfds

SIZES = {"train": 1297, "validation": 200, "test": 300}


class Digits(tfds.core.GeneratorBasedBuilder):
    """{"image": uint8 [8, 8, 1] in 0..16, "label": 0..9}."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(shape=(8, 8, 1), dtype=np.uint8),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            metadata=tfds.core.MetadataDict(levels=17),
            disable_shuffling=True,  # the order below is the order on disk, whatever TFDS's shuffling does
        )

    def _split_generators(self, dl_manager):
        first, parts = 0, {}
        order = np.random.default_rng(0).permutation(sum(SIZES.values()))
        for split, size in SIZES.items():
            parts[split] = self._generate_examples(order[first : first + size])
            first += size
        return parts

    def _generate_examples(self, rows):
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        for i, row in enumerate(rows):
            yield i, {"image": images[row].reshape(8, 8, 1).astype(np.uint8), "label": int(labels[row])}
