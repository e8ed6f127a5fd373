"""A trace of some steps of a run, for TensorBoard, XProf or Perfetto."""

from pathlib import Path
from typing import Any

import jax

WARM = 10
"""Steps before the trace: compilation, first touches and the filling of the pipeline are not in it."""


class Profile:
    """Records the steps from `first` + WARM on, so many as are asked for; nothing, if none are."""

    def __init__(self, folder: Path, first: int, steps: int | None):
        self.folder, self.steps = folder, steps or 0
        self._begin, self._on = first + WARM, False

    def at(self, step: int, state: Any) -> bool:
        """Before the step after `step`, and after the last: begin or end here. Whether the trace has just been written.

        What was started before is waited for, so that the trace holds whole steps and no others.
        """
        if self.steps and step == self._begin:
            jax.block_until_ready(state)
            jax.profiler.start_trace(str(self.folder))
            self._on = True
        elif self._on and step == self._begin + self.steps:
            jax.block_until_ready(state)
            self.close()
            return True
        return False

    def close(self) -> None:
        """End a trace that is being recorded."""
        if self._on:
            self._on = False
            jax.profiler.stop_trace()


def check(steps: int | None, to_go: int) -> None:
    """Raise ValueError if a run of so many steps has not so many to record."""
    if steps is not None and steps + WARM > to_go:
        raise ValueError(f"--profile {steps}: of {to_go} steps at most {max(0, to_go - WARM)} can be recorded, for "
                         f"{WARM} come before them: give fewer, or more --steps")  # fmt: skip
