"""Samples of a trained run, if so asked with another sampler, guidance, truncation or label than it had."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from genmap_jax.algorithm import check_cond
from genmap_jax.commands.measure import Observer, held_out_conditions, save_picture
from genmap_jax.run import config as configs
from genmap_jax.run import opening

BATCH = 256
"""Samples are drawn in batches of at most so many."""


def sample(
    folder: Path,
    experiments: Path,
    n: int,
    seed: int = 0,
    label: int | None = None,
    changes: dict[str, Any] | None = None,
    out: Path | None = None,
    data_dir: Path | None = None,
) -> str:
    """Draw `n` samples, write samples.npz and a picture or text of the first 64, and return a line that names them.

    label: the label of all samples; without it a conditional family is asked for the labels of test examples.
    changes: fields of the model's configuration by dotted path, as `opening.open_run` takes them.
    Raises ValueError or FileNotFoundError that names the flag and the fix.
    """
    if n < 1:
        raise ValueError(f"-n {n}: draw at least one sample")
    run = opening.open_run(folder, experiments, data_dir, changes)
    cond = held_out_conditions(run, n)
    if label is not None:
        if cond is None or "label" not in cond:
            raise ValueError(f"--label {label}: {run.config.name} is not conditioned on labels; leave it out")
        classes = run.algorithm.reads["label"].levels
        assert classes is not None  # labels have classes
        if not 0 <= label < classes:
            raise ValueError(f"--label {label}: {run.config.name} knows labels 0 to {classes - 1}")
        cond = {**cond, "label": np.full(n, label, np.int32)}
    check_cond(run.algorithm.reads, n, cond)
    observer = Observer(run, min(n, BATCH))
    drawn, _ = observer.drawn(run, jax.random.fold_in(run.eval_key, 1 + seed), cond, n)
    if not np.isfinite(drawn.astype(np.float64)).all():
        raise ValueError(f"{run.folder}: the sampler gave NaN or infinite values; look at its training curves")
    out = (out or run.folder / "drawn").absolute()
    out.mkdir(parents=True, exist_ok=True)
    test = run.sources["test"]
    arrays: dict[str, Any] = {test.field: drawn}
    np.savez_compressed(out / "samples.npz", **arrays)
    picture = save_picture(drawn[:64], out / "samples", test)
    return f"{len(drawn)} samples of {run.config.name} at step {run.step}: {out / 'samples.npz'}, {picture}"


def parsed_changes(words: list[str], folder: Path, experiments: Path) -> dict[str, Any]:
    """Words such as --model.sampler heun, read in the types of the run's configuration -> {"sampler": "heun"}.

    A field that does not exist or a value that does not fit ends the program with tyro's message and exit code 2.
    """
    import tyro

    _, cfg = opening.experiment_of(folder.absolute(), experiments)
    changes = dataclasses.make_dataclass("Changes", [("model", type(cfg.model), cfg.model)], frozen=True)
    changed: Any = tyro.cli(changes, prog="genmap sample RUN", args=words)
    return {path: new for path, (_, new) in configs.differences(cfg.model, changed.model).items()}
