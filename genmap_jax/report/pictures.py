"""What examples look like: a PNG grid of images, a scatter of points, a text file."""

from pathlib import Path

import numpy as np


def save(batch: dict[str, np.ndarray], stem: Path, levels: int) -> Path:
    """Write the examples of a batch ("image" [n,H,W,C], "tokens" [n,L] or "x" [n,2]) to `stem` + suffix."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    if "image" in batch:
        path = stem.with_suffix(".png")
        image_grid(np.asarray(batch["image"]), levels).save(path)
    elif "tokens" in batch:
        path = stem.with_suffix(".txt")
        path.write_text("\n\n".join(as_text(row) for row in np.asarray(batch["tokens"])) + "\n")
    else:
        path = stem.with_suffix(".png")
        _scatter(np.asarray(batch["x"]), path)
    return path


def image_grid(images: np.ndarray, levels: int, columns: int = 8):
    """uint8 [n,H,W,C] with values 0..levels-1 -> a PIL image, small images enlarged by whole factors."""
    from PIL import Image

    n, height, width, channels = images.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    zoom = max(1, 48 // height)
    grid = np.zeros((rows * (height * zoom + 2), columns * (width * zoom + 2), channels), np.uint8)
    for i, image in enumerate(images):
        y, x = i // columns * (height * zoom + 2), i % columns * (width * zoom + 2)
        full = np.round(image.astype(np.float64) * (255 / (levels - 1))).astype(np.uint8)
        grid[y : y + height * zoom, x : x + width * zoom] = full.repeat(zoom, 0).repeat(zoom, 1)
    return Image.fromarray(grid[..., 0] if channels == 1 else grid)


def as_text(tokens: np.ndarray) -> str:
    """Bytes -> text; what is not UTF-8 or not printable shows as a replacement character."""
    text = bytes(np.asarray(tokens, np.uint8)).decode("utf-8", errors="replace")
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text)


def _scatter(x: np.ndarray, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.scatter(x[:, 0], x[:, 1], s=4, alpha=0.6)
    axes.set_aspect("equal")
    figure.savefig(path, dpi=100)
