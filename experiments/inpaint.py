"""Complete test images of which a PixelCNN is given a part.

    python experiments/inpaint.py runs/pixelcnn_digits --keep top
    python experiments/inpaint.py runs/pixelcnn_digits --keep frame --candidates 64

Writes a picture with a row for each image: the image, what is given of it, and its completions. Given the top half, the
rest is drawn from the model's own conditional law. What lies before given pixels is drawn without regard to them, and
then chosen among candidates by how well it explains them: more candidates come nearer to the conditional law.
"""

import argparse
from pathlib import Path

import jax
import numpy as np

from genmap_jax.algorithm import conditions
from genmap_jax.commands.bad_input import Parser, number, told
from genmap_jax.options import Count, Positive
from genmap_jax.report.pictures import image_grid
from genmap_jax.run import opening
from genmap_jax.tractable import pixelcnn

COLUMNS = 8


def mask(keep: str, height: int, width: int) -> np.ndarray:
    """Which pixels are given: bool [H, W]."""
    given = np.zeros((height, width), bool)
    if keep == "top":
        given[: height // 2] = True
    elif keep == "left":
        given[:, : width // 2] = True
    else:
        given[:] = True
        given[height // 4 : -(height // 4), width // 4 : -(width // 4)] = False
    return given


def completed(run, keep: str, count: int, seed: int) -> np.ndarray:
    """uint8 [count, 8, H, W, C]: a test image, what is given of it, and six completions."""
    space, test = run.algorithm.reads["image"], run.sources["test"]
    batch, columns = test.take(test.spaced(count)), COLUMNS - 2
    given = mask(keep, *space.shape[:2])[None, :, :, None]
    known = np.where(given, batch["image"].astype(np.int32), -1)
    cond = {**(conditions(run.algorithm.reads, batch) or {}), "known": known}
    cond = {name: np.repeat(value, columns, axis=0) for name, value in cond.items()}
    sample = jax.jit(lambda state, key, cond: run.algorithm.sample(state, key, count * columns, cond))
    drawn = space.as_batch(sample(run.state, jax.random.key(seed), cond))
    grey = np.where(given, batch["image"], space.grey_levels // 2).astype(np.uint8)
    return np.concatenate([batch["image"][:, None], grey[:, None], drawn.reshape(count, columns, *space.shape)], axis=1)


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--keep", choices=("top", "left", "frame"), default="top", help="what is given (default: top)")
    parser.add_argument("--images", type=number(Count), default=8, metavar="N", help="test images (default: 8)")
    parser.add_argument("--candidates", type=number(Count), metavar="N", help="choose each completion among N")
    parser.add_argument("--temperature", type=number(Positive), metavar="T", help="draw from p^(1/T)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="default: inpainted_KEEP.png in the folder of the run")
    args = parser.parse_args()
    changes = {name: getattr(args, name) for name in ("candidates", "temperature") if getattr(args, name) is not None}
    run = opening.open_run(args.run, Path(__file__).parent, changes=changes)
    if run.family is not pixelcnn.FAMILY:
        raise ValueError(f"{args.run} is a run of {run.family.name}: give one of a PixelCNN")
    images = completed(run, args.keep, args.images, args.seed)
    out = args.out or args.run / f"inpainted_{args.keep}.png"
    image_grid(images.reshape(-1, *images.shape[2:]), run.algorithm.reads["image"].grey_levels, COLUMNS).save(out)
    print(out)


if __name__ == "__main__":
    with told("inpaint.py"):
        main()
