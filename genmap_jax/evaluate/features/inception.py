"""Inception-v3 as released with TensorFlow on 2015-12-05: the features of the Fréchet inception distance.

Szegedy et al. 2015 (arXiv:1512.00567) give the network, Heusel et al. 2017 (arXiv:1706.08500) the distance. The graph
that all published numbers come from is not quite the paper's: averages over a 3 x 3 window leave out the padding, the
last block takes a maximum in place of an average, and there are 1008 classes. Weights: the state dict known as
pt_inception-2015-12-05-6726825d.pth.

Images are resized to 299 pixels by `clean_resize`, so numbers compare with those of Parmar et al. 2022
(arXiv:2104.11222), not with those of TensorFlow's own bilinear resize. Batch norms are folded into the convolutions.
"""

import functools
import os

import flax.linen as nn
import jax
import jax.numpy as jnp

from genmap_jax.evaluate.features.record import Extractor, batched, check_images, fingerprint, photographs
from genmap_jax.interop import weights as files

EPS = 1e-3
"""What the batch norms add to the variance."""
SIZE = 299
BATCH = 16
CENTRE = 128 / 255
"""The graph's own scaling is (v - 128) / 128 of bytes v."""


class InceptionV3(nn.Module):
    """All layers lie side by side under the names of the weight file."""

    @nn.compact
    def __call__(self, x):  # float [B,H,W,3] in [-1, 1) -> features [B,2048], logits without their bias [B,1008]
        def conv(x, name, width, kernel=(1, 1), stride=1, padding="SAME"):
            return nn.relu(nn.Conv(width, kernel, stride, padding, name=name)(x))

        def shrink(x):
            return nn.max_pool(x, (3, 3), (2, 2))

        def average(x):
            return nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)

        def maximum(x):
            return nn.max_pool(x, (3, 3), padding="SAME")

        def chain(x, name, *layers):
            """Convolutions NAME_1, NAME_2 ... one after another."""
            for i, layer in enumerate(layers, 1):
                x = conv(x, f"{name}_{i}", *layer)
            return x

        def block_a(x, name, pooled):
            return jnp.concatenate(
                [
                    conv(x, f"{name}.branch1x1", 64),
                    chain(x, f"{name}.branch5x5", (48,), (64, (5, 5))),
                    chain(x, f"{name}.branch3x3dbl", (64,), (96, (3, 3)), (96, (3, 3))),
                    conv(average(x), f"{name}.branch_pool", pooled),
                ],
                -1,
            )

        def block_b(x, name):
            return jnp.concatenate(
                [
                    conv(x, f"{name}.branch3x3", 384, (3, 3), 2, "VALID"),
                    chain(x, f"{name}.branch3x3dbl", (64,), (96, (3, 3)), (96, (3, 3), 2, "VALID")),
                    shrink(x),
                ],
                -1,
            )

        def block_c(x, name, width):
            row, column = (1, 7), (7, 1)
            return jnp.concatenate(
                [
                    conv(x, f"{name}.branch1x1", 192),
                    chain(x, f"{name}.branch7x7", (width,), (width, row), (192, column)),
                    chain(
                        x,
                        f"{name}.branch7x7dbl",
                        *((width,), (width, column), (width, row), (width, column), (192, row)),
                    ),
                    conv(average(x), f"{name}.branch_pool", 192),
                ],
                -1,
            )

        def block_d(x, name):
            return jnp.concatenate(
                [
                    chain(x, f"{name}.branch3x3", (192,), (320, (3, 3), 2, "VALID")),
                    chain(
                        x,
                        f"{name}.branch7x7x3",
                        *((192,), (192, (1, 7)), (192, (7, 1)), (192, (3, 3), 2, "VALID")),
                    ),
                    shrink(x),
                ],
                -1,
            )

        def block_e(x, name, pool):
            def fork(x, name):
                return [conv(x, f"{name}a", 384, (1, 3)), conv(x, f"{name}b", 384, (3, 1))]

            return jnp.concatenate(
                [
                    conv(x, f"{name}.branch1x1", 320),
                    *fork(chain(x, f"{name}.branch3x3", (384,)), f"{name}.branch3x3_2"),
                    *fork(chain(x, f"{name}.branch3x3dbl", (448,), (384, (3, 3))), f"{name}.branch3x3dbl_3"),
                    conv(pool(x), f"{name}.branch_pool", 192),
                ],
                -1,
            )

        x = conv(x, "Conv2d_1a_3x3", 32, (3, 3), 2, "VALID")
        x = conv(x, "Conv2d_2a_3x3", 32, (3, 3), 1, "VALID")
        x = shrink(conv(x, "Conv2d_2b_3x3", 64, (3, 3)))
        x = conv(x, "Conv2d_3b_1x1", 80)
        x = shrink(conv(x, "Conv2d_4a_3x3", 192, (3, 3), 1, "VALID"))
        for name, pooled in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
            x = block_a(x, name, pooled)
        x = block_b(x, "Mixed_6a")
        for name, width in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
            x = block_c(x, name, width)
        x = block_d(x, "Mixed_7a")
        x = block_e(x, "Mixed_7b", average)
        x = block_e(x, "Mixed_7c", maximum)
        features = x.mean((1, 2))
        return features, nn.Dense(1008, use_bias=False, name="fc")(features)


def load(path: str | os.PathLike) -> files.Layers:
    """The parameters of `InceptionV3` from a weight file. Raises as `weights.read` does, or ValueError."""
    tensors = files.read(path)
    tensors.drop(files.BUFFERS)
    names = [key.removesuffix(".conv.weight") for key in tensors if key.endswith(".conv.weight")]
    layers = {name: files.folded(tensors, f"{name}.conv", f"{name}.bn", EPS) for name in names}
    layers["fc"] = {field: x for field, x in files.layer(tensors, "fc").items() if field != "bias"}
    tensors.expect_none()
    return files.fit_to(InceptionV3(), layers, (1, SIZE, SIZE, 3), path)


def inception(path: str | os.PathLike, levels: int) -> Extractor:
    """Features [N,2048], and the class probabilities of the inception score (arXiv:1606.03498).

    That score's own code leaves out the bias of the logits, and so do the probabilities here.
    """
    layers = load(path)
    params = jax.device_put(layers)
    apply = jax.jit(lambda params, x: InceptionV3().apply({"params": params}, x))
    see = functools.partial(photographs, levels=levels, size=SIZE, mean=CENTRE, std=CENTRE)
    features = batched(lambda x: apply(params, see(x))[0], BATCH)
    probabilities = batched(lambda x: jax.nn.softmax(apply(params, see(x))[1]), BATCH)
    return Extractor(
        name="inception",
        hash=fingerprint(files.flat(layers)),
        fit="ImageNet, 1008 classes; nothing of this data",
        features=lambda x, rounded=True: features(check_images(x, levels, rounded=rounded)),
        probabilities=lambda x: probabilities(check_images(x, levels)),
        accuracy=None,
    )
