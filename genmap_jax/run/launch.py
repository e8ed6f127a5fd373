"""Where and how an experiment runs: flags that never change its result, devices, and the exit codes.

Exit codes, the same for an experiment, an ablation and `genmap map`:

    0    finished
    1    an unexpected error
    2    bad input, or a place that cannot be written (read-only, full): one line says which
    3    a metric or the state became NaN or infinite
    75   SIGTERM, or another process of the run was lost: run the same command again
    76   a step did not end (see --stuck-after): run the same command again
    130  Ctrl-C

In training, SIGTERM and the first Ctrl-C save this very step; at any other time, and at the second signal, they end the
process at once, and what was saved is intact. Before our code runs, while Python imports, a signal ends it as it ends
any program: 143 for SIGTERM, 130 for Ctrl-C. 134 with several processes: JAX aborted, since process 0 was lost.
"""

import dataclasses
import os
import re
from pathlib import Path
from typing import Literal

import jax

from genmap_jax import parallel
from genmap_jax.options import Count, Positive
from genmap_jax.run.logs import NonFinite

FINISHED, BAD_INPUT, NON_FINITE = 0, 2, 3
PREEMPTED, STUCK, INTERRUPTED = 75, 76, 130  # 75 is EX_TEMPFAIL of sysexits.h: run the same command again
HEARTBEAT = 300  # seconds until JAX aborts when a process is lost: `processes.Peers` is to tell it before, and better


@dataclasses.dataclass(frozen=True)
class Launch:
    """Where and how it runs. Nothing here changes the result."""

    workdir: Path | None = None
    """The run folder; an existing one is resumed. The default is runs/NAME."""
    devices: Count | None = None
    """The number of devices to use; the default is all. With --platform cpu so many are emulated in each process."""
    parallel: Literal["pmap", "mesh"] | None = None
    """The placement of the step. The default is pmap on several devices and a plain jit on one."""
    fsdp: bool = False
    """Parameters are sharded over devices too (mesh only)."""
    platform: str | None = None
    """The platform: cpu, gpu or tpu. The default is the best there is."""
    distributed: bool = False
    """This process joins the others that are found through SLURM, Open MPI or a TPU pod."""
    data_dir: Path | None = None
    """The folder of prepared datasets. The default is $GENMAP_DATA or ~/.cache/genmap_jax/data."""
    tensorboard: bool = True
    """Metrics are also written for TensorBoard."""
    wandb: bool = False
    """Metrics are also logged to Weights & Biases, which must be installed."""
    budget: Positive | None = None
    """Training takes at most so many minutes: the first steps are timed and, if need be, `steps` is lowered to fit and
    the schedules are shortened with it. A resumed run keeps its first answer."""
    stuck_after: Positive = 30.0
    """A training step that takes longer than so many minutes (not counting compilation and evaluation) is given up: the
    stacks of all threads are written to RUN/stuck-PROCESS.txt, and the exit code is 76."""
    profile: Count | None = None
    """So many steps are recorded, after ten that warm up: a trace of host and devices in RUN/profile, which TensorBoard
    with its profile plugin, XProf or Perfetto opens."""
    dry_run: bool = False
    """The resolved config, the parameter count and the shapes are printed, all that a start checks is checked, data and
    devices too, and nothing is trained."""


def start_devices(launch: Launch) -> None:
    """Choose the platform, emulate devices and join other processes: before the first device call, and only here.

    Raises ValueError for a platform that is not there, or for processes that cannot be joined.
    """
    if launch.platform is not None:
        jax.config.update("jax_platforms", {"gpu": "cuda"}.get(launch.platform, launch.platform))
    if launch.platform == "cpu" and launch.devices:
        jax.config.update("jax_num_cpu_devices", launch.devices)
    coordinator, number, of = (os.environ.get(f"GENMAP_{k}") for k in ("COORDINATOR", "PROCESS_ID", "NUM_PROCESSES"))
    if coordinator:
        if not (number or "").isdigit() or not (of or "").isdigit() or not int(number or 0) < int(of or 0):
            raise ValueError(
                f"GENMAP_COORDINATOR={coordinator} needs GENMAP_NUM_PROCESSES ({of}) and GENMAP_PROCESS_ID ({number}), "
                "counted from 0, beside it"
            )
        if not re.fullmatch(r".+:\d+", coordinator):
            raise ValueError(f"GENMAP_COORDINATOR={coordinator}: give host and port of process 0, as node1:12355")
        jax.distributed.initialize(coordinator, int(of or 0), int(number or 0), heartbeat_timeout_seconds=HEARTBEAT)
    elif launch.distributed:
        try:
            jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT)
        except ValueError as error:
            raise ValueError("--distributed: this is no job of SLURM, Open MPI or a TPU pod that JAX knows") from error
    elif given := [name for name in ("GENMAP_NUM_PROCESSES", "GENMAP_PROCESS_ID") if os.environ.get(name)]:
        raise ValueError(f"{given[0]}={os.environ[given[0]]} needs GENMAP_COORDINATOR beside it, or unset it")
    parallel.available()


def exit_code(error: BaseException) -> int:
    """The exit code of a run that ends with this error."""
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code
    if isinstance(error, NonFinite):
        return NON_FINITE
    return BAD_INPUT if isinstance(error, ValueError | OSError) else 1
