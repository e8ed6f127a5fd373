"""Resizing for feature extractors, as it must be done for scores to be comparable (Parmar et al. 2022)."""

import numpy as np


def clean_resize(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Antialiased bicubic resize of float images, channel by channel in float32. [N, H, W, C] -> [N, h, w, C].

    images: floats in any unit; values between bytes are kept, so nothing is rounded to uint8 before or after, and
    overshoots at edges are not clipped. size: (h, w).
    Raises ValueError on integers, another number of axes, NaN or infinity.
    """
    from PIL import Image

    images = np.asarray(images)
    if images.ndim != 4 or not np.issubdtype(images.dtype, np.floating):
        raise ValueError(f"images has shape {images.shape} and type {images.dtype}: give floats [N, H, W, C]")
    if not np.isfinite(images).all():
        raise ValueError("images holds NaN or infinite values: leave those images out")
    h, w = size
    out = np.empty((len(images), h, w, images.shape[3]), np.float32)
    for i, image in enumerate(images.astype(np.float32)):
        for c in range(image.shape[2]):
            channel = Image.fromarray(image[:, :, c])  # float32: mode F, which antialiases by default
            out[i, :, :, c] = np.asarray(channel.resize((w, h), Image.Resampling.BICUBIC))
    return out
