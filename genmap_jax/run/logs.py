"""What a run tells: progress bar or plain lines, metrics.jsonl (the source of truth), TensorBoard, Weights & Biases."""

import json
import math
import shutil
import sys
import uuid
from collections import defaultdict
from pathlib import Path
from typing import Any

import tqdm

from genmap_jax.files import has_damaged_lines, read_json, read_metrics, write_json, write_text
from genmap_jax.run.speed import SPEEDS


class NonFinite(RuntimeError):
    """A metric or the state became NaN or infinite."""


class Metrics:
    """Averages step metrics over an interval and writes one row per logged step. Used by process 0 only."""

    def __init__(
        self, workdir: Path, step: int, steps: int, *, name: str, tensorboard: bool, wandb: bool, config: dict
    ):
        path = workdir / "metrics.jsonl"
        if step and not path.exists():
            print(f"warning: {path} is gone, and with it the rows up to step {step}", file=sys.stderr)
        rows = read_metrics(path)
        if has_damaged_lines(path):  # what a person may still want to mend
            shutil.copy(path, path.with_suffix(".damaged"))
        kept = [row for row in rows if row["step"] <= step]  # a killed run is ahead of its checkpoint
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = path.open("a", buffering=1)
        self._board = self._wandb = None
        if tensorboard:
            from tensorboardX import SummaryWriter

            self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1 if step else None)
        if wandb:
            import wandb as library

            about = workdir / "wandb.json"  # a run begun anew, in a folder of the same name too, is another run there
            if not about.exists():
                write_json(about, {"id": f"{workdir.name}-{uuid.uuid4().hex[:12]}"})
            self._wandb = library.init(
                project="genmap_jax",
                name=name,
                id=read_json(about)["id"],
                resume="allow",
                dir=str(workdir),
                config=config,
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
        shown = {k: f"{v:.4g}" for k, v in numbers.items() if k not in (*SPEEDS, "examples")}
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
    """Mean of each metric over the steps since the last multiple of `log_every`, also if the run stopped in between."""

    def __init__(self, sums: dict[str, Any] | None = None) -> None:
        """`sums`: what `sums()` said when the run was saved."""
        sums = sums or {"count": 0, "totals": {}}
        self._totals: dict[str, float] = defaultdict(float, sums["totals"])
        self._count: int = sums["count"]

    def add(self, step: int, metrics: dict[str, float]) -> None:
        """Raises NonFinite naming step and metric."""
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise NonFinite(f"step {step}: {name} is {value}")
            self._totals[name] += value
        self._count += 1

    def sums(self) -> dict[str, Any]:
        """The steps so far, as JSON values, which keep every bit of a float."""
        return {"count": self._count, "totals": dict(self._totals)}

    def means(self) -> dict[str, float]:
        """The means of the steps so far."""
        return {name: total / max(self._count, 1) for name, total in self._totals.items()}

    def take(self) -> dict[str, float]:
        """The means, and start again."""
        means = self.means()
        self._totals.clear()
        self._count = 0
        return means
