"""Stopping in time: SIGTERM, Ctrl-C and the end of a parent process become the exit codes of `run.launch`."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils

from genmap_jax.run.launch import INTERRUPTED, PREEMPTED

CODES: dict[int, int] = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: PREEMPTED}
PARENT = "GENMAP_PARENT"
"""An environment variable: the number of a pipe whose other end a parent process holds open as long as it lives."""


class Preemption:
    """Whether to save and stop now: an exit code, or 0 to go on.

    One process: SIGTERM and the first Ctrl-C set a flag. Several: JAX's own notifier swallows SIGTERM, so the
    processes agree through it on the step at which all of them stop.
    """

    def __init__(self) -> None:
        self.code = 0
        self._old: dict[int, Any] = {}

    def __enter__(self):
        if jax.process_count() == 1:
            for number, code in CODES.items():
                self._old[number] = signal.signal(number, lambda n, _frame, code=code: self._set(n, code))
        return self

    def _set(self, number: int, code: int) -> None:
        self.code = code
        signal.signal(number, self._old[number])  # a second signal acts at once

    def __call__(self, step: int) -> int:
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step):
            self.code = PREEMPTED
        return self.code

    def __exit__(self, *_):
        for number, handler in self._old.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Where nothing needs saving, SIGTERM and Ctrl-C end the process at once, with their codes and no traceback."""
    old = {number: signal.signal(number, lambda n, _frame: sys.exit(CODES[n])) for number in CODES}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def end_with_parent() -> None:
    """This process gets a SIGTERM when the parent that asked for it is gone, even by a kill, or is gone already."""
    if PARENT not in os.environ:
        return
    pipe = int(os.environ.pop(PARENT))

    def watch() -> None:
        os.read(pipe, 1)  # nothing is ever written: it ends when the other end closes
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()
