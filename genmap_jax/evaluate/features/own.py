"""`FeatureNet`: a small classifier of the data at hand, whose last hidden layer is the feature space "own64".

On small images it sees missing classes and broken structure better than any network trained on photographs. It is
trained on the `train` split only: what it is later asked to compare comes from validation and test, because a network
tells the images it was fitted on from new ones. Data without labels are given the task of telling by how many right
angles an image was turned (Gidaris et al. 2018, arXiv:1803.07728).

The same training on *generated* images and their labels gives the "train on synthetic, test on real" accuracy
(Ravuri & Vinyals 2019, "Classification accuracy score", arXiv:1905.10887): see `train_classifier` and `accuracy`.
"""

import math
import os
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from genmap_jax import data as datasets
from genmap_jax import spaces
from genmap_jax.data.loading import whole
from genmap_jax.evaluate.features.record import Extractor, batched, check_images, fingerprint, kept

RECIPE = 1
"""Raise it with any change to the network or its training but to the numbers below: all name the file on disk."""
FIT_EXAMPLES = 50_000
"""Training images held in memory at most, evenly spaced."""
STEPS = 2000
BATCH = 64
LEARNING_RATE = 5e-3
WEIGHT_DECAY = 1e-2


class FeatureNet(nn.Module):
    """Three convolutions that end on a map of about 4 x 4, its average, and a linear classifier."""

    classes: int
    widths: tuple[int, ...] = (32, 64, 64)

    @nn.compact
    def __call__(self, x):  # float [B,H,W,C] -> features [B,64], logits [B,classes]
        halvings = math.floor(math.log2(max(min(x.shape[1:3]) / 4, 1)))
        for i, width in enumerate(self.widths):
            stride = 2 if i < halvings else 1
            x = nn.relu(nn.Conv(width, (3, 3), strides=stride)(x))
        features = x.mean((1, 2))
        return features, nn.Dense(self.classes)(features)


def compiled(classes: int, levels: int) -> Callable:
    """(params, x [B,H,W,C] in grey levels) -> features [B,64], logits [B,classes]."""
    return jax.jit(lambda params, x: FeatureNet(classes).apply({"params": params}, spaces.to_grid(x, levels)))


# ---- training --------------------------------------------------------------------------------------------------------


def train_classifier(
    images: np.ndarray, labels: np.ndarray | None, classes: int, levels: int, seed: int = 0, steps: int = STEPS
) -> tuple[Any, Callable]:
    """Train a `FeatureNet` by cross-entropy, with small shifts. Real or generated images, it is all the same.

    images uint8 [N,H,W,C] with values 0..levels-1; labels int [N], or None for the four turns of square images.
    Returns the parameters, and what `compiled` makes.
    Raises ValueError for images or labels that do not fit these.
    """
    images = check_images(images, levels)
    if labels is None:
        if images.shape[1] != images.shape[2]:
            raise ValueError(f"images of shape {images.shape[1:]} cannot be turned: without labels they must be square")
        classes = 4
    elif len(labels) != len(images) or np.min(labels) < 0 or np.max(labels) >= classes:
        raise ValueError(f"labels: give one in 0..{classes - 1} for each of {len(images)} images")
    apply = compiled(classes, levels)
    schedule = optax.cosine_decay_schedule(LEARNING_RATE, steps)
    tx = optax.adamw(schedule, weight_decay=WEIGHT_DECAY)
    reach = max(1, min(images.shape[1:3]) // 16)  # pixels

    @jax.jit
    def train_step(params, opt_state, x, y):
        def loss(params):
            _, logits = apply(params, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        updates, opt_state = tx.update(jax.grad(loss)(params), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    params = FeatureNet(classes).init(jax.random.key(seed), jnp.zeros((1, *images.shape[1:])))["params"]
    opt_state = tx.init(params)
    rng = np.random.default_rng(seed)
    for _ in range(steps):  # on the host: gradients of convolutions inside lax.scan are many times slower on a CPU
        rows = rng.integers(len(images), size=BATCH if labels is not None else BATCH // 4)
        if labels is None:
            x, y = turns(images[rows])
        else:
            x, y = images[rows], np.asarray(labels)[rows]
        params, opt_state = train_step(params, opt_state, _shifted(x, reach, rng), y)
    return params, apply


def accuracy(params: Any, apply: Callable, images: np.ndarray, labels: np.ndarray | None) -> float:
    """Fraction of images classified right, by what `train_classifier` returned; labels None asks for the turns."""
    images, labels = turns(images) if labels is None else (images, labels)
    logits = batched(lambda x: apply(params, x)[1], 256)(images)
    return float((logits.argmax(1) == labels).mean())


def turns(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each image [N,S,S,C] turned by 0, 1, 2 and 3 right angles [4N,S,S,C], and how many [4N]."""
    turned = [np.rot90(images, k, axes=(1, 2)) for k in range(4)]
    return np.concatenate(turned), np.repeat(np.arange(4), len(images))


def _shifted(images: np.ndarray, reach: int, rng: np.random.Generator) -> np.ndarray:
    """Each image moved by up to `reach` pixels along both axes; what enters repeats the edge."""
    n, h, w, _ = images.shape
    dy, dx = rng.integers(-reach, reach + 1, size=(2, n, 1))
    rows, columns = np.clip(np.arange(h) + dy, 0, h - 1), np.clip(np.arange(w) + dx, 0, w - 1)
    return images[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]


# ---- the extractor ---------------------------------------------------------------------------------------------------


def own(
    data: str, levels: int, data_dir: str | os.PathLike | None = None, seed: int = 0, field: str = "image"
) -> Extractor:
    """The classifier of a dataset as an extractor, trained at first use (10-30 s on a CPU) and kept below `data_dir`.

    That of a part of a set ("part/10,glyphs") is the one of the whole set, so that both are measured alike.
    The file is named by what went into the training, the examples included; the hash is of the parameters.
    Raises ValueError for data that are not images.
    """
    data = whole(data)
    images, labels, source = labelled_images(data, levels, data_dir, "train", field=field)
    classes = source.classes if labels is not None else 4
    inputs = {"images": images, "settings": np.array([RECIPE, levels, seed, STEPS, BATCH, LEARNING_RATE, WEIGHT_DECAY])}

    def fit():
        params, apply = train_classifier(images, labels, classes, levels, seed, STEPS)
        right = accuracy(params, apply, *labelled_images(data, levels, data_dir, "validation", field=field)[:2])
        return {name: np.asarray(value) for name, value in flatten_dict(params, sep="/").items()}, repr(right)

    flat, note = kept("own64", data, data_dir, inputs | ({} if labels is None else {"labels": labels}), fit)
    right = float(note)
    params, apply, shape = unflatten_dict(flat, sep="/"), compiled(classes, levels), images.shape[1:]
    features = batched(lambda x: apply(params, x)[0], 256)
    probabilities = batched(lambda x: jax.nn.softmax(apply(params, x)[1]), 256)
    task = "their labels" if labels is not None else "the four turns of each"
    return Extractor(
        name="own64",
        hash=fingerprint(flat),
        fit=f"{len(images)} images of {data} (train) and {task}, seed {seed}; validation accuracy {right:.4f}",
        features=lambda x, rounded=True: features(check_images(x, levels, shape, rounded)),
        probabilities=None if labels is None else lambda x: probabilities(check_images(x, levels, shape)),
        accuracy=right,
    )


def labelled_images(
    data: str,
    levels: int,
    data_dir: str | os.PathLike | None,
    split: str,
    limit: int = FIT_EXAMPLES,
    field: str = "image",
) -> tuple[np.ndarray, np.ndarray | None, Any]:
    """Images uint8 [N,H,W,C] of a split, at most `limit` and evenly spaced, their labels [N] or None, the Source."""
    source = datasets.load(data, split, data_dir=data_dir)
    if len(source.shape) != 3:
        raise ValueError(
            f"data={data} is not images but of shape {source.shape}: use features.coordinates() for vectors"
        )
    batch = source.take(source.spaced(limit))
    return batch[field], batch.get("label"), source
