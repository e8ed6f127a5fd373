"""The one training loop, and the command line of every experiment. It knows nothing of families.

A run folder holds config.json (what was asked), environment.json (versions, commit, command), metrics.jsonl (one row
per logged step), samples/, checkpoints/, tensorboard/ and, when finished, result.json. Run the same command with the
same --workdir again and it goes on where it stopped.

Exit codes: 0 finished, 1 unexpected, 2 bad input, 3 a metric or the state became NaN or infinite, 75 preempted by
SIGTERM after saving (run the same command again), 130 interrupted by Ctrl-C after saving.
"""

import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import platform as host
import shlex
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import numpy as np
from jax.experimental import multihost_utils

from genmap_jax import config as configs
from genmap_jax import data, logs, parallel
from genmap_jax.algorithm import Algorithm
from genmap_jax.checkpoint import Checkpoints, Damaged
from genmap_jax.config import Experiment
from genmap_jax.evaluate.examine import Examiner
from genmap_jax.optim import Optim, stretched
from genmap_jax.preemption import PREEMPTED, Preemption
from genmap_jax.report import pictures

FINISHED, BAD_INPUT, NON_FINITE = 0, 2, 3
IN_FLIGHT = 8  # steps the host may run ahead; emulated CPU devices deadlock beyond about 33
Family = Callable[..., Algorithm]


@dataclasses.dataclass(frozen=True)
class Launch:
    """Where and how it runs. Nothing here changes the result."""

    workdir: Path | None = None
    """Run folder; an existing one is resumed. Default: runs/NAME."""
    devices: int | None = None
    """Devices to use, default all. With --platform cpu: devices to emulate, in each process."""
    parallel: Literal["pmap", "mesh"] | None = None
    """Placement of the step. Default: pmap on several devices, a plain jit on one."""
    fsdp: bool = False
    """Shard parameters over devices too (mesh only)."""
    platform: str | None = None
    """cpu, gpu or tpu. Default: the best there is."""
    distributed: bool = False
    """Join the other processes found through SLURM, Open MPI or a TPU pod."""
    data_dir: Path | None = None
    """Prepared datasets. Default: $GENMAP_DATA or ~/.cache/genmap_jax/data."""
    tensorboard: bool = True
    wandb: bool = False
    """Log to Weights & Biases, which must be installed."""
    budget: float | None = None
    """At most so many minutes of training: the first steps are timed and, if need be, `steps` lowered to fit, schedules
    with it. A resumed run keeps its first answer."""
    dry_run: bool = False
    """Print the resolved config, parameter count and shapes, and stop."""
    ablation: str | None = None
    """One of this experiment's ablations, or all: train the baseline and the variants, print a table."""
    seeds: int = 1
    """Seeds per variant, as one vmapped program (with --ablation)."""
    features: str | None = None
    """With --ablation, on images: also the Fréchet distance in these features (own, efficientnet)."""


def main(experiment: Experiment, family: Family, ablations: dict[str, dict[str, Any]] | None = None) -> None:
    """Entry point of an experiment script: parse the command line, train (or dry-run, or ablate), exit with a code."""
    import tyro

    command = dataclasses.make_dataclass(
        "Command",
        [
            ("experiment", Annotated[Experiment[type(experiment.model)], tyro.conf.arg(name="")], experiment),
            ("launch", Annotated[Launch, tyro.conf.arg(name="")], Launch()),
        ],
        frozen=True,
    )
    description = sys.modules["__main__"].__doc__
    args = tyro.cli(command, description=description)
    try:
        sys.exit(run(args.experiment, family, ablations or {}, args.launch))
    except logs.NonFinite as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(NON_FINITE)
    except (ValueError, FileNotFoundError, Damaged) as error:
        if os.environ.get("GENMAP_TRACEBACK"):
            raise
        print(f"error: {error}\n(GENMAP_TRACEBACK=1 shows where)", file=sys.stderr)
        sys.exit(BAD_INPUT)


def run(experiment: Experiment, family: Family, ablations: dict[str, dict[str, Any]], launch: Launch) -> int:
    """What `main` does after parsing; returns the exit code."""
    start_devices(launch)
    if launch.dry_run:
        print(describe(experiment, family))
        return FINISHED
    if launch.ablation or launch.seeds > 1:
        from genmap_jax.ablation import ablate

        ablate(experiment, family, ablations, launch)
        return FINISHED
    return train(experiment, family, launch)


def start_devices(launch: Launch) -> None:
    """Platform, emulated devices and other processes: before the first device call, and only here."""
    if launch.platform:
        jax.config.update("jax_platforms", {"gpu": "cuda"}.get(launch.platform, launch.platform))
    if launch.platform == "cpu" and launch.devices:
        jax.config.update("jax_num_cpu_devices", launch.devices)
    coordinator = os.environ.get("GENMAP_COORDINATOR")
    if coordinator:
        jax.distributed.initialize(
            coordinator, int(os.environ["GENMAP_NUM_PROCESSES"]), int(os.environ["GENMAP_PROCESS_ID"])
        )
    elif launch.distributed:
        jax.distributed.initialize()


def describe(experiment: Experiment, family: Family) -> str:
    """The resolved config, parameter count and shapes of the state, without computing anything."""
    algorithm = family(experiment.model, batch_size=experiment.batch_size)
    state = jax.eval_shape(algorithm.init, jax.random.key(0))
    lines = [json.dumps(configs.to_json(experiment), indent=2), "", "state:"]
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        lines.append(f"  {jax.tree_util.keystr(path):70s} {leaf.dtype} {leaf.shape}")
    return "\n".join([*lines, f"{parameter_count(state):,} parameters"])


def parameter_count(state: Any) -> int:
    """Trainable numbers: every leaf under a field of the state whose name starts with "params"."""
    trees = [getattr(state, f.name) for f in dataclasses.fields(state) if f.name.startswith("params")]
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(trees))


def train(experiment: Experiment, family: Family, launch: Launch) -> int:
    """Train, or go on training, one run. Returns the exit code; see the module docstring for the run folder.

    Raises ValueError for a bad config, dataset or flag, before compilation; NonFinite naming step and metric.
    """
    cfg = experiment
    check(cfg, launch)
    local_devices = launch.devices if jax.process_count() == 1 else None
    place = parallel.placement(launch.parallel, local_devices, cfg.batch_size, launch.fsdp)
    algorithm = keyed_by_step(family(cfg.model, batch_size=cfg.batch_size, axis_name=place.axis_name))
    sources = load(cfg, launch.data_dir)
    workdir = (launch.workdir or Path("runs") / cfg.name).absolute()
    if launch.budget is not None:
        cfg = within_budget(cfg, algorithm, place, sources["train"], workdir, launch.budget)
    if cfg is not experiment:
        algorithm = keyed_by_step(family(cfg.model, batch_size=cfg.batch_size, axis_name=place.axis_name))
    chief = jax.process_index() == 0
    if chief:
        claim(workdir, cfg)
    _barrier("claimed")

    init_key, step_key, eval_key = jax.random.split(jax.random.key(cfg.seed), 3)
    like = place.like(algorithm, init_key)
    checkpoints = Checkpoints(workdir / "checkpoints", cfg.keep)
    restored = checkpoints.restore(like)
    step, state = restored or (0, place.init(algorithm, init_key))
    if step >= cfg.steps and (workdir / "result.json").exists():
        _say(f"{cfg.name}: already trained for {step} steps. Results: {workdir}")
        checkpoints.close()
        return FINISHED

    compiled = place.compile(algorithm, state)
    examine = Examiner(algorithm, place, cfg, sources, workdir, eval_key)
    writer = None
    if chief:
        writer = logs.Metrics(
            workdir,
            step,
            cfg.steps,
            name=cfg.name,
            tensorboard=launch.tensorboard,
            wandb=launch.wandb,
            config=configs.to_json(cfg),
        )
        if step == 0:
            first = data.batch(sources["train"], cfg.seed, 0, min(cfg.samples, cfg.batch_size))
            pictures.save(first, workdir / "samples" / "inputs", sources["train"])
    _say(f"{cfg.name}: {parameter_count(like):,} parameters, {place.mesh.size} {jax.devices()[0].platform} device(s) "
         f"({place.kind}), from step {step} to {cfg.steps}. Run folder: {workdir}")  # fmt: skip

    in_flight: deque = deque()
    interval = logs.Interval()
    code = FINISHED
    with Preemption() as preempted:
        try:
            seconds = writer.seconds if writer else 0.0  # of training alone, over all restarts
            mark_step, mark_time = step, time.perf_counter()
            while step < cfg.steps:
                batch = data.batch(
                    sources["train"], cfg.seed, step, cfg.batch_size, jax.process_index(), jax.process_count()
                )
                state, metrics = compiled(state, place.put(batch), step_key)
                step += 1
                in_flight.append((step, metrics))
                if len(in_flight) > IN_FLIGHT:  # read old metrics while new steps run: the device never waits for us
                    _collect(in_flight, interval)
                if writer:
                    writer.advance(step)
                last, stop = step == cfg.steps, preempted(step)
                log, evaluate, sample = (
                    last or step % every == 0 for every in (cfg.log_every, cfg.eval_every, cfg.sample_every)
                )
                if stop or log or evaluate or sample:
                    while in_flight:
                        _collect(in_flight, interval)
                    now = time.perf_counter()
                    seconds += now - mark_time
                    row = interval.take()
                    row |= {"examples": step * cfg.batch_size, "seconds": seconds}
                    row |= {"steps_per_second": (step - mark_step) / (now - mark_time)}
                    if evaluate:
                        row |= examine.likelihood(state, "validation")
                    if sample:
                        examine.draw(state, step)
                    if writer:
                        writer.write(step, row)
                    mark_step, mark_time = step, time.perf_counter()
                if last or stop or step % cfg.save_every == 0:
                    while in_flight:
                        _collect(in_flight, interval)
                    checkpoints.save(step, state)
                if stop and not last:
                    code = stop
                    break
            if code == FINISHED:
                result = examine.result(state, step, seconds)
                if chief:
                    write_json(workdir / "result.json", result | {"parameters": parameter_count(like)})
        except ValueError as error:  # a lost peer is one too; in the middle of a run it is not the user's input
            raise RuntimeError(f"{cfg.name}, step {step}: {error}") from error
        except logs.NonFinite as error:
            checkpoints.wait()
            good = checkpoints.steps()
            raise logs.NonFinite(
                f"{error}. Last good checkpoint: {f'step {good[0]}' if good else 'none'} in {checkpoints.folder}. "
                "Usual causes: too high a learning rate, no gradient clipping."
            ) from error
        finally:
            checkpoints.close()
            if writer:
                writer.close()
    if code == FINISHED:
        _say(f"{cfg.name}: finished {step} steps. Results: {workdir}")
    else:
        why = "preempted" if code == PREEMPTED else "interrupted"
        _say(f"{cfg.name}: {why}, saved step {step}. Run the same command again to go on. {workdir}")
    return code


def check(cfg: Experiment, launch: Launch) -> None:
    """Raises ValueError naming a count that is not positive, or a logger that is not installed."""
    if launch.wandb and importlib.util.find_spec("wandb") is None:
        raise ValueError("--wandb: Weights & Biases is not installed here; pip install wandb")
    if launch.budget is not None and (launch.budget <= 0 or jax.process_count() > 1):
        raise ValueError(f"--budget {launch.budget}: give minutes above 0, and one process; on several give --steps")
    for name in ("steps", "batch_size", "log_every", "eval_every", "sample_every", "save_every", "keep", "samples"):
        if getattr(cfg, name) < 1:
            raise ValueError(
                f"{name}={getattr(cfg, name)} must be at least 1 (to leave something out, give a large number)"
            )


def keyed_by_step(algorithm: Algorithm) -> Algorithm:
    """The step's key becomes a function of (seed, step): nothing about randomness needs saving."""
    return algorithm._replace(
        step=lambda state, batch, key: algorithm.step(state, batch, jax.random.fold_in(key, state.step))
    )


def load(cfg: Experiment, data_dir: Path | None) -> dict[str, Any]:
    """The three splits, checked against the shape (and levels, length, vocab, classes) the model expects."""
    model = cfg.model
    expect = {name: getattr(model, name, None) for name in ("shape", "levels", "length", "vocab", "classes")}
    if expect["shape"] is not None:  # of images a model may say their length in tokens; only of text the data must know
        expect["length"] = None
    expect |= dataclasses.asdict(cfg.text)
    return {split: data.load(cfg.data, split, data_dir=data_dir, **expect) for split in ("train", "validation", "test")}


def within_budget(
    cfg: Experiment, algorithm: Algorithm, place: parallel.Placement, source, workdir: Path, minutes: float
) -> Experiment:
    """The experiment with at most as many steps as fit into `minutes`, by the speed of its first steps.

    A run that has begun keeps the number in its config.json. The state of the timed steps is thrown away.
    """
    path = workdir / "config.json"
    if path.exists():
        return shortened(cfg, json.loads(path.read_text())["steps"])
    state = place.init(algorithm, jax.random.key(cfg.seed))
    compiled, key = place.compile(algorithm, state), jax.random.key(0)
    warm, count, began = 3, 0, 0.0
    while count < warm + 200 and (count <= warm or time.perf_counter() - began < 2.0):
        state, metrics = compiled(state, place.put(data.batch(source, cfg.seed, count, cfg.batch_size)), key)
        count += 1
        if count <= warm or count % IN_FLIGHT == 0:
            jax.block_until_ready(metrics)
        if count == warm:
            began = time.perf_counter()
    jax.block_until_ready(state)
    seconds = (time.perf_counter() - began) / (count - warm)
    fit = max(1, int(60.0 * minutes / seconds))
    if fit < cfg.steps:
        print(f"{cfg.name}: {cfg.steps} steps do not fit into {minutes:g} min here; {fit} do", flush=True)
    return shortened(cfg, fit)


def shortened(cfg: Experiment, steps: int) -> Experiment:
    """The experiment over `steps` steps, if those are fewer, its learning-rate schedules shrunk with it."""
    if steps >= cfg.steps:
        return cfg
    optims = {f.name: getattr(cfg.model, f.name) for f in dataclasses.fields(cfg.model)}
    optims = {k: stretched(v, steps / cfg.steps) for k, v in optims.items() if isinstance(v, Optim)}
    return dataclasses.replace(cfg, steps=steps, model=dataclasses.replace(cfg.model, **optims))


def claim(workdir: Path, cfg: Experiment) -> None:
    """Write config.json into a new folder; in an old one, refuse a config that would make it another run."""
    path = workdir / "config.json"
    if path.exists():
        old = configs.from_json(cfg, json.loads(path.read_text()))
        harmless = (
            "steps",
            "log_every",
            "eval_every",
            "eval_examples",
            "sample_every",
            "save_every",
            "keep",
            "samples",
        )
        changed = {k: v for k, v in configs.differences(old, cfg).items() if k not in harmless}
        if changed:
            text = ", ".join(f"{name}: {was!r} there, {now!r} here" for name, (was, now) in changed.items())
            raise ValueError(f"{workdir} holds a run with another config ({text}). Choose another --workdir.")
    workdir.mkdir(parents=True, exist_ok=True)
    write_json(path, configs.to_json(cfg))
    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy")
    write_json(
        workdir / "environment.json",
        {
            "command": sys.argv,
            "commit": _commit(),
            "python": host.python_version(),
            "versions": {name: importlib.metadata.version(name) for name in names},
            "devices": [str(d.device_kind) for d in jax.devices()],
            "processes": jax.process_count(),
        },
    )


def command_text(argv: list[str]) -> str:
    """The command line of an experiment as its reader would type it in a checkout."""
    return shlex.join(["python", f"experiments/{Path(argv[0]).name}", *argv[1:]])


def _collect(in_flight: deque, interval: logs.Interval) -> None:
    step, metrics = in_flight.popleft()
    interval.add(step, {name: float(value) for name, value in jax.device_get(metrics).items()})


def _barrier(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def _say(text: str) -> None:
    if jax.process_index() == 0:
        print(text, flush=True)


def write_json(path: Path, value: Any) -> None:
    """Whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=2) + "\n")
    temporary.replace(path)


def _commit() -> str | None:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or None
