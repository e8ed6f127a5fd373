"""How fast a run is, how much of its devices it uses, and where its wall time goes, over all of its restarts."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genmap_jax.files import read_sound, write_json
from genmap_jax.peaks import peak_flops

if TYPE_CHECKING:  # listing runs must not wait for JAX
    import jax

KINDS = ("start", "compile", "data", "step", "evaluation", "saving")
"""What wall time is spent on: imports, data and the first state; the first step, which compiles; batches for which the
devices had to wait; steps; everything of an observer, its own compilation included; checkpoints."""
SPEEDS = ("seconds", "steps_per_second", "examples_per_second", "tflops_per_device", "utilisation", "peak_gib")
"""What a row of metrics.jsonl says of the machine: it differs between two runs of one command."""
_began: float | None = time.perf_counter()  # of the process, near enough; None once a clock has counted from it


def speeds(steps_per_second: float, batch_size: int, flops: int, mesh: jax.sharding.Mesh) -> dict[str, float]:
    """Entries of a row. flops: of one update, all devices together.

    Utilisation is of the peak that `peaks` has for dense products in bfloat16, and left out for other devices; so is
    the most memory that has been in use on a device of this process, where devices do not tell.
    """
    each = flops * steps_per_second / mesh.size
    row = {"steps_per_second": steps_per_second, "examples_per_second": steps_per_second * batch_size}
    row["tflops_per_device"] = each / 1e12
    if peak := peak_flops(mesh.devices.flat[0].device_kind):
        row["utilisation"] = each / peak
    told = [device.memory_stats() or {} for device in mesh.local_devices]
    if most := max(stats.get("peak_bytes_in_use", 0) for stats in told):
        row["peak_gib"] = most / 2**30
    return row


class Clock:
    """The wall time of a process that trains: every moment is of one kind. Kept in time.json of the run folders."""

    def __init__(self, folders: Iterable[Path], step: int):
        """step: the one that training goes on from. The first clock of a process counts from its start."""
        global _began
        self._files = [folder / "time.json" for folder in folders]
        self._before = [_sessions(file) for file in self._files]
        self._first, self._seconds = step, dict.fromkeys(KINDS, 0.0)
        self._kind, self._since = "start", time.perf_counter() if _began is None else _began
        _began = None

    def turn(self, kind: str, was: str | None = None) -> None:
        """From now on time is of this kind. was: of what kind it has been since the last turn, if that is known now."""
        now = time.perf_counter()
        self._seconds[was or self._kind] += now - self._since
        self._kind, self._since = kind, now

    def write(self, step: int) -> None:
        """Keep what has been counted up to a step, beside that of the processes before."""
        self.turn(self._kind)
        mine = {"first": self._first, "last": step, "seconds": self._seconds}
        for file, before in zip(self._files, self._before, strict=True):
            write_json(file, {"sessions": [*before, mine]})


def time_spent(folder: Path) -> dict[str, float]:
    """Seconds of every kind in a run folder, and "lost": of steps that were made again after a restart.

    Lost time is known up to the last time that a killed process wrote. Empty for a run that was never timed.
    """
    sessions = _sessions(folder / "time.json")
    total: dict[str, float] = dict.fromkeys((*KINDS, "lost"), 0.0) if sessions else {}
    for i, session in enumerate(sessions):
        first, last = session["first"], session["last"]
        kept = min([last, *(later["first"] for later in sessions[i + 1 :])])
        again = (last - max(kept, first)) / max(1, last - first)
        for kind, seconds in session["seconds"].items():
            lost = seconds * again if kind == "step" else 0.0
            total[kind] = total.get(kind, 0.0) + seconds - lost
            total["lost"] += lost
    return total


def last_speeds(rows: Iterable[dict[str, Any]]) -> dict[str, float]:
    """What the newest of the rows of metrics.jsonl that have them says of speed; nothing before the first."""
    rows = [row for row in rows if "examples_per_second" in row]
    return {name: rows[-1][name] for name in SPEEDS[1:] if name in rows[-1]} if rows else {}


def _sessions(file: Path) -> list[dict[str, Any]]:
    return (read_sound(file) or {}).get("sessions", [])
