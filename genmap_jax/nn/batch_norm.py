"""Batch normalisation over the batch of all devices, with a gain and a bias for each class."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from genmap_jax import parallel

Array = jax.Array


def statistics(x: Array, axis_name: str | None) -> tuple[Array, Array]:
    """Mean and (biased) variance of every channel over the batch of all devices. x [B, ..., C] -> [C], [C]

    In two passes, so that a large mean costs the variance no digits. Gradients pass through both, over all devices.
    """
    axes = tuple(range(x.ndim - 1))
    mean = parallel.mean(x.mean(axes), axis_name)
    return mean, parallel.mean(jnp.square(x - _over(mean, x)).mean(axes), axis_name)


class BatchNorm(nn.Module):
    """Zero mean and unit variance per channel, then a gain and a bias. x [B, ..., C], label [B] or None -> the same

    Ioffe & Szegedy 2015 (arXiv:1502.03167); with a gain and a bias for each class, Dumoulin et al. 2017
    (arXiv:1610.07629).

    train: whether to normalise by the batch, and move the running statistics (collection "batch_stats") towards it, or
        to normalise by those.
    classes: number of classes; None for one gain and bias.
    affine: whether there are a gain and a bias; without, the caller can apply its own (BigGAN computes them from z).
    axis_name: of the devices that share the batch.
    decay: of the running statistics, per batch.
    """

    classes: int | None = None
    axis_name: str | None = None
    decay: float = 0.9
    epsilon: float = 1e-5
    affine: bool = True

    @nn.compact
    def __call__(self, x: Array, label: Array | None, train: bool) -> Array:
        C = x.shape[-1]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (C,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (C,))
        if train:
            mean, var = statistics(x, self.axis_name)
            if self.is_mutable_collection("batch_stats"):
                running_mean.value = self.decay * running_mean.value + (1.0 - self.decay) * mean
                running_var.value = self.decay * running_var.value + (1.0 - self.decay) * var
        else:
            mean, var = running_mean.value, running_var.value
        x = (x - _over(mean, x)) * _over(jax.lax.rsqrt(var + self.epsilon), x)
        if not self.affine:
            return x
        shape = (C,) if self.classes is None else (self.classes, C)
        gain = self.param("gain", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        if self.classes is not None:
            gain, bias = gain[label], bias[label]
        return x * _over(gain, x) + _over(bias, x)


def _over(channels: Array, x: Array) -> Array:
    """[C] or [B, C] -> [1 or B, 1, ..., C], the rank of x."""
    return channels.reshape(-1, *[1] * (x.ndim - 2), channels.shape[-1])
