"""Maximum likelihood for families that know log p(x) exactly: autoregressive networks and normalizing flows.

    minimise  - E_data[log p(x)]  =  H(data) + KL(data || p)

so the loss of a model can approach the entropy of its data and never be below it: a loss that is, is a leak.
"""

from collections.abc import Callable

from genmap_jax.algorithm import Array, Batch, Key, Params
from genmap_jax.units import bits_per_dim


def negative_log_likelihood(
    log_prob: Callable[[Params, Key, Batch], Array], dims: int
) -> Callable[[Params, Key, Batch], dict[str, Array]]:
    """The loss for `minimise`, per example [B]: "loss" in nats per dimension, "bits_per_dim" the same in bits.

    log_prob: (params, keys [B], batch) -> [B], nats of the data as the batch holds them, summed over dimensions.
        The keys are for a density of continuous values, which dequantises; other families leave them alone.
    dims: dimensions of one example. For text a dimension is a token: with bytes, "bits_per_dim" is bits per byte.
        A loss per dimension lets learning rates and gradient clipping mean the same at any length.
    """

    def loss(params, keys, batch):
        nats = log_prob(params, keys, batch)
        return {"loss": -nats / dims, "bits_per_dim": bits_per_dim(nats, dims)}

    return loss
