"""Several processes of one run: what the first does for all, and how the others end when one of them is lost."""

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from genmap_jax.files import write_json
from genmap_jax.run.launch import PREEMPTED, exit_code

FOLDER = ".processes"
SAID = 2000  # bytes of a message between processes


def by_first(do: Callable[[], Any]) -> None:
    """Process 0 does it, the others wait. Bad input that it meets is raised by all: none is left waiting for it."""
    if jax.process_count() == 1:
        do()
        return
    said = ""
    if jax.process_index() == 0:
        try:
            do()
        except (ValueError, OSError) as error:
            said = str(error) or repr(error)
    mine = np.frombuffer(said.encode()[:SAID].ljust(SAID, b"\0"), np.uint8)
    told = np.asarray(multihost_utils.broadcast_one_to_all(mine)).tobytes().rstrip(b"\0")
    if told:
        raise ValueError(told.decode(errors="replace"))


class Peers:
    """Ends this process, which cannot go on alone, soon after another of the run is lost, and says which.

    Every process writes a sign of life into the run folder, which all of them see. Process 0 reads those of the others,
    and they read what it says. A process of which there is no sign any more counts as lost: code PREEMPTED, for the
    same command goes on. One that said with which code it ends takes the others with it, with the same code. JAX's own
    answer comes later (see `launch.start_devices`), and is an abort.
    """

    def __init__(self, folder: Path, every: float = 5.0, patience: float = 90.0):
        """`every`: seconds between signs. `patience`: seconds without one; network file systems may hide it a while."""
        self.folder, self.every, self.patience = folder / FOLDER, every, patience
        self.me, self.count = jax.process_index(), jax.process_count()
        self._beat = 0
        self._seen: dict[int, tuple[str, float]] = {}  # the last sign of a process, and when it was new
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peers", daemon=True)

    def __enter__(self):
        if self.count > 1:
            by_first(lambda: self.folder.mkdir(exist_ok=True))
            self._thread.start()
        return self

    def __exit__(self, _kind, error, _trace):
        if self.count == 1:
            return
        if isinstance(error, RuntimeError) and exit_code(error) == 1:  # as when the connection to a lost peer breaks
            print(f"error: {error}\nIf a process was lost, this is known in {self.patience:.0f} s.", file=sys.stderr)
            self._done.wait(self.patience + 3 * self.every)
        self._done.set()
        self._thread.join()
        self._sign(0 if error is None else exit_code(error))
        if error is not None and self.me == 0:
            time.sleep(2 * self.every)  # when it is gone JAX aborts the others: they must have read why

    def _watch(self) -> None:
        while not self._done.wait(self.every):
            self._sign()
            for other in range(1, self.count) if self.me == 0 else [0]:
                self._look_at(other)

    def _look_at(self, other: int) -> None:
        with contextlib.suppress(OSError):
            text = (self.folder / f"{other}.json").read_text()
            if text != self._seen.get(other, ("", 0.0))[0]:
                self._seen[other] = text, time.monotonic()
        if other not in self._seen:  # it has not begun
            return
        text, when = self._seen[other]
        sign = json.loads(text)
        if sign["ended"]:
            self._leave(sign["ended"], sign["why"] or f"process {other} ({sign['who']}) ended with {sign['ended']}")
        if sign["ended"] is None and time.monotonic() - when > self.patience:
            self._leave(
                PREEMPTED,
                f"process {other} ({sign['who']}) is lost: no sign of it for {self.patience:.0f} s. "
                "Run the same command again to go on from the last checkpoint.",
            )

    def _sign(self, ended: int | None = None, why: str = "") -> None:
        self._beat += 1
        who = f"number {os.getpid()} on {socket.gethostname()}"
        with contextlib.suppress(OSError):
            path = self.folder / f"{self.me}.json"
            write_json(path, {"beat": self._beat, "who": who, "ended": ended, "why": why})

    def _leave(self, code: int, why: str) -> NoReturn:
        self._sign(code, why)
        print(f"error: {why}", file=sys.stderr, flush=True)
        if self.me == 0:
            time.sleep(2 * self.every)
        os._exit(code)  # the main thread waits for a process that is not there
