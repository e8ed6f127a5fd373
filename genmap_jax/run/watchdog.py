"""A step that does not end is noticed: a peer that hangs, a loader that waits for ever, a disk that takes no more."""

import faulthandler
import os
import socket
import sys
import threading
import time
from pathlib import Path

import jax

from genmap_jax.run.launch import STUCK


class Watchdog:
    """Ends the process with code STUCK if it waits for one thing longer than a limit.

        with Watchdog(folder, minutes) as waits_for:
            waits_for("step 7")
            ...
            waits_for(None)  # compiling or evaluating: this may take as long as it likes

    What was waited for, and the stacks of all threads, are written to FOLDER/stuck-PROCESS.txt and to stderr.
    """

    def __init__(self, folder: Path, minutes: float):
        self.file, self.seconds = folder / f"stuck-{jax.process_index()}.txt", 60.0 * minutes
        self._waits: tuple[float, str] | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()

    def __call__(self, what: str | None) -> None:
        """What is waited for from now on; None for something that has no limit."""
        self._waits = None if what is None else (time.monotonic(), what)

    def _watch(self) -> None:
        while not self._done.wait(min(1.0, self.seconds / 4)):
            waits = self._waits
            if waits and time.monotonic() - waits[0] > self.seconds:
                self._end(waits[1])

    def _end(self, what: str) -> None:
        said = (
            f"process {os.getpid()} on {socket.gethostname()} has waited {self.seconds / 60:.3g} min for {what} and "
            f"ends with code {STUCK}. The last checkpoint is intact: run the same command again. Stacks: {self.file}"
        )
        print(f"error: {said}", file=sys.stderr, flush=True)
        try:
            with self.file.open("a") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S %z')}: {said}\n")
                file.flush()
                faulthandler.dump_traceback(file)
        except OSError:  # perhaps the very disk that is full
            faulthandler.dump_traceback(sys.stderr)
        os._exit(STUCK)  # nothing else: whatever hangs would hang the ordinary end too
