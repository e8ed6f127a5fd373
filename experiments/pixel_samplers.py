"""Seconds and sweeps of the three samplers of a trained PixelCNN, which draw the same images from the same noise.

    python experiments/pixel_samplers.py runs/pixelcnn_digits
    python experiments/pixel_samplers.py runs/pixelcnn_glyphs -n 16

For each sampler: seconds without compilation (the median of three), how often the network was run one after another,
how many times faster than the naive sampler it is, and in how many pixels its images differ from the naive ones.
"""

import argparse
import dataclasses
import statistics
import time
from pathlib import Path

import jax
import numpy as np

from genmap_jax.algorithm import averaged, conditions
from genmap_jax.commands.bad_input import Parser, number, told
from genmap_jax.keys import example_keys
from genmap_jax.options import Count
from genmap_jax.run import opening
from genmap_jax.tractable import pixelcnn

REPEATS = 3


def measure(cfg: pixelcnn.Config, params, keys, label) -> tuple[np.ndarray, int, float]:
    """Images, evaluations, and seconds of a sampler."""
    draw = jax.jit(lambda params, keys, label: pixelcnn.generate(cfg, params, keys=keys, label=label))
    images, evaluations = jax.block_until_ready(draw(params, keys, label))
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        jax.block_until_ready(draw(params, keys, label))
        seconds.append(time.perf_counter() - began)
    return np.asarray(images), int(evaluations), statistics.median(seconds)


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("-n", type=number(Count), default=16, help="images (default: 16)")
    args = parser.parse_args()
    run = opening.open_run(args.run, Path(__file__).parent)
    if run.family is not pixelcnn.FAMILY:
        raise ValueError(f"{args.run} is a run of {run.family.name}: give one of a PixelCNN")
    test = run.sources["test"]
    cond = conditions(run.algorithm.reads, test.take(test.spaced(args.n)))
    keys, label = example_keys(jax.random.key(0), args.n), cond and cond["label"]
    print(f"{args.n} images of {run.config.name}\n{'sampler':12s} {'seconds':>9s} {'evaluations':>12s} {'faster':>8s}")
    first = None
    for sampler in ("naive", "fixed_point", "cached"):
        cfg = dataclasses.replace(run.config.model, sampler=sampler)
        images, evaluations, seconds = measure(cfg, averaged(run.state), keys, label)
        first = first or (images, seconds)
        other = (images != first[0]).any(-1).mean()
        print(
            f"{sampler:12s} {seconds:9.3f} {evaluations:12d} {first[1] / seconds:7.1f} x  {other:.2%} differ",
            flush=True,
        )


if __name__ == "__main__":
    with told("pixel_samplers.py"):
        main()
