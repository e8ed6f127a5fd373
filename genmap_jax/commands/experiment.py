"""The command line of an experiment script: train it, look at it without training, or run its ablations."""

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import jax

from genmap_jax.algorithm import Family, like_batch
from genmap_jax.commands.ablation import ablate
from genmap_jax.commands.train import Ablations, Also, train, variant
from genmap_jax.run import config as configs
from genmap_jax.run.checkpoint import Damaged
from genmap_jax.run.config import Experiment
from genmap_jax.run.launch import BAD_INPUT, FINISHED, NON_FINITE, Launch, start_devices
from genmap_jax.run.logs import NonFinite
from genmap_jax.run.runs import parameter_count


def main(experiment: Experiment, family: Family, ablations: Ablations | None = None) -> None:
    """Entry point of an experiment script: parse the command line, run, exit with a code of `run.launch`."""
    import tyro

    typed: Any = Experiment[type(experiment.model)]  # type: ignore[misc]  # a type that is known only here
    command = dataclasses.make_dataclass(
        "Command",
        [
            ("experiment", Annotated[typed, tyro.conf.arg(name="")], experiment),
            ("launch", Annotated[Launch, tyro.conf.arg(name="")], Launch()),
            ("also", Annotated[Also, tyro.conf.arg(name="")], Also()),
        ],
        frozen=True,
    )
    args: Any = tyro.cli(command, description=sys.modules["__main__"].__doc__)
    try:
        sys.exit(run(args.experiment, family, ablations or {}, args.launch, args.also))
    except NonFinite as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(NON_FINITE)
    except (ValueError, FileNotFoundError, Damaged) as error:
        if os.environ.get("GENMAP_TRACEBACK"):
            raise
        print(f"error: {error}\n(GENMAP_TRACEBACK=1 shows where)", file=sys.stderr)
        sys.exit(BAD_INPUT)


def run(cfg: Experiment, family: Family, ablations: Ablations, launch: Launch, also: Also = Also()) -> int:  # noqa: B008
    """What `main` does after parsing; returns the exit code."""
    if also.variant is not None and also.ablation is not None:
        raise ValueError("--variant trains one ablation, --ablation makes a table of several: give one of them")
    if also.seeds < 1:
        raise ValueError(f"--seeds {also.seeds}: give at least one")
    if also.variant is not None:
        folder = launch.workdir or Path("runs") / f"{cfg.name}-{also.variant}"
        cfg, launch = variant(cfg, ablations, also.variant), dataclasses.replace(launch, workdir=folder)
    start_devices(launch)
    if launch.dry_run:
        print(describe(cfg, family))
        return FINISHED
    if also.ablation is not None or also.seeds > 1:
        return ablate(cfg, family, ablations, launch, also)
    if also.executor != "local":
        raise ValueError(f"--executor {also.executor} is for the runs of --ablation or --seeds")
    return train(cfg, family, launch, also)


def describe(cfg: Experiment, family: Family) -> str:
    """The resolved config, parameter count and shapes of the state, without computing anything."""
    algorithm = family.algorithm(cfg.model, batch_size=cfg.batch_size)
    state = jax.eval_shape(algorithm.init, jax.random.key(0), like_batch(algorithm.reads, cfg.batch_size))
    lines = [json.dumps(configs.to_json(cfg), indent=2), "", "state:"]
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        lines.append(f"  {jax.tree_util.keystr(path):70s} {leaf.dtype} {leaf.shape}")
    return "\n".join([*lines, f"{parameter_count(algorithm, state):,} parameters"])
