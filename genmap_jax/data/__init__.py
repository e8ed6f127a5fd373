"""Data: one way to read everything, and sets that need no network.

* `sources`  `load` a split as a `Source`, take a `batch` as a function of (seed, step), `prepare` a dataset on disk
* `digits`   8 x 8 handwritten digits, 17 grey levels               * `glyphs`  32 x 32 characters in 21 fonts
* `pydoc`    the Python language reference, as bytes                * `toy`     2-D densities known exactly
* `raw`      MNIST, CIFAR and two texts from their original files   * `pixels`  integers <-> what a network sees
* `text`     bytes, characters, tokens of a Hugging Face file        * `folders` where prepared data are

    source = data.load("digits", "train")                  # or "glyphs", "toy/moons", a prepared TFDS name ...
    batch = data.batch(source, seed=0, step=17, batch_size=128)         # {"image": uint8 [128, 8, 8, 1], "label": ...}
"""

from genmap_jax.data.sources import Source, batch, load, prepare

__all__ = ["Source", "batch", "load", "prepare"]
