"""Memory of back-propagation through Glow, ordinary and reversible, from the compiled programs. Nothing is run.

    python experiments/reversible_memory.py

Reversible back-propagation computes the input of a step again from its output (Gomez et al. 2017, arXiv:1707.04585), so
that the memory of activations does not grow with depth. What grows with it are the parameters, their gradients and the
optimizer's state, which are not in this table.

Expect 193, 404 and 828 MiB at depth 8, 16 and 32 by ordinary back-propagation and 25 MiB at each by reversible one
(CPU, jax 0.10.2).
"""

import argparse
from typing import Annotated

import jax

from genmap_jax.commands.bad_input import Parser, number, told
from genmap_jax.options import Range
from genmap_jax.spaces import images
from genmap_jax.tractable.flow import glow
from genmap_jax.tractable.flow.bijection import log_density


def temporary(depth: int, side: int, batch: int, reversible: bool) -> int:
    """Bytes of temporary arrays in the gradient of the loss."""
    cfg = glow.Config(space=images(side, side, 3), levels=3, depth=depth, width=64, reversible=reversible)
    flow, x = glow.flow(cfg), jax.ShapeDtypeStruct((batch, side, side, 3), "float32")
    params = jax.eval_shape(lambda key, x: flow.init(key, x, None), jax.random.key(0), x)
    gradient = jax.jit(jax.grad(lambda params, x: -log_density(flow, params, x).mean()))
    return gradient.lower(params, x).compile().memory_analysis().temp_size_in_bytes


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    count = number(Annotated[int, Range(1)])
    parser.add_argument("--depth", type=count, nargs="+", default=[8, 16, 32], help="steps of each of three levels")
    parser.add_argument("--side", type=count, default=32, help="of the images in pixels (default: 32)")
    parser.add_argument("--batch", type=count, default=64, help="images in a batch (default: 64)")
    args = parser.parse_args()
    print(f"{'depth':>5s} {'ordinary':>12s} {'reversible':>12s}")
    for depth in args.depth:
        sizes = [temporary(depth, args.side, args.batch, reversible) / 2**20 for reversible in (False, True)]
        print(f"{depth:5d} {sizes[0]:8.0f} MiB {sizes[1]:8.0f} MiB", flush=True)


if __name__ == "__main__":
    with told("reversible_memory.py"):
        main()
