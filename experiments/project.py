"""Projection: the style from which a trained StyleGAN2 draws a given image, as near as it can.

    python experiments/stylegan_glyphs.py --workdir runs/stylegan_glyphs
    python experiments/project.py runs/stylegan_glyphs
    python experiments/project.py runs/stylegan_glyphs --examples 0 10 20 --steps 500

It looks for test images (of the numbers given), and writes RUN/projected.npz with their styles, and RUN/projected.png
with the images in the first row and what was found in the second. An image that a model was not trained on and that it
can draw is no copy; one that it cannot draw is a gap. Karras et al. 2020, https://arxiv.org/abs/1912.04958, appendix D.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from genmap_jax.commands.bad_input import Parser, number, told
from genmap_jax.implicit import stylegan
from genmap_jax.options import Count, Natural
from genmap_jax.report.pictures import image_grid
from genmap_jax.run import opening


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a trained StyleGAN2")
    parser.add_argument("--examples", type=number(Natural), nargs="+", default=list(range(8)), metavar="I")
    parser.add_argument("--steps", type=number(Count), default=1000)
    parser.add_argument("--seed", type=number(Natural), default=0)
    args = parser.parse_args()
    run = opening.open_run(args.run, Path(__file__).parent)
    cfg, test = run.config.model, run.sources["test"]
    if not isinstance(cfg, stylegan.Config):
        parser.error(f"{args.run} is a {run.family.name}: give a run of StyleGAN2")
    if max(args.examples) >= test.size:
        parser.error(f"--examples {max(args.examples)}: there are {test.size} test images")
    batch = test.take(np.array(args.examples))
    targets = cfg.space.to_grid(jnp.asarray(batch["image"]))
    label = None if cfg.classes is None else jnp.asarray(batch["label"])
    params_g, how = stylegan.averaged(run.state), stylegan.Projection(steps=args.steps)
    w, noise, distances = stylegan.project(cfg, params_g, targets, jax.random.key(args.seed), label, how)
    found = stylegan.synthesise(cfg, params_g, jnp.repeat(w[:, None], cfg.layers, axis=1), noise)
    found = cfg.space.as_batch(cfg.space.requantise(found))

    path = run.folder / "projected.png"
    image_grid(np.concatenate([batch["image"], found]), cfg.space.grey_levels, len(found)).save(path)
    np.savez(run.folder / "projected.npz", w=np.asarray(w), image=found)
    for example, first, last in zip(args.examples, distances[0], distances[-1], strict=True):
        print(f"test image {example}: distance {first:.4f} at the mean style, {last:.4f} after {args.steps} steps")
    print(f"the images and what was found: {path}; styles: {run.folder / 'projected.npz'}")


if __name__ == "__main__":
    with told("project.py"):
        main()
