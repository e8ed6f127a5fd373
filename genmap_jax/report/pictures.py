"""What examples look like: a PNG grid of images, a picture of points, a text file, an animation of a sampler."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from genmap_jax.spaces import Space

GAP = 2
"""Pixels between the images of a grid."""


def save(
    batch: dict[str, np.ndarray], stem: Path, space: "Space", decode: Callable | None = None, columns: int = 8
) -> Path:
    """Write the examples of a batch to `stem` + suffix, and return the path.

    space: that of the examples, which stand in `batch[space.field]`: images as a grid (.png), tokens as text (.txt),
    vectors as points of which the first two coordinates are seen (.png).
    decode: tokens [L] -> text. Raises ValueError if it is missing for tokens. columns: of the grid.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    examples = np.asarray(batch[space.field])
    if space.text:
        if decode is None:
            raise ValueError("decode=None: examples of tokens need a function from tokens to text")
        path = stem.with_suffix(".txt")
        path.write_text("\n\n".join(printable(decode(row)) for row in examples) + "\n", encoding="utf-8")
        return path
    path = stem.with_suffix(".png")
    (image_grid(examples, space.grey_levels, columns) if space.image else points(examples)).save(path)
    return path


def zoomed(height: int, width: int) -> tuple[int, int]:
    """Height and width of a cell of `image_grid`, its gap with it: small images are enlarged by whole factors."""
    zoom = max(1, 48 // height)
    return height * zoom + GAP, width * zoom + GAP


def beside(*sets: np.ndarray) -> np.ndarray:
    """Sets [n, ...] of images as one [k n, ...]: the first of each, the second of each, and so on."""
    return np.stack(sets, axis=1).reshape(-1, *sets[0].shape[1:])


def image_grid(images: np.ndarray, levels: int, columns: int = 8):
    """uint8 [n,H,W,C] with values 0..levels-1 -> a PIL image of rows of `columns` images.

    Raises ValueError for values outside that range, and for NaN, which would be black.
    """
    from PIL import Image

    if not ((images >= 0) & (images <= levels - 1)).all():
        raise ValueError(f"images: some values are not in 0..{levels - 1}, the grey values of levels={levels}")
    n, height, width, channels = images.shape
    columns = min(columns, n)
    high, wide = zoomed(height, width)
    zoom = (high - GAP) // height
    grid = np.zeros((-(-n // columns) * high, columns * wide, channels), np.uint8)
    for i, image in enumerate(np.round(images * (255 / (levels - 1))).astype(np.uint8)):
        y, x = i // columns * high, i % columns * wide
        grid[y : y + high - GAP, x : x + wide - GAP] = image.repeat(zoom, 0).repeat(zoom, 1)
    return Image.fromarray(grid[..., 0] if channels == 1 else grid)


def points(x: np.ndarray, window: np.ndarray | None = None, side: int = 400):
    """Points [n,D] -> a PIL image of their first two coordinates; what is outside of the window is not drawn.

    window: points [m,D] that are to be seen whole; default: x.
    """
    from PIL import Image, ImageDraw

    seen = x if window is None else window
    seen = seen[np.isfinite(seen).all(axis=1)][:, :2]
    low, high = (seen.min(axis=0), seen.max(axis=0)) if len(seen) else (np.zeros(2), np.zeros(2))
    half = 0.55 * float((high - low).max()) or 1.0
    at = ((x[:, :2] - (low + high) / 2) / half * [1, -1] + 1) * side / 2
    picture = Image.new("L", (side, side), 255)
    pen = ImageDraw.Draw(picture)
    for a, b in at[np.isfinite(at).all(axis=1) & (np.abs(at) < 2 * side).all(axis=1)]:
        pen.ellipse((a - 1.5, b - 1.5, a + 1.5, b + 1.5), fill=70)
    return picture


def printable(text: str) -> str:
    """Text, but what is not printable shows as a replacement character."""
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text)


def densities(law, log_density: Callable | None, generated: np.ndarray, path: Path) -> None:
    """The truth beside the model, on the plane: its density where there is one, and its samples.

    law: a density with `log_prob` of points and a `window` (low, high). log_density: points [N, 2] -> log-probability
    [N], or None. generated: [N, 2].
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    low, high = law.window
    side = low + (np.arange(150) + 0.5) * (high - low) / 150
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2).astype(np.float32)
    known = {"truth": law.log_prob} | ({"model density": log_density} if log_density else {})
    shown = {title: np.exp(np.asarray(log_prob(grid))).reshape(150, 150) for title, log_prob in known.items()}
    figure = Figure(figsize=(3 * (len(shown) + 1), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    *maps, samples = figure.subplots(1, len(shown) + 1)
    style = {"origin": "lower", "extent": (low, high, low, high), "vmin": 0.0, "vmax": shown["truth"].max()}
    for axes, (title, values) in zip(maps, shown.items(), strict=True):
        axes.imshow(values, cmap="magma", **style)
        axes.set_title(title, fontsize=10)
    samples.scatter(*generated[:1000].T, s=2, alpha=0.5)
    samples.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    samples.set_title("model samples", fontsize=10)
    for axes in (*maps, samples):
        axes.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=100)


def animation(frames: np.ndarray, path: Path, space: "Space") -> Path:
    """A sampler at work, as a GIF that loops: about 2.5 s of at most 40 frames, and the last one held for 1.5 s.

    frames: [T, n, *space.shape] of images (the first 16 are shown) or of vectors. Raises ValueError for any other.
    """
    frames = np.asarray(frames)
    if frames.shape[2:] != space.shape or space.text:
        raise ValueError(f"frames of shape {frames.shape}: expected [T, n, *{space.shape}] of images or vectors")
    frames = frames[np.unique(np.linspace(0, len(frames) - 1, min(len(frames), 40)).round().astype(int))]
    draw = [image_grid(f[:16], space.grey_levels) if space.image else points(f, frames[-1], 320) for f in frames]
    each = max(40, 10 * round(250 / len(draw)))  # a GIF counts in 10 ms, and browsers slow down what is below 20
    path.parent.mkdir(parents=True, exist_ok=True)
    durations = [each] * (len(draw) - 1) + [1500]
    draw[0].save(path, save_all=True, append_images=draw[1:], duration=durations, loop=0, optimize=True)
    return path
