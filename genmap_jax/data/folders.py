"""Where prepared data are, and how a folder of them appears whole or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


def root_folder(data_dir: str | os.PathLike | None) -> Path:
    """The data folder: as given, else $GENMAP_DATA, else ~/.cache/genmap_jax/data."""
    return Path(data_dir or os.environ.get("GENMAP_DATA") or "~/.cache/genmap_jax/data").expanduser().absolute()


@contextlib.contextmanager
def scratch(root: Path) -> Iterator[Path]:
    """A folder next to where the result will be, so that moving it there is one rename."""
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=root) as folder:
        yield Path(folder)


def publish(folder: Path, final: Path) -> Path:
    """Move a finished folder into place, unless another process was first."""
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.rename(final)
    except OSError:
        if not final.is_dir():
            raise
    return final
