"""Image files as arrays: PNG, JPEG and WebP, each kind of pixel converted by a fixed rule.

* palette        the colours, never the palette's numbers
* alpha          laid over white, unless four channels are asked for
* 16 bit         the high byte of each value
* black and white (1 bit)    0 and 255
* CMYK           to RGB, as Pillow does
* orientation    photographs are turned upright as their EXIF says
* grey           one channel, unless colour is asked for (a WebP file is always of colours); colours become grey by
                 the luma of ITU-R 601

Files with several frames are refused. Images are made smaller or larger by Pillow's antialiased Lanczos filter.
"""

import contextlib
import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
FORMATS = ("PNG", "JPEG", "WEBP")
ORIENTATION, SIDEWAYS = 0x0112, (5, 6, 7, 8)  # of EXIF: the field, and its values that exchange height and width
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class Header(NamedTuple):
    """What a file says about itself before its pixels are read. height and width: upright."""

    height: int
    width: int
    grey: bool


def header(path: Path) -> Header:
    """Size and kind of an image file. Raises ValueError, which does not name the file."""
    with path.open("rb") as stream, _opened(stream) as image:
        width, height = image.size
        # Pillow would decode all of a PNG to look for EXIF behind its pixels.
        known = image.format != "PNG" or {"exif", "Raw profile type exif"} & set(image.info)
        if known and image.getexif().get(ORIENTATION) in SIDEWAYS:
            width, height = height, width
        palette = np.reshape(image.getpalette("RGB"), (-1, 3)) if image.mode == "P" else None
        grey = image.mode in ("1", "L", "LA") or image.mode.startswith("I")
        return Header(height, width, grey or palette is not None and bool((palette == palette[:, :1]).all()))


def decode(body: bytes, channels: int, size: tuple[int, int] | None = None, crop: bool = False) -> np.ndarray:
    """An image file -> uint8 [H, W, channels].

    channels: 1, 3 or 4. size: (H, W) to resize to. crop: the centre is cut out first, as large as the aspect of `size`
    allows; without it the aspect changes.
    Raises ValueError for what is not a whole image.
    """
    from PIL import Image, ImageOps

    if channels not in MODES:
        raise ValueError(f"channels={channels}: images have 1, 3 or 4")
    with _opened(io.BytesIO(body)) as image:
        image.load()
        pixels = _converted(ImageOps.exif_transpose(image), MODES[channels])
        if size is not None and crop:
            pixels = ImageOps.fit(pixels, size[::-1], Image.Resampling.LANCZOS)
        elif size is not None and pixels.size != size[::-1]:
            pixels = pixels.resize(size[::-1], Image.Resampling.LANCZOS)
        return np.asarray(pixels).reshape(pixels.height, pixels.width, channels)


def _converted(image: Any, mode: str) -> Any:
    """A PIL image in mode L, RGB or RGBA, by the rules of the module."""
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bits of grey; Pillow keeps the high bytes of 16-bit colours by itself
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data and mode != "RGBA":
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode == "P":
        image = image.convert("RGB")
    return image if image.mode == mode else image.convert(mode)


@contextlib.contextmanager
def _opened(stream: BinaryIO) -> Iterator[Any]:
    """A PIL image of one frame. Whatever Pillow raises while it is read becomes a ValueError."""
    from PIL import Image

    try:
        with Image.open(stream, formats=FORMATS) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":  # MPO: a photograph with its preview
                raise ValueError(f"{frames} frames")
            yield image
    except Image.UnidentifiedImageError as error:
        raise ValueError("not a PNG, JPEG or WebP file") from error
    except (OSError, SyntaxError, EOFError, zlib.error, struct.error, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from error
