"""launch/slurm.sbatch on a real SLURM of two nodes, both on this machine: preempted, requeued, resumed, finished."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue")
NODES = ("genmap-node1", "genmap-node2")
HOSTS = Path("/etc/hosts")
HOSTS_LINE = f"127.0.0.1 {' '.join(NODES)} # tests/test_slurm.py\n"

missing = [name for name in PROGRAMS if shutil.which(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing), reason=f"SLURM is not installed (no {', '.join(missing)})"),
    pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can start SLURM's daemons"),
]

CONF = """\
ClusterName=genmap
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={here}/munge.socket
CryptoType=crypto/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
ReturnToService=2
FirstJobId={first}
SlurmctldPidFile={here}/slurmctld.pid
SlurmdPidFile={here}/slurmd-%n.pid
SlurmdSpoolDir={here}/spool-%n
StateSaveLocation={here}/state
SlurmctldLogFile={here}/slurmctld.log
SlurmdLogFile={here}/slurmd-%n.log
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=2
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=5
NodeName={nodes[0]} NodeHostName={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 State=UNKNOWN
NodeName={nodes[1]} NodeHostName={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=5 State=UP PriorityTier=10 GraceTime=30 PreemptMode=REQUEUE
PartitionName=urgent Nodes=ALL MaxTime=5 State=UP PriorityTier=100 PreemptMode=OFF
"""


def slurm(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def until(true, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.2)


def free_ports(n: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@pytest.fixture
def cluster(monkeypatch):
    """Two idle nodes; daemons, jobs and the names of the nodes are gone afterwards."""
    here = Path(tempfile.mkdtemp(dir="/tmp"))  # not tmp_path: the paths of sockets must be short
    (here / "state").mkdir()
    conf, key = here / "slurm.conf", here / "munge.key"
    host = socket.gethostname().split(".")[0]
    # JAX takes its port from the job's number: another cluster on this machine should count from elsewhere.
    conf.write_text(CONF.format(host=host, here=here, ports=free_ports(3), nodes=NODES, first=1 + os.getpid() % 4000))
    key.touch(0o600)
    key.write_bytes(os.urandom(1024))
    monkeypatch.setenv("SLURM_CONF", str(conf))
    munge = ["--force", f"--key-file={key}", f"--socket={here}/munge.socket", f"--pid-file={here}/munged.pid"]
    commands = [
        ["munged", "--foreground", *munge, f"--log-file={here}/munged.log", f"--seed-file={here}/munged.seed"],
        ["slurmctld", "-D", "-c", "-f", str(conf)],
        *(["slurmd", "-D", "-N", node, "-f", str(conf)] for node in NODES),
    ]
    with HOSTS.open("a") as hosts:  # JAX looks the first node up by name
        hosts.write(HOSTS_LINE)
    daemons = []
    try:
        with (here / "daemons.log").open("w") as log:
            for command in commands:
                daemons.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
                if command[0] == "munged":
                    until((here / "munge.socket").exists, 10, "munged is up")

        def idle() -> bool:
            done = subprocess.run(["sinfo", "-h", "-N", "-o", "%t"], capture_output=True, text=True, timeout=20)
            return set(done.stdout.split()) == {"idle"}

        until(idle, 30, "both nodes are idle")
        yield
    finally:
        try:
            subprocess.run(["scancel", "--signal=KILL", "--full", "--user=root"], timeout=20)
            subprocess.run(["scancel", "--user=root"], timeout=20)
            until(lambda: not slurm("squeue", "-h"), 20, "no job is left")
        finally:
            for daemon in reversed(daemons):
                daemon.terminate()
                try:
                    daemon.wait(10)
                except subprocess.TimeoutExpired:
                    daemon.kill()
            HOSTS.write_text(HOSTS.read_text().replace(HOSTS_LINE, "", 1))
            shutil.rmtree(here)


@pytest.fixture
def checkout(tmp_path) -> Path:
    """This checkout, whose .venv is the Python that runs the tests: the scripts install nothing."""
    path = tmp_path / "checkout"
    (path / ".venv/bin").mkdir(parents=True)
    for name in ("genmap_jax", "experiments", "pyproject.toml", "constraints.txt"):
        (path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "launch", path / "launch")  # not a link: env.sh finds the checkout from where it lies
    (path / ".venv/lib").symlink_to(Path(sys.prefix) / "lib")
    python = path / ".venv/bin/python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    slurm("bash", "-c", '. launch/env.sh; stamp "" >.venv/installed', cwd=path)
    return path


def job_info(job: str) -> dict[str, str]:
    return dict(re.findall(r"(\w+)=(\S*)", slurm("scontrol", "show", "job", job)))


def ended(job: str) -> bool:
    return job_info(job)["JobState"] not in ("PENDING", "RUNNING", "COMPLETING")


def test_preempted_job_goes_on_where_it_stopped(cluster, checkout, tmp_path):
    steps, log_every, batch_size = 200, 10, 64
    run, output = tmp_path / "run", tmp_path / "output.txt"
    job = slurm(
        *("sbatch", "--parsable", "--nodes=2", f"--output={output}", "launch/slurm.sbatch"),
        *("experiments/vae_digits.py", "--workdir", str(run), "--platform", "cpu", "--devices", "1"),
        *("--steps", str(steps), "--log-every", str(log_every), "--batch-size", str(batch_size), "--no-tensorboard"),
        cwd=checkout,
    )
    try:
        metrics = run / "metrics.jsonl"
        until(lambda: (metrics.exists() and metrics.read_text()) or ended(job), 90, "the job trains")
        # Someone more important needs both nodes.
        slurm("sbatch", "-p", "urgent", "--nodes=2", "--ntasks-per-node=2", "--wrap=true", cwd=tmp_path)
        until(lambda: int(job_info(job)["Restarts"]) >= 1 or ended(job), 40, "the job is requeued")
        until(lambda: job_info(job)["JobState"] == "PENDING" or ended(job), 20, "the job waits")
        # SLURM waits two minutes after a requeue; within the same second it would refuse to start the job again.
        command = ("scontrol", "update", f"jobid={job}", "starttime=now+3")
        hurried = subprocess.run(command, capture_output=True, text=True, timeout=20)
        # On a slow machine the wait may be over, and the job running again, by now.
        assert hurried.returncode == 0 or "no longer pending" in hurried.stderr, hurried.stderr
        until(lambda: ended(job), 90, "the job ends")
        assert job_info(job)["JobState"] == "COMPLETED"
    except AssertionError:
        print(job_info(job), output.read_text() if output.exists() else "no output", sep="\n")
        raise

    text = output.read_text()
    (saved,) = map(int, re.findall(r"preempted, saved step (\d+)", text))
    assert [int(s) for s in re.findall(r"from step (\d+) to", text)] == [0, saved], text
    assert 0 < saved < steps
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    logged = [row["step"] for row in rows]
    assert logged == list(range(log_every, steps + 1, log_every))  # none lost, none twice, none of the stop
    assert all(row["examples"] == row["step"] * batch_size for row in rows)
    assert json.loads((run / "environment.json").read_text())["processes"] == 2
    assert (run / "result.json").exists()


def test_an_ablation_as_a_job_array(cluster, checkout, tmp_path):
    """Two variants of two seeds each are four tasks; afterwards the same command, run here, makes the table of them."""
    flags = [
        "experiments/vae_digits.py",
        "--ablation",
        "latent_2",
        "--seeds",
        "2",
        "--steps",
        "3",
        "--workdir",
        tmp_path,
    ]
    flags += ["--platform", "cpu", "--no-tensorboard"]
    command = [sys.executable, *map(str, flags)]
    submitted = subprocess.run([*command, "--executor", "slurm"], cwd=checkout, capture_output=True, text=True)
    assert submitted.returncode == 0, submitted.stderr
    assert re.search(r"submitted job \d+ of 4 runs", submitted.stdout), submitted.stdout
    until(lambda: len(list(tmp_path.glob("*/result.json"))) == 4, 240, "all tasks of the array finish")
    logs = "".join(path.read_text() for path in tmp_path.glob("slurm-*.log"))
    names = sorted(path.parent.name for path in tmp_path.glob("*/result.json"))
    assert names == [f"{variant}-seed{seed}" for variant in ("baseline", "latent_2") for seed in (0, 1)], logs
    table = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
    assert table.returncode == 0 and table.stdout.count("already trained") == 4, table.stderr
    assert (tmp_path / "ablation.json").exists()
