"""Run folders, looked at from outside: which experiment made one, how far it is, its newest state.

A run folder is data. Its config.json is read into the types of the experiment script of the same name, which comes from
the folder of experiments, never from a path written in the run.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genmap_jax import config as configs
from genmap_jax.config import Experiment
from genmap_jax.logs import read_metrics

if TYPE_CHECKING:  # only `open_run` needs JAX: listing runs must not wait for it
    import jax

    from genmap_jax import parallel
    from genmap_jax.algorithm import Algorithm


@dataclasses.dataclass(frozen=True)
class Run:
    """A run with its newest good checkpoint."""

    folder: Path
    experiment: str
    """Stem of the script that made it."""
    config: Experiment
    algorithm: Algorithm
    place: parallel.Placement
    sources: dict[str, Any]
    """The three splits."""
    step: int
    state: Any
    eval_key: jax.Array
    """What the runner evaluates with."""
    environment: dict[str, Any]
    seconds: float
    """Of training alone."""


def read_experiment(path: Path) -> tuple[Experiment, Callable[..., Algorithm], dict[str, dict[str, Any]]]:
    """(CONFIG, ALGORITHM, ABLATIONS) of an experiment script, without running it.

    Raises ValueError if the script does not have them, FileNotFoundError if it is not there.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no experiment {path}; --experiments FOLDER says where they are")
    spec = importlib.util.spec_from_file_location(f"experiment_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    missing = [name for name in ("CONFIG", "ALGORITHM", "ABLATIONS") if not hasattr(module, name)]
    if missing:
        raise ValueError(
            f"{path} has no {', '.join(missing)}: an experiment script defines CONFIG, ALGORITHM, ABLATIONS"
        )
    return module.CONFIG, module.ALGORITHM, module.ABLATIONS


def open_run(folder: Path, experiments: Path, data_dir: Path | None = None) -> Run:
    """Load the newest good checkpoint of a run onto all devices.

    Raises FileNotFoundError or ValueError saying what is missing: no run, no checkpoint, no such experiment.
    """
    import jax

    from genmap_jax import parallel, train
    from genmap_jax.checkpoint import Checkpoints

    folder = folder.absolute()
    environment = read_json(folder / "environment.json")
    name = experiment_name(folder)
    written, family, _ = read_experiment(experiments / f"{name}.py")
    cfg = configs.from_json(written, read_json(folder / "config.json"))
    place = parallel.placement()
    algorithm = family(cfg.model, batch_size=cfg.batch_size)
    init_key, _, eval_key = jax.random.split(jax.random.key(cfg.seed), 3)
    checkpoints = Checkpoints(folder / "checkpoints", cfg.keep)
    restored = checkpoints.restore(place.like(algorithm, init_key))
    checkpoints.close()
    if restored is None:
        raise FileNotFoundError(f"{folder} has no checkpoint yet; train it first")
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if row["step"] <= restored[0]]
    seconds = rows[-1]["seconds"] if rows else 0.0
    sources = train.load(cfg, data_dir)
    return Run(folder, name, cfg, algorithm, place, sources, *restored, eval_key, environment, seconds)


def experiment_name(folder: Path) -> str:
    """The experiment that made a run: the name of the script in its command."""
    return Path(read_json(folder / "environment.json")["command"][0]).stem


def find_runs(folder: Path) -> list[Path]:
    """Run folders at or below `folder`, three levels deep, sorted."""
    depths = ("", "*/", "*/*/", "*/*/*/")
    return sorted(path.parent for depth in depths for path in folder.glob(f"{depth}environment.json"))


def progress(folder: Path) -> dict[str, Any]:
    """How far a run is, from its files alone: name, data, seed, steps done and wanted, finished, evaluated."""
    cfg = read_json(folder / "config.json")
    rows = read_metrics(folder / "metrics.jsonl")
    done = rows[-1]["step"] if rows else 0
    finished = (folder / "result.json").exists() and read_json(folder / "result.json")["steps"] >= cfg["steps"]
    return {
        "run": str(folder),
        "experiment": experiment_name(folder),
        "data": cfg["data"],
        "seed": cfg["seed"],
        "step": done,
        "steps": cfg["steps"],
        "finished": finished,
        "evaluated": (folder / "evaluation" / "card.json").exists(),
    }


def read_json(path: Path) -> dict[str, Any]:
    """Raises FileNotFoundError that says what the folder should be."""
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} is not a run folder: it has no {path.name}")
    return json.loads(path.read_text())
