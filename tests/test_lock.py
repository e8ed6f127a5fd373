"""One process writes a folder at a time; the lock dies with its process, and so does what a killed process left."""

import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from genmap_jax import lock as locks
from genmap_jax.data.folders import scratch
from genmap_jax.lock import Busy, lock

HOLDER = """
import sys, time
from pathlib import Path
from genmap_jax.lock import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""
FILLER = """
import sys, time
from pathlib import Path
from genmap_jax.data.folders import scratch
with scratch(Path(sys.argv[1])) as folder:
    print(folder, flush=True)
    time.sleep(600)
"""


def other(code: str, folder: Path) -> tuple[subprocess.Popen, str]:
    """A process that runs `code` with a folder, and the first line it prints."""
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
    return process, process.stdout.readline().strip()


def kill(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()


def test_the_refusal_names_host_process_and_command_and_a_kill_frees_the_lock(tmp_path):
    process, _ = other(HOLDER, tmp_path)
    try:
        with pytest.raises(Busy) as refused, lock(tmp_path):
            pass
        for word in (str(tmp_path), f"process {process.pid} ", socket.gethostname(), "-c"):
            assert word in str(refused.value)
    finally:
        kill(process)
    with lock(tmp_path):
        assert f"process {os.getpid()} " in (tmp_path / locks.NAME).read_text()


def test_a_stopped_process_still_holds_its_lock(tmp_path):
    process, _ = other(HOLDER, tmp_path)
    process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(Busy), lock(tmp_path):
            pass
    finally:
        kill(process)


def test_a_child_of_the_holder_does_not_keep_the_lock(tmp_path):
    """Else an orphan would: the descriptor of the lock is closed in whatever program the holder starts."""
    with lock(tmp_path):
        code = "import time; print('here', flush=True); time.sleep(600)"
        child = subprocess.Popen([sys.executable, "-c", code], close_fds=False, stdout=subprocess.PIPE)
        child.stdout.readline()
    try:
        with lock(tmp_path):
            pass
    finally:
        kill(child)


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    for path in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "nowhere"):
        with pytest.raises(ValueError, match=str(path)), lock(path):
            pass


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, caplog):
    def unable(number):
        def flock(*_):
            raise OSError(number, os.strerror(number))

        return flock

    monkeypatch.setattr(locks.fcntl, "flock", unable(errno.ENOLCK))
    with lock(tmp_path):
        assert f"{tmp_path} lies on a file system without locks" in caplog.text
    monkeypatch.setattr(locks.fcntl, "flock", unable(errno.EIO))
    with pytest.raises(OSError, match="put/output"), lock(tmp_path):
        pass


def test_what_a_killed_process_was_building_is_removed_and_what_a_living_one_builds_is_not(tmp_path):
    killed, left = other(FILLER, tmp_path)
    living, kept = other(FILLER, tmp_path)
    try:
        assert Path(left).is_dir() and Path(kept).is_dir()
        kill(killed)
        with scratch(tmp_path) as mine:
            assert mine.is_dir() and Path(kept).is_dir() and not Path(left).exists()
        assert not mine.exists()
    finally:
        kill(killed)
        kill(living)
