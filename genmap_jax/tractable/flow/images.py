"""What flows of images are made of: logits of pixels, squeeze, the multi-scale split with a learned prior,
convolutional conditioners.

Dinh et al. 2017, "Real NVP" (arXiv:1605.08803), section 3.6; Kingma & Dhariwal 2018, "Glow" (arXiv:1807.03039).
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from genmap_jax.algorithm import Array
from genmap_jax.nn.products import in_type, widened
from genmap_jax.tractable.flow.bijection import Bijection, inverted
from genmap_jax.tractable.flow.coupling import Elementwise


def logit(alpha: float) -> Bijection:
    """Pixels x in [-1, 1] -> logit(alpha + (1 - 2 alpha) (x + 1) / 2), elementwise (Dinh et al. 2017, section 4.1).

    The ends of the scale of grey values, where many images have most of their pixels, are drawn apart: dequantised
    black is no longer a spike but as wide as all other values together. Dequantised images lie within [-1, 1] and so
    do images that come back; other numbers have no logit.
    """
    share = (1.0 - 2.0 * alpha) / 2.0

    def forward(params, x, cond):
        low, high = jnp.log(alpha + share * (1.0 + x)), jnp.log(alpha + share * (1.0 - x))
        return low - high, (math.log(share) - low - high).reshape(len(x), -1).sum(-1)

    def inverse(params, y, cond):
        log_slope = jax.nn.log_sigmoid(y) + jax.nn.log_sigmoid(-y) - math.log(share)
        return (jax.nn.sigmoid(y) - alpha) / share - 1.0, log_slope.reshape(len(y), -1).sum(-1)

    return Bijection(lambda key, x, cond: {}, forward, inverse)


def squeeze() -> Bijection:
    """[B, H, W, C] -> [B, H/2, W/2, 4 C]: every square of 2 x 2 pixels becomes the channels of one.

    Raises ValueError for sides that are odd.
    """

    def forward(params, x, cond):
        return space_to_depth(x), jnp.zeros(len(x), x.dtype)

    def inverse(params, y, cond):
        b, h, w, c = y.shape
        x = y.reshape(b, h, w, 2, 2, c // 4).swapaxes(2, 3).reshape(b, 2 * h, 2 * w, c // 4)
        return x, jnp.zeros(b, y.dtype)

    return Bijection(lambda key, x, cond: {}, forward, inverse)


def unsqueeze() -> Bijection:
    """The opposite of `squeeze`."""
    return inverted(squeeze())


def with_squeezed_condition(bijection: Bijection) -> Bijection:
    """The same map, given a condition [B, H, W, C] that is squeezed as its input was."""

    def squeezed(cond: Array | None) -> Array | None:
        return None if cond is None else space_to_depth(cond)

    return Bijection(
        lambda key, x, cond: bijection.init(key, x, squeezed(cond)),
        lambda params, x, cond: bijection.forward(params, x, squeezed(cond)),
        lambda params, y, cond: bijection.inverse(params, y, squeezed(cond)),
    )


def space_to_depth(x: Array) -> Array:
    """[B, H, W, C] -> [B, H/2, W/2, 4 C]. Raises ValueError for sides that are odd."""
    b, h, w, c = x.shape
    if h % 2 or w % 2:
        raise ValueError(f"an image of {h} x {w} cannot be squeezed: both sides must be even; use fewer levels")
    return x.reshape(b, h // 2, 2, w // 2, 2, c).swapaxes(2, 3).reshape(b, h // 2, w // 2, 4 * c)


def split_off(elementwise: Elementwise, network: Callable[[int], nn.Module], rest: Bijection) -> Bijection:
    """Half of the channels become latents here, the others go through `rest`: y is (latents, y of the rest).

    The split-off half is given a law by the half that stays, through `elementwise` with parameters from `network`: the
    learned prior of Glow. Its latents are standard normal like all others, so that the whole remains one bijection.
    Raises ValueError for an odd number of channels.
    """

    def halves(x):
        if x.shape[-1] % 2:
            raise ValueError(
                f"{x.shape[-1]} channels cannot be split in two halves: squeeze first, or use fewer levels"
            )
        return jnp.split(x, 2, axis=-1)

    def raw(params, stays, off, cond):
        out = network(off.shape[-1] * elementwise.parameters).apply({"params": params}, stays, cond)
        return out.reshape(*off.shape, elementwise.parameters)

    def init(key, x, cond):
        stays, off = halves(x)
        prior = network(off.shape[-1] * elementwise.parameters).init(key, stays, cond)["params"]
        return {"prior": prior, "rest": rest.init(key, stays, cond)}

    def forward(params, x, cond):
        stays, off = halves(x)
        z, log_slope = elementwise.forward(raw(params["prior"], stays, off, cond), off)
        y, logdet = rest.forward(params["rest"], stays, cond)
        return (z, y), logdet + log_slope.reshape(len(x), -1).sum(-1)

    def inverse(params, y, cond):
        z, y = y
        stays, logdet = rest.inverse(params["rest"], y, cond)
        off, log_slope = elementwise.inverse(raw(params["prior"], stays, z, cond), z)
        return jnp.concatenate([stays, off], axis=-1), logdet + log_slope.reshape(len(z), -1).sum(-1)

    return Bijection(init, forward, inverse)


# ---- conditioners ----------------------------------------------------------------------------------------------------


class ConvNetwork(nn.Module):
    """The conditioner of Glow: 3x3, 1x1 and 3x3 convolutions with ReLU, output starting at zero."""

    width: int
    """Hidden channels."""
    outputs: int
    """Channels put out."""
    dtype: str = "float32"
    """Type of activations and products; parameters, input and output are float32."""

    @nn.compact
    def __call__(self, x, cond):  # [B, H, W, c], [B, C] or [B, H, W, C] or None -> [B, H, W, outputs]
        (x,) = in_type(self.dtype, with_condition(x, cond))
        h = nn.relu(nn.Conv(self.width, (3, 3), dtype=x.dtype, name="Conv_0")(x))
        # as a product: XLA's own 1x1 convolution is slow on CPUs
        h = nn.relu(nn.Dense(self.width, dtype=x.dtype, name="Conv_1")(h))
        zeros = nn.initializers.zeros
        return widened(nn.Conv(self.outputs, (3, 3), kernel_init=zeros, dtype=x.dtype, name="Conv_2")(h))


class ConvPrior(nn.Module):
    """One 3x3 convolution that starts at zero: what the half that stays says of the half that is split off."""

    outputs: int
    """Channels put out."""
    dtype: str = "float32"
    """Type of activations and products; parameters, input and output are float32."""

    @nn.compact
    def __call__(self, x, cond):  # [B, H, W, c], [B, C] or [B, H, W, C] or None -> [B, H, W, outputs]
        (x,) = in_type(self.dtype, with_condition(x, cond))
        return widened(nn.Conv(self.outputs, (3, 3), kernel_init=nn.initializers.zeros, dtype=x.dtype)(x))


def with_condition(x: Array, cond: Array | None) -> Array:
    """A condition [B, C] at every position, or one [B, H, W, C], stacked on the channels of x [B, H, W, c]."""
    if cond is None:
        return x
    if cond.ndim == 2:
        cond = jnp.broadcast_to(cond[:, None, None, :], (*x.shape[:3], cond.shape[-1]))
    return jnp.concatenate([x, cond], axis=-1)
