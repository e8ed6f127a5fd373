"""What a run tells: progress bar or plain lines, metrics.jsonl (the source of truth), TensorBoard, Weights & Biases."""

import json
import math
import sys
from collections import defaultdict
from pathlib import Path

import tqdm

from genmap_jax.files import read_metrics


class NonFinite(RuntimeError):
    """A metric or the state became NaN or infinite."""


class Metrics:
    """Averages step metrics over an interval and writes one row per logged step. Used by process 0 only."""

    def __init__(
        self, workdir: Path, step: int, steps: int, *, name: str, tensorboard: bool, wandb: bool, config: dict
    ):
        self.path = workdir / "metrics.jsonl"
        # A killed run is ahead of its checkpoint.
        rows = [row for row in read_metrics(self.path) if row["step"] <= step]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(text)
        temporary.replace(self.path)
        self.seconds = rows[-1]["seconds"] if rows else 0.0
        """Training time of the run before this process, in seconds."""
        self._file = self.path.open("a", buffering=1)
        self._board = self._wandb = None
        if tensorboard:
            from tensorboardX import SummaryWriter

            self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1 if step else None)
        if wandb:
            import wandb as library

            self._wandb = library.init(
                project="genmap_jax", name=name, id=workdir.name, resume="allow", dir=str(workdir), config=config
            )
        self._live = sys.stderr.isatty()
        self._bar = tqdm.tqdm(
            total=steps,
            initial=step,
            desc=name,
            unit="step",
            dynamic_ncols=True,
            disable=not self._live,
            file=sys.stderr,
        )
        self._name, self._steps = name, steps

    def write(self, step: int, values: dict[str, float | str]) -> None:
        """One row: `step` and the values, to every sink."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        numbers = {k: v for k, v in values.items() if isinstance(v, int | float)}
        if self._board is not None:
            for name, value in numbers.items():
                self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(numbers, step=step)
        shown = {k: f"{v:.4g}" for k, v in numbers.items() if k not in ("seconds", "examples", "steps_per_second")}
        if self._live:
            self._bar.set_postfix(shown)
        else:
            text = "  ".join(f"{k} {v}" for k, v in shown.items())
            print(f"{self._name}  step {step}/{self._steps}  {text}", flush=True)

    def advance(self, step: int) -> None:
        """Move the progress bar."""
        if self._live:
            self._bar.update(step - self._bar.n)

    def close(self) -> None:
        """Flush and close every sink."""
        self._bar.close()
        self._file.close()
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()


class Interval:
    """Mean of each metric since the last row; stops at the first one that is not finite."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._count = 0

    def add(self, step: int, metrics: dict[str, float]) -> None:
        """Raises NonFinite naming step and metric."""
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise NonFinite(f"step {step}: {name} is {value}")
            self._sums[name] += value
        self._count += 1

    def take(self) -> dict[str, float]:
        """The means, and start again."""
        means = {name: total / max(self._count, 1) for name, total in self._sums.items()}
        self._sums.clear()
        self._count = 0
        return means
