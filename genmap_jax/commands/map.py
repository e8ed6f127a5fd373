"""The map: every experiment on one dataset, trained for equal minutes, measured, and drawn on one page.

    WORKDIR/EXPERIMENT/            a run folder each (EXPERIMENT-seedN/ where there are several seeds)
    WORKDIR/map.html               the page, there from the first family on; beside it map.svg, map.png and the numbers

A family takes part by having an experiment on the dataset in the folder of experiments; nothing else lists them. Each
run is a process of its own that trains and measures: an accelerator belongs to one at a time, and what one has finished
stays finished. Run the same command again and it goes on where it was stopped.
"""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from genmap_jax.commands import executors
from genmap_jax.commands.measure import card_is_current, check_samples
from genmap_jax.data import target
from genmap_jax.lock import lock
from genmap_jax.report.page import write_page
from genmap_jax.run import runs
from genmap_jax.run.launch import FINISHED, Launch, start_devices
from genmap_jax.run.loop import operations
from genmap_jax.run.preemption import stoppable
from genmap_jax.run.runs import Script

TOY = "toy/gaussians8"
"""What `--data toy` means."""
OVERHEAD = 1.2
"""Minutes of a run beside training, on two cores: start, compilation, likelihood, samples, the card."""
SHORTEST, EACH = 15.0, 3.0
"""Minutes of a map where none are told: at least so many, and so many for each run. What short runs leave of theirs is
what the longest on digits need."""
LEAST = 0.05
"""Minutes of training that every run has."""


def members(experiments: Path, data: str, only: str | None = None) -> list[Script]:
    """The experiments on a dataset, in the order of their names; `only`: of these names, comma-separated.

    An experiment that translates images of another domain into those of the dataset is one on it.
    An experiment is named by its script, with or without what follows the first underscore.
    Raises ValueError that names what there is.
    """
    scripts = [runs.read_experiment(path) for path in runs.experiment_files(experiments)]
    toy = data == "toy" or data.startswith("toy/")
    is_on = lambda name: name.startswith("toy/") if toy else data in (name, target(name))  # noqa: E731
    chosen = [s for s in scripts if is_on(s.config.data)]
    if not chosen:
        known = sorted({script.config.data for script in scripts})
        raise ValueError(f"--data {data}: {experiments} has no experiment on it, only on {', '.join(known)}")
    if only is None:
        return chosen
    names = {script.path.stem: script for script in chosen} | {s.path.stem.split("_")[0]: s for s in chosen}
    unknown = [name for name in only.split(",") if name not in names]
    if unknown:
        raise ValueError(f"--only {unknown[0]}: on {data} there are {', '.join(s.path.stem for s in chosen)}")
    return [script for script in chosen if any(names[name] is script for name in only.split(","))]


def make_map(
    scripts: Sequence[Script],
    workdir: Path,
    *,
    data: str,
    budget: float | None,
    seeds: int,
    samples: int,
    features: str,
    executor: str = "local",
    flags: Sequence[str] = (),
) -> int:
    """Run what is not finished, the least work first, and write the page after every run.

    Returns 0, or the exit code of a run that stopped.

    budget: minutes of the whole map, None for `planned_minutes`; each run trains for an equal share of what `OVERHEAD`
        leaves of it. What a run leaves unspent is shared among those after it, where they run one after another.
    samples, features: what to measure, and with what. flags: further flags of the experiments.
    executor: "local" runs one after another; "slurm" submits them and returns; "ray" runs them on a cluster.
    """
    check_samples(samples)
    jobs = [(script, seed) for seed in range(seeds) for script in scripts]
    budget = planned_minutes(len(jobs)) if budget is None else budget
    folders = [workdir / (s.path.stem if seeds == 1 else f"{s.path.stem}-seed{seed}") for s, seed in jobs]
    law = ["--data", TOY if data == "toy" else data] if data.startswith("toy") else []
    measuring = ["--features", features, "--measured-samples", str(samples)]

    def command(i: int, minutes: float) -> list[str]:
        """That of run i, with so many minutes of training."""
        (script, seed), folder = jobs[i], folders[i]
        about = ["--workdir", str(folder), "--budget", f"{minutes:.3g}", "--seed", str(seed)]
        return [str(script.path), *about, *law, *measuring, *flags]

    equal = training_minutes(budget, len(jobs))
    equal_shares = [command(i, equal) for i in range(len(jobs))]
    page = workdir / "map.html"
    current = lambda folder: card_is_current(folder, samples, features)  # noqa: E731
    with lock(workdir), stoppable():
        if executor == "slurm":
            job = executors.submit_to_slurm(equal_shares, workdir)
            print(f"submitted job {job} of {len(jobs)} runs; when they are done, the page: genmap map {workdir}")
            return FINISHED
        if executor == "ray":
            code = max(executors.run_on_ray(equal_shares))
            write_page([folder for folder in folders if current(folder)], page)
            print(f"\nThe map: {page}")
            return code
        print(
            f"{len(jobs)} runs, {equal:.2g} min of training each. The page, from the first run on: {page}", flush=True
        )
        todo = [i for i, folder in enumerate(folders) if not current(folder)]
        write_page([f for f in folders if current(f)], page, waiting=[folders[i].name for i in todo])
        start_devices(Launch(platform="cpu"))  # this process starts runs and leaves the accelerator to them
        waiting = {jobs[i][0].path: jobs[i][0] for i in todo}  # each script once, whatever its seeds
        cost = {path: work(script) for path, script in waiting.items()}
        todo.sort(key=lambda i: (jobs[i][1], cost[jobs[i][0].path]))
        return _one_after_another(todo, command, folders, page, budget * len(todo) / len(jobs))


def work(script: Script) -> int:
    """Floating-point operations of the whole training of an experiment."""
    cfg = script.config
    algorithm = script.family.algorithm(cfg.model, batch_size=cfg.batch_size)
    return cfg.steps * operations(algorithm, cfg.batch_size)


def planned_minutes(count: int) -> float:
    """Minutes of a map of so many runs, where none are told."""
    return max(SHORTEST, EACH * count)


def training_minutes(left: float, runs_left: int) -> float:
    """Minutes of training of the next run, of the minutes left for all that are not done."""
    return max(LEAST, left / runs_left - OVERHEAD)


def _one_after_another(
    todo: Sequence[int],
    command: Callable[[int, float], list[str]],
    folders: Sequence[Path],
    page: Path,
    budget: float,
) -> int:
    """Run those of these numbers, here, and write the page after each. budget: minutes of all of them together."""
    began = time.monotonic()
    for done, i in enumerate(todo):
        name, later, spent = folders[i].name, todo[done + 1 :], (time.monotonic() - began) / 60.0
        left = len(todo) - done
        remain = remaining_minutes(left, done, spent, budget)
        print(f"[{len(folders) - left + 1}/{len(folders)}] {name}, about {remain:.0f} min remain", flush=True)
        code = executors.run_here(command(i, training_minutes(budget - spent, left)))
        if code:
            print(f"{name} stopped with exit code {code}; run the same command again to go on", file=sys.stderr)
            return code
        remain = remaining_minutes(len(later), done + 1, (time.monotonic() - began) / 60.0, budget)
        there = [folder for j, folder in enumerate(folders) if j not in later]
        names = [folders[j].name for j in later]
        write_page(there, page, waiting=names, remaining_seconds=60.0 * remain if names else None)
    print(f"\nThe map: {page}")
    return FINISHED


def remaining_minutes(runs_left: int, done: int, spent: float, budget: float) -> float:
    """By the mean time of the runs so far, at most what is left of the budget; before the first one, all of it."""
    return min(runs_left * spent / done, max(0.0, budget - spent)) if done else budget


def evaluated(paths: list[Path]) -> list[Path]:
    """Run folders and ablation folders at or below the given ones, for a page of what there already is.

    Raises FileNotFoundError where there is none.
    """
    found: list[Path] = []
    for path in paths:
        inside = runs.find_runs(path) + sorted(p.parent for p in path.glob("**/ablation.json"))
        if not inside:
            raise FileNotFoundError(f"{path} holds no run folder and no ablation")
        found += [folder for folder in inside if folder not in found]
    return found
