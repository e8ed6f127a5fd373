"""Samples of a trained run, if so asked with another sampler, guidance, truncation or label than it had."""

import dataclasses
import itertools
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tqdm

from genmap_jax import places
from genmap_jax.algorithm import check_cond
from genmap_jax.commands.measure import Observer, as_batch, held_out_conditions, save_picture
from genmap_jax.lock import lock
from genmap_jax.run import config as configs
from genmap_jax.run import opening
from genmap_jax.run.logs import NonFinite

BATCH, SHOWN = 256, 64
"""Samples are drawn in batches of at most so many, and so many of them are on the picture."""


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
    out = places.writable(out or folder / "drawn", "--out")
    run = opening.open_run(folder, experiments, data_dir, changes)
    reads = run.algorithm.reads
    if label is not None:
        if "label" not in reads:
            raise ValueError(f"--label {label}: {run.config.name} is not conditioned on labels; leave it out")
        classes = reads["label"].levels
        assert classes is not None  # labels have classes
        if not 0 <= label < classes:
            raise ValueError(f"--label {label}: {run.config.name} knows labels 0 to {classes - 1}")
    observer = Observer(run, min(n, BATCH))
    key, test = jax.random.fold_in(run.eval_key, 1 + seed), run.sources["test"]

    def batches() -> Iterator[np.ndarray]:
        for i in tqdm.trange(-(-n // observer.size), desc=run.config.name, unit="batch", disable=None):
            rows = np.arange(i * observer.size, (i + 1) * observer.size) % n
            cond = held_out_conditions(run, n, rows)
            if label is not None and cond is not None:
                cond = {**cond, "label": np.full(len(rows), label, np.int32)}
            check_cond(reads, len(rows), cond)
            yield as_batch(run, observer.batch(run, key, i, cond)[: n - i * observer.size])

    try:
        drawn = batches()
        first = list(itertools.islice(drawn, -(-SHOWN // observer.size)))  # before anything is written
        with lock(out, wait=True):
            write_arrays(out / "samples.npz", test.field, itertools.chain(first, drawn), n)
            picture = save_picture(np.concatenate(first)[:SHOWN], out / "samples", test)
    except NonFinite as error:
        raise ValueError(str(error)) from error
    return f"{n} samples of {run.config.name} at step {run.step}: {out / 'samples.npz'}, {picture}"


def write_arrays(path: Path, name: str, parts: Iterable[np.ndarray], count: int) -> None:
    """Write parts [b, ...] of one array [count, ...] as an .npz, one part in memory at a time; whole or not at all."""
    temporary = path.with_suffix(".tmp")
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                for i, part in enumerate(parts):
                    if i == 0:
                        about = {"descr": np.lib.format.dtype_to_descr(part.dtype), "fortran_order": False}
                        np.lib.format.write_array_header_1_0(file, about | {"shape": (count, *part.shape[1:])})
                    file.write(np.ascontiguousarray(part).tobytes())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def parsed_changes(words: list[str], folder: Path, experiments: Path) -> dict[str, Any]:
    """Words such as --model.sampler heun, read in the types of the run's configuration -> {"sampler": "heun"}.

    A field that does not exist or a value that does not fit ends the program with tyro's message and exit code 2.
    """
    import tyro

    _, cfg = opening.experiment_of(folder.absolute(), experiments)
    changes = dataclasses.make_dataclass("Changes", [("model", type(cfg.model), cfg.model)], frozen=True)
    changed: Any = tyro.cli(changes, prog="genmap sample RUN", args=words)
    return {path: new for path, (_, new) in configs.differences(cfg.model, changed.model).items()}
