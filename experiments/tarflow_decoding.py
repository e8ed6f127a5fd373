"""Three ways to sample one trained TarFlow: seconds for an image, runs of the network, and whether the images agree.

    python experiments/tarflow_glyphs.py
    python experiments/tarflow_decoding.py runs/tarflow_glyphs

Sequential decoding runs the whole network once for every patch; cached decoding as often, but on one patch at a time;
Jacobi decoding guesses whole groups of patches and corrects them until they stand still (--group, by default 4, 8 and
16). All are given the same latents.

Expect on a CPU cached decoding to be the quickest, 0.006 s for an image where sequential decoding takes 0.31 and Jacobi
decoding 0.025 to 0.042, with the same grey values from all (seed 0, 2 shared cores, jax 0.10.2).
"""

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Annotated

import jax
import numpy as np

from genmap_jax.algorithm import Params, averaged
from genmap_jax.commands.bad_input import Parser, number, told
from genmap_jax.commands.measure import held_out_conditions
from genmap_jax.options import Range
from genmap_jax.run import opening
from genmap_jax.tractable.flow import tarflow
from genmap_jax.tractable.flow.density import one_hot


def rounds(cfg: tarflow.Config, params: Params, z, cond) -> list[int]:
    """How often the network is run in each of the flows to find the images of latents z, from the last flow back."""
    found = []
    for transformer in params["flow"][::-1][: 2 * cfg.flows : 2]:  # with a reversal between two of them
        evaluate = tarflow.evaluator(cfg, transformer, cond)
        z, _, count = jax.jit(lambda z, evaluate=evaluate: tarflow.decode(cfg, evaluate, z))(z)
        found.append(int(count))
        z = z[:, ::-1]
    return found


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="of a TarFlow")
    count = number(Annotated[int, Range(1)])
    parser.add_argument("-n", type=count, default=16, help="images drawn at once (default: 16)")
    parser.add_argument("--group", type=count, nargs="+", default=[4, 8, 16], help="patches guessed at once")
    parser.add_argument("--repeat", type=count, default=3, help="timed draws, of which the median counts (default: 3)")
    args = parser.parse_args()
    run = opening.open_run(args.run, Path(__file__).parent)
    cfg, space = run.config.model, run.config.model.space
    if not isinstance(cfg, tarflow.Config):
        parser.error(f"{args.run} is not a TarFlow: train one with experiments/tarflow_glyphs.py")
    params, cond = averaged(run.state), one_hot(held_out_conditions(run, args.n), cfg.classes)
    tokens = tarflow.network(cfg).tokens
    z = jax.random.normal(run.eval_key, (args.n, tokens, space.dims // tokens))
    ways = {name: dataclasses.replace(cfg, decoding=name) for name in ("sequential", "cached")}
    ways |= {f"jacobi, {g}": dataclasses.replace(cfg, decoding="jacobi", group=g) for g in args.group}
    reference = None
    print(f"{args.n} images of {tokens} patches, {cfg.flows} flows")
    print(f"{'decoding':14s} {'s/image':>9s} {'runs of the network':>20s}  other grey values than sequential")
    for name, way in ways.items():
        tarflow.check(way)
        inverse = jax.jit(lambda z, way=way: tarflow.flow(way).inverse(params["flow"], z, cond)[0])
        image, seconds = np.asarray(space.requantise(inverse(z))), []
        for _ in range(args.repeat):
            start = time.perf_counter()
            jax.block_until_ready(inverse(z))
            seconds.append((time.perf_counter() - start) / args.n)
        reference = image if reference is None else reference
        moved = (image != reference).sum()
        print(f"{name:14s} {np.median(seconds):9.5f} {sum(rounds(way, params, z, cond)):20d}  {moved} of {image.size}")


if __name__ == "__main__":
    with told("tarflow_decoding.py"):
        main()
