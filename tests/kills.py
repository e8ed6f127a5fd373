"""Kill -9 at random moments of training, evaluation, map, ablation and preparation; the same command must go on.

    python tests/kills.py --minutes 10 --seed 0          for so long; exits with 1 if anything differed
    python tests/kills.py --kinds map,prepare --kills 5   so many of these kinds

Each round starts a command in an empty folder, kills it one to three times, and lets the same command end. What it made
is then that of a command which was not killed: states and samples to the bit, rows, results and tables but for what the
clock says, the same files, and no process that outlives its parent. Linux only.
"""

import argparse
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from genmap_jax.lock import NAME
from genmap_jax.run import opening
from genmap_jax.run.speed import SPEEDS

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "experiments" / "vae_digits.py"
CLOCK = (*SPEEDS, "speed", "time", "sessions", "train_seconds", "samples_per_second", "command", "commit")
"""Keys of rows, results, cards and tables that differ between two runs of one command."""
SMALL = [
    *("--log-every", "7", "--save-every", "5", "--eval-every", "20", "--sample-every", "20", "--eval-examples", "40"),
    *("--model.hidden", "16", "--no-tensorboard", "--platform", "cpu"),
]
GENMAP = ["-m", "genmap_jax.commands.cli"]


@dataclasses.dataclass(frozen=True)
class Kind:
    """A command, and the run folders that it makes below the folder it is given."""

    command: Callable[[Path, Path], list[str]]
    """Of the folder and of a folder of prepared data."""
    runs: tuple[str, ...] = ()


def _train(folder: Path, data: Path) -> list[str]:
    return [str(SCRIPT), *SMALL, "--steps", "60", "--workdir", str(folder), "--data-dir", str(data)]


def _evaluation(folder: Path, data: Path) -> list[str]:
    short = [str(SCRIPT), *SMALL, "--steps", "5", "--workdir", str(folder), "--data-dir", str(data)]
    return [*short, "--features", "own", "--measured-samples", "40"]


def _map(folder: Path, data: Path) -> list[str]:
    command = [*GENMAP, "map", "--only", "vae", "--seeds", "2", "--samples", "40", "--workdir", str(folder)]
    return [*command, "--data-dir", str(data), "--", *SMALL, "--steps", "10"]


def _ablation(folder: Path, data: Path) -> list[str]:
    table = ["--ablation", "latent_2", "--seeds", "2", "--steps", "20"]
    return [str(SCRIPT), *SMALL, *table, "--workdir", str(folder), "--data-dir", str(data)]


def _prepare(folder: Path, _: Path) -> list[str]:
    return [*GENMAP, "prepare", "glyphs", "--data-dir", str(folder)]


KINDS = {
    "train": Kind(_train, (".",)),
    "evaluation": Kind(_evaluation, (".",)),
    "map": Kind(_map, ("vae_digits-seed0", "vae_digits-seed1")),
    "ablation": Kind(_ablation, tuple(f"{v}-seed{i}" for v in ("baseline", "latent_2") for i in (0, 1))),
    "prepare": Kind(_prepare),
}


# ---- one round -------------------------------------------------------------------------------------------------------


class Differs(AssertionError):
    """What a killed command made is not what an unbroken one makes."""


def round_of(kind: Kind, expected: dict[str, Any], took: float, folder: Path, data: Path, rng: random.Random) -> int:
    """Kill and go on; returns the number of kills that hit the command while it ran. Raises Differs."""
    hits = 0
    for _ in range(rng.randint(1, 3)):
        process = start(kind.command(folder, data), folder.with_suffix(".log"))
        try:
            process.wait(rng.uniform(0.0, took))
        except subprocess.TimeoutExpired:
            hits += 1
        if rng.random() < 0.5:
            process.kill()
        else:
            signal_group(process.pid, signal.SIGKILL)
        process.wait()
        wait_for_the_last(process.pid)
    log = folder.with_suffix(".log")
    code = start(kind.command(folder, data), log).wait()
    if code:
        raise Differs(f"the same command ended with exit code {code}:\n{log.read_text()[-3000:]}")
    compare(outcome(kind, folder), expected)
    return hits


def start(command: list[str], log: Path) -> subprocess.Popen:
    """The command, as the first process of a group of its own."""
    with log.open("a") as file:
        return subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=file, stderr=file, start_new_session=True)


def signal_group(group: int, number: int) -> None:
    """Send a signal to all processes of a group, if there still are any."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        pass


def wait_for_the_last(group: int, seconds: float = 60.0) -> None:
    """Until no process of a group is left: a child saves and ends when its parent is gone. Raises Differs if not."""
    deadline = time.monotonic() + seconds
    while members := [stat for path in Path("/proc").glob("[0-9]*/stat") if (stat := _stat(path))[1] == group]:
        if all(state == "Z" for state, _ in members):  # ended; whoever should reap it does not
            return
        if time.monotonic() > deadline:
            signal_group(group, signal.SIGKILL)
            raise Differs(f"a process outlives its parent by more than {seconds:.0f} s")
        time.sleep(0.05)


def _stat(path: Path) -> tuple[str, int]:
    """State and group of a process."""
    try:
        state, _, group, *_ = path.read_text().rpartition(")")[2].split()
    except OSError:
        return "gone", 0
    return state, int(group)


# ---- what a command made ---------------------------------------------------------------------------------------------


def outcome(kind: Kind, folder: Path) -> dict[str, Any]:
    """Relative path -> what is compared of the file; and the states of the runs."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if "checkpoints" in name.parts:
            if name.parts[-2:-1] == ("checkpoints",):  # which steps there are; their content is compared as the state
                found[str(name)] = None
        elif path.is_file() and path.name != NAME:
            found[str(name)] = content(path)
    for run in kind.runs:
        state = opening.open_run(folder / run, SCRIPT).state
        for leaf, value in jax.tree_util.tree_leaves_with_path(state):
            found[f"{run}: state{jax.tree_util.keystr(leaf)}"] = np.asarray(value).tobytes()
    return found


def content(path: Path) -> Any:
    """What must be equal of a file: all of it, but for what the clock and the place say; None where that is mixed."""
    if path.suffix == ".jsonl":
        return [timeless(json.loads(line)) for line in path.read_text().splitlines()]
    if path.name in ("result.json", "card.json", "ablation.json", "config.json"):
        return timeless(json.loads(path.read_text()))
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name: arrays[name].tobytes() for name in arrays}
    return path.read_bytes() if path.suffix in (".npy", ".gif") or "samples" in path.parts else None


def timeless(value: Any) -> Any:
    """JSON values without those of the clock."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in CLOCK}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def compare(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Raises Differs that names the first files that are not the same."""
    wrong = [f"{name} is left behind" for name in found.keys() - expected.keys()]
    wrong += [f"{name} is missing" for name in expected.keys() - found.keys()]
    wrong += [f"{name} differs" for name in found.keys() & expected.keys() if found[name] != expected[name]]
    if wrong:
        raise Differs("; ".join(sorted(wrong)[:5]))


# ---- many rounds -----------------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> int:
    """Returns 0, or 1 if a continuation differed; its folder is kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--kills", type=int, help="stop after so many, however long it takes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS), help="of " + ", ".join(KINDS))
    args = parser.parse_args(argv)
    rng, here, began = random.Random(args.seed), Path(tempfile.mkdtemp(prefix="kills-")), time.monotonic()
    expected, kills, rounds, failed = {}, dict.fromkeys(args.kinds.split(","), 0), 0, 0
    for name in kills:
        folder, start_time = here / f"{name}-whole", time.monotonic()
        code = start(KINDS[name].command(folder, here / "data"), folder.with_suffix(".log")).wait()
        assert code == 0, folder.with_suffix(".log").read_text()
        took = time.monotonic() - start_time
        expected[name] = outcome(KINDS[name], folder), took
    while sum(kills.values()) < args.kills if args.kills else time.monotonic() - began < 60 * args.minutes:
        name = min(kills, key=lambda name: kills[name])
        folder = here / f"{name}-{rounds}"
        rounds += 1
        try:
            kills[name] += round_of(KINDS[name], *expected[name], folder, here / "data", rng)
        except Differs as error:
            failed += 1
            kills[name] += 1
            print(f"{name}: {error}\n  kept: {folder}, {folder.with_suffix('.log')}", flush=True)
            continue
        shutil.rmtree(folder)
        folder.with_suffix(".log").unlink()
    said = ", ".join(f"{name} {count}" for name, count in kills.items())
    print(f"{sum(kills.values())} kills ({said}), {rounds} continuations, {rounds - failed} of them equal", flush=True)
    if not failed:
        shutil.rmtree(here)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
