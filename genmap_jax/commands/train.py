"""Train one run, or several seeds of it at once, and measure what was finished."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import jax

from genmap_jax.algorithm import Family
from genmap_jax.commands.measure import LEAST_SAMPLES, Observer, card_is_current
from genmap_jax.evaluate.features import Kind
from genmap_jax.options import Count, Range
from genmap_jax.run import config as configs
from genmap_jax.run import loop
from genmap_jax.run.config import Experiment
from genmap_jax.run.launch import FINISHED, NON_FINITE, Launch
from genmap_jax.run.opening import load_run
from genmap_jax.run.processes import Peers
from genmap_jax.run.runs import writing

Ablations = dict[str, dict[str, Any]]
"""Name -> changes of the experiment by dotted path."""


@dataclasses.dataclass(frozen=True)
class Also:
    """What an experiment can do beside one training."""

    variant: str | None = None
    """One of this experiment's ablations by name: it is trained as an ordinary run instead of the baseline."""
    ablation: str | None = None
    """One of this experiment's ablations, or all: the baseline and the variants are trained, each in a run folder of
    its own below the workdir, and a table is printed."""
    seeds: Count = 1
    """The number of seeds of every variant (with --ablation), or of the experiment alone."""
    executor: Literal["local", "slurm", "ray"] = "local"
    """Where the runs of an ablation are trained: here, as a SLURM job array, or on a Ray cluster."""
    features: Kind | None = None
    """Finished runs are also measured in full, in these features (own, efficientnet, inception, dinov2, clip), as
    `genmap evaluate` does."""
    weights: Path | None = None
    """The weight file of the features inception, dinov2 and clip."""
    measured_samples: Annotated[int, Range(LEAST_SAMPLES, hint="for intervals and neighbours")] = 1000
    """At most so many samples of a finished run are measured."""


def variant(cfg: Experiment, ablations: Ablations, name: str) -> Experiment:
    """The experiment with the changes of an ablation; "baseline" changes nothing. Raises ValueError for another."""
    if name == "baseline":
        return cfg
    if name not in ablations:
        there = ", ".join(ablations) or "none"
        raise ValueError(f"no ablation {name!r} for --ablation or --variant; this experiment has: {there}, or all")
    return configs.replace(cfg, ablations[name])


def train(cfg: Experiment, family: Family, launch: Launch, also: Also = Also()) -> int:  # noqa: B008
    """Train, or go on training, one run, and measure it. Returns the exit code."""
    program, workdir, cfg = shortened_to_budget(loop.prepare(cfg, family, launch), family, launch)
    return train_seeds(program, [cfg], [workdir], launch, also)


def shortened_to_budget(program: loop.Program, family: Family, launch: Launch) -> tuple[loop.Program, Path, Experiment]:
    """The program that fits into `--budget`, its run folder, and its experiment."""
    cfg = program.config
    workdir = (launch.workdir or Path("runs") / cfg.name).absolute()
    if launch.budget is not None:
        fitting = loop.within_budget(program, workdir, launch.budget)
        if fitting != cfg:
            program, cfg = loop.prepare(fitting, family, launch), fitting
    return program, workdir, cfg


def train_seeds(program: loop.Program, cfgs: list[Experiment], workdirs: list[Path], launch: Launch, also: Also) -> int:
    """Train the seeds of one program at once (see `loop.train`), measure each, and write their cards if asked to.

    Raises ValueError if another process is writing one of the run folders.
    """
    observer = Observer(program, also.measured_samples)
    with writing(*workdirs), Peers(workdirs[0]):
        code = loop.train(program, cfgs, workdirs, launch, observer)
        if also.features is None or code not in (FINISHED, NON_FINITE) or jax.process_count() > 1:
            return code
        from genmap_jax.commands.evaluate import write_card  # features and their libraries only where they are asked

        for cfg, folder in zip(cfgs, workdirs, strict=True):
            finished = (folder / "result.json").exists()
            if finished and not card_is_current(folder, also.measured_samples, also.features):
                run = observer.finished.get(folder) or load_run(folder, cfg, program.family, launch.data_dir)
                write_card(run, observer, features=also.features, weights=also.weights, data_dir=launch.data_dir)
        return code
