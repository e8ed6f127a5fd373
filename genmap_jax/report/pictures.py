"""What examples look like: a PNG grid of images, a scatter of points, a text file."""

from pathlib import Path

import numpy as np

from genmap_jax.data import Source
from genmap_jax.data.text import utf8


def save(batch: dict[str, np.ndarray], stem: Path, source: Source) -> Path:
    """Write examples as a source has them ("image" [n,H,W,C], "tokens" [n,L] or "x" [n,2]) to `stem` + suffix."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    if "image" in batch:
        path = stem.with_suffix(".png")
        image_grid(np.asarray(batch["image"]), source.levels).save(path)
    elif "tokens" in batch:
        path = stem.with_suffix(".txt")
        decode = source.tokenizer.decode
        path.write_text("\n\n".join(printable(decode(row)) for row in np.asarray(batch["tokens"])) + "\n")
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


def printable(text: str) -> str:
    """Text, but what is not printable shows as a replacement character."""
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


def densities(law, log_density, generated: np.ndarray, path: Path) -> None:
    """The truth beside the model, on the plane: its density where there is one, and its samples.

    law: a `data.toy.Density`. log_density: points [N, 2] -> log-probability [N], or None. generated: [N, 2].
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    low, high = law.window
    side = low + (np.arange(150) + 0.5) * (high - low) / 150
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2).astype(np.float32)
    truth = np.exp(np.asarray(law.log_prob(grid))).reshape(150, 150)
    shown = [("truth", truth)]
    if log_density is not None:
        shown.append(("model density", np.exp(log_density(grid)).reshape(150, 150)))
    figure = Figure(figsize=(3 * (len(shown) + 1), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    all_axes = figure.subplots(1, len(shown) + 1)
    for axes, (title, values) in zip(all_axes, shown, strict=False):
        axes.imshow(values, origin="lower", extent=(low, high, low, high), vmin=0.0, vmax=truth.max(), cmap="magma")
        axes.set_title(title, fontsize=10)
    all_axes[-1].scatter(*generated[:1000].T, s=2, alpha=0.5)
    all_axes[-1].set(xlim=(low, high), ylim=(low, high), aspect="equal")
    all_axes[-1].set_title("model samples", fontsize=10)
    for axes in all_axes:
        axes.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=100)


def animation(frames: np.ndarray, path: Path, levels: int = 256) -> Path:
    """A sampler at work, as a GIF that loops: about 2.5 s of at most 40 frames, and the last one held for 1.5 s.

    frames: [T,n,H,W,C] uint8 images with values 0..levels-1 (the first 16 are shown), [T,n,2] floats (points), or
    [T,n,L] integers (bytes of text; 0 is not yet written; the first four rows are shown).
    Raises ValueError for any other shape.
    """
    frames = np.asarray(frames)
    if frames.ndim == 5:
        draw = [image_grid(frame[:16], levels) for frame in _some(frames)]
    elif frames.ndim == 3 and frames.dtype.kind in "iu":
        draw = _pages_of_text(_some(frames)[:, :4])
    elif frames.ndim == 3 and frames.shape[2] == 2:
        draw = _moving_points(_some(frames))
    else:
        raise ValueError(f"an animation of shape {frames.shape}: expected [T,n,H,W,C], [T,n,2] or integers [T,n,L]")
    each = max(40, 10 * round(250 / len(draw)))  # a GIF counts in 10 ms, and browsers slow down what is below 20
    path.parent.mkdir(parents=True, exist_ok=True)
    durations = [each] * (len(draw) - 1) + [1500]
    draw[0].save(path, save_all=True, append_images=draw[1:], duration=durations, loop=0, optimize=True)
    return path


def _some(frames: np.ndarray, most: int = 40) -> np.ndarray:
    """At most 40 frames, evenly spaced, the first and the last among them."""
    return frames[np.unique(np.linspace(0, len(frames) - 1, min(len(frames), most)).round().astype(int))]


def _moving_points(frames: np.ndarray, side: int = 320) -> list:
    """Points in the window of the last frame; what is outside is not drawn."""
    from PIL import Image, ImageDraw

    last = frames[-1][np.isfinite(frames[-1]).all(axis=1)]
    centre = (last.max(axis=0) + last.min(axis=0)) / 2 if len(last) else np.zeros(2)
    half = 0.55 * float((last.max(axis=0) - last.min(axis=0)).max()) if len(last) else 1.0
    pictures = []
    for frame in frames:
        picture = Image.new("L", (side, side), 255)
        pen = ImageDraw.Draw(picture)
        at = ((frame - centre) / (half or 1.0) * [1, -1] + 1) * side / 2
        for x, y in at[np.isfinite(at).all(axis=1) & (np.abs(at) < 2 * side).all(axis=1)]:
            pen.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), fill=70)
        pictures.append(picture)
    return pictures


def _pages_of_text(frames: np.ndarray, columns: int = 64) -> list:
    """Rows of bytes in a monospaced type, an empty line between them; every page has the room of the fullest."""
    from matplotlib.font_manager import FontProperties, findfont
    from PIL import Image, ImageDraw, ImageFont

    def lines(row: np.ndarray) -> list[str]:
        text = printable(utf8().decode(np.trim_zeros(row, "b"))).expandtabs(4)
        return [line[i : i + columns] for line in text.splitlines() for i in range(0, max(1, len(line)), columns)]

    font = ImageFont.truetype(findfont(FontProperties(family="DejaVu Sans Mono")), 13)
    pages = [[lines(row) for row in frame] for frame in frames]
    tops = np.cumsum([0] + [1 + max(len(page[i]) for page in pages) for i in range(frames.shape[1])])
    pictures = []
    for page in pages:
        picture = Image.new("L", (8 * columns + 16, 17 * int(tops[-1]) + 8), 255)
        pen = ImageDraw.Draw(picture)
        for top, row in zip(tops[:-1], page, strict=True):
            for i, line in enumerate(row):
                pen.text((8, 6 + 17 * (int(top) + i)), line, fill=25, font=font)
        pictures.append(picture)
    return pictures
