"""Several processes of one run: bad input met by the first ends all, and the loss of one is told by the others."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from genmap_jax.files import write_json
from genmap_jax.lock import lock
from genmap_jax.run import processes
from genmap_jax.run.launch import BAD_INPUT, PREEMPTED
from genmap_jax.run.processes import Peers

ROOT = Path(__file__).parents[1]


@pytest.fixture
def first_of_two(monkeypatch):
    """This process is number 0 of two; in the place of ending it says with which code it would."""
    codes: list[int] = []
    ended = threading.Event()
    monkeypatch.setattr(processes.jax, "process_index", lambda: 0)
    monkeypatch.setattr(processes.jax, "process_count", lambda: 2)
    monkeypatch.setattr(processes, "by_first", lambda do: do())
    monkeypatch.setattr(processes.os, "_exit", lambda code: (codes.append(code), ended.set()))
    return codes, ended


@pytest.mark.parametrize(
    ("sign", "code", "says"),
    [
        ({"ended": None, "why": ""}, PREEMPTED, "process 1 (number 7 on node2) is lost: no sign of it for"),
        ({"ended": 3, "why": ""}, 3, "process 1 (number 7 on node2) ended with 3"),
        ({"ended": PREEMPTED, "why": "process 5 is lost"}, PREEMPTED, "process 5 is lost"),
    ],
)
def test_a_lost_process_is_named_and_its_own_code_is_passed_on(sign, code, says, first_of_two, tmp_path, capsys):
    codes, ended = first_of_two
    (tmp_path / processes.FOLDER).mkdir()
    write_json(tmp_path / processes.FOLDER / "1.json", {"beat": 4, "who": "number 7 on node2"} | sign)
    with Peers(tmp_path, every=0.01, patience=0.1):
        assert ended.wait(60)
    assert codes[0] == code and says in capsys.readouterr().err
    assert json.loads((tmp_path / processes.FOLDER / "0.json").read_text())["who"].endswith(socket.gethostname())


def test_a_process_that_gives_signs_has_not_begun_or_has_finished_is_not_lost(first_of_two, tmp_path):
    codes, _ = first_of_two
    other = tmp_path / processes.FOLDER / "1.json"
    with Peers(tmp_path, every=0.01, patience=0.3):
        time.sleep(0.6)
        for beat in range(30):
            write_json(other, {"beat": beat, "who": "", "ended": None, "why": ""})
            time.sleep(0.02)
        write_json(other, {"beat": 31, "who": "", "ended": 0, "why": ""})
        time.sleep(0.6)
    assert not codes


# ---- for real --------------------------------------------------------------------------------------------------------

EAGER = """
import functools, runpy, sys
from genmap_jax.commands import train
train.Peers = functools.partial(train.Peers, every=0.5, patience=8.0)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Two:
    """Two processes of one run on this machine."""

    def __init__(self, folder: Path):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        flags = ["--workdir", str(folder / "run"), "--platform", "cpu", "--devices", "1", "--steps", "1000000"]
        flags += ["--log-every", "5", "--save-every", "10", "--eval-every", "1000000", "--sample-every", "1000000"]
        command = [sys.executable, "-c", EAGER, str(ROOT / "experiments/vae_digits.py"), *flags, "--no-tensorboard"]
        self.run, self.jobs, self.errors = folder / "run", [], [folder / "0.err", folder / "1.err"]
        for i, path in enumerate(self.errors):
            here = {"GENMAP_COORDINATOR": f"127.0.0.1:{port}", "GENMAP_NUM_PROCESSES": "2", "GENMAP_PROCESS_ID": str(i)}
            with path.open("w") as error:
                self.jobs.append(subprocess.Popen(command, env=os.environ | here, stdout=error, stderr=error))

    def said(self) -> str:
        return "\n".join(path.read_text() for path in self.errors)

    def until_it_trains(self) -> None:
        rows, deadline = self.run / "metrics.jsonl", time.monotonic() + 180
        while not (rows.exists() and len(rows.read_text().splitlines()) > 3):
            assert all(job.poll() is None for job in self.jobs) and time.monotonic() < deadline, self.said()
            time.sleep(0.2)

    def end(self) -> None:
        for job in self.jobs:
            job.kill()
            job.wait()


@pytest.fixture
def two(tmp_path):
    started = []
    yield lambda: started.append(Two(tmp_path)) or started[-1]
    for each in started:
        each.end()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("lost", [1, 0])
def test_the_survivor_of_a_lost_process_says_which_and_ends_as_preempted(number, lost, two):
    both = two()
    both.until_it_trains()
    both.jobs[lost].send_signal(number)
    survivor = both.jobs[1 - lost]
    code = survivor.wait(120)
    if lost == 0 and number == signal.SIGKILL:  # JAX aborts at once, before anybody could say anything
        assert code in (PREEMPTED, -signal.SIGABRT)
        return
    assert code == PREEMPTED, both.said()
    said = both.errors[1 - lost].read_text()
    assert f"process {lost} (number {both.jobs[lost].pid} on {socket.gethostname()}) is lost" in said


@pytest.mark.slow
def test_a_folder_that_is_written_is_refused_by_both(two, tmp_path):
    (tmp_path / "run").mkdir()
    with lock(tmp_path / "run"):
        both = two()
        codes = [job.wait(180) for job in both.jobs]
    assert codes == [BAD_INPUT, BAD_INPUT], both.said()
    assert all(f"process {os.getpid()} " in path.read_text() for path in both.errors)
