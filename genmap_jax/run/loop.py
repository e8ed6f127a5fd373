"""The one training loop: state, data, logs and checkpoints of a run. It knows no family and measures nothing itself.

`prepare` binds an experiment to its devices and data and compiles; `train` runs it, or several seeds of it at once,
each in a run folder of its own. What happens at evaluation steps is handed in: see `Observer`.

A run folder holds config.json (what was asked), environment.json (versions, commit, command), metrics.jsonl (one row
per logged step), samples/, checkpoints/, tensorboard/ and, when finished, result.json. A run that is trained again
with the same folder goes on where it stopped, and its rows are those of a run that was never stopped.
"""

import dataclasses
import functools
import importlib.util
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from genmap_jax import data, parallel
from genmap_jax.algorithm import Algorithm, Family, like_batch
from genmap_jax.data.augmentation import AUGMENTATIONS
from genmap_jax.files import read_json, write_json
from genmap_jax.flops import flops
from genmap_jax.keys import example_keys
from genmap_jax.optim import Optim, stretched
from genmap_jax.options import check_options
from genmap_jax.run import config as configs
from genmap_jax.run import logs, profile
from genmap_jax.run.checkpoint import Checkpoints
from genmap_jax.run.config import Experiment
from genmap_jax.run.launch import FINISHED, NON_FINITE, PREEMPTED, Launch
from genmap_jax.run.preemption import Preemption
from genmap_jax.run.processes import by_first
from genmap_jax.run.runs import Run, claim, measured_at, parameter_count
from genmap_jax.run.speed import Clock, speeds
from genmap_jax.run.watchdog import Watchdog

IN_FLIGHT = 8  # steps the host may run ahead; emulated CPU devices deadlock beyond about 33
AUGMENT = 0x417567  # folded into a step's key for augmentation: no step draws from it


class Observer(Protocol):
    """What the loop calls beside training. `run` holds the state as it is now."""

    def begin(self, run: Run) -> None:
        """Before the first step of a new run."""

    def validate(self, run: Run) -> dict[str, Any]:
        """Every `eval_every` steps; what it returns is logged."""

    def draw(self, run: Run) -> None:
        """Every `sample_every` steps. Raises NonFinite for samples that are not finite."""

    def finish(self, run: Run) -> dict[str, Any]:
        """After the last step; what it returns is result.json."""


@dataclasses.dataclass(frozen=True)
class Program:
    """An experiment bound to devices and data; its train step compiles once, whichever seeds are trained with it."""

    config: Experiment
    family: Family
    algorithm: Algorithm
    place: parallel.Placement
    sources: dict[str, data.Source]
    together: int
    """So many seeds are one program, by `jax.vmap` over state, batch and key."""
    step: Callable[..., Any]
    """The compiled train step."""

    @functools.cached_property
    def flops(self) -> int:
        """Operations of matrix products and convolutions in one step, all devices and seeds together.

        What the backward pass computes a second time, to save memory, is not work of the model and does not count.
        """
        cfg = self.config
        once = bind(dataclasses.replace(cfg, model=without_recomputation(cfg.model)), self.family)
        return self.together * operations(once, cfg.batch_size)


# ---- before training -------------------------------------------------------------------------------------------------


def prepare(cfg: Experiment, family: Family, launch: Launch, together: int = 1) -> Program:
    """Choose devices, open the data and bind the family.

    together: train so many seeds as one program, on one device.
    Raises ValueError for a bad config, dataset or flag, before compilation.
    """
    check(cfg, launch)
    local_devices = launch.devices if jax.process_count() == 1 else None
    place = parallel.placement(launch.parallel, local_devices, cfg.batch_size, launch.fsdp)
    if together > 1 and place.mesh.size > 1:
        raise ValueError(f"{together} seeds are one program on one device only, not on {place.mesh.size}")
    algorithm = bind(cfg, family, place.axis_name)
    sources = load(cfg, algorithm, launch.data_dir)
    like = jax.eval_shape(algorithm.init, jax.random.key(0), like_batch(algorithm.reads, cfg.batch_size))
    step: Callable[..., Any]
    if together > 1:
        step = jax.jit(jax.vmap(algorithm.step), donate_argnums=0)
    else:
        step = place.compile(algorithm, like)
    return Program(cfg, family, algorithm, place, sources, together, step)


def bind(cfg: Experiment, family: Family, axis_name: str | None = None) -> Algorithm:
    """The family's algorithm as the loop runs it: augmented, and with keys that are a function of (seed, step)."""
    algorithm = family.algorithm(cfg.model, batch_size=cfg.batch_size, axis_name=axis_name)
    return keyed_by_step(augmented(algorithm, cfg.augment, axis_name))


def operations(algorithm: Algorithm, batch_size: int) -> int:
    """Operations of matrix products and convolutions in one update of a whole batch, by tracing it.

    They are those of the mathematics, whatever the machine: a CPU runs some convolutions with fewer, and a GPU has
    kernels for attention, into which counting cannot look. Traced for a TPU, the program has all of them.
    """
    key, batch = jax.random.key(0), like_batch(algorithm.reads, batch_size)
    step = lambda *arguments: algorithm.step(*arguments)  # noqa: E731  # JAX keeps what it traces, by the function
    with parallel.tracing_for("tpu"):
        return flops(step, jax.eval_shape(algorithm.init, key, batch), batch, key)


def without_recomputation(model: Any) -> Any:
    """The configuration of a model with `remat` and `reversible` as by default, off, also in those inside of it."""
    changes = {}
    for field in dataclasses.fields(model):
        value = getattr(model, field.name)
        if dataclasses.is_dataclass(value):
            changes[field.name] = without_recomputation(value)
        elif field.name in ("remat", "reversible"):
            changes[field.name] = field.default
    return dataclasses.replace(model, **changes)


def keyed_by_step(algorithm: Algorithm) -> Algorithm:
    """The step's key becomes a function of (seed, step): nothing about randomness needs saving."""
    return algorithm._replace(
        step=lambda state, batch, key: algorithm.step(state, batch, jax.random.fold_in(key, state.step))
    )


def augmented(algorithm: Algorithm, names: Sequence[str], axis_name: str | None) -> Algorithm:
    """The algorithm, whose step sees augmented examples; every example of every step has its own draw."""
    unknown = [name for name in names if name not in AUGMENTATIONS]
    if unknown:
        raise ValueError(f"augment={unknown[0]!r} is unknown: there are {', '.join(AUGMENTATIONS)}")
    if names and not next(iter(algorithm.reads.values())).image:
        raise ValueError(f"augment={tuple(names)} is of images, which these data are not: leave it empty")
    if not names:
        return algorithm

    def step(state, batch, key):
        size = len(jax.tree.leaves(batch)[0])
        for i, name in enumerate(names):
            keys = example_keys(jax.random.fold_in(jax.random.fold_in(key, AUGMENT), i), size, axis_name)
            batch = AUGMENTATIONS[name](batch, keys)
        return algorithm.step(state, batch, key)

    return algorithm._replace(step=step)


def check(cfg: Experiment, launch: Launch) -> None:
    """Raises ValueError naming an option that is out of its range, or a logger that is not installed."""
    check_options(cfg)
    check_options(launch)
    profile.check(launch.profile, cfg.steps)
    if Path(cfg.name).name != cfg.name or cfg.name == "..":
        raise ValueError(f"name={cfg.name!r} names a folder below runs/: leave slashes out, or give --workdir")
    if launch.wandb and importlib.util.find_spec("wandb") is None:
        raise ValueError("--wandb: Weights & Biases is not installed here; pip install wandb")
    if launch.budget is not None and jax.process_count() > 1:
        raise ValueError(f"--budget {launch.budget} times one process; on several give --steps")


def load(cfg: Experiment, algorithm: Algorithm, data_dir: Path | None) -> dict[str, data.Source]:
    """The three splits, checked against what the algorithm reads.

    Raises ValueError if too few are held out, or if examples come without the conditions that belong to them.
    """
    text = dataclasses.asdict(cfg.text)
    sources = {
        split: data.load(cfg.data, split, reads=algorithm.reads, data_dir=data_dir, **text)
        for split in ("train", "validation", "test")
    }
    if algorithm.paired and sources["train"].domains:
        raise ValueError(
            f"{cfg.data} draws its two domains on their own, but this model learns from pairs: give --data "
            f"aligned/{cfg.data}"
        )
    for split in ("validation", "test"):
        if sources[split].size < 2:
            fix = "give a smaller --model.length" if sources[split].space.text else "prepare more"
            raise ValueError(f"the {split} split of {cfg.data} has one example, and a standard error needs two: {fix}")
    return sources


# ---- training --------------------------------------------------------------------------------------------------------


def train(
    program: Program,
    experiments: Sequence[Experiment],
    workdirs: Sequence[Path],
    launch: Launch,
    observer: Observer,
) -> int:
    """Train, or go on training, one run, or the seeds of one program at once. Returns the exit code.

    experiments: as `Program.config`, but for the seed; as many as `Program.together`. workdirs: the run folder of each.
    Raises NonFinite, naming step and metric, if all runs end that way; with several, the others go on without it.
    """
    runs = [_Member(program, cfg, folder, launch) for cfg, folder in zip(experiments, workdirs, strict=True)]
    cfg, place, chief = runs[0].cfg, program.place, jax.process_index() == 0
    for run in runs:
        by_first(functools.partial(claim, run.folder, run.cfg, program.family))
    step, state = _start(program, runs)
    if step >= cfg.steps and all(measured_at(run.folder) == step for run in runs):
        for run in runs:
            _say(f"{cfg.name}: already trained for {step} steps. Results: {run.folder}")
            run.close()
        return FINISHED
    profile.check(launch.profile, cfg.steps - step)
    clock, work = Clock([run.folder for run in runs] if chief else [], step), program.flops
    if chief:
        for run in runs:
            run.log_to(step, launch)
    clock.turn("evaluation")
    for run, part in zip(runs, _parts(state, runs), strict=True):
        if step == 0:
            observer.begin(run.at(0, part))
        count, platform = parameter_count(program.algorithm, part), jax.devices()[0].platform
        _say(f"{cfg.name}: {count:,} parameters, {work / 1e9:.3g} GFLOP a step, {place.mesh.size} {platform} "
             f"device(s) ({place.kind}: {place.why}), from step {step} to {cfg.steps}. "
             f"Run folder: {run.folder}")  # fmt: skip
    clock.turn("step")

    in_flight: deque = deque()
    step_keys = _join([run.keys[1] for run in runs])
    began = mark_step = step
    trace = profile.Profile(runs[0].folder / "profile", began, launch.profile)
    try:
        with Preemption() as preempted, Watchdog(runs[0].folder, launch.stuck_after) as waits_for:
            mark_time = time.perf_counter()
            while step < cfg.steps:
                waits_for(f"the batch of step {step + 1}")
                here = jax.process_index(), jax.process_count()
                clock.turn("data")
                batch = _join(
                    [data.batch(program.sources["train"], r.cfg.seed, step, cfg.batch_size, *here) for r in runs]
                )
                batch = place.put(batch)
                idle = not in_flight or all(x.is_ready() for x in jax.tree.leaves(in_flight[-1][1]))
                clock.turn("step" if step > began else "compile", was="data" if idle else "step")
                waits_for(f"step {step + 1}" if step > began else None)  # the first one compiles
                state, metrics = program.step(state, batch, step_keys)
                clock.turn("step")
                step += 1
                if trace.at(step, state):
                    _say(f"{cfg.name}: {launch.profile} steps are recorded in {trace.folder}")
                in_flight.append((step, metrics))
                if len(in_flight) > IN_FLIGHT:  # read old metrics while new steps run: the device never waits for us
                    _collect(in_flight, runs)
                for run in runs:
                    run.advance(step)
                last, stop = step == cfg.steps, preempted(step)
                log, evaluate, sample, save = (
                    last or step % every == 0
                    for every in (cfg.log_every, cfg.eval_every, cfg.sample_every, cfg.save_every)
                )
                if stop or log or evaluate or sample or save:
                    while in_flight:
                        _collect(in_flight, runs)
                    elapsed = time.perf_counter() - mark_time
                    parts = _parts(state, runs) if stop or evaluate or sample or save else [None] * len(runs)
                    for run, part in zip(runs, parts, strict=True):
                        run.seconds += elapsed
                        if log or evaluate or sample:
                            waits_for(None)
                            row = run.interval.take() if step % cfg.log_every == 0 else run.interval.means()
                            row |= {"examples": step * cfg.batch_size, "seconds": run.seconds}
                            rate = (step - mark_step) / elapsed
                            row |= speeds(rate, cfg.batch_size, work, place.mesh)
                            clock.turn("evaluation")
                            if evaluate and not run.failed:
                                row |= observer.validate(run.at(step, part))
                            if sample:
                                run.draw(observer, step, part)
                            run.write(step, row)
                        if stop or save:
                            waits_for(f"step {step} to be saved")
                            clock.turn("saving")
                            run.save(step, part)
                    clock.turn("step")
                    clock.write(step)
                    mark_step, mark_time = step, time.perf_counter()
                if stop:
                    break
            waits_for(f"step {step} to be saved")
            clock.turn("saving")
            for run in runs:
                run.checkpoints.wait()
        clock.turn("evaluation")
        code = preempted.code
        if code == FINISHED:
            for run, part in zip(runs, _parts(state, runs), strict=True):
                if run.failed:
                    continue
                result = observer.finish(run.at(step, part))
                clock.write(step)
                if chief:
                    write_json(run.folder / "result.json", result)
    except ValueError as error:  # a lost peer is one too; in the middle of a run it is not the user's input
        if step == began and jax.process_count() == 1:  # tracing the first step, which no device has made yet
            raise
        raise RuntimeError(f"{cfg.name}, step {step}: {error}") from error
    finally:
        trace.close()
        for run in runs:
            run.close()
    for run in runs:
        if run.failed:
            _say(f"{cfg.name}: {run.failed}")
        elif code == FINISHED:
            _say(f"{cfg.name}: finished {step} steps. Results: {run.folder}")
        else:
            why = "preempted" if code == PREEMPTED else "interrupted"
            _say(f"{cfg.name}: {why}, saved step {step}. Run the same command again to go on. {run.folder}")
    return NON_FINITE if code == FINISHED and any(run.failed for run in runs) else code


class _Member:
    """One run of those trained together: its folder, keys, checkpoints, logs."""

    def __init__(self, program: Program, cfg: Experiment, folder: Path, launch: Launch):
        self.program, self.cfg, self.folder = program, cfg, folder.absolute()
        self.keys = jax.random.split(jax.random.key(cfg.seed), 3)  # of the initial state, of the steps, of evaluation
        self.interval, self.seconds = logs.Interval(), 0.0  # both since the run began, over all restarts
        self.writer: logs.Metrics | None = None
        self.failed = ""
        self._checkpoints: Checkpoints | None = None

    @property
    def checkpoints(self) -> Checkpoints:
        if self._checkpoints is None:
            self._checkpoints = Checkpoints(self.folder / "checkpoints", self.cfg.keep)
        return self._checkpoints

    def at(self, step: int, state: Any) -> Run:
        """This run with the state of a step, for an observer."""
        p = self.program
        return Run(self.folder, self.cfg, p.family, p.algorithm, p.place, p.sources, step, state, self.keys[2],
                   self.seconds)  # fmt: skip

    def take_up(self, step: int, state: Any) -> Any:
        """Go on from a step, with the metrics and seconds that were not logged when it was saved. Returns `state`."""
        notes = self.checkpoints.notes(step) or {}  # those of an older version are empty
        self.interval, self.seconds = logs.Interval(notes.get("interval")), notes.get("seconds", 0.0)
        return state

    def log_to(self, step: int, launch: Launch) -> None:
        self.writer = logs.Metrics(
            self.folder,
            step,
            self.cfg.steps,
            name=self.cfg.name,
            tensorboard=launch.tensorboard,
            wandb=launch.wandb,
            config=configs.to_json(self.cfg),
        )

    def add(self, step: int, metrics: dict[str, float]) -> None:
        """Metrics of a step. A run that is not finite any more ends, alone or beside others that go on."""
        if self.failed:
            return
        try:
            self.interval.add(step, metrics)
        except logs.NonFinite as error:
            self._fail(error)

    def draw(self, observer: Observer, step: int, state: Any) -> None:
        """Pictures of samples. A run whose samples are not finite ends, alone or beside others that go on."""
        if self.failed:
            return
        try:
            observer.draw(self.at(step, state))
        except logs.NonFinite as error:
            self._fail(error)

    def save(self, step: int, state: Any) -> None:
        if self.failed:
            return
        try:
            self.checkpoints.save(step, state, {"seconds": self.seconds, "interval": self.interval.sums()})
        except logs.NonFinite as error:
            self._fail(error)

    def _fail(self, error: logs.NonFinite) -> None:
        self.checkpoints.wait()
        good = self.checkpoints.steps()
        self.failed = (
            f"{error}. Last good checkpoint: {f'step {good[0]}' if good else 'none'} in {self.checkpoints.folder}. "
            "Usual causes: too high a learning rate, no gradient clipping."
        )
        if self.program.together == 1:
            raise logs.NonFinite(self.failed) from error

    def advance(self, step: int) -> None:
        if self.writer and not self.failed:
            self.writer.advance(step)

    def write(self, step: int, row: dict[str, Any]) -> None:
        if self.writer and not self.failed:
            self.writer.write(step, row)

    def close(self) -> None:
        if self._checkpoints:
            self._checkpoints.close()
        if self.writer:
            self.writer.close()


def _start(program: Program, runs: Sequence[_Member]) -> tuple[int, Any]:
    """The newest step that all runs have, and their state there; else the initial state."""
    place, algorithm = program.place, program.algorithm
    batches = [place.put(_first_batch(run.cfg, program.sources)) for run in runs]
    keys = [run.keys[0] for run in runs]
    like = place.like(algorithm, keys[0], batches[0])
    for run in runs:
        run.checkpoints.check_there()
    if len(runs) > 1:  # killed between two saves, one of them may be ahead: it goes back, to the same numbers
        common = set.intersection(*(set(run.checkpoints.steps()) for run in runs))
        for run in runs:
            run.checkpoints.forget_after(max(common, default=0))
    restored = [run.checkpoints.restore(like) for run in runs]
    steps = {found[0] if found else 0 for found in restored}
    if len(steps) > 1:  # a damaged checkpoint: begin from what the others still have in common
        return _start(program, runs)
    (step,) = steps
    if step:
        return step, _join([run.take_up(*found) for run, found in zip(runs, restored, strict=True) if found])
    if len(runs) == 1:
        return 0, place.init(algorithm, keys[0], batches[0])
    return 0, jax.jit(jax.vmap(algorithm.init))(_join(keys), _join(batches))


def _first_batch(cfg: Experiment, sources: dict[str, data.Source]) -> dict[str, np.ndarray]:
    """This process's part of the first global batch, for initialisation."""
    return data.batch(sources["train"], cfg.seed, 0, cfg.batch_size, jax.process_index(), jax.process_count())


def _join(trees: Sequence[Any]) -> Any:
    """Trees of arrays -> one tree with a leading axis; a single one stays as it is."""
    stack = np.stack if isinstance(jax.tree.leaves(trees[0])[0], np.ndarray) else jnp.stack
    return trees[0] if len(trees) == 1 else jax.tree.map(lambda *leaves: stack(leaves), *trees)


def _parts(tree: Any, runs: Sequence[Any]) -> list[Any]:
    """The inverse of `_join`."""
    if len(runs) == 1:
        return [tree]
    return [jax.tree.map(lambda x, i=i: x[i], tree) for i in range(len(runs))]


def _collect(in_flight: deque, runs: Sequence[_Member]) -> None:
    step, metrics = in_flight.popleft()
    metrics = jax.device_get(metrics)
    for run, part in zip(runs, _parts(metrics, runs), strict=True):
        run.add(step, {name: float(value) for name, value in part.items()})
    if all(run.failed for run in runs):
        raise logs.NonFinite(runs[0].failed)


# ---- training within a time ------------------------------------------------------------------------------------------


def within_budget(program: Program, workdir: Path, minutes: float) -> Experiment:
    """The experiment with at most as many steps as fit into `minutes`, by the speed of its first steps.

    A run that has begun keeps the number in its config.json. The state of the timed steps is thrown away.
    """
    cfg, place, source = program.config, program.place, program.sources["train"]
    path = workdir / "config.json"
    if path.exists():
        return shortened(cfg, read_json(path)["steps"])
    state = place.init(program.algorithm, jax.random.key(cfg.seed), place.put(_first_batch(cfg, program.sources)))
    key = jax.random.key(0)
    warm, count, began = 3, 0, 0.0
    while count < warm + 200 and (count <= warm or time.perf_counter() - began < 2.0):
        state, metrics = program.step(state, place.put(data.batch(source, cfg.seed, count, cfg.batch_size)), key)
        count += 1
        if count <= warm or count % IN_FLIGHT == 0:
            jax.block_until_ready(metrics)
        if count == warm:
            began = time.perf_counter()
    jax.block_until_ready(state)
    seconds = (time.perf_counter() - began) / (count - warm)
    fit = max(1, int(60.0 * minutes / seconds))
    if fit < cfg.steps:
        print(f"{cfg.name}: {cfg.steps} steps do not fit into {minutes:.2g} min here; {fit} do", flush=True)
    return shortened(cfg, fit)


def shortened(cfg: Experiment, steps: int) -> Experiment:
    """The experiment over `steps` steps, if those are fewer, its learning-rate schedules shrunk with it."""
    if steps >= cfg.steps:
        return cfg
    optims = {f.name: getattr(cfg.model, f.name) for f in dataclasses.fields(cfg.model)}
    optims = {k: stretched(v, steps / cfg.steps) for k, v in optims.items() if isinstance(v, Optim)}
    return dataclasses.replace(cfg, steps=steps, model=dataclasses.replace(cfg.model, **optims))


def _say(text: str) -> None:
    if jax.process_index() == 0:
        print(text, flush=True)
