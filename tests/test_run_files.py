"""Damaged files of a run: what can be made again is made again; anything else is one line that names the file."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import test_train
from test_stops import course, run
from test_train import TINY

from genmap_jax.approximate import vae
from genmap_jax.commands import cli
from genmap_jax.commands.bad_input import told
from genmap_jax.commands.measure import Observer, read_arrays
from genmap_jax.files import read_json, read_metrics
from genmap_jax.run.checkpoint import Damaged
from genmap_jax.run.opening import load_run

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "experiments" / "vae_digits.py"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A finished run with a card, and the folder of an ablation beside it."""
    root = tmp_path_factory.mktemp("made")
    assert test_train.run(root / "run", TINY) == 0
    (root / "run" / "evaluation").mkdir()
    card = read_json(root / "run" / "result.json")
    card["asked"] |= {"features": "own"}
    card |= {"extractor": None, "memorises": None, "memorises_why": "not tested"}
    (root / "run" / "evaluation" / "card.json").write_text(json.dumps(card))
    np.save(root / "run" / "evaluation" / "nats.npy", np.load(root / "run" / "measured.npz")["nats"])
    measure = {"key": "likelihood", "title": "bits/dim", "better": "lower", "kind": "lower_bound"}
    table = {"experiment": "vae_digits", "name": "tiny", "command": "python x.py", "baseline": "baseline", "seeds": [0]}
    table |= {"variants": {"baseline": {"changes": {}, "runs": ["run"]}}, "measures": [measure]}
    table |= {"table": {"baseline": {"likelihood": [1.9]}}, "real": {}}
    (root / "table").mkdir()
    (root / "table" / "ablation.json").write_text(json.dumps(table))
    return root


# ---- what is damaged, and how ----------------------------------------------------------------------------------------


def missing(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garbage(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00 not what it was")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def holds(value):
    """The file holds another value."""

    def damage(path: Path) -> None:
        path.write_text(value if isinstance(value, str) else json.dumps(value))

    damage.__name__ = f"holds {json.dumps(value)[:20]}"
    return damage


def sets(**fields):
    """Fields of the file have other values; None takes them away."""

    def damage(path: Path) -> None:
        value = json.loads(path.read_text()) | fields
        path.write_text(json.dumps({k: v for k, v in value.items() if v != "GONE"}))

    damage.__name__ = f"sets {json.dumps(fields)}"
    return damage


def train(root: Path) -> int:
    return test_train.run(root / "run", TINY)


def train_longer(root: Path) -> int:
    return test_train.run(root / "run", dataclasses.replace(TINY, steps=14))


def genmap(*words: str):
    def command(root: Path) -> None:
        cli.main([word.format(run=root / "run", table=root / "table", script=SCRIPT) for word in words])

    command.__name__ = words[0]
    return command


sample = genmap("sample", "{run}", "-n", "3", "--experiments", "{script}")
evaluate = genmap("evaluate", "{run}", "--experiments", "{script}", "--samples", "20")
page = genmap("map", "{run}")
table_page = genmap("map", "{table}")
compare = genmap("compare", "{run}", "{run}")

ANY_JSON = [empty, cut, garbage, folder, holds([]), holds("5"), holds({}), holds("[" * 100_000)]
REFUSED = [
    *((train, "run/config.json", damage) for damage in [*ANY_JSON, missing]),
    (train, "run/config.json", sets(model=None)),
    (train, "run/config.json", sets(model={"latent": 2})),
    (train, "run/config.json", sets(steps="12")),
    (train, "run/config.json", sets(batch_size="GONE")),
    (train, "run/config.json", sets(text=[])),
    (train, "run/config.json", sets(log_every=0)),
    (train_longer, "run/metrics.jsonl", folder),
    *((sample, "run/config.json", damage) for damage in [*ANY_JSON, missing]),
    (sample, "run/config.json", sets(model=None)),
    (sample, "run/config.json", sets(batch_size=True)),
    (sample, "run/config.json", sets(surplus=1)),
    *((sample, "run/environment.json", damage) for damage in [*ANY_JSON, missing]),
    (sample, "run/environment.json", sets(family="GONE")),
    (evaluate, "run/environment.json", sets(command=[])),
    (evaluate, "run/environment.json", sets(devices="GONE")),
    (evaluate, "run/environment.json", sets(versions=7)),
    *((page, "run/evaluation/card.json", damage) for damage in ANY_JSON),
    (page, "run/evaluation/card.json", sets(steps="many")),
    (page, "run/evaluation/card.json", sets(likelihood=3)),
    (page, "run/evaluation/card.json", sets(likelihood={"kind": "exact"})),
    (page, "run/evaluation/card.json", sets(metrics=[])),
    (page, "run/evaluation/card.json", sets(metrics={"FD": 3})),
    (page, "run/evaluation/card.json", sets(metrics={"FD": {"value": "low"}})),
    (page, "run/evaluation/card.json", sets(continent="hybrid")),
    (page, "run/config.json", cut),
    *((compare, "run/evaluation/card.json", damage) for damage in [*ANY_JSON]),
    *((compare, "run/evaluation/nats.npy", damage) for damage in [missing, empty, cut, garbage, folder]),
    *((table_page, "table/ablation.json", damage) for damage in ANY_JSON),
    (table_page, "table/ablation.json", sets(variants="GONE")),
    (table_page, "table/ablation.json", sets(table={"baseline": []})),
    (table_page, "table/ablation.json", sets(measures=[{}])),
    (table_page, "table/ablation.json", sets(seeds=["zero"])),
]
"""Command, file, damage: refused, and the line names the file."""


def label(case) -> str:
    return getattr(case, "__name__", str(case))


def damaged(made: Path, tmp_path: Path, file: str, damage) -> Path:
    shutil.copytree(made, tmp_path / "copy")
    damage(tmp_path / "copy" / file)
    return tmp_path / "copy"


@pytest.mark.parametrize(("command", "file", "damage"), REFUSED, ids=label)
def test_a_file_that_cannot_be_made_again_is_named_in_one_line(command, file, damage, made, tmp_path, capsys):
    root = damaged(made, tmp_path, file, damage)
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended, told("it"):
        command(root)
    *before, line = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2 and not any("Traceback" in each for each in before)
    assert str(root / file) in line or str(root / Path(file).parent) in line and Path(file).name in line


@pytest.mark.parametrize("file", ["result.json", "environment.json", "time.json"])
@pytest.mark.parametrize(
    "damage",
    [missing, *(each for each in ANY_JSON if each is not folder), sets(steps=4, family=7, metrics=1)],
    ids=label,
)
def test_what_the_command_that_trains_wrote_is_written_again(file, damage, made, tmp_path):
    root = damaged(made, tmp_path, f"run/{file}", damage)
    assert run(root / "run", TINY) == 0
    assert read_json(root / "run" / "result.json")["steps"] == 12
    assert read_json(root / "run" / "environment.json")["family"] == "VAE"


@pytest.mark.parametrize("damage", [missing, empty, cut, garbage, folder], ids=label)
def test_measured_arrays_that_are_damaged_are_not_used(damage, made, tmp_path, caplog):
    path = damaged(made, tmp_path, "run/measured.npz", damage) / "run" / "measured.npz"
    assert read_arrays(path) is None
    assert (str(path) in caplog.text) == (damage is not missing)


def test_measured_arrays_are_made_again(made, tmp_path):
    root = damaged(made, tmp_path, "run/measured.npz", cut)
    opened = load_run(root / "run", TINY, vae.FAMILY)
    measured = Observer(opened).kept(opened)
    before = np.load(made / "run" / "measured.npz")
    np.testing.assert_allclose(measured.nats, before["nats"], rtol=1e-5)
    np.testing.assert_array_equal(measured.generated, before["generated"])


@pytest.mark.parametrize(
    "line",
    ["", "5", "null", "[1]", "{", "{}", '{"loss": 1}', '{"step": "x", "seconds": 1}', '{"step": true, "seconds": 1}',
     "\x00\x00", "[" * 100_000, "caf\udce9"],
)  # fmt: skip
def test_a_damaged_line_of_metrics_is_named_and_the_rows_after_it_stay(line, made, tmp_path, caplog):
    root = damaged(made, tmp_path, "run/metrics.jsonl", lambda _: None)
    path = root / "run" / "metrics.jsonl"
    rows = path.read_text().splitlines()
    path.write_bytes("\n".join([*rows[:2], line, *rows[2:], ""]).encode(errors="surrogateescape"))
    before = path.read_bytes()
    assert read_metrics(path) == [json.loads(row) for row in rows]
    assert f"line 3 of {path} is damaged" in caplog.text
    assert run(root / "run", dataclasses.replace(TINY, steps=14)) == 0
    assert [row["step"] for row in course(root / "run")] == [2, 4, 6, 8, 10, 12, 14]
    assert path.with_suffix(".damaged").read_bytes() == before, "the file as it was, for a person to look at"


def test_lost_metrics_are_said_to_be_lost(made, tmp_path, capsys):
    root = damaged(made, tmp_path, "run/metrics.jsonl", missing)
    assert run(root / "run", dataclasses.replace(TINY, steps=14)) == 0
    assert "metrics.jsonl is gone, and with it the rows up to step 12" in capsys.readouterr().err


# ---- checkpoints -----------------------------------------------------------------------------------------------------


def break_all(root: Path) -> None:
    for path in (root / "run" / "checkpoints").glob("*/state/**/*"):
        if path.is_file():
            path.write_bytes(b"")


def test_when_all_checkpoints_are_damaged_no_command_goes_on_or_begins_anew(made, tmp_path, capsys):
    root = damaged(made, tmp_path, "run/metrics.jsonl", lambda _: None)
    break_all(root)
    for command in (sample, sample):  # it only reads: nothing is moved
        with pytest.raises(SystemExit) as ended:
            command(root)
        assert ended.value.code == 2 and "are damaged" in capsys.readouterr().err.splitlines()[-1]
    assert not (root / "run" / "damaged").exists()
    longer = dataclasses.replace(TINY, steps=14)
    for _ in range(2):
        with pytest.raises(Damaged, match="--workdir"):
            run(root / "run", longer)
    assert len(list((root / "run" / "damaged").iterdir())) == 3
    with pytest.raises(SystemExit) as ended:
        sample(root)
    assert ended.value.code == 2


def test_a_run_is_looked_at_while_it_is_trained(made, tmp_path):
    """A checkpoint that is being written is left alone by whoever reads the finished ones."""
    root = damaged(made, tmp_path, "run/metrics.jsonl", lambda _: None)
    unfinished = root / "run" / "checkpoints" / "13.orbax-checkpoint-tmp"
    shutil.copytree(root / "run" / "checkpoints" / "12", unfinished)
    assert load_run(root / "run", TINY, vae.FAMILY).step == 12
    assert unfinished.is_dir()
