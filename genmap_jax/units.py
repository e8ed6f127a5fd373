"""The one conversion of the project from log-probabilities to code lengths."""

import math


def bits_per_dim(nats, dims: float):
    """Log-probability in nats, summed over an example -> code length in bits per dimension.

    nats: number or array of any shape. dims: dimensions of one example; for text its mean length in bytes, and the
    result is bits per byte. Log-probabilities come in and costs go out, so a lower bound on `nats` is an upper bound on
    the bits.
    """
    return -nats / (dims * math.log(2.0))
