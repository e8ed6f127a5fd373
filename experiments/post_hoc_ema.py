"""How long should the parameters be averaged? Asked after training, from the checkpoints of one diffusion run.

    python experiments/ddpm_digits.py --model.power-ema 0.05 0.1 --keep 30 --save-every 100 --workdir runs/ema
    python experiments/post_hoc_ema.py runs/ema

It prints bits/dim (and their kind) of test data and the energy distance of samples for averages of several widths. The
width of an average is the standard deviation of its weights over the run, as a share of the run. The method is that of
Karras et al. 2024 (https://arxiv.org/abs/2312.02696), in `genmap_jax/averaging.py`.

Expect, with seed 0 and 256 test images (2 CPU cores, jax 0.10.2), at most 3.931 bits/dim with the last parameters and
3.925 with the run's own average; with a width of 0.05 3.927, of 0.1 3.917, of 0.15 3.910, of 0.2 3.918.
Energy distances are from 0.017 to 0.021, which is the same within their noise. Since the learning rate decays to 0,
averaging has little left to do.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp

from genmap_jax import averaging
from genmap_jax.algorithm import conditions, like_batch
from genmap_jax.commands.bad_input import Parser, told
from genmap_jax.evaluate.distance import energy_distance
from genmap_jax.run import opening, runs
from genmap_jax.run.checkpoint import Checkpoints
from genmap_jax.units import bits_per_dim

WIDTHS = (0.02, 0.05, 0.1, 0.15, 0.2)
EXAMPLES = 256


def reconstruct(run: runs.Run, widths: tuple[float, ...]) -> list:
    """Parameters averaged over each of `widths`, from the averages in the run's checkpoints. One checkpoint in memory
    at a time.

    Raises ValueError if the run tracked none, or if it kept too few checkpoints for one of the widths.
    """
    held = getattr(run.config.model, "power_ema", ())
    if not held:
        raise ValueError(f"{run.folder} tracked no averages: train with --model.power-ema 0.05 0.1 --keep 30")
    checkpoints = Checkpoints(run.folder / "checkpoints", run.config.keep)
    steps = sorted(checkpoints.steps())
    weights = [averaging.combination(held, steps, width) for width in widths]
    shapes = like_batch(run.algorithm.reads, run.config.batch_size)
    like = run.place.like(run.algorithm, jax.random.key(run.config.seed), shapes)
    totals = [jax.tree.map(jnp.zeros_like, run.state.params) for _ in widths]
    for i, step in enumerate(steps):
        tracked = checkpoints.at(step, like).tracked
        for k, w in enumerate(weights):
            for average, share in zip(tracked, w[i], strict=True):
                totals[k] = jax.tree.map(
                    lambda total, a, share=share: total + share.astype(a.dtype) * a, totals[k], average
                )
    checkpoints.close()
    return totals


def measure(run: runs.Run, params) -> tuple[float, str, float]:
    """(bits/dim of test data, its kind, energy distance of samples to them) of one set of parameters."""
    state, test = run.state.replace(ema=params), run.sources["test"]
    value = jax.jit(run.algorithm.log_prob)(state, test.take(test.spaced(EXAMPLES)), run.eval_key)
    batch, scale = test.take(test.spaced(1000)), (test.levels or 2) - 1
    real, cond = batch[test.field], conditions(run.algorithm.reads, batch)
    drawn = jax.jit(run.algorithm.sample, static_argnums=2)(state, run.eval_key, len(real), cond)
    generated = test.space.as_batch(drawn)
    distance = energy_distance(real=real / scale, generated=generated / scale).value
    return bits_per_dim(float(value.nats.mean()), test.dims), test.kind(value.kind), distance


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a diffusion model trained with --model.power-ema")
    parser.add_argument("--widths", type=float, nargs="+", default=WIDTHS, metavar="W", help=f"default: {WIDTHS}")
    args = parser.parse_args()
    try:
        run = opening.open_run(args.run, Path(__file__).parent)
        averages = reconstruct(run, tuple(args.widths))
    except (ValueError, OSError) as error:
        parser.error(str(error))
    candidates = {"last parameters": run.state.params}
    if run.state.ema is not None:
        candidates["ema_halflife"] = run.state.ema
    candidates |= {f"width {width:g}": params for width, params in zip(args.widths, averages, strict=True)}
    for name, params in candidates.items():
        bits, kind, distance = measure(run, params)
        print(f"{name:18s} {bits:8.4f} bits/dim ({kind})   energy distance {distance:8.4f}", flush=True)


if __name__ == "__main__":
    with told("post_hoc_ema.py"):
        main()
