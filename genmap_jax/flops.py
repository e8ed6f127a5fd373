"""How much a function computes: multiplications and additions of its matrix products and convolutions, by tracing.

Nothing is compiled or run. Elementwise work is left out: in networks it is small, and no rival for the products.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core


def flops(function: Callable, *args: Any) -> int:
    """Floating-point operations of one call, a multiplication and an addition counted as two. args: arrays or shapes.

    The body of a `scan` counts as often as it runs, of a `cond` the dearer branch; that of a `while_loop`, whose number
    of rounds nobody knows before, counts once.
    """
    return _of_jaxpr(jax.make_jaxpr(function)(*args).jaxpr)


def _of_jaxpr(jaxpr: core.Jaxpr) -> int:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: core.JaxprEqn) -> int:
    name, params = equation.primitive.name, equation.params
    if name in ("dot_general", "conv_general_dilated"):
        given: list[Any] = [variable.aval for variable in (*equation.invars, *equation.outvars)]
        left, right, out = (aval.shape for aval in given)
        if name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            inner = math.prod(left[axis] for axis in contracted)
        else:
            inner = math.prod(right) // right[params["dimension_numbers"].rhs_spec[0]]  # of a window, for one output
            inner = inner / math.prod(params["lhs_dilation"])  # the others fall on zeros between the inputs
        return round(2 * inner * math.prod(out))
    inside = [_of_jaxpr(part) for part in _parts(params)]
    if name == "cond":
        return max(inside)
    return sum(inside) * params.get("length", 1) if name == "scan" else sum(inside)


def _parts(params: dict[str, Any]) -> list[core.Jaxpr]:
    """The programs inside of an equation."""
    programs = core.ClosedJaxpr, core.Jaxpr
    leaves = jax.tree.leaves(list(params.values()), is_leaf=lambda value: isinstance(value, programs))
    return [leaf.jaxpr if isinstance(leaf, core.ClosedJaxpr) else leaf for leaf in leaves if isinstance(leaf, programs)]
