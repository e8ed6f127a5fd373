"""Known maps of images, by their names in the data `rendered/RENDERING,NAME`: pairs of domains whose truth is known.

Each is a pure function (images uint8 [N, H, W, C], levels) -> the same, whose grey values are 0..levels-1 too.
"""

from collections.abc import Callable

import numpy as np


def bold(images: np.ndarray, levels: int) -> np.ndarray:
    """Every pixel becomes the brightest of itself and its neighbours above, to the left and between: strokes grow by a
    pixel to the right and below."""
    margins = ((0, 0), (1, 0), (1, 0), (0, 0))
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(images, margins, "edge"), (2, 2), axis=(1, 2))
    return windows.max((-1, -2))


def negative(images: np.ndarray, levels: int) -> np.ndarray:
    """Black becomes white and white black."""
    return (levels - 1 - images).astype(images.dtype)


def rotated(images: np.ndarray, levels: int) -> np.ndarray:
    """The colours in another order: red becomes green, green blue, and blue red. Grey images stay as they are."""
    return np.roll(images, 1, axis=-1)


RENDERINGS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "bold": bold,
    "negative": negative,
    "rotated": rotated,
}
"""By the names in an experiment's data."""
