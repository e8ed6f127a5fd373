"""Convolutions and the derivatives that are written out for CPUs, against XLA's."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core
from variants import chosen

from genmap_jax import parallel
from genmap_jax.nn import conv

RNG = np.random.default_rng(0)
KERNELS = (3, 3), (2, 3), (4, 4), (1, 1)
PADS = ((0, 0), (0, 0)), ((1, 0), (1, 1)), ((1, 2), (0, 3))
CASES = [
    case
    for case in itertools.product(("correlate", "transposed"), (1, 2), (5, 2), KERNELS, PADS)
    if not (case[0] == "transposed" and case[1] == 1)
]


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
        ],
    ),
)
def test_values_gradients_and_their_gradients_are_xlas(name, stride, inputs, window, pad, monkeypatch):
    """Of strides, of even and odd kernels, with zeros that differ on every side or leave a row over: 1e-4."""
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


def equations(program):
    for equation in program.eqns:
        yield equation
        for part in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: isinstance(p, core.ClosedJaxpr)):
            if isinstance(part, core.ClosedJaxpr):
                yield from equations(part)
