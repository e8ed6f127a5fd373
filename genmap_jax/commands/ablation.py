"""Ablations: the baseline and its named variants, several seeds each, as ordinary runs and one table.

    WORKDIR/VARIANT-seedN/         a run folder each, as any other: checkpoints, metrics, samples, result.json
    WORKDIR/ablation.json          which run is which, what was measured, for pages; the same as text in table.txt

Run the same command again and it goes on where it was stopped: finished runs are kept, others continue from their
checkpoints. The seeds of a variant are one program, `jax.vmap` over state, batch and key, where that is faster; see
`together`. The numbers are those of result.json, and with --features those of the card.
"""

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from genmap_jax.algorithm import Family, like_batch
from genmap_jax.commands import executors
from genmap_jax.commands.train import Ablations, Also, train_seeds, variant
from genmap_jax.files import read_json, write_json, write_text
from genmap_jax.run import loop
from genmap_jax.run.config import Experiment
from genmap_jax.run.launch import FINISHED, NON_FINITE, Launch
from genmap_jax.run.logs import NonFinite
from genmap_jax.run.runs import command_text, writing

SHOWN = ("FD-", "TV-", "label as asked", "modes", "KL(modes)", "near a mode", "copied", "error to truth", "inverted")
"""Metrics of a card that a table shows, by how their names begin, beside likelihood and energy distance."""


def ablate(cfg: Experiment, family: Family, ablations: Ablations, launch: Launch, also: Also) -> int:
    """Train what is not finished, measure, and print the table. Returns the exit code.

    Raises ValueError for an unknown ablation, or as `check`.
    """
    check(launch)
    variants = variants_of(cfg, ablations, also)
    workdir = (launch.workdir or Path("runs") / f"{cfg.name}_ablation").absolute()
    folders = {
        name: [workdir / f"{name}-seed{cfg.seed + i}" for i in range(also.seeds)] for name in variants
    }  # fmt: skip
    with writing(workdir):
        code = FINISHED
        if also.executor == "local":
            code = _train_here(variants, folders, family, launch, also)
        else:
            jobs = [
                _command(sys.argv, name, cfg.seed + i, folder)
                for name, each in folders.items()
                for i, folder in enumerate(each)
            ]
            if also.executor == "slurm":
                job = executors.submit_to_slurm(jobs, workdir)
                print(f"submitted job {job} of {len(jobs)} runs; when they are done, the table: the same command with "
                      f"--executor local. Logs and run folders: {workdir}")  # fmt: skip
                return FINISHED
            code = max(executors.run_on_ray(jobs))
        if code not in (FINISHED, NON_FINITE):
            return code
        summary = collect(workdir, cfg, {name: ablations.get(name, {}) for name in variants}, folders, also.features)
    print(f"\n{table(summary)}\n\nReproduce: {summary['command']}\nRun folders: {workdir}")
    return code


def check(launch: Launch) -> None:
    """Raises ValueError for a flag that a list of runs cannot honour."""
    if launch.budget is not None:
        raise ValueError("--budget shortens every run by its own speed, which no table can compare: give --steps")
    if launch.distributed:
        raise ValueError("--distributed joins processes for one run; a list of runs is spread by --executor slurm|ray")


def variants_of(cfg: Experiment, ablations: Ablations, also: Also) -> dict[str, Experiment]:
    """Name -> experiment, of what a command line trains: the variant that it names, or the baseline and its ablations.

    Raises ValueError for an unknown name, or all of none.
    """
    if also.variant is not None:
        return {also.variant: variant(cfg, ablations, also.variant)}
    if also.ablation == "all" and not ablations:
        raise ValueError("--ablation all: this experiment has none")
    names = ablations if also.ablation == "all" else [also.ablation] if also.ablation is not None else []
    return {name: variant(cfg, ablations, name) for name in dict.fromkeys(["baseline", *names])}


def _train_here(
    variants: dict[str, Experiment],
    folders: dict[str, list[Path]],
    family: Family,
    launch: Launch,
    also: Also,
) -> int:
    worst = FINISHED
    for name, cfg in variants.items():
        seeds = [dataclasses.replace(cfg, seed=cfg.seed + i) for i in range(len(folders[name]))]
        at_once = together(cfg, family, launch, len(seeds))
        print(f"{cfg.name}: {name}, {len(seeds)} seed(s){', as one program' * at_once}, {cfg.steps} steps", flush=True)
        program = loop.prepare(cfg, family, launch, together=len(seeds) if at_once else 1)
        groups = [slice(None)] if at_once else [slice(i, i + 1) for i in range(len(seeds))]
        for group in groups:
            try:
                code = train_seeds(program, seeds[group], folders[name][group], launch, also)
            except NonFinite as error:
                print(f"{cfg.name}: {name}: {error}", file=sys.stderr)
                code = NON_FINITE
            if code not in (FINISHED, NON_FINITE):
                return code
            worst = max(worst, code)
    return worst


def together(cfg: Experiment, family: Family, launch: Launch, seeds: int) -> bool:
    """Whether the seeds of a variant are trained as one program instead of one after another.

    On one device they are, but for two sorts of steps. Lazy penalties are branches, and under `vmap` both branches are
    computed at every step. Gradients of convolutions become grouped convolutions under `vmap`, which XLA runs on a CPU
    slower than the seeds one after another; experiments/benchmarks.py --seeds N measures it. On several devices every
    run is spread over all of them.
    """
    devices = len(jax.devices()) if launch.devices is None else launch.devices
    if seeds == 1 or devices > 1 or launch.parallel == "pmap" or launch.fsdp:
        return False
    algorithm = family.algorithm(cfg.model, batch_size=cfg.batch_size)
    batch, key = like_batch(algorithm.reads, cfg.batch_size), jax.random.key(0)
    state = jax.eval_shape(algorithm.init, key, batch)
    step = str(jax.make_jaxpr(algorithm.step)(state, batch, key))
    slow = ["cond["] + ["conv_general_dilated"] * (jax.default_backend() == "cpu")
    return not any(name in step for name in slow)


def _command(argv: list[str], name: str, seed: int, folder: Path) -> list[str]:
    """The command line of one run, as arguments of Python: that of the table without what makes it a table."""
    dropped = {"--ablation", "--seeds", "--executor", "--workdir", "--seed"}
    kept, skip = [str(Path(argv[0]).absolute())], False
    for word in argv[1:]:
        if skip:
            skip = False
        elif word.split("=")[0] in dropped:
            skip = "=" not in word
        else:
            kept.append(word)
    return [*kept, "--variant", name, "--seed", str(seed), "--workdir", str(folder)]


# ---- the table -------------------------------------------------------------------------------------------------------


def collect(
    workdir: Path,
    cfg: Experiment,
    changes: Ablations,
    folders: dict[str, list[Path]],
    features: str | None = None,
) -> dict[str, Any]:
    """Read what was measured of every run, write ablation.json and table.txt, and return the former."""
    cards = {name: [_measured(folder, features) for folder in each] for name, each in folders.items()}
    found = [card for each in cards.values() for card in each if card is not None]
    if not found:
        raise ValueError(f"no run below {workdir} is finished; see their metrics.jsonl")
    measures = measures_of(found)
    values = {
        name: {m["key"]: [value_of(card, m["key"]) for card in each] for m in measures} for name, each in cards.items()
    }
    summary = {
        "experiment": found[0]["experiment"],
        "name": cfg.name,
        "command": command_text(sys.argv),
        "baseline": "baseline",
        "seeds": [cfg.seed + i for i in range(len(folders["baseline"]))],
        "variants": {
            name: {"changes": json.loads(json.dumps(changes[name])), "runs": [folder.name for folder in each]}
            for name, each in folders.items()
        },
        "measures": measures,
        "table": values,
        "real": real_data(found),
    }
    write_json(workdir / "ablation.json", summary)
    write_text(workdir / "table.txt", table(summary) + "\n")
    return summary


def _measured(folder: Path, features: str | None) -> dict[str, Any] | None:
    """The card of a run where features were asked for, else its result; None if it did not finish."""
    path = folder / "evaluation" / "card.json" if features else folder / "result.json"
    return read_json(path) if path.exists() else None


def measures_of(cards: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a table shows: key, title, whether lower is better, and the kind of a likelihood."""
    likelihoods = [card["likelihood"] for card in cards if card["likelihood"]]
    out: list[dict[str, Any]] = []
    if likelihoods:
        kinds = ", ".join(sorted({x["kind"] for x in likelihoods}))
        unit = likelihoods[0]["unit"]
        out.append({"key": "likelihood", "title": f"{unit} ({kinds})", "better": "lower", "kind": kinds})
    keys = dict.fromkeys(key for card in cards for key in card["metrics"])
    for key in keys:
        if key == "energy" or key.startswith(SHOWN):
            better = next(card["metrics"][key]["better"] for card in cards if key in card["metrics"])
            title = "energy distance" if key == "energy" else key
            out.append({"key": key, "title": title, "better": better, "kind": None})
    return out


def value_of(card: dict[str, Any] | None, key: str) -> float:
    """One number of a card or result; NaN where there is none."""
    if card is None:
        return math.nan
    if key == "likelihood":
        return math.nan if card["likelihood"] is None else card["likelihood"]["value"]
    return card["metrics"][key]["value"] if key in card["metrics"] else math.nan


def real_data(cards: list[dict[str, Any]]) -> dict[str, float]:
    """What real data score in the place of samples, where it is known: the null floors of the first run that has it."""
    floors: dict[str, float] = {}
    for card in cards:
        for key, number in card["metrics"].items():
            if (key == "energy" or key.startswith(SHOWN)) and number["null"] is not None:
                floors.setdefault(key, number["null"])
    return floors


def table(summary: dict[str, Any]) -> str:
    """Mean ± standard error over seeds and the difference to the baseline, paired by seed."""
    values, measures = summary["table"], summary["measures"]
    baseline = values[summary["baseline"]]
    width = {m["key"]: max(17, len(m["title"])) for m in measures}
    column = max(map(len, [*values, "variant"]))
    header = f"{'variant':{column}s}" + "".join(
        f"  {m['title']:>{width[m['key']]}s}  {'difference':>18s}" for m in measures
    )
    lines = [header]
    for name, row in values.items():
        line = f"{name:{column}s}"
        for key in width:
            mine, reference = np.array(row[key], float), np.array(baseline[key], float)
            change = "" if name == summary["baseline"] else mean_text(mine - reference, sign=True)
            line += f"  {mean_text(mine):>{width[key]}s}  {change:>18s}"
        lines.append(line)
    lines.append("every seed:")
    for name, row in values.items():
        for key in width:
            lines.append(f"  {name:{column}s}  {key:16s} " + "  ".join(f"{v:.5f}" for v in row[key]))
    real = "  ".join(f"{name} {value:.4f}" for name, value in summary["real"].items())
    return "\n".join([*lines, f"real data: {real}"] if real else lines)


def mean_text(values: np.ndarray, sign: bool = False) -> str:
    """Mean ± standard error of values of several seeds, as text."""
    mean = f"{values.mean():{'+' if sign else ''}.4f}"
    if len(values) < 2:
        return mean
    return f"{mean} ± {values.std(ddof=1) / math.sqrt(len(values)):.4f}"
