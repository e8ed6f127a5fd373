"""Lists of runs on engines that exist: command lines complete in themselves, SLURM's refusal, a local Ray cluster."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from genmap_jax.commands import executors
from genmap_jax.commands.ablation import _command

ROOT = Path(__file__).parents[1]


def test_a_run_of_a_table_is_a_command_of_its_own():
    argv = ["experiments/vae_digits.py", "--ablation", "all", "--seeds=3", "--model.latent", "4", "--workdir", "w"]
    command = _command([*argv, "--executor", "slurm", "--seed", "7"], "wide", 8, Path("w/wide-seed8"))
    script = str(Path("experiments/vae_digits.py").absolute())
    assert command == [script, "--model.latent", "4", "--variant", "wide", "--seed", "8", "--workdir", "w/wide-seed8"]


def test_slurm_is_asked_for_an_array_and_its_refusal_is_told(tmp_path, monkeypatch):
    called = []

    def sbatch(command, **_):
        called.append(command)
        return subprocess.CompletedProcess(command, 0 if len(called) == 1 else 1, "42;cluster\n", "no such partition")

    monkeypatch.setattr(executors.subprocess, "run", sbatch)
    jobs = [["a.py", "--name", "x y"], ["b.py"]]
    assert executors.submit_to_slurm(jobs, tmp_path) == "42"
    assert (tmp_path / "runs.txt").read_text() == "a.py --name 'x y'\nb.py\n"
    assert "#SBATCH --array=1-2" in (tmp_path / "array.sbatch").read_text()
    with pytest.raises(ValueError, match="no such partition"):
        executors.submit_to_slurm(jobs, tmp_path)


def test_without_slurm_the_flag_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="--executor slurm: there is no sbatch"):
        executors.submit_to_slurm([["a.py"]], tmp_path)


CHILD = """
import os, signal, sys, time
from genmap_jax.run.preemption import end_with_parent, stoppable
with stoppable():
    try:
        if sys.argv[1] == "late":  # the parent is gone before the child looks for it
            print(os.getpid(), flush=True)
            sys.stdin.readline()
        end_with_parent()
        if sys.argv[1] == "soon":
            print(os.getpid(), flush=True)
        time.sleep(600)
    finally:
        open(sys.argv[2], "w").write("saved")
"""


@pytest.mark.parametrize("when", ["soon", "late"])
def test_a_run_ends_saving_when_its_parent_is_killed(when, tmp_path):
    code = "import sys; from genmap_jax.commands.executors import run_here; run_here(['-c', *sys.argv[1:]])"
    parent = subprocess.Popen(
        [sys.executable, "-c", code, CHILD, when, str(tmp_path / "saved")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdin.close()
    deadline = time.monotonic() + 60
    while not (tmp_path / "saved").exists():
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            pytest.fail("the child outlives its parent")
        time.sleep(0.05)


@pytest.mark.slow
def test_an_ablation_on_a_ray_cluster(tmp_path):
    pytest.importorskip("ray")
    environment = os.environ | {"RAY_raylet_start_wait_time_s": "180"}  # a busy machine starts Ray slowly
    alone = "import ray; ray.init(include_dashboard=False); ray.shutdown()"
    started = subprocess.run([sys.executable, "-c", alone], env=environment, capture_output=True, text=True)
    if started.returncode:
        pytest.skip(f"Ray itself does not start on this machine: {started.stderr.strip().splitlines()[-1][:200]}")
    command = [sys.executable, "experiments/vae_digits.py", "--seeds", "2", "--executor", "ray", "--steps", "3"]
    command += ["--workdir", str(tmp_path), "--platform", "cpu", "--no-tensorboard"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "ablation.json").read_text())
    assert len(summary["table"]["baseline"]["likelihood"]) == 2 and "baseline" in done.stdout
