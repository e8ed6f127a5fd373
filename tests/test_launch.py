"""The launch scripts: what they run, when they install, what they hand to gcloud and Kubernetes. Nothing is installed.

(launch/slurm.sbatch runs for real in test_slurm.py.)
"""

import os
import re
import shlex
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SCRIPTS = [*sorted(ROOT.glob("launch/*.sh")), ROOT / "launch/slurm.sbatch", ROOT / ".ci/run"]

GENMAP = ["-m", "genmap_jax.commands.cli"]

# Stands for the base Python and, copied into .venv/bin by its own `-m venv`, for the environment's. Logs its arguments.
PYTHON = """\
#!/bin/sh
case "$1 $2" in
  "-c import"*) exit 0 ;;
  "-V ") echo "Python 3.11.99"; exit 0 ;;
  "-m venv") mkdir -p "$5/bin" "$5/lib/python3.11/site-packages/jaxlib-9.9.dist-info" && cp "$0" "$5/bin/python" ;;
  "-m ensurepip") exit 0 ;;
  "-m pip") [ "$3" = --version ] && exit 0; [ -z "$PIP_FAILS" ] || exit 1 ;;
esac
for arg in "$(basename "$0")" "$@"; do printf '%s\\n' "$arg"; done >>"$LOG"
echo "end $JAX_COMPILATION_CACHE_DIR $GLIBC_TUNABLES" >>"$LOG"
"""


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


class Checkout:
    """A copy of launch/ with a stub for Python; `run` returns the commands that reached the stub."""

    def __init__(self, tmp: Path):
        self.root = tmp / "a checkout"
        shutil.copytree(ROOT / "launch", self.root / "launch")
        for name in ("pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, self.root / name)
        executable(self.root / "experiments/vae.py", "")
        (self.root / "tests").mkdir()
        self.log = tmp / "log"
        self.env = {"PATH": os.environ["PATH"], "HOME": str(tmp), "LOG": str(self.log)}
        self.env["PYTHON"] = str(executable(tmp / "base", PYTHON))

    def run(self, script: str, *args: str, code: int = 0, **env: str) -> list[list[str]]:
        self.log.write_text("")
        done = subprocess.run(
            ["bash", str(self.root / "launch" / script), *args],
            cwd=self.root.parent,  # not the checkout: the scripts work from any folder
            env=self.env | env,
            capture_output=True,
            text=True,
            timeout=20,
        )
        assert done.returncode == code, done.stderr
        self.stderr = done.stderr
        *commands, _ = re.split(r"^end (.*)\n", self.log.read_text(), flags=re.MULTILINE)
        self.settings = commands[-1] if commands else ""
        return [text.splitlines() for text in commands[::2]]


@pytest.fixture
def checkout(tmp_path) -> Checkout:
    return Checkout(tmp_path)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse_and_can_be_executed(script):
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert os.access(script, os.X_OK) or script.name in ("env.sh", "slurm.sbatch")


def test_first_use_installs_with_the_constraints(checkout):
    venv, pip, run = checkout.run("local.sh")
    assert venv == ["base", "-m", "venv", "--clear", "--without-pip", f"{checkout.root}/.venv"]
    assert pip[:4] == ["python", "-m", "pip", "install"]
    assert pip[-4:] == ["-e", f"{checkout.root}[dev]", "-c", f"{checkout.root}/constraints.txt"]
    assert run == ["python", *GENMAP, "map"]


def test_local_runs_the_map_an_experiment_or_genmap(checkout):
    checkout.run("local.sh")
    mine = executable(checkout.root.parent / "mine.py", "")
    there = str(checkout.root / "experiments/vae.py")
    # An experiment is looked for from where one stands, then in the checkout; arguments arrive as they are.
    assert checkout.run("local.sh", "experiments/vae.py", "--workdir", "a b") == [["python", there, "--workdir", "a b"]]
    assert checkout.run("local.sh", mine.name) == [["python", mine.name]]
    assert checkout.run("local.sh", "--help") == [["python", *GENMAP, "--help"]]
    assert checkout.run("local.sh", "data", "x.py") == [["python", *GENMAP, "data", "x.py"]]
    workers = ["-n", "auto", "--dist", "loadfile"]
    tests = lambda *which: ["python", "-m", "pytest", *workers, "-m", *which]  # noqa: E731
    assert checkout.run("test.sh", "-k", "a b") == [tests("not slow", "-k", "a b")]
    assert checkout.run("test.sh", "--all", "-x") == [tests("not slow", "-x"), tests("slow", "-x")]


def test_installs_again_only_when_something_changed(checkout):
    def installs(*commands) -> bool:
        return any(command[:4] == ["python", "-m", "pip", "install"] for command in commands)

    assert installs(*checkout.run("local.sh"))
    assert not installs(*checkout.run("local.sh"))
    for name in ("pyproject.toml", "constraints.txt"):
        with (checkout.root / name).open("a") as file:
            file.write("# changed\n")
        assert installs(*checkout.run("local.sh"))
        assert not installs(*checkout.run("local.sh"))
    again = executable(checkout.root / ".venv/bin/python", PYTHON.replace("3.11.99", "3.12.99"))
    assert installs(*checkout.run("local.sh"))
    again.unlink()  # the Python the environment was made from is gone
    assert checkout.run("local.sh")[0][:3] == ["base", "-m", "venv"]
    # An install that fails runs nothing, and is done again.
    assert not any(c[-1] == "map" for c in checkout.run("local.sh", code=1, GENMAP_EXTRA="tpu", PIP_FAILS="1"))
    assert installs(*checkout.run("local.sh", GENMAP_EXTRA=""))  # what was there before it is no longer whole either
    checkout.run("local.sh", code=1, GENMAP_EXTRA="tpu", PIP_FAILS="1")
    retried = checkout.run("local.sh")
    assert installs(*retried) and f"{checkout.root}[dev,tpu]" in retried[0]  # and the extra is remembered
    assert not installs(*checkout.run("local.sh"))


def test_a_missing_python_is_a_clear_error(checkout):
    assert checkout.run("local.sh", code=1, PYTHON="python-that-is-not-there") == []
    assert "Python 3.11 or newer is needed" in checkout.stderr and "python-that-is-not-there" in checkout.stderr
    old = executable(checkout.root.parent / "old", "#!/bin/sh\nexit 1\n")
    assert checkout.run("local.sh", code=1, PYTHON=str(old)) == []


def test_an_environment_that_is_not_ours_is_kept(checkout):
    """`uv venv` makes one without pip. What the scripts began themselves, and did not finish, they make again."""
    mine = executable(checkout.root / ".venv/bin/python", "#!/bin/sh\nexit 1\n")
    assert checkout.run("local.sh", code=2) == []
    assert mine.exists() and "Move it away, or give it pip" in checkout.stderr
    (checkout.root / ".venv/extra").write_text("")  # the first thing that is written into one of ours
    assert checkout.run("local.sh")[0][:3] == ["base", "-m", "venv"]
    shutil.rmtree(checkout.root / ".venv")
    (checkout.root / ".venv").mkdir()
    assert checkout.run("local.sh")[0][:3] == ["base", "-m", "venv"], "an empty folder is nobody's"


def test_home_may_be_unset(checkout):
    del checkout.env["HOME"]
    checkout.run("local.sh", "list")
    assert "/.cache/genmap_jax/compiled/jaxlib-9.9-cpu-" in checkout.settings


def test_slurm_runs_again_what_the_exit_codes_say_can_go_on():
    """Every code of run/launch.py that means "run the same command again", in both scripts and the table of codes."""
    from genmap_jax.commands.executors import ARRAY
    from genmap_jax.run import launch

    again = {launch.PREEMPTED, launch.STUCK, 143}
    text = (ROOT / "launch/slurm.sbatch").read_text()
    assert set(map(int, re.findall(r"\$code -eq (\d+)", text))) == again | {134}
    filled = ARRAY.format(
        jobs="", count=1, folder="", here="", python="", preempted=launch.PREEMPTED, stuck=launch.STUCK
    )
    assert set(map(int, re.findall(r"\$code -eq (\d+)", filled))) == again
    documented = set(map(int, re.findall(r"^    (\d+) ", launch.__doc__, re.MULTILINE)))
    codes = {
        launch.FINISHED,
        1,
        launch.BAD_INPUT,
        launch.NON_FINITE,
        launch.PREEMPTED,
        launch.STUCK,
        launch.INTERRUPTED,
    }
    assert documented == codes
    table = (ROOT / "docs/runs.md").read_text()
    assert codes | {134, 143} == set(map(int, re.findall(r"^\| (\d+) \|", table, re.MULTILINE)))


def test_a_python_without_venv_is_a_clear_error(checkout):
    base = PYTHON.replace('"-m venv") ', '"-m venv") exit 1; ')
    executable(Path(checkout.env["PYTHON"]), base)
    assert checkout.run("local.sh", code=1) == []
    assert "apt-get install python3-venv" in checkout.stderr


def test_settings_yield_to_the_users(checkout):
    checkout.run("local.sh")
    assert "/.cache/genmap_jax/compiled/jaxlib-9.9-cpu-" in checkout.settings
    checkout.run("local.sh", JAX_COMPILATION_CACHE_DIR="mine", GLIBC_TUNABLES="glibc.malloc.tcache_count=7")
    assert checkout.settings == "mine glibc.malloc.tcache_count=7"
    checkout.run("local.sh", GENMAP_NO_COMPILE_CACHE="1")
    assert "compiled" not in checkout.settings


def test_the_suite_fails_when_no_test_ran(checkout):
    executable(checkout.root / ".venv/bin/python", PYTHON)  # pytest's own code for "no test ran" must come through
    checkout.run("test.sh")
    executable(checkout.root / ".venv/bin/python", PYTHON.replace("case", '[ "$2" = pytest ] && exit 5\ncase', 1))
    checkout.run("test.sh", code=5)
    checkout.run("test.sh", "--all", code=5)
    for which in ("not slow", "slow"):  # one of the two has none; then the other fails
        for other in (0, 1):
            exits = f'[ "$2" = pytest ] && {{ for a; do [ "$a" = "{which}" ] && exit 5; done; exit {other}; }}\ncase'
            executable(checkout.root / ".venv/bin/python", PYTHON.replace("case", exits, 1))
            checkout.run("test.sh", "--all", code=other)
    ci = (ROOT / ".ci/run").read_text()
    assert "set -euo pipefail" in ci and ci.endswith("\nbash launch/test.sh --all -rs\n")


def test_tpu_pod_command_line(tmp_path):
    """A stub stands for gcloud; it keeps what it is given."""
    log, copied = tmp_path / "log", tmp_path / "copied.tar.gz"
    executable(
        tmp_path / "bin/gcloud",
        f'#!/bin/sh\nprintf "%s\\n" "$*" >>"{log}"\nif [ "$4" = scp ]; then cp "$5" "{copied}"; fi\n',
    )
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "launch", checkout / "launch")
    (checkout / ".gitignore").write_text("runs/\n")
    executable(checkout / "runs/big", "")
    subprocess.run(["git", "init", "-q"], cwd=checkout, check=True)
    args = ["pod-1", "us-east5-a", "experiments/vae.py", "--workdir", "/mnt/my runs"]
    done = subprocess.run(
        ["bash", str(checkout / "launch/tpu_pod.sh"), *args],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 0, done.stderr
    scp, ssh = (shlex.split(line.replace("--command=", "--command= ", 1)) for line in log.read_text().splitlines())
    assert scp[:4] == ["compute", "tpus", "tpu-vm", "scp"]
    assert scp[5:] == ["pod-1:genmap_jax.tar.gz", "--zone=us-east5-a", "--worker=all"]
    with tarfile.open(copied) as tar:  # uncommitted files too, ignored ones not
        assert "launch/local.sh" in tar.getnames() and "runs/big" not in tar.getnames()
    assert ssh[:7] == ["compute", "tpus", "tpu-vm", "ssh", "pod-1", "--zone=us-east5-a", "--worker=all"]
    run = ssh[ssh.index("GENMAP_EXTRA=tpu") :]
    assert run == ["GENMAP_EXTRA=tpu", "bash", "launch/local.sh", *args[2:], "--distributed"]


JOBSETS = ["gke_jobset.yaml", "gke_jobset_tpu.yaml"]


@pytest.mark.parametrize("file", JOBSETS)
def test_gke_jobset_is_consistent(file):
    jobset = yaml.safe_load((ROOT / "launch" / file).read_text())
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (replicated,) = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    env = {entry["name"]: entry for entry in container["env"]}
    # One process per pod; pod 0 of the only Job is the coordinator, under the name JobSet gives it.
    assert replicated["replicas"] == 1 and job["completionMode"] == "Indexed"
    assert job["parallelism"] == job["completions"] == int(env["GENMAP_NUM_PROCESSES"]["value"])
    name = jobset["metadata"]["name"]
    host, port = env["GENMAP_COORDINATOR"]["value"].split(":")
    assert host == f"{name}-{replicated['name']}-0-0.{name}" and port.isdigit()
    assert jobset["spec"]["network"]["enableDNSHostnames"] is True
    index = env["GENMAP_PROCESS_ID"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert index == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    # Preempted (75) must restart; only our own errors stop.
    (rule,) = job["podFailurePolicy"]["rules"]
    assert pod["restartPolicy"] == "Never" and rule["onExitCodes"]["containerName"] == container["name"]
    assert rule["onExitCodes"]["values"] == [2, 3]
    # The run folder lies on a mounted volume, and the experiment exists.
    assert (ROOT / container["command"][1]).is_file()
    workdir = container["args"][container["args"].index("--workdir") + 1]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(mounts) == {volume["name"] for volume in pod["volumes"]} and workdir.startswith(mounts["runs"] + "/")


def test_gke_tpu_pods_are_the_hosts_of_their_slice():
    """As many pods as the topology has hosts, on the nodes of one slice; as many chips as the topology has."""
    jobset = yaml.safe_load((ROOT / "launch/gke_jobset_tpu.yaml").read_text())
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    rows, columns = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    assert job["parallelism"] * pod["containers"][0]["resources"]["limits"]["google.com/tpu"] == rows * columns
    together = jobset["metadata"]["annotations"]["alpha.jobset.sigs.k8s.io/exclusive-topology"]
    assert together == "cloud.google.com/gke-nodepool"


@pytest.mark.parametrize("file", JOBSETS)
def test_gke_job_validates_against_the_schema_of_kubernetes(file):
    """The inner Job only: there is no schema of JobSet."""
    validate = pytest.importorskip("kubernetes_validate")
    jobset = yaml.safe_load((ROOT / "launch" / file).read_text())
    (replicated,) = jobset["spec"]["replicatedJobs"]
    spec = replicated["template"]["spec"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "genmap"}, "spec": spec}
    validate.validate(job, "1.31", strict=True)
    job["spec"]["backoffLimt"] = 0
    with pytest.raises(validate.ValidationError):
        validate.validate(job, "1.31", strict=True)
