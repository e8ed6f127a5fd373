"""The command line of an experiment script: train it, look at it without training, or run its ablations."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import jax

from genmap_jax import places
from genmap_jax.algorithm import Family, like_batch
from genmap_jax.commands import ablation
from genmap_jax.commands.bad_input import refuse_empty, told
from genmap_jax.commands.train import Ablations, Also, train
from genmap_jax.evaluate import features
from genmap_jax.options import check_options
from genmap_jax.run import config as configs
from genmap_jax.run import loop
from genmap_jax.run.config import Experiment
from genmap_jax.run.launch import FINISHED, NON_FINITE, Launch, start_devices
from genmap_jax.run.logs import NonFinite
from genmap_jax.run.preemption import end_with_parent, stoppable
from genmap_jax.run.runs import check_claim, parameter_count


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
    with stoppable(), told(Path(sys.argv[0]).name):
        end_with_parent()
        refuse_empty(sys.argv[1:])
        args: Any = tyro.cli(command, description=sys.modules["__main__"].__doc__)
        try:
            code = run(args.experiment, family, ablations or {}, args.launch, args.also)
        except NonFinite as error:
            print(f"error: {error}", file=sys.stderr)
            code = NON_FINITE
    sys.exit(code)


def run(cfg: Experiment, family: Family, ablations: Ablations, launch: Launch, also: Also = Also()) -> int:  # noqa: B008
    """What `main` does after parsing; returns the exit code.

    Raises ValueError, FileNotFoundError or ImportError for all that can be known before anything is compiled.
    """
    for options in (cfg, launch, also):
        check_options(options)
    if also.variant is not None and also.ablation is not None:
        raise ValueError("--variant trains one ablation, --ablation makes a table of several: give one of them")
    table = also.ablation is not None or also.seeds > 1
    if also.executor != "local" and not table:
        raise ValueError(f"--executor {also.executor} is for the runs of --ablation or --seeds")
    if table:
        ablation.check(launch)
    chosen = ablation.variants_of(cfg, ablations, also)
    default = f"{cfg.name}_ablation" if table else cfg.name if also.variant is None else f"{cfg.name}-{also.variant}"
    workdir = places.writable(launch.workdir or Path("runs") / default, "--workdir")
    launch = dataclasses.replace(launch, workdir=workdir)
    # A process that only submits runs leaves the accelerator to them.
    start_devices(launch if also.executor == "local" else Launch(platform="cpu"))
    for each in chosen.values():  # of all, before the first of them trains for hours
        loop.check(dataclasses.replace(each, seed=each.seed + also.seeds - 1), launch)
        example, *_ = loop.bind(each, family).reads.values()
        features.check(also.features, also.weights, example.image)
    if also.features in features.WITH_WEIGHTS and also.executor == "local":  # a damaged file is found now, not after
        features.extractor(also.features, data=cfg.data, levels=256, weights=also.weights)
    if launch.dry_run:
        print(describe(next(iter(chosen.values())), family), flush=True)
        for each in chosen.values():  # what a start would refuse, data and devices too
            loop.prepare(each, family, launch)
            if not table:
                check_claim(workdir, each, family)
        return FINISHED
    if table:
        return ablation.ablate(cfg, family, ablations, launch, also)
    return train(next(iter(chosen.values())), family, launch, also)


def describe(cfg: Experiment, family: Family) -> str:
    """The resolved config, parameter count and shapes of the state, without computing anything."""
    algorithm = family.algorithm(cfg.model, batch_size=cfg.batch_size)
    state = jax.eval_shape(algorithm.init, jax.random.key(0), like_batch(algorithm.reads, cfg.batch_size))
    lines = [json.dumps(configs.to_json(cfg), indent=2), "", "state:"]
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        lines.append(f"  {jax.tree_util.keystr(path):70s} {leaf.dtype} {leaf.shape}")
    return "\n".join([*lines, f"{parameter_count(algorithm, state):,} parameters"])
