"""Coupling layers and autoregressive layers: elementwise maps whose parameters a network computes from other features.

A *coupling* changes one part of the features given the other part, which passes unchanged: both directions cost one
evaluation of the network (Dinh et al. 2017, arXiv:1605.08803). An *autoregressive* layer changes feature i given those
before it (MAF: Papamakarios et al. 2017, arXiv:1705.07057): one evaluation towards the latents, D evaluations back.
Used backwards (`bijection.inverted`) it is IAF (Kingma et al. 2016, arXiv:1606.04934).

Both take an `Elementwise` map, affine or rational-quadratic spline, and any linen network as conditioner.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from genmap_jax.algorithm import Array
from genmap_jax.nn.products import in_type, widened
from genmap_jax.tractable.flow import splines
from genmap_jax.tractable.flow.bijection import Bijection


class Elementwise(NamedTuple):
    """A bijection of one real number with parameters from a network; zeros as parameters give the identity.

    parameters: how many numbers the network puts out for each feature.
    forward, inverse: (raw [..., parameters], x [...]) -> (y [...], log of the slope dy/dx [...]).
    """

    parameters: int
    forward: Callable[[Array, Array], tuple[Array, Array]]
    inverse: Callable[[Array, Array], tuple[Array, Array]]


def affine(limit: float = 2.0) -> Elementwise:
    """y = (x - m) exp(-s) with |s| < limit: bounded by a tanh, for an unbounded scale is how couplings become NaN."""

    def scale_and_shift(raw):
        return limit * jnp.tanh(raw[..., 0] / limit), raw[..., 1]

    def forward(raw, x):
        s, m = scale_and_shift(raw)
        return (x - m) * jnp.exp(-s), -s

    def inverse(raw, y):
        s, m = scale_and_shift(raw)
        return y * jnp.exp(s) + m, s

    return Elementwise(2, forward, inverse)


def spline(bins: int, box: float) -> Elementwise:
    """A rational-quadratic spline on [-box, box], the identity outside; see `splines`."""
    return Elementwise(
        3 * bins - 1,
        lambda raw, x: splines.forward(x, *splines.knots(raw, bins, box)),
        lambda raw, y: splines.inverse(y, *splines.knots(raw, bins, box)),
    )


def coupling(elementwise: Elementwise, network: Callable[[int], nn.Module], *, first: bool = True) -> Bijection:
    """Changes the second half of the last axis given the first, or, with first=False, the first half given the second.

    network: (outputs) -> a linen module (x [B, ..., d], cond) -> [B, ..., outputs]. With an odd number of features the
        first half is the smaller one. Raises ValueError for a single feature.
    """

    def halves(x):
        if x.shape[-1] < 2:
            raise ValueError(f"a coupling needs at least 2 features on the last axis, not {x.shape[-1]}")
        a, b = jnp.split(x, (x.shape[-1] // 2,), axis=-1)
        return (a, b) if first else (b, a)

    def joined(kept, changed):
        return jnp.concatenate([kept, changed] if first else [changed, kept], axis=-1)

    def net(changed):
        return network(changed.shape[-1] * elementwise.parameters)

    def init(key, x, cond):
        kept, changed = halves(x)
        return net(changed).init(key, kept, cond)["params"]

    def through(change, params, x, cond):
        kept, changed = halves(x)
        raw = net(changed).apply({"params": params}, kept, cond)
        changed, log_slope = change(raw.reshape(*changed.shape, elementwise.parameters), changed)
        return joined(kept, changed), log_slope.reshape(len(x), -1).sum(-1)

    return Bijection(
        init,
        lambda params, x, cond: through(elementwise.forward, params, x, cond),
        lambda params, y, cond: through(elementwise.inverse, params, y, cond),
    )


def autoregressive(elementwise: Elementwise, network: Callable[[int], nn.Module]) -> Bijection:
    """Changes feature i of [B, D] given features 0..i-1, which `network` sees through masks.

    network: (parameters) -> a linen module (x [B, D], cond) -> [B, D, parameters] whose output i depends on x before i.
    The inverse fills in one feature after another: D evaluations in a loop of static length. `samplers.fixed_point` has
    the same fixed point.
    """
    net = network(elementwise.parameters)

    def forward(params, x, cond):
        y, log_slope = elementwise.forward(net.apply({"params": params}, x, cond), x)
        return y, log_slope.sum(-1)

    def inverse(params, y, cond):
        def fill(i, x):  # features before i are right, so is feature i after this
            new, _ = elementwise.inverse(net.apply({"params": params}, x, cond), y)
            return x.at[:, i].set(new[:, i])

        x = jax.lax.fori_loop(0, y.shape[-1], fill, jnp.zeros_like(y))
        _, log_slope = elementwise.inverse(net.apply({"params": params}, x, cond), y)
        return x, log_slope.sum(-1)

    return Bijection(lambda key, x, cond: net.init(key, x, cond)["params"], forward, inverse)


# ---- conditioners ----------------------------------------------------------------------------------------------------


class ResidualNetwork(nn.Module):
    """The conditioner of neural spline flows: residual blocks of two dense layers, output starting at zero."""

    width: int
    """Hidden units."""
    blocks: int
    """Residual blocks."""
    outputs: int
    """Numbers put out."""
    dtype: str = "float32"
    """Type of activations and products; parameters, input and output are float32."""

    @nn.compact
    def __call__(self, x, cond):  # [B, d], [B, C] or None -> [B, outputs]
        (x,) = in_type(self.dtype, x if cond is None else jnp.concatenate([x, cond], axis=-1))
        h = nn.Dense(self.width, dtype=x.dtype)(x)
        for _ in range(self.blocks):
            r = nn.Dense(self.width, dtype=x.dtype)(nn.relu(h))
            h = h + nn.Dense(self.width, dtype=x.dtype)(nn.relu(r))
        return widened(nn.Dense(self.outputs, kernel_init=nn.initializers.zeros, dtype=x.dtype)(h))


class MADE(nn.Module):
    """A masked residual network whose output i depends on inputs before i only. Germain et al. 2015 (arXiv:1502.03509).

    Every hidden unit has a degree m, 1 to D - 1 in turn, and sees inputs 1..m; output i sees units of degree below i.
    A condition is seen by all units.
    """

    width: int
    """Hidden units."""
    blocks: int
    """Residual blocks of two masked layers."""
    parameters: int
    """Numbers put out for each input."""
    dtype: str = "float32"
    """Type of activations and products; parameters, input and output are float32."""

    @nn.compact
    def __call__(self, x, cond):  # [B, D], [B, C] or None -> [B, D, parameters]
        dims = x.shape[-1]
        inputs = jnp.arange(1, dims + 1)
        hidden = jnp.arange(self.width) % max(1, dims - 1) + 1
        outputs = jnp.repeat(inputs, self.parameters)
        (x,) = in_type(self.dtype, x)
        h = MaskedDense(self.width)(x, hidden[None, :] >= inputs[:, None])
        if cond is not None:
            h = h + nn.Dense(self.width, use_bias=False, dtype=x.dtype, name="cond")(cond)
        among = hidden[None, :] >= hidden[:, None]
        for _ in range(self.blocks):
            r = MaskedDense(self.width)(nn.relu(h), among)
            h = h + MaskedDense(self.width)(nn.relu(r), among)
        out = MaskedDense(dims * self.parameters, kernel_init=nn.initializers.zeros)(
            h, outputs[None, :] > hidden[:, None]
        )
        return widened(out).reshape(len(x), dims, self.parameters)


class MaskedDense(nn.Module):
    """A dense layer of which only the connections in a mask exist, in the type of its input."""

    features: int
    """Outputs."""
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    """Of the kernel, before the mask."""

    @nn.compact
    def __call__(self, x, mask):  # [..., d], bool [d, features] -> [..., features]
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return x @ (kernel * mask).astype(x.dtype) + bias[None, :].astype(x.dtype)
