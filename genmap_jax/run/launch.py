"""Where and how an experiment runs: flags that never change its result, devices, and the exit codes.

Exit codes: 0 finished, 1 unexpected, 2 bad input, 3 a metric or the state became NaN or infinite, 75 preempted by
SIGTERM after saving (run the same command again), 130 interrupted by Ctrl-C after saving.
"""

import dataclasses
import os
from pathlib import Path
from typing import Literal

import jax

FINISHED, BAD_INPUT, NON_FINITE = 0, 2, 3
PREEMPTED, INTERRUPTED = 75, 130  # 75 is EX_TEMPFAIL of sysexits.h: run the same command again


@dataclasses.dataclass(frozen=True)
class Launch:
    """Where and how it runs. Nothing here changes the result."""

    workdir: Path | None = None
    """The run folder; an existing one is resumed. The default is runs/NAME."""
    devices: int | None = None
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
    budget: float | None = None
    """Training takes at most so many minutes: the first steps are timed and, if need be, `steps` is lowered to fit and
    the schedules are shortened with it. A resumed run keeps its first answer."""
    dry_run: bool = False
    """The resolved config, the parameter count and the shapes are printed, and nothing is trained."""


def start_devices(launch: Launch) -> None:
    """Choose the platform, emulate devices and join other processes: before the first device call, and only here."""
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
