"""Run folders and the scripts that make them: what a script declares, what a folder holds, which runs there are."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import platform as host
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from genmap_jax.files import read_json, read_metrics, read_sound, write_json
from genmap_jax.lock import lock
from genmap_jax.options import check_options
from genmap_jax.run import config as configs
from genmap_jax.run.config import HARMLESS, Experiment
from genmap_jax.run.speed import last_speeds, time_spent

if TYPE_CHECKING:  # listing runs must not wait for JAX
    import jax

    from genmap_jax import data, parallel
    from genmap_jax.algorithm import Algorithm, Family

LEFT = (".evaluation-*", ".processes", "*.tmp")
"""What a kill leaves in a run folder, beside unfinished checkpoints, which Orbax removes."""
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy")


@dataclasses.dataclass(frozen=True)
class Run:
    """A run with its state at one step."""

    folder: Path
    config: Experiment
    family: Family
    algorithm: Algorithm
    place: parallel.Placement
    sources: dict[str, data.Source]
    """The three splits."""
    step: int
    state: Any
    eval_key: jax.Array
    """The key of everything that is drawn in evaluation."""
    seconds: float
    """Seconds of training alone, over all restarts."""


class Script(NamedTuple):
    """What an experiment script declares."""

    path: Path
    config: Experiment
    family: Family
    ablations: dict[str, dict[str, Any]]


# ---- experiment scripts ----------------------------------------------------------------------------------------------


def experiments_folder(given: Path | None) -> Path:
    """Where the experiment scripts are: as given (a folder or one script), else beside the package.

    Never ./experiments unless it is given: scripts are run, and the current folder may be anybody's.
    Raises FileNotFoundError naming the flag.
    """
    place = Path(__file__).parents[2] / "experiments" if given is None else given
    if place.is_dir() or (given and place.is_file()):
        return place.absolute()
    raise FileNotFoundError(f"{place} is not a folder; --experiments says where the experiment scripts are")


def read_experiment(path: Path) -> Script:
    """CONFIG, FAMILY and ABLATIONS of an experiment script, without running it.

    Raises ValueError if the script does not have them, FileNotFoundError if it is not there.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no experiment {path}; --experiments says where they are")
    spec = importlib.util.spec_from_file_location(f"experiment_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is not a Python file; --experiments takes one, or a folder of them")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.absolute()))  # as when the script is run: a family may lie beside it
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    missing = [name for name in ("CONFIG", "FAMILY", "ABLATIONS") if name not in vars(module)]
    if missing:
        raise ValueError(f"{path} has no {', '.join(missing)}: an experiment script defines CONFIG, FAMILY, ABLATIONS")
    return Script(path, module.CONFIG, module.FAMILY, module.ABLATIONS)


def experiment_files(folder: Path) -> list[Path]:
    """The files of a folder that declare a CONFIG and a FAMILY, sorted by name."""
    declares = lambda text: "\nCONFIG = " in text and "\nFAMILY = " in text  # noqa: E731
    return sorted(path for path in folder.glob("*.py") if declares(path.read_text()))


# ---- one run ---------------------------------------------------------------------------------------------------------


def parameter_count(algorithm: Algorithm, state: Any) -> int:
    """The number of trainable parameters of a state, or of its shapes."""
    import jax
    import numpy as np

    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(algorithm.params(state)))


@contextlib.contextmanager
def writing(*folders: Path) -> Iterator[None]:
    """Hold the locks of run folders, and remove from them what a killed process left there.

    With several processes the first holds them for all. Raises lock.Busy, a ValueError, as `lock` does.
    """
    from genmap_jax.run.processes import by_first  # it needs JAX

    with contextlib.ExitStack() as held:

        def take() -> None:
            for folder in folders:
                held.enter_context(lock(folder))
                for left in (path for pattern in LEFT for path in folder.glob(pattern)):
                    shutil.rmtree(left) if left.is_dir() else left.unlink()

        by_first(take)
        yield


def read_config(folder: Path, like: Experiment) -> Experiment:
    """The configuration of a run, in the types of `like`.

    Raises FileNotFoundError or ValueError that names the file.
    """
    path = folder / "config.json"
    written = read_json(path)
    try:
        cfg = configs.from_json(like, written)
        check_options(cfg)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return cfg


def check_claim(workdir: Path, cfg: Experiment, family: Family) -> None:
    """Raises ValueError for a folder that holds a run with a config that would make it another run."""
    path = workdir / "config.json"
    if not path.exists() and any((workdir / "checkpoints").glob("[0-9]*")):
        raise ValueError(f"{workdir} has checkpoints but no {path.name}, which says of what: restore it, or choose "
                         "another --workdir")  # fmt: skip
    if path.exists():
        old = read_config(workdir, cfg)
        harmless = {*HARMLESS, *(f"model.{name}" for name in family.sampling)}
        changed = {k: v for k, v in configs.differences(old, cfg).items() if k not in harmless}
        if changed:
            text = ", ".join(f"{name}: {was!r} there, {now!r} here" for name, (was, now) in changed.items())
            raise ValueError(f"{workdir} holds a run with another config ({text}). Choose another --workdir.")


def claim(workdir: Path, cfg: Experiment, family: Family) -> None:
    """Write config.json into a folder. Raises ValueError as `check_claim`."""
    check_claim(workdir, cfg, family)
    workdir.mkdir(parents=True, exist_ok=True)
    write_json(workdir / "config.json", configs.to_json(cfg))
    write_json(workdir / "environment.json", environment(family))


def environment(family: Family) -> dict[str, Any]:
    """What a run was made by: family, script, command, commit, versions and devices."""
    import jax

    return {
        "experiment": Path(sys.argv[0]).stem,
        "family": family.name,
        "command": sys.argv,
        "commit": _commit(),
        "python": host.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "devices": [str(d.device_kind) for d in jax.devices()],
        "processes": jax.process_count(),
    }


def measured_at(folder: Path) -> int | None:
    """The step that result.json is of; None without a sound one."""
    result = read_sound(folder / "result.json")
    return result["steps"] if result else None


def command_text(argv: list[str]) -> str:
    """The command line of an experiment as its reader would type it in a checkout."""
    return shlex.join(["python", f"experiments/{Path(argv[0]).name}", *argv[1:]])


def _commit() -> str | None:
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


# ---- many runs -------------------------------------------------------------------------------------------------------


def find_runs(folder: Path) -> list[Path]:
    """Run folders at or below `folder`, three levels deep, sorted."""
    depths = ("", "*/", "*/*/", "*/*/*/")
    return sorted(path.parent for depth in depths for path in folder.glob(f"{depth}environment.json"))


def progress(folder: Path) -> dict[str, Any]:
    """How far a run is, from its files alone: name, data, seed, steps done and wanted, finished, evaluated, speed.

    Raises ValueError or FileNotFoundError that names the file that is damaged or missing.
    """
    cfg = read_json(folder / "config.json")
    rows = read_metrics(folder / "metrics.jsonl")
    result = read_json(folder / "result.json") if (folder / "result.json").exists() else None
    return {
        "run": str(folder),
        "experiment": read_json(folder / "environment.json").get("experiment", cfg["name"]),
        "data": cfg["data"],
        "seed": cfg["seed"],
        "step": rows[-1]["step"] if rows else 0,
        "steps": cfg["steps"],
        "finished": result is not None and result["steps"] >= cfg["steps"],
        "evaluated": (folder / "evaluation" / "card.json").exists(),
        "speed": last_speeds(rows),
        "time": time_spent(folder),
    }
