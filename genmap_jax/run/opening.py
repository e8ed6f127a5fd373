"""A run folder opened again: its script found, its newest good checkpoint loaded, its sampler changed if so asked.

A run folder is data. Its config.json is read into the types of an experiment script, which comes from the folder of
experiments, never from a path written in the run. The script may have been renamed: any script of the same family whose
configuration has the fields of config.json opens the run, for everything else stands in that file.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax

from genmap_jax import parallel
from genmap_jax.algorithm import Family, like_batch
from genmap_jax.files import read_json, read_metrics
from genmap_jax.run import config as configs
from genmap_jax.run import loop
from genmap_jax.run.checkpoint import Checkpoints
from genmap_jax.run.config import Experiment
from genmap_jax.run.runs import Run, Script, experiment_files, read_config, read_experiment


def experiment_of(folder: Path, experiments: Path) -> tuple[Script, Experiment]:
    """The script that opens a run, and the run's configuration.

    experiments: a folder of scripts, or one script. The script that made the run is preferred, under its old name; else
    any script of the same family that has all fields of the run's configuration.
    Raises FileNotFoundError or ValueError that says what is missing.
    """
    environment, _ = read_json(folder / "environment.json"), read_json(folder / "config.json")
    if experiments.is_file():
        script = read_experiment(experiments)
        return script, read_config(folder, script.config)
    made_by = experiments / Path(f"{environment.get('experiment', '')}.py").name
    others = [path for path in experiment_files(experiments) if path != made_by]
    reasons = []
    for path in [made_by] * made_by.is_file() + others:
        script = read_experiment(path)
        if script.family.name != environment.get("family"):
            continue
        try:
            return script, read_config(folder, script.config)
        except ValueError as error:
            reasons.append(f"{path.name}: {error}")
    why = f" ({reasons[0]})" if reasons else ""
    raise ValueError(
        f"no script in {experiments} opens {folder}, a run of the family {environment.get('family')!r} made by "
        f"{made_by.name}{why}; --experiments FILE names one"
    )


def check(folder: Path, experiments: Path, changes: dict[str, Any] | None = None) -> None:
    """Raises what `open_run` would for a folder that is no run, or for fields that must not change."""
    script, cfg = experiment_of(folder, experiments)
    changed_after_training(cfg, script.family, changes or {})


def open_run(
    folder: Path, experiments: Path, data_dir: Path | None = None, changes: dict[str, Any] | None = None
) -> Run:
    """The newest good checkpoint of a run, on all devices.

    changes: fields of the model's configuration by dotted path to change after training; only those that its family
        declares as `sampling` may be.
    Raises FileNotFoundError or ValueError saying what is missing: no run, no checkpoint, no such experiment.
    """
    script, cfg = experiment_of(folder, experiments)
    return load_run(folder, changed_after_training(cfg, script.family, changes or {}), script.family, data_dir)


def load_run(folder: Path, cfg: Experiment, family: Family, data_dir: Path | None = None) -> Run:
    """`open_run` for a known configuration and family."""
    folder = folder.absolute()
    place = parallel.placement()
    algorithm = loop.bind(cfg, family)
    init_key, _, eval_key = jax.random.split(jax.random.key(cfg.seed), 3)
    if not (folder / "checkpoints").is_dir():
        raise FileNotFoundError(f"{folder} has no checkpoint yet; train it first")
    checkpoints = Checkpoints(folder / "checkpoints", cfg.keep, read_only=True)
    restored = checkpoints.restore(place.like(algorithm, init_key, like_batch(algorithm.reads, cfg.batch_size)))
    checkpoints.close()
    if restored is None:
        raise FileNotFoundError(f"{folder} has no checkpoint yet; train it first")
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if row["step"] <= restored[0]]
    seconds = rows[-1]["seconds"] if rows else 0.0
    sources = loop.load(cfg, algorithm, data_dir)
    return Run(folder, cfg, family, algorithm, place, sources, *restored, eval_key, seconds)


def changed_after_training(cfg: Experiment, family: Family, changes: dict[str, Any]) -> Experiment:
    """The configuration with fields of the model changed that touch no parameter.

    Raises ValueError for a field that training depends on, naming those that it does not.
    """
    for path in changes:
        if not any(path == field or path.startswith(f"{field}.") for field in family.sampling):
            raise ValueError(
                f"--model.{path} changes what was trained; after training these may change: "
                f"{', '.join(family.sampling) or 'none'}"
            )
    return dataclasses.replace(cfg, model=configs.replace(cfg.model, changes))
