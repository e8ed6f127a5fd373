"""Checkpoints: asynchronous and atomic (Orbax), verified by a checksum of our own, newest good one restored.

Orbax ignores half-written checkpoints, but it loads flipped bytes without complaint and still names a truncated
checkpoint as the latest. So every save carries one checksum per leaf, and `restore` moves a checkpoint that does not
read back or does not verify out of the way and takes the one before it.

A checkpoint holds {"state": every leaf of the state, "meta": {"checksums": {leaf: uint32}, "notes": JSON}}, as global
arrays: it restores on any number of devices and processes.
"""

import contextlib
import logging
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from genmap_jax.run.logs import NonFinite

log = logging.getLogger(__name__)


class Damaged(ValueError):
    """No checkpoint of a folder that has some could be restored."""


class OtherState(ValueError):
    """A checkpoint is sound but holds another state than the one asked for."""


class Checkpoints:
    """The checkpoints of one run folder."""

    def __init__(self, folder: Path, keep: int = 3, read_only: bool = False):
        """`read_only`: nothing in the folder is changed, so that a run may be looked at while it trains."""
        self.folder = Path(folder).absolute()  # Orbax reports a relative path only in a background thread's log
        self.keep, self.read_only = keep, read_only
        self._damaged = self.folder.parent / "damaged"
        _told_once()
        self._open()

    def _open(self) -> None:
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.LatestN(self.keep),
                enable_async_checkpointing=True,
                cleanup_tmp_directories=not self.read_only,  # they may be those of a process that is saving now
                create=not self.read_only,
            ),
        )

    def steps(self) -> list[int]:
        """Steps with a complete checkpoint, newest first."""
        return sorted(self._manager.all_steps(), reverse=True)

    def forget_after(self, step: int) -> None:
        """Remove the checkpoints of later steps."""
        for later in [found for found in self.steps() if found > step]:
            self._manager.delete(later)

    def save(self, step: int, state: Any, notes: Any = None) -> None:
        """Start saving and return once the state may be overwritten. notes: JSON values to keep beside it.

        Raises NonFinite, keeping what was there; OSError if this save or the one before cannot be written.
        """
        if step in self._manager.all_steps():
            return
        sums, finite = jax.device_get(_fingerprint(state))
        names = _names(state)
        bad = [name for name, ok in zip(names, finite, strict=True) if not ok]
        if bad:
            raise NonFinite(f"step {step}: NaN or infinity in the state ({', '.join(bad[:3])}{', …' * (len(bad) > 3)})")
        meta = {"checksums": {name: int(s) for name, s in zip(names, sums, strict=True)}, "notes": notes}
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        with self._writing():
            saved = self._manager.save(step, args=args, force=True)
        if not saved:
            raise RuntimeError(
                f"Orbax refused to save step {step} in {self.folder}, which already has steps {self.steps()}"
            )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """A disk that is full or may not be written: one line in the place of TensorStore's page."""
        try:
            yield
        except Exception as error:
            found = re.search(r"No space left on device|Disk quota exceeded|Read-only file system|Permission denied",
                              f"{error} {error.__cause__}")  # fmt: skip
            if found is None:
                raise
            raise OSError(f"{found[0]}: a checkpoint cannot be written to {self.folder}") from error

    def notes(self, step: int) -> Any:
        """What was given to `save` beside the state of this step."""
        return self._meta(step).get("notes")

    def _meta(self, step: int) -> dict[str, Any]:
        return self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta

    def restore(self, like: Any) -> tuple[int, Any] | None:
        """(step, state) of the newest checkpoint that verifies, in the layout of `like`; None when there is none.

        like: `jax.ShapeDtypeStruct`s with shardings. Checkpoints that fail are left out with a warning each, and moved
        to `damaged/` beside the folder unless `read_only`. Raises Damaged when there are or were some and none is good,
        OtherState when `like` is another one.
        """
        self.check_there()
        damaged = False
        for step in self.steps():
            try:
                state = self.at(step, like)
            except OtherState:
                raise
            except Exception as error:  # Orbax and TensorStore raise bare exceptions for damaged files
                reason = str(error).strip().splitlines()[0][:200]
                log.warning("the checkpoint %s is damaged and is not used: %s", self.folder / str(step), reason)
                damaged = True
                if not self.read_only:
                    self._set_aside(step)
                continue
            return step, state
        if damaged:
            raise self._all_damaged()
        return None

    def check_there(self) -> None:
        """Raises Damaged if there were checkpoints, and all were set aside: such a run must not begin anew unasked."""
        if self._damaged.is_dir() and not self.steps():
            raise self._all_damaged()

    def _all_damaged(self) -> Damaged:
        aside = f" and were moved to {self._damaged}" if self._damaged.is_dir() else ""
        return Damaged(
            f"all checkpoints under {self.folder} are damaged{aside}: this run cannot go on. "
            f"Start again with another --workdir, or remove {self.folder.parent}."
        )

    def at(self, step: int, like: Any) -> Any:
        """The state of one step, in the layout of `like`. Raises OtherState, or RuntimeError if it does not verify."""
        return self._load(step, like, self._check_structure(step, like))

    def _check_structure(self, step: int, like: Any) -> dict[str, int]:
        """The stored checksums. A state of other leaves is the user's error, not damage: say so and touch nothing."""
        meta = self._meta(step)
        wanted, stored = set(_names(like)), set(meta["checksums"])
        if wanted != stored:
            raise OtherState(
                f"the checkpoint of step {step} under {self.folder} holds another state: "
                f"missing {sorted(wanted - stored)[:3]}, unexpected {sorted(stored - wanted)[:3]}. Did the code change?"
            )
        return meta["checksums"]

    def _load(self, step: int, like: Any, checksums: dict[str, int]) -> Any:
        try:
            state = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(like))).state
        except ValueError as error:
            if "shape" in str(error):
                raise OtherState(f"the checkpoint of step {step} under {self.folder}: {error}") from error
            raise
        bad = _mismatches(state, checksums)
        if bad:
            raise RuntimeError(f"checksum of {', '.join(bad[:3])}{', …' * (len(bad) > 3)} does not match")
        return state

    def _set_aside(self, step: int) -> None:
        """Out of Orbax's sight (it refuses to save a step older than the latest), but not lost."""
        self._manager.close()
        if jax.process_index() == 0:
            target = self._damaged / str(step)
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(exist_ok=True)
            shutil.move(self.folder / str(step), target)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(f"set aside {step}")
        self._open()

    def wait(self) -> None:
        """Until the last save is complete on disk."""
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Finish pending saves; without it an exit loses the last one."""
        try:
            self.wait()
        finally:
            with self._writing():
                self._manager.close()


def _told_once() -> None:
    """A save or a read that fails is raised here, in one line: leave out the pages that Orbax's threads write of it.

    They log the same error, and when one array of many fails, asyncio tells of each other one that its loop is closed.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_not_of_orbax)  # the same one twice is one
    before = sys.excepthook
    if getattr(before, "__name__", "") != "_not_of_a_closed_loop":

        def _not_of_a_closed_loop(kind: Any, error: Any, trace: Any) -> None:
            if str(error) != "Event loop is closed":
                before(kind, error, trace)

        sys.excepthook = _not_of_a_closed_loop


def _not_of_orbax(record: logging.LogRecord) -> bool:
    said = record.pathname, record.getMessage()  # OCDBT is what Orbax writes arrays into
    return record.levelno < logging.ERROR or not any("/orbax/" in text or "OCDBT" in text for text in said)


def _names(state: Any) -> list[str]:
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]


def _mismatches(state: Any, checksums: dict[str, int]) -> list[str]:
    sums = jax.device_get(_fingerprint(state)[0])
    return [name for name, s in zip(_names(state), sums, strict=True) if int(s) != checksums[name]]


@jax.jit
def _fingerprint(state: Any) -> tuple[list[jax.Array], list[jax.Array]]:
    """Per leaf: a uint32 checksum of its bits, and whether it is finite.

    Integer sums are exact in any order, so the checksum is the same for every layout and is computed where the data is.
    Each word has its own odd factor: no change of a single word goes unseen, and swapped words do not cancel.
    """

    def checksum(x: jax.Array) -> jax.Array:
        if x.dtype == jnp.bool_:
            x = x.astype(jnp.uint8)
        bits = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}[x.dtype.itemsize]
        words = jax.lax.bitcast_convert_type(x, bits).astype(jnp.uint32)
        index = jnp.zeros(words.shape, jnp.uint32)
        for axis, size in enumerate(words.shape):  # row-major index without a reshape, which would gather shards
            index = index * np.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
        factor = index * np.uint32(0x9E3779B1)  # mixed twice: factors linear in the index would miss swapped rows
        factor = (factor ^ (factor >> np.uint32(15))) * np.uint32(0x85EBCA77)
        return jnp.sum(words * ((factor ^ (factor >> np.uint32(13))) | np.uint32(1)), dtype=jnp.uint32)

    leaves = jax.tree.leaves(state)
    finite = [jnp.isfinite(x).all() if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.array(True) for x in leaves]
    return [checksum(x) for x in leaves], finite
