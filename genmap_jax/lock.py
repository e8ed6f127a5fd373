"""One process at a time writes a folder: a lock that dies with its process, and says who holds it."""

import contextlib
import errno
import fcntl
import logging
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

NAME = ".lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)

log = logging.getLogger(__name__)


class Busy(ValueError):
    """Another process holds the lock."""


@contextlib.contextmanager
def lock(folder: Path, wait: bool = False) -> Iterator[None]:
    """Hold the lock of a folder, which is made if it is not there, while the context lasts.

    The kernel gives the lock up when its process ends, however it ends. Linux keeps it between the hosts of a network
    file system too; one that was mounted without locks gets a warning instead. The file `.lock` stays where it is:
    whoever removed it could hold a file that others no longer see. It says who holds it or held it last.

    wait: until the lock is free. Raises Busy otherwise, naming host, process and command of who holds it; ValueError
    where the folder cannot be one, OSError where it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"{folder} cannot be a folder: {error.filename} is a file or a broken link") from error
    file = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o666)  # no child inherits it: Python closes it on exec
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            holder = os.pread(file, 2000, 0).decode(errors="replace").strip() or "another process"
            raise Busy(f"{folder} is being written by {holder}. Wait for it, or take another folder.") from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            log.warning("%s lies on a file system without locks: see to it that one process writes it", folder)
        os.ftruncate(file, 0)
        os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()} ({shlex.join(sys.argv)})\n".encode(), 0)
        yield
    finally:
        os.close(file)
