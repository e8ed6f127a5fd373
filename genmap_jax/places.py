"""Folders, checked before anything is computed for them."""

import os
import re
from pathlib import Path


def local(path: Path, name: str) -> Path:
    """The path itself, absolute. Raises ValueError if it is a URL, a file, below a file, or a link to nothing.

    name: of the flag that gave it, for the message.
    """
    if re.match(r"\w+:/", str(path)):  # Path drops the second slash of gs://
        raise ValueError(f"{name} {path}: only folders of this machine are read and written; mount the bucket first")
    path = Path(path).expanduser().absolute()
    for place in (path, *path.parents):
        if place.is_symlink() and not place.exists():
            raise ValueError(f"{name} {path}: {place} is a link to {os.readlink(place)}, which is not there")
        if place.exists() and not place.is_dir():
            raise ValueError(f"{name} {path}: {place} is a file, not a folder")
    return path


def writable(path: Path, name: str) -> Path:
    """`local`, for a folder that will be written. Raises ValueError also where that is not allowed; writes nothing."""
    path = local(path, name)
    there = next(place for place in (path, *path.parents) if place.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"{name} {path}: {there} cannot be written to")
    return path
