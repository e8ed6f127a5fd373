"""Stopping in time: SIGTERM from a scheduler and Ctrl-C from a person become "save, then exit with this code"."""

import signal
from typing import Any

import jax
from jax.experimental import multihost_utils

from genmap_jax.run.launch import INTERRUPTED, PREEMPTED


class Preemption:
    """Whether to save and stop now: an exit code, or 0 to go on.

    One process: SIGTERM and the first Ctrl-C set a flag. Several: JAX's own notifier swallows SIGTERM, so the
    processes agree through it on the step at which all of them stop.
    """

    def __init__(self) -> None:
        self._code = 0
        self._old: dict[int, Any] = {}

    def __enter__(self):
        if jax.process_count() == 1:
            for number, code in {signal.SIGINT: INTERRUPTED, signal.SIGTERM: PREEMPTED}.items():
                self._old[number] = signal.signal(number, lambda n, _frame, code=code: self._set(n, code))
        return self

    def _set(self, number: int, code: int) -> None:
        self._code = code
        signal.signal(number, self._old[number])  # a second signal acts at once

    def __call__(self, step: int) -> int:
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step):
            return PREEMPTED
        return self._code

    def __exit__(self, *_):
        for number, handler in self._old.items():
            signal.signal(number, handler)
