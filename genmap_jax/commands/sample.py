"""Samples of a trained run, if so asked with another sampler, guidance, truncation or label than it had.

Of a family that translates images, the images may be given: a split of its data or a folder of one's own.
"""

import dataclasses
import itertools
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tqdm

from genmap_jax import data, places
from genmap_jax.algorithm import check_cond
from genmap_jax.commands.measure import Observer, as_batch, held_out_conditions, translated_from
from genmap_jax.data import image_files
from genmap_jax.data.own.files import find_files, refuse
from genmap_jax.lock import lock
from genmap_jax.run import config as configs
from genmap_jax.run import opening
from genmap_jax.run.logs import NonFinite
from genmap_jax.run.runs import Run
from genmap_jax.spaces import Space

DRAWN, BATCH, SHOWN = 64, 256, 64
"""So many samples are drawn unless more are asked for, in batches of at most so many; so many are on the picture."""


def sample(
    folder: Path,
    experiments: Path,
    n: int | None = None,
    seed: int = 0,
    label: int | None = None,
    changes: dict[str, Any] | None = None,
    out: Path | None = None,
    data_dir: Path | None = None,
    given: str | None = None,
) -> str:
    """Draw `n` samples, write samples.npz and a picture or text of the first 64, and return a line that names them.

    n: default 64, or as many as there are images in a folder; of images that are given, at most.
    label: the label of all samples; without it a conditional family is asked for the labels of test examples.
    changes: fields of the model's configuration by dotted path, as `opening.open_run` takes them.
    given: the images to translate, a folder of files or a split of the run's data (default: "test"). The picture shows
        each beside its translation and, where the family has a way back, beside what comes of that.
    Raises ValueError or FileNotFoundError that names the flag and the fix.
    """
    if n is not None and n < 1:
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
    sources = None if given is None else images_to_translate(run, given, n, data_dir)
    count = n or DRAWN if sources is None else len(sources)
    observer = Observer(run, min(count, BATCH))
    key, test = jax.random.fold_in(run.eval_key, 1 + seed), run.sources["test"]

    name = translated_from(run)
    asked: list[data.Examples] = []  # the conditions of what is on the picture

    def batches() -> Iterator[np.ndarray]:
        for i in tqdm.trange(-(-count // observer.size), desc=run.config.name, unit="batch", disable=None):
            rows = observer.rows(i, count)
            cond = held_out_conditions(run, count, rows)
            if sources is not None and cond is not None and name is not None:
                cond = {**cond, name: sources[rows]}
            if label is not None and cond is not None:
                cond = {**cond, "label": np.full(len(rows), label, np.int32)}
            check_cond(reads, len(rows), cond)
            if i * observer.size < SHOWN and cond is not None:
                asked.append(cond)
            yield as_batch(run, observer.batch(run, key, i, cond)[: count - i * observer.size])

    try:
        drawn = batches()
        first = list(itertools.islice(drawn, -(-SHOWN // observer.size)))  # before anything is written
        with lock(out, wait=True):
            write_arrays(out / "samples.npz", test.field, itertools.chain(first, drawn), count)
            shown = np.concatenate(first)[:SHOWN]
            cond = {name: np.concatenate([each[name] for each in asked])[: len(shown)] for name in list(reads)[1:]}
            picture = observer.picture(run, key, shown, cond, out / "samples")
    except NonFinite as error:
        raise ValueError(str(error)) from error
    return f"{count} samples of {run.config.name} at step {run.step}: {out / 'samples.npz'}, {picture}"


def images_to_translate(run: Run, given: str, n: int | None, data_dir: Path | None) -> np.ndarray:
    """The images of a folder, or those of a split of the run's data evenly spaced: uint8 [N, H, W, C], at most `n`.

    Raises ValueError or FileNotFoundError that names the flag and the fix.
    """
    name, reads, cfg = translated_from(run), run.algorithm.reads, run.config
    if name is None:
        raise ValueError(f"--from {given}: {cfg.name} does not translate images; leave it out")
    if not Path(given).exists():
        try:
            split = data.load(cfg.data, given, reads=reads, data_dir=data_dir)
        except ValueError as error:
            raise ValueError(f"--from {given} is no folder here and no split: {error}") from error
        return split.take(split.spaced(n or DRAWN))[name]
    return read_images(Path(given), reads[name])[:n]


def read_images(folder: Path, space: Space) -> np.ndarray:
    """The image files of a folder, or one file, as examples of a space: uint8 [N, H, W, C].

    They are brought to its size by cutting out the centre and resizing, and to its grey values by rounding.
    Raises ValueError that names the flag: no image can be read, or some cannot.
    """
    files = find_files(folder)
    if files.kind != "images":
        raise ValueError(
            f"--from {folder} holds {files.kind}, no images: give a folder of {', '.join(image_files.SUFFIXES)}"
        )
    height, width, channels = space.shape
    images, broken = [], []
    for path in files.paths:
        try:
            images.append(image_files.decode(path.read_bytes(), channels, (height, width), crop=True))
        except (ValueError, OSError) as error:
            broken.append((files.name(path), str(error)))
    refuse(broken, folder)
    return np.rint(np.stack(images) * ((space.grey_levels - 1) / 255.0)).astype(np.uint8)


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
