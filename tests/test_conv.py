"""Convolutions and the derivatives that are written out for CPUs, against XLA's."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core
from variants import chosen

from genmap_jax import parallel
from genmap_jax.flops import flops
from genmap_jax.nn import conv

RNG = np.random.default_rng(0)
KERNELS = (3, 3), (2, 3), (4, 4), (1, 1)
PADS = ((0, 0), (0, 0)), ((1, 0), (1, 1)), ((1, 2), (0, 3))
CASES = [
    case
    for case in itertools.product(("correlate", "transposed"), (1, 2), (5, 2), KERNELS, PADS)
    if not (case[0] == "transposed" and case[1] == 1)
] + [("minimal", 1, 5, (3, 3), pad) for pad in PADS]


def convolution(name, stride, pad):
    if name == "transposed":
        return lambda x, kernel: conv.transposed(x, kernel, pad)
    return lambda x, kernel: conv.correlate(x, kernel, stride, pad)


def everything(f):
    """Values, gradients, and gradients of functions of both gradients."""

    def first(x, kernel):
        loss = lambda x, kernel: (jnp.sin(f(x, kernel)) * f(x, kernel)).sum()  # noqa: E731
        return jax.value_and_grad(loss, (0, 1))(x, kernel)

    def second(x, kernel):
        of_input, of_kernel = first(x, kernel)[1]
        return jnp.square(of_input).sum() + (of_kernel * jnp.cos(of_kernel)).sum()

    return jax.jit(lambda x, kernel: (f(x, kernel), first(x, kernel), jax.grad(second, (0, 1))(x, kernel)))


@pytest.mark.parametrize(
    ("name", "stride", "inputs", "window", "pad"),
    chosen(
        CASES,
        [
            ("correlate", 1, 5, (2, 3), PADS[2]),
            ("correlate", 2, 5, (3, 3), PADS[1]),
            ("correlate", 1, 2, (3, 3), PADS[1]),
            ("transposed", 2, 5, (4, 4), PADS[1]),
            ("minimal", 1, 5, (3, 3), PADS[1]),
        ],
    ),
)
def test_values_gradients_and_their_gradients_are_xlas(name, stride, inputs, window, pad, monkeypatch):
    """Of strides, of even and odd kernels, with zeros that differ on every side or leave a row over: 1e-4."""
    monkeypatch.setattr(conv, "WIDE", 1 if name == "minimal" else conv.WIDE)
    x = jnp.asarray(RNG.normal(size=(2, 7, 8, inputs)), jnp.float32)
    kernel = jnp.asarray(RNG.normal(size=(*window, inputs, 6)), jnp.float32)
    ours = everything(convolution(name, stride, pad))(x, kernel)
    monkeypatch.setattr(parallel, "platform", lambda: "gpu")  # where XLA derives them
    theirs = everything(convolution(name, stride, pad))(x, kernel)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, atol=1e-4 * float(jnp.abs(b).max()))


def test_gradients_are_convolutions_that_a_cpu_runs_as_they_are():
    """Also those of gradients have examples, rows, columns and channels in the places of a forward one: others are slow
    in branches and loops."""
    x, kernel = jnp.zeros((2, 8, 8, 5)), jnp.zeros((3, 3, 5, 6))
    first, found = jax.lax.conv_dimension_numbers(x.shape, kernel.shape, conv.DIMS), []
    for name, stride in (("correlate", 1), ("correlate", 2), ("transposed", 2)):
        program = jax.make_jaxpr(everything(convolution(name, stride, ((1, 1), (1, 1)))))(x, kernel)
        found += [e.params["dimension_numbers"] for e in equations(program) if "conv_general" in e.primitive.name]
    assert len(found) > 20 and set(found) == {first}


def test_3x3_kernels_of_wide_layers_need_4_products_for_9(monkeypatch):
    """Of the values, of both gradients, and of what these are differentiated to, on images with even sides."""
    x, kernel = jnp.zeros((2, 8, 8, 128)), jnp.zeros((3, 3, 128, 160))
    count = lambda: flops(everything(lambda x, k: conv.correlate(x, k, pad=1)), x, kernel)  # noqa: E731
    minimal = count()
    monkeypatch.setattr(conv, "WIDE", 161)
    assert count() == minimal * 9 / 4


def test_fewer_products_are_no_less_exact():
    """Against float64, of 1024 pixels and 128 channels, values and both gradients: within 1e-6 of their root mean
    square, where convolutions in float32 are within 1e-6 and, for the kernel, 3e-6."""
    x, y, kernel = (
        RNG.normal(size=(4, 16, 16, 128)),
        RNG.normal(size=(4, 16, 16, 128)),
        RNG.normal(size=(3, 3, 128, 128)),
    )

    def found(f, *arrays):
        value, pull = jax.vjp(lambda x, kernel: f(x, kernel, pad=1), *arrays[:2])
        return value, *pull(arrays[2])

    with jax.enable_x64(True):
        exact = [np.asarray(array) for array in found(conv.correlate_plainly, x, kernel, y)]
    ours = jax.jit(partial(found, conv.correlate))(*(jnp.asarray(a, jnp.float32) for a in (x, kernel, y)))
    for a, b in zip(ours, exact, strict=True):
        assert np.sqrt(np.mean(np.square(a - b)) / np.mean(np.square(b))) < 1e-6


def test_narrow_layers_and_half_precision_are_xlas():
    for channels, dtype in ((127, "float32"), (128, "bfloat16")):
        program = jax.make_jaxpr(lambda x, k: conv.correlate(x, k, pad=1))(
            jnp.zeros((2, 8, 8, channels), dtype), jnp.zeros((3, 3, channels, 128), dtype)
        )
        assert "conv_general_dilated" in str(program)


def equations(program):
    for equation in program.eqns:
        yield equation
        for part in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: isinstance(p, core.ClosedJaxpr)):
            if isinstance(part, core.ClosedJaxpr):
                yield from equations(part)
