"""Batch normalisation with a gain and a bias for each class, over the whole batch whatever the number of devices."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from genmap_jax import parallel

Array = jax.Array


class BatchNorm(nn.Module):
    """x [B, ..., C], label [B] or None -> the same shape: zero mean and unit variance per channel, then gain and bias.

    Ioffe & Szegedy 2015 (arXiv:1502.03167); one gain and bias for each class: Dumoulin et al. 2017 (arXiv:1610.07629).
    train: normalise by the batch, and move the running statistics (collection "batch_stats") towards it; else by those.
    classes: None for one gain and bias. axis_name: of the devices that share the batch.
    """

    classes: int | None = None
    axis_name: str | None = None
    decay: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Array, label: Array | None, train: bool) -> Array:
        C = x.shape[-1]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (C,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (C,))
        shape = (C,) if self.classes is None else (self.classes, C)
        gain = self.param("gain", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)

        def over(channels: Array) -> Array:  # [C] or [B, C] -> [1 or B, 1, ..., C]
            return channels.reshape(-1, *[1] * (x.ndim - 2), C)

        if train:
            axes = tuple(range(x.ndim - 1))
            mean = parallel.mean(x.mean(axes), self.axis_name)
            var = parallel.mean(jnp.square(x - over(mean)).mean(axes), self.axis_name)
            if self.is_mutable_collection("batch_stats"):
                running_mean.value = self.decay * running_mean.value + (1.0 - self.decay) * mean
                running_var.value = self.decay * running_var.value + (1.0 - self.decay) * var
        else:
            mean, var = running_mean.value, running_var.value
        if self.classes is not None:
            gain, bias = gain[label], bias[label]
        return (x - over(mean)) * over(jax.lax.rsqrt(var + self.epsilon)) * over(gain) + over(bias)
