"""Where prepared data are, and how a folder of them appears whole or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from genmap_jax.lock import Busy, lock
from genmap_jax.places import local


def root_folder(data_dir: str | os.PathLike | None) -> Path:
    """The data folder: as given, else $GENMAP_DATA, else ~/.cache/genmap_jax/data.

    Raises ValueError if it cannot be a folder.
    """
    given = data_dir or os.environ.get("GENMAP_DATA") or "~/.cache/genmap_jax/data"
    return local(Path(given), "--data-dir" if data_dir else "GENMAP_DATA")


@contextlib.contextmanager
def scratch(root: Path) -> Iterator[Path]:
    """A folder next to where the result will be, so that moving it there is one rename.

    Any number of processes may fill such folders at once. One whose process was killed is known by its lock, which died
    with the process, and is removed by the next.
    """
    with contextlib.ExitStack() as stack:
        with lock(root, wait=True):  # nobody sees a folder that its maker has not locked yet
            for left in root.glob(".building-*"):
                with contextlib.suppress(Busy, FileNotFoundError), lock(left):
                    shutil.rmtree(left, ignore_errors=True)
            made = tempfile.TemporaryDirectory(prefix=".building-", dir=root, ignore_cleanup_errors=True)
            folder = Path(stack.enter_context(made))
            stack.enter_context(lock(folder))
        yield folder


def publish(folder: Path, final: Path) -> Path:
    """Move a finished folder into place, unless another process was first."""
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.rename(final)
    except OSError:
        if not final.is_dir():
            raise
    return final
