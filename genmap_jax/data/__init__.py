"""Data: one way to read everything, sets that need no network, and own data with one command.

    source = data.load("digits", "train")                  # or "glyphs", "toy/moons", a prepared name ...
    batch = data.batch(source, seed=0, step=17, batch_size=128)     # {"image": uint8 [128, 8, 8, 1], "label": ...}

* `loading`      `load` a split by its name               * `sources`   `Source`, and a `batch` of it
* `preparation`  `prepare` a dataset on disk              * `arrays`    a prepared split as memory-mapped arrays
* `own`          own images, arrays, JSON lines, text     * `raw`       MNIST, CIFAR, two texts from their files
* `image_files`  PNG, JPEG, WebP by fixed rules           * `text`      bytes, characters, tokens of Hugging Face
* `digits`       8 x 8 handwritten digits, 17 grey levels * `glyphs`    32 x 32 characters in 21 fonts
* `pydoc`        the Python language reference            * `toy`       2-D densities known exactly
* `colours`      16 x 16 characters in colour             * `fonts`     characters in two families of fonts, a pair
* `renderings`   known maps of images, for pairs          * `augmentation` of training images
* `folders`      where prepared data are
"""

from genmap_jax.data.loading import load, target
from genmap_jax.data.preparation import prepare
from genmap_jax.data.sources import Examples, Source, batch, pair

__all__ = ["Examples", "Source", "batch", "load", "pair", "prepare", "target"]
