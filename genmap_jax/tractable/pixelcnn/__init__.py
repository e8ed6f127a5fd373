"""PixelCNN++: a convolutional network over images, with the exact log-probability of every image.

Salimans et al. 2017, "PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood and Other
Modifications" (arXiv:1701.05517), after van den Oord et al. 2016 (arXiv:1601.06759, arXiv:1606.05328).

    log p(x) = sum over pixels in raster order  log p(pixel | pixels before)
    log p(pixel | pixels before) = log sum_k pi_k prod_c  logistic_k(channel c | channels before), rounded

The defaults are the network of the paper. `GATED` (masked convolutions, with the blind spot) and `PIXELSNAIL`
(attention, no strides) are the choices of other models as changes to a configuration:
dataclasses.replace(cfg, **pixelcnn.GATED).

Differs from the paper: the probabilities of the mixture are exact in both tails (the paper's code takes a density where
a difference of two sigmoids is small, and is off by up to 2 nats there); a class is a learned bias in every block, as
there, but labels may be dropped, for guidance; the initialisation sees the first batch without dropout; the learning
rate decays by a cosine, not exponentially. `GATED` differs from its papers by the blocks, the weight normalisation and
the head of PixelCNN++: channels of a pixel depend on each other in the head, not by masks. `PIXELSNAIL` differs from
its paper by one attention block of one head in the middle, whose keys and values are features of the pixels and not the
pixels themselves.

    config      the options, the choices of published models
    network     shifted convolutions, gated blocks, the two streams
    head        the law of a pixel: mixture of logistics, categorical, Bernoulli
    sampling    three ways to draw the same images; pixels that are given
    model       log p of images; `algorithm`
"""

from genmap_jax.tractable.pixelcnn.config import GATED, PIXELSNAIL, SAMPLING, Config, check
from genmap_jax.tractable.pixelcnn.model import (
    FAMILY,
    algorithm,
    channel_log_prob,
    complete,
    generate,
    init_params,
    log_prob,
    outputs,
)
from genmap_jax.tractable.pixelcnn.network import At, Attention, Block, Conv, PixelCNN, Stream, Up

__all__ = [
    "FAMILY",
    "GATED",
    "PIXELSNAIL",
    "SAMPLING",
    "At",
    "Attention",
    "Block",
    "Config",
    "Conv",
    "PixelCNN",
    "Stream",
    "Up",
    "algorithm",
    "channel_log_prob",
    "check",
    "complete",
    "generate",
    "init_params",
    "log_prob",
    "outputs",
]
