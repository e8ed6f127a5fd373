"""Three families that exist only here: what a fork needs beside its own two files is nothing.

One starts from its data, one translates images of another domain, one has two players, a pool and a truncation. Each is
trained, resumed, spread over devices, sampled, measured, ablated and drawn on the page by code that does not know it.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from variants import chosen

from genmap_jax.commands import cli
from genmap_jax.commands.experiment import run
from genmap_jax.commands.train import Also
from genmap_jax.evaluate.features import own
from genmap_jax.report.page import write_page
from genmap_jax.run.checkpoint import Checkpoints
from genmap_jax.run.launch import Launch
from genmap_jax.run.opening import open_run
from genmap_jax.run.runs import read_experiment

HERE = Path(__file__).parent
EXPERIMENTS = HERE / "dry" / "experiments"
NAMES = ("dry_gaussian", "dry_translator", "dry_game")
CHANGES = {"dry_gaussian": "temperature", "dry_translator": "strength", "dry_game": "truncation"}


@pytest.fixture(scope="module", autouse=True)
def quick_features(tmp_path_factory):
    """A feature network that is hardly trained, kept apart from the real one: here only its shape matters."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own, "STEPS", 5)
        patch.setattr(own, "RECIPE", -1)
        yield


def train(name: str, folder: Path, also: Also = Also(), devices: int = 1, **changes) -> int:  # noqa: B008
    script = read_experiment(EXPERIMENTS / f"{name}.py")
    cfg = dataclasses.replace(script.config, **changes)
    launch = Launch(workdir=folder, devices=devices, tensorboard=False)
    return run(cfg, script.family, script.ablations, launch, also)


def leaves(folder: Path) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(open_run(folder, EXPERIMENTS).state)]


@pytest.fixture(scope="module", params=NAMES)
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "run"
    assert train(request.param, folder, Also(features="own", measured_samples=40)) == 0
    return request.param, folder


def test_the_files_are_short():
    for name in NAMES:
        assert len((HERE / "dry" / f"{name.removeprefix('dry_')}.py").read_text().splitlines()) < 80


def test_it_trains_and_is_measured(trained):
    name, folder = trained
    result = json.loads((folder / "result.json").read_text())
    card = json.loads((folder / "evaluation" / "card.json").read_text())
    family = read_experiment(EXPERIMENTS / f"{name}.py").family
    assert (card["system"], card["continent"]) == (family.name, family.continent)
    assert (result["likelihood"] is not None) == (name == "dry_gaussian")
    assert (
        np.isfinite(result["metrics"]["energy"]["value"]) and card["metrics"]["energy"] == result["metrics"]["energy"]
    )
    assert "FD-own64" in card["metrics"] and result["parameters"] > 0
    assert (folder / "samples" / "00000012.png").exists()


def test_the_card_of_a_translation_holds_its_errors(trained):
    """To the known truth in both directions, of doing nothing, of the cycle; of no other family's samples."""
    name, folder = trained
    card = json.loads((folder / "evaluation" / "card.json").read_text())
    named = ["error untranslated, %", "cycle error, %"]
    named += [f"{error}{way}, %" for error in ("error to truth", "inverted") for way in ("", " (way back)")]
    found = {each: card["metrics"][each]["value"] for each in named if each in card["metrics"]}
    if name != "dry_translator":
        assert found == {}
        return
    assert set(found) == set(named) and all(0 <= value <= 100 for value in found.values())
    assert all(card["metrics"][each]["n"] == [40, 40] for each in named)
    assert found["error untranslated, %"] > 5.0, "bold digits are not digits"
    assert "of digits (train)" in card["extractor"]["fit"], "the features are those of the target domain"


def test_it_resumes_bit_for_bit(trained, tmp_path):
    name, folder = trained
    assert train(name, tmp_path, steps=8) == 0
    assert train(name, tmp_path) == 0
    for a, b in zip(leaves(folder), leaves(tmp_path), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("placement", chosen(["pmap", "mesh"], ["pmap"]))
def test_eight_devices_are_one(trained, tmp_path, placement):
    name, folder = trained
    script = read_experiment(EXPERIMENTS / f"{name}.py")
    sgd = dataclasses.replace(script.config.model.optim, name="sgd", lr=1e-2, clip=0.0)
    cfg = dataclasses.replace(script.config, model=dataclasses.replace(script.config.model, optim=sgd), steps=6)
    states = []
    for devices in (1, 8):
        launch = Launch(workdir=tmp_path / str(devices), devices=devices, tensorboard=False)
        kind = placement if devices == 8 else None
        assert run(cfg, script.family, {}, dataclasses.replace(launch, parallel=kind)) == 0
        checkpoints = Checkpoints(tmp_path / str(devices) / "checkpoints")
        checkpoints.close()
        states.append(leaves(tmp_path / str(devices)))
    for a, b in zip(*states, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_it_is_sampled_with_another_setting_after_training(trained, tmp_path, capsys, monkeypatch):
    name, folder = trained
    drawn = []
    for value in ("1.0", "0.25"):
        out = tmp_path / value
        words = ["sample", folder, "-n", 6, "--experiments", EXPERIMENTS, "--out", out]
        cli.main([*map(str, words), f"--model.{CHANGES[name]}", value])
        drawn.append(np.load(out / "samples.npz", allow_pickle=False)["image"])
    assert drawn[0].shape == (6, 8, 8, 1) and (drawn[0] != drawn[1]).any()
    with pytest.raises(SystemExit):
        cli.main([*map(str, words), "--model.optim.lr", "1"])
    assert "changes what was trained" in capsys.readouterr().err


def test_a_run_is_found_again_after_its_script_was_renamed(trained, tmp_path):
    name, folder = trained
    shutil.copytree(EXPERIMENTS, tmp_path / "scripts")
    (tmp_path / "scripts" / f"{name}.py").rename(tmp_path / "scripts" / "another_name.py")
    assert open_run(folder, tmp_path / "scripts").step == 12


@pytest.mark.slow
def test_it_is_ablated_and_drawn(trained, tmp_path):
    name, folder = trained
    assert train(name, tmp_path / "table", Also(ablation="all", seeds=2), steps=4) == 0
    summary = json.loads((tmp_path / "table" / "ablation.json").read_text())
    assert len(summary["variants"]) == 2 and all(len(v["runs"]) == 2 for v in summary["variants"].values())
    page = write_page([folder, tmp_path / "table"], tmp_path / "map.html")
    family = read_experiment(EXPERIMENTS / f"{name}.py").family
    assert family.name in page.read_text()
