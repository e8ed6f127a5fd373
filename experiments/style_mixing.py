"""Style mixing: coarse styles of one image, fine styles of another, as a table of pictures.

    python experiments/stylegan_glyphs.py --workdir runs/stylegan_glyphs
    python experiments/style_mixing.py runs/stylegan_glyphs
    python experiments/style_mixing.py runs/stylegan_glyphs --layers 3 --label 10

It draws RUN/style_mixing.png. The first row and the first column show images of two sets of latents; the image in row i
and column j takes the first styles from that of row i and the others from that of column j. --layers says how many are
the first; half of them, unless told. Karras et al. 2019, https://arxiv.org/abs/1812.04948, figure 3.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from genmap_jax.algorithm import Params
from genmap_jax.commands.bad_input import Parser, number, told
from genmap_jax.implicit import stylegan
from genmap_jax.keys import example_keys
from genmap_jax.options import Count, Natural
from genmap_jax.report.pictures import image_grid
from genmap_jax.run import opening


def table(
    cfg: stylegan.Config, params_g: Params, key: jax.Array, rows: int, columns: int, layers: int, label: int | None
) -> np.ndarray:
    """The images of the table, the corner black: uint8 [rows + 1, columns + 1, H, W, C]."""
    keys = example_keys(key, rows + columns)
    labels = None if label is None else jnp.full(rows + columns, label, jnp.int32)
    w = stylegan.style(cfg, params_g, stylegan.latents(keys, cfg.latent), labels)
    coarse, fine = jnp.repeat(w[:rows], columns, axis=0), jnp.tile(w[rows:], (rows, 1))
    mixed = stylegan.mix(coarse, fine, jnp.full(rows * columns, layers), cfg.layers)
    own = jnp.repeat(w[:, None], cfg.layers, axis=1)
    x = jax.jit(lambda ws: stylegan.synthesise(cfg, params_g, ws))(jnp.concatenate([own, mixed]))
    images = cfg.space.as_batch(cfg.space.requantise(x))
    cells = np.zeros((rows + 1, columns + 1, *images.shape[1:]), np.uint8)
    cells[1:, 0], cells[0, 1:] = images[:rows], images[rows : rows + columns]
    cells[1:, 1:] = images[rows + columns :].reshape(rows, columns, *images.shape[1:])
    return cells


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a trained StyleGAN2")
    parser.add_argument("--rows", type=number(Count), default=5)
    parser.add_argument("--columns", type=number(Count), default=7)
    parser.add_argument("--layers", type=number(Natural), help="styles from the image of the row (default: half)")
    parser.add_argument("--label", type=number(Natural), help="of a conditional model (default: 0)")
    parser.add_argument("--seed", type=number(Natural), default=0)
    args = parser.parse_args()
    run = opening.open_run(args.run, Path(__file__).parent)
    cfg = run.config.model
    if not isinstance(cfg, stylegan.Config):
        parser.error(f"{args.run} is a {run.family.name}: give a run of StyleGAN2")
    layers = cfg.layers // 2 if args.layers is None else args.layers
    if layers > cfg.layers:
        parser.error(f"--layers {layers}: the model has {cfg.layers} of them")
    if (args.label or 0) >= (cfg.classes or 1):
        parser.error(f"--label {args.label}: the model has {cfg.classes or 'no'} labels")
    label = None if cfg.classes is None else args.label or 0
    cells = table(cfg, stylegan.averaged(run.state), jax.random.key(args.seed), args.rows, args.columns, layers, label)
    path = run.folder / "style_mixing.png"
    image_grid(cells.reshape(-1, *cfg.space.shape), cfg.space.grey_levels, args.columns + 1).save(path)
    print(f"styles 1 to {layers} of the rows, {layers + 1} to {cfg.layers} of the columns: {path}")


if __name__ == "__main__":
    with told("style_mixing.py"):
        main()
