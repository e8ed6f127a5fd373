"""Where a list of runs is executed: here, as a SLURM job array, or on a Ray cluster. Engines that exist, no scheduler.

A run is a command line of Python arguments, complete in itself: it trains in a run folder of its own and goes on where
it was stopped. So the same list can be executed anywhere, twice, or half here and half there.
"""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from genmap_jax.run.launch import PREEMPTED, STUCK
from genmap_jax.run.preemption import PARENT

ARRAY = """\
#!/bin/bash
# One run of {jobs} in each task; written by --executor slurm. Options of sbatch come from SBATCH_* variables.
#SBATCH --job-name=genmap
#SBATCH --array=1-{count}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@60
#SBATCH --output={folder}/slurm-%A_%a.log
cd {here} || exit 2
eval "set -- $(sed -n "${{SLURM_ARRAY_TASK_ID}}p" {jobs})"
{python} "$@" &
child=$!
trap 'kill -TERM $child' TERM
wait $child; code=$?
if [ $code -gt 128 ]; then wait $child; code=$?; fi  # the trap interrupted the wait: the run is still saving
# 143: SIGTERM came while Python started
if [ $code -eq {preempted} ] || [ $code -eq {stuck} ] || [ $code -eq 143 ]; then
  scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}" && sleep 60
fi
exit $code
"""


@contextlib.contextmanager
def child_of_this(arguments: Sequence[str], here: str | None = None) -> Iterator[subprocess.Popen]:
    """A run in a Python process of its own, which saves and ends when this process is gone, however it ended."""
    end, ours = os.pipe()  # the child waits for the end of what it reads here, see `preemption.end_with_parent`
    try:
        environment = os.environ | {PARENT: str(end)}
        child = subprocess.Popen([sys.executable, *arguments], cwd=here, env=environment, pass_fds=(end,))
    finally:
        os.close(end)
    try:
        yield child
    finally:
        os.close(ours)


def run_here(arguments: Sequence[str]) -> int:
    """Run and wait: the child gets our SIGTERM, and Ctrl-C by itself; it saves and says how it ended."""
    with child_of_this(arguments) as child:
        before = signal.signal(signal.SIGTERM, lambda number, _frame: child.send_signal(number))
        interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            code = child.wait()
        finally:
            signal.signal(signal.SIGTERM, before)
            signal.signal(signal.SIGINT, interrupt)
    return code if code >= 0 else 128 - code


def submit_to_slurm(jobs: Sequence[Sequence[str]], folder: Path) -> str:
    """Submit a job array, one task for each run, and return the number of the job.

    Written into `folder`, which all nodes must see: runs.txt, array.sbatch, and the log of every task. A task that is
    preempted saves and is queued again. Partition, time, GPUs and so on are given as environment variables of sbatch:
    SBATCH_PARTITION, SBATCH_TIMELIMIT, SBATCH_GPUS, SBATCH_ACCOUNT.
    Raises ValueError without SLURM, or with what sbatch says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "runs.txt").write_text("".join(shlex.join(arguments) + "\n" for arguments in jobs))
    script = ARRAY.format(
        jobs=shlex.quote(str(folder / "runs.txt")),
        count=len(jobs),
        folder=folder,
        here=shlex.quote(str(Path.cwd())),
        python=shlex.quote(sys.executable),
        preempted=PREEMPTED,
        stuck=STUCK,
    )
    (folder / "array.sbatch").write_text(script)
    try:
        command = ["sbatch", "--parsable", str(folder / "array.sbatch")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ValueError("--executor slurm: there is no sbatch here; submit from a login node") from error
    if done.returncode:
        raise ValueError(f"--executor slurm: sbatch refused the job: {done.stderr.strip()}")
    return done.stdout.strip().split(";")[0]


def run_on_ray(jobs: Sequence[Sequence[str]]) -> list[int]:
    """Run all on the Ray cluster at hand (RAY_ADDRESS, or one started on this machine) and return their exit codes.

    Every run is a process of its own that takes one GPU where the cluster has any, else one CPU. Run folders must lie
    on a disk that all nodes see.
    Raises ValueError without Ray.
    """
    try:
        import ray
    except ImportError as error:
        raise ValueError('--executor ray: Ray is not installed; pip install "genmap_jax[ray]"') from error
    started = not ray.is_initialized()
    if started:
        ray.init(log_to_driver=True, include_dashboard=False)
    gpus = ray.cluster_resources().get("GPU", 0)

    @ray.remote(num_cpus=1, num_gpus=1 if gpus else 0, max_retries=2)  # a lost node: the run goes on elsewhere
    def run(arguments: list[str], here: str) -> int:
        with child_of_this(arguments, here) as child:
            return child.wait()

    try:
        return ray.get([run.remote(list(arguments), str(Path.cwd())) for arguments in jobs])
    finally:
        if started:
            ray.shutdown()
