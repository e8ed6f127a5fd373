"""Quality against variety: a trained StyleGAN2 or BigGAN at several truncations.

    python experiments/stylegan_glyphs.py --workdir runs/stylegan_glyphs
    python experiments/truncation.py runs/stylegan_glyphs
    python experiments/biggan_glyphs.py --workdir runs/biggan_glyphs
    python experiments/truncation.py runs/biggan_glyphs

It prints a table and draws RUN/truncation.png: the Fréchet distance to held-out images, in the features of a small
classifier of the data, over the coverage of the data by samples (Naeem et al. 2020), one point for each truncation. The
crosses are other real images in the place of samples. BigGAN's normalisations take their statistics again at each
truncation. Less truncation covers more; the best distance is seldom at either end.
"""

import argparse
import dataclasses
from pathlib import Path

import jax
import numpy as np

from genmap_jax.commands.bad_input import Parser, number, told
from genmap_jax.commands.measure import held_out, held_out_conditions
from genmap_jax.evaluate.features.own import own
from genmap_jax.evaluate.frechet import frechet_distance
from genmap_jax.evaluate.manifold import prdc
from genmap_jax.implicit import biggan, stylegan
from genmap_jax.options import Count
from genmap_jax.run import opening

TRUNCATIONS = {stylegan.Config: (0.3, 0.5, 0.7, 0.85, 1.0), biggan.Config: (0.1, 0.25, 0.5, 1.0, 2.0)}
STANDING = 16  # batches of BigGAN's standing statistics


def measure(real: np.ndarray, generated: np.ndarray) -> tuple[float, float, float]:
    """(Fréchet distance, precision, coverage) of features."""
    found = prdc(real=real, generated=generated)
    distance = frechet_distance(real=real, generated=generated)
    return distance, float(found.precision.mean()), float(found.coverage.mean())


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a trained StyleGAN2 or BigGAN")
    parser.add_argument("--samples", type=number(Count), default=1000, help="of each truncation (default: 1000)")
    args = parser.parse_args()
    run = opening.open_run(args.run, Path(__file__).parent)
    cfg = run.config.model
    if not isinstance(cfg, stylegan.Config | biggan.Config):
        parser.error(f"{args.run} is a {run.family.name}: give a run of StyleGAN2 or BigGAN")
    extractor = own(run.config.data, cfg.space.grey_levels)
    pool = held_out(run)[run.sources["test"].field]
    n = min(args.samples, len(pool) // 2)
    order = np.random.default_rng(0).permutation(len(pool))
    real, other = (extractor.features(pool[rows]) for rows in (order[:n], order[n : 2 * n]))
    cond = held_out_conditions(run, n)
    standing = {"standing": STANDING} if isinstance(cfg, biggan.Config) else {}
    rows = {}
    for truncation in TRUNCATIONS[type(cfg)]:
        changed = dataclasses.replace(cfg, truncation=truncation, **standing)
        algorithm = run.family.algorithm(changed, batch_size=run.config.batch_size)
        drawn = jax.jit(algorithm.sample, static_argnums=2)(run.state, run.eval_key, n, cond)
        rows[f"{truncation:g}"] = measure(real, extractor.features(cfg.space.as_batch(drawn)))
    null = measure(real, other)
    print(f"{run.config.name}, {n} samples, FD-own64\ntruncation    FD  precision  coverage")
    for name, (distance, precision, coverage) in (*rows.items(), ("real", null)):
        print(f"{name:>10s} {distance:5.1f} {precision:10.3f} {coverage:9.3f}")

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
    axes.plot([row[2] for row in rows.values()], [row[0] for row in rows.values()], marker="o")
    axes.plot(null[2], null[0], marker="x", color="gray")
    for name, row in rows.items():
        axes.annotate(name, (row[2], row[0]), textcoords="offset points", xytext=(5, 5), fontsize=8)
    axes.set(xlabel="coverage", ylabel="FD-own64", yscale="log", title=f"{run.config.name}: truncation")
    figure.savefig(run.folder / "truncation.png", dpi=150)
    print(f"picture: {run.folder / 'truncation.png'}")


if __name__ == "__main__":
    with told("truncation.py"):
        main()
