"""A run that was stopped, by whatever, at whatever moment, ends as one that was not; a second process is refused."""

import dataclasses
import functools
import os
import shutil
import signal
import threading
from pathlib import Path

import jax
import numpy as np
import pytest
from test_train import TINY, final_state, rows

from genmap_jax import data
from genmap_jax.approximate import vae
from genmap_jax.commands.evaluate import evaluate_run
from genmap_jax.commands.map import make_map
from genmap_jax.commands.train import train
from genmap_jax.files import read_json
from genmap_jax.lock import Busy, lock
from genmap_jax.run import logs, loop, watchdog
from genmap_jax.run.config import Experiment
from genmap_jax.run.launch import INTERRUPTED, PREEMPTED, STUCK, Launch
from genmap_jax.run.preemption import stoppable
from genmap_jax.run.runs import Run, read_experiment, writing
from genmap_jax.run.speed import SPEEDS
from genmap_jax.run.watchdog import Watchdog

ROOT = Path(__file__).parents[1]
OFF = dataclasses.replace(TINY, steps=18, log_every=7, save_every=5, eval_every=100, sample_every=100)
"""No step is logged and saved but the last."""


MAP = {"data": "digits", "budget": 1.0, "seeds": 1}


class Killed(BaseException):
    """In the place of a kill: nothing handles it."""


class Quick:
    """An observer that measures next to nothing: these tests are about the loop."""

    def begin(self, run: Run) -> None:
        pass

    def validate(self, run: Run) -> dict:
        return {"validated": run.step}

    def draw(self, run: Run) -> None:
        pass

    def finish(self, run: Run) -> dict:
        words = ("name", "experiment", "system", "continent", "objective", "citation", "data", "command")
        numbers = {"seed": 0, "steps": run.step, "parameters": 1, "evaluations": 1, "train_seconds": 1.0}
        size = sum(float(abs(np.asarray(leaf, np.float64)).sum()) for leaf in jax.tree.leaves(run.state))
        return dict.fromkeys(words, "") | numbers | {"metrics": {"size": {"value": size}}, "likelihood": None}


@functools.cache
def program() -> loop.Program:
    """Compiled once for all of these runs."""
    return loop.prepare(TINY, vae.FAMILY, Launch(devices=1))


def run(folder: Path, cfg: Experiment, observer: loop.Observer | None = None, **changes) -> int:
    """Train as `commands.train` does."""
    with writing(folder):
        launch = Launch(workdir=folder, devices=1, tensorboard=False, **changes)
        return loop.train(program(), [cfg], [folder], launch, observer or Quick())


def at_step(monkeypatch, step: int, do) -> None:
    """Call `do` when the batch of a step (from 1) is made."""
    batch = data.batch

    def watched(source, seed, number, *rest):
        if number == step - 1:
            do()
        return batch(source, seed, number, *rest)

    monkeypatch.setattr(loop.data, "batch", watched)


def killed() -> None:
    raise Killed


def signalled(number: int, times: int = 1):
    def send() -> None:
        for _ in range(times):
            os.kill(os.getpid(), number)

    return send


def course(folder: Path) -> list[dict]:
    """The rows of metrics without what the clock says."""
    return [{k: v for k, v in row.items() if k not in SPEEDS} for row in rows(folder)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run that was not stopped."""
    folder = tmp_path_factory.mktemp("whole")
    assert run(folder, OFF) == 0
    return folder


def assert_same_run(folder: Path, whole: Path) -> None:
    """The last state and every row are equal, to the bit; and nothing of a stop is left in the folder."""
    for a, b in zip(*(jax.tree.leaves(final_state(each, OFF.steps)) for each in (folder, whole)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert course(folder) == course(whole)
    assert read_json(folder / "result.json") == read_json(whole / "result.json")
    assert names(folder) == names(whole)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---- rows ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [4, 9, 14, 18])
def test_a_kill_between_two_logged_steps_loses_no_part_of_a_mean(step, whole, tmp_path, monkeypatch):
    at_step(monkeypatch, step, killed)
    with pytest.raises(Killed):
        run(tmp_path, OFF)
    monkeypatch.undo()
    assert run(tmp_path, OFF) == 0
    assert_same_run(tmp_path, whole)


@pytest.mark.parametrize("step", [2, 9, 17])
def test_sigterm_between_two_logged_steps_leaves_no_row_of_its_own(step, whole, tmp_path, monkeypatch):
    at_step(monkeypatch, step, signalled(signal.SIGTERM))
    assert run(tmp_path, OFF) == PREEMPTED
    assert [row["step"] for row in rows(tmp_path)] == list(range(7, step, 7))
    monkeypatch.undo()
    assert run(tmp_path, OFF) == 0
    assert_same_run(tmp_path, whole)


def test_a_row_is_the_mean_since_the_last_multiple_of_log_every(tmp_path, whole):
    """Also where another cadence writes a row in between, and where the last step is not a multiple."""
    every = tmp_path / "every"
    run(every, dataclasses.replace(OFF, log_every=1))
    loss = {row["step"]: row["loss"] for row in rows(every)}
    for step, first in ((7, 1), (14, 8), (18, 15)):
        row = next(row for row in rows(whole) if row["step"] == step)
        assert row["loss"] == pytest.approx(np.mean([loss[s] for s in range(first, step + 1)]), rel=1e-12)
    run(tmp_path / "more", dataclasses.replace(OFF, sample_every=9))
    shown = {row["step"]: row["loss"] for row in rows(tmp_path / "more")}
    assert (
        shown[9] == pytest.approx(np.mean([loss[s] for s in (8, 9)]), rel=1e-12) and shown[14] == rows(whole)[1]["loss"]
    )


# ---- signals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, PREEMPTED), (signal.SIGINT, INTERRUPTED)])
def test_a_second_signal_ends_at_once_with_the_same_code(number, code, whole, tmp_path, monkeypatch):
    at_step(monkeypatch, 9, signalled(number, times=2))
    with pytest.raises(SystemExit) as ended, stoppable():
        run(tmp_path, OFF)
    assert ended.value.code == code
    monkeypatch.undo()
    assert run(tmp_path, OFF) == 0
    assert_same_run(tmp_path, whole)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, PREEMPTED), (signal.SIGINT, INTERRUPTED)])
def test_a_signal_in_the_final_evaluation_ends_it_and_the_last_step_is_saved(
    number, code, whole, tmp_path, monkeypatch
):
    finish = Quick.finish
    monkeypatch.setattr(Quick, "finish", lambda self, run: (os.kill(os.getpid(), number), finish(self, run))[1])
    with pytest.raises(SystemExit) as ended, stoppable():
        run(tmp_path, OFF)
    assert ended.value.code == code and not (tmp_path / "result.json").exists()
    final_state(tmp_path, OFF.steps)
    monkeypatch.undo()
    assert run(tmp_path, OFF) == 0
    assert_same_run(tmp_path, whole)


def test_a_signal_while_the_last_step_is_saved_is_not_lost(whole, tmp_path, monkeypatch):
    """It comes after the loop has asked for the last time whether to stop."""
    save = loop.Checkpoints.save
    last = lambda step: step == OFF.steps and os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
    monkeypatch.setattr(loop.Checkpoints, "save", lambda self, step, *rest: (last(step), save(self, step, *rest))[1])
    assert run(tmp_path, OFF) == PREEMPTED and not (tmp_path / "result.json").exists()
    monkeypatch.undo()
    assert run(tmp_path, OFF) == 0
    assert_same_run(tmp_path, whole)


# ---- a step that does not end ----------------------------------------------------------------------------------------


def test_a_stuck_loader_is_noticed_and_the_stacks_are_kept(whole, tmp_path, monkeypatch):
    """The loader waits until the watchdog, in the place of ending the process, has said with which code it would."""
    ended, codes = threading.Event(), []
    monkeypatch.setattr(watchdog.os, "_exit", lambda code: (codes.append(code), ended.set(), threading.Event().wait(1)))

    def stuck_loader() -> None:
        assert ended.wait(60), "nobody noticed"
        raise Killed

    at_step(monkeypatch, 9, stuck_loader)
    with pytest.raises(Killed):
        run(tmp_path, OFF, stuck_after=0.01)
    assert codes[0] == STUCK == 76
    text = (tmp_path / "stuck-0.txt").read_text()
    assert "for the batch of step 9 and ends with code 76" in text and "in stuck_loader" in text
    monkeypatch.undo()
    (tmp_path / "stuck-0.txt").unlink()
    assert run(tmp_path, OFF) == 0
    assert_same_run(tmp_path, whole)


def test_compiling_and_evaluating_may_take_as_long_as_they_like(tmp_path, monkeypatch):
    """What is waited for at each slow call: nothing with a limit."""
    waits = []

    class Seen(Watchdog):
        def __init__(self, *_):
            super().__init__(tmp_path, 60.0)
            seen.append(self)

    seen: list[Watchdog] = []
    monkeypatch.setattr(loop, "Watchdog", Seen)
    for name in ("validate", "draw", "finish"):
        old = getattr(Quick, name)
        spy = lambda self, run, old=old, name=name: (waits.append((name, seen[0]._waits)), old(self, run))[1]  # noqa: E731
        monkeypatch.setattr(Quick, name, spy)
    first, step = [], program().step
    slow = dataclasses.replace(program(), step=lambda *args: (first.append(seen[0]._waits), step(*args))[1])
    launch = Launch(workdir=tmp_path, devices=1, tensorboard=False)
    assert loop.train(slow, [TINY], [tmp_path], launch, Quick()) == 0
    assert first[0] is None and all(waited is not None for waited in first[1:])
    assert {name for name, _ in waits} == {"validate", "draw", "finish"}
    assert all(waited is None for name, waited in waits if name != "finish")


# ---- two processes, one folder ---------------------------------------------------------------------------------------


def test_whatever_writes_a_folder_that_another_process_writes_is_refused(whole, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file() and path.name != ".lock"}
    script = ROOT / "experiments" / "vae_digits.py"
    with lock(whole):
        for command in (
            lambda: run(whole, OFF),
            lambda: run(whole, dataclasses.replace(OFF, steps=20)),
            lambda: train(OFF, vae.FAMILY, Launch(workdir=whole, devices=1)),
            lambda: evaluate_run(whole, script, samples=20),
            lambda: make_map([read_experiment(script)], whole, **{"samples": 20, "features": "own"} | MAP),
        ):
            with pytest.raises(Busy, match=f"process {os.getpid()} "):
                command()
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_what_a_kill_left_is_removed_by_the_next_command_of_a_finished_run_too(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / ".evaluation-abc").mkdir()
    (folder / ".evaluation-abc" / "card.json").write_text("{")
    (folder / "result.tmp").write_text("{")
    assert run(folder, OFF) == 0
    assert names(folder) == names(whole)


# ---- W&B -------------------------------------------------------------------------------------------------------------


def test_a_run_keeps_its_wandb_id_and_shares_it_with_no_other(tmp_path, monkeypatch):
    import sys
    import types

    seen = []
    fake = types.ModuleType("wandb")
    fake.init = lambda **options: seen.append(options["id"]) or types.SimpleNamespace(finish=lambda: None)
    monkeypatch.setitem(sys.modules, "wandb", fake)

    def open_and_close(folder: Path, step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        logs.Metrics(folder, step, 10, name="x", tensorboard=False, wandb=True, config={}).close()

    for seed in ("seed0", "seed1"):
        open_and_close(tmp_path / seed / "vae", 0)
    open_and_close(tmp_path / "seed0" / "vae", 5)
    shutil.rmtree(tmp_path / "seed0")
    open_and_close(tmp_path / "seed0" / "vae", 0)
    a, b, again, anew = seen
    assert a == again and len({a, b, anew}) == 3
