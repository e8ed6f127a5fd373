"""The map: every experiment on one dataset, trained with one budget, measured, and drawn on one page.

    WORKDIR/EXPERIMENT/            a run folder each (EXPERIMENT-seedN/ where there are several seeds)
    WORKDIR/map.html               the page; beside it map.svg, map.png, numbers.csv and numbers.parquet

A family takes part by having an experiment NAME_DATA.py in the folder of experiments; nothing else lists them. Training
and measuring are processes of their own: an accelerator belongs to one at a time, and what one has finished stays
finished. Run the same command again and it goes on where it was stopped.
"""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from genmap_jax import runs

TOY = "toy/gaussians8"
"""What `--data toy` means."""


def experiments_folder(given: Path | None) -> Path:
    """Where the experiment scripts are: as given, else ./experiments, else beside the package in its checkout.

    Raises FileNotFoundError naming the flag.
    """
    beside = Path(__file__).parents[1] / "experiments"
    for folder in [given] if given else [Path("experiments"), beside]:
        if folder.is_dir():
            return folder.absolute()
    raise FileNotFoundError(f"{given or beside} is not a folder; --experiments says where the experiment scripts are")


def members(experiments: Path, data: str, only: str | None = None) -> list[Path]:
    """The experiment scripts on a dataset, in the order of their names; `only`: of these families, comma-separated.

    Raises ValueError that names what there is.
    """
    suffix = "toy" if data.startswith("toy") else data
    scripts = sorted(experiments.glob(f"*_{suffix}.py"))
    if not scripts:
        known = sorted({path.stem.split("_", 1)[1] for path in experiments.glob("*_*.py")})
        raise ValueError(f"--data {data}: {experiments} has no experiment on it, only on {', '.join(known)}")
    if only:
        names = [path.stem.removesuffix(f"_{suffix}") for path in scripts]
        unknown = [name for name in only.split(",") if name not in names]
        if unknown:
            raise ValueError(f"--only {unknown[0]}: on {data} there are {', '.join(names)}")
        scripts = [path for path, name in zip(scripts, names, strict=True) if name in only.split(",")]
    return scripts


def train_and_measure(
    scripts: list[Path],
    workdir: Path,
    *,
    data: str,
    budget: float,
    seeds: int,
    samples: int,
    features: str,
    training: list[str],
    measuring: list[str],
) -> tuple[list[Path], int]:
    """Run what is not finished. Returns the run folders, and 0 or the exit code of the process that stopped it.

    samples, features: what to measure, and with what. training, measuring: further flags of the experiments, and of
    `genmap evaluate`.
    """
    asked = {"samples": samples, "features": features}
    jobs = [(script, seed) for script in scripts for seed in range(seeds)]
    folders = [workdir / (s.stem if seeds == 1 else f"{s.stem}-seed{seed}") for s, seed in jobs]
    law = ["--data", TOY if data == "toy" else data] if data.startswith("toy") else []
    for i, ((script, seed), folder) in enumerate(zip(jobs, folders, strict=True), 1):
        print(f"[{i}/{len(jobs)}] {folder.name}", flush=True)
        command = [str(script), "--workdir", str(folder), "--budget", f"{budget:g}", *law, *training]
        if seeds > 1:
            command += ["--seed", str(seed)]
        code = _run(command)
        if not code and not _measured(folder, asked):
            measure = ["-m", "genmap_jax.cli", "evaluate", str(folder), "--experiments", str(script.parent)]
            code = _run([*measure, "--samples", str(samples), "--features", features, *measuring])
        if code:
            print(f"{folder.name} stopped with exit code {code}; run the same command again to go on", file=sys.stderr)
            return folders, code
    return folders, 0


def evaluated(paths: list[Path]) -> list[Path]:
    """Run folders and ablation folders at or below the given ones, for a page of what there already is.

    Raises FileNotFoundError where there is none.
    """
    found = []
    for path in paths:
        inside = runs.find_runs(path) + sorted(p.parent for p in path.glob("**/table.txt"))
        if not inside:
            raise FileNotFoundError(f"{path} holds no run folder and no ablation")
        found += [folder for folder in inside if folder not in found]
    return found


def _measured(folder: Path, asked: dict[str, Any]) -> bool:
    path = folder / "evaluation" / "card.json"
    card = json.loads(path.read_text()) if path.exists() else {}
    return card.get("asked") == asked and card["steps"] == runs.read_json(folder / "result.json")["steps"]


def _run(arguments: list[str]) -> int:
    """A Python process of its own; it gets our SIGTERM, and Ctrl-C by itself: it saves and says how it ended."""
    child = subprocess.Popen([sys.executable, *arguments])
    before = signal.signal(signal.SIGTERM, lambda number, _frame: child.send_signal(number))
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code = child.wait()
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, interrupt)
    return code if code >= 0 else 128 - code
