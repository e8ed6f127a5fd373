"""From experiment scripts to cards: budget, evaluation, the map job and the single-run commands, on real runs."""

import dataclasses
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import genmap_jax.commands.evaluate
from genmap_jax import data
from genmap_jax.commands import cli, executors, experiment
from genmap_jax.commands.evaluate import as_asked, evaluate_run
from genmap_jax.commands.sample import sample
from genmap_jax.data import toy
from genmap_jax.evaluate import quality
from genmap_jax.evaluate.features import extractor
from genmap_jax.run import loop, opening, runs
from genmap_jax.run.launch import Launch

ROOT = Path(__file__).parents[1]
EXPERIMENTS = ROOT / "experiments"


def finished(name: str, folder: Path, **changes) -> Path:
    """A run of an experiment script, in this process, and its folder."""
    script = runs.read_experiment(EXPERIMENTS / f"{name}.py")
    cfg = dataclasses.replace(script.config, **changes)
    argv, sys.argv = sys.argv, [f"{name}.py"]
    try:
        assert experiment.run(cfg, script.family, {}, Launch(workdir=folder, devices=1, tensorboard=False)) == 0
    finally:
        sys.argv = argv
    return folder


@pytest.fixture(scope="module", autouse=True)
def quick_classifier():
    """A classifier of samples that is hardly trained: what it finds is measured elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(genmap_jax.commands.evaluate, "TSTR_STEPS", 20)
        yield


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def vae(workdir):
    folder = finished("vae_digits", workdir / "vae", steps=120)
    evaluate_run(folder, EXPERIMENTS, samples=100)
    return folder


@pytest.fixture(scope="module")
def gan(workdir):
    folder = finished("gan_digits", workdir / "gan", steps=5)
    evaluate_run(folder, EXPERIMENTS, samples=60)
    return folder


def card(folder: Path) -> dict:
    return json.loads((folder / "evaluation" / "card.json").read_text())


def genmap(*arguments, capsys, code: int = 0) -> str:
    """What a genmap command prints."""
    stopped = 0
    try:
        cli.main([str(a) for a in arguments])
    except SystemExit as stop:
        stopped = stop.code
    out = capsys.readouterr()
    assert stopped == code, out.err
    return out.out + out.err


# ---- the card --------------------------------------------------------------------------------------------------------


def test_a_card_says_of_every_number_how_to_read_it(vae):
    it = card(vae)
    assert (it["system"], it["continent"], it["objective"]) == ("VAE", "approximate", "ELBO")
    assert it["likelihood"]["kind"] == "lower_bound" and it["likelihood"]["unit"] == "bits/dim"
    assert it["likelihood"]["low"] < it["likelihood"]["value"] < it["likelihood"]["high"]
    assert it["extractor"]["name"] == "own64" and len(it["extractor"]["hash"]) == 12
    wanted = ["FD", "KD", "CMMD", "Vendi", "precision", "recall", "density", "coverage", "IS", "TV", "TSTR", "PPL"]
    assert {f"{name}-own64" for name in wanted} | {"energy", "C_T", "AuthPct"} == set(it["metrics"])
    for name, number in it["metrics"].items():
        assert math.isfinite(number["value"]) and number["n"][1] > 0 and number["better"], name
        if name not in ("C_T", "TSTR-own64"):
            assert number["low"] <= number["value"] <= number["high"], name
        if name != "PPL-own64":
            assert math.isfinite(number["null"]), name
    assert "FID" not in json.dumps(it), "only Inception's Fréchet distance is the FID"
    assert it["metrics"]["FD-own64"]["n"] == [100, 100]


def test_what_lies_beside_a_card(vae):
    out = vae / "evaluation"
    samples = np.load(out / "samples.npz", allow_pickle=False)["image"]
    assert samples.shape == (100, 8, 8, 1) and samples.dtype == np.uint8 and samples.max() <= 16
    nats = np.load(out / "nats.npy", allow_pickle=False)
    assert len(nats) == 300 and nats.mean() == pytest.approx(card(vae)["likelihood"]["nats"])
    for name in ("samples.png", "nearest.png", "sampler.gif"):
        assert (out / name).stat().st_size > 500, name
    # the runner measured the same state in the same way
    result = json.loads((vae / "result.json").read_text())
    assert result["likelihood"] == card(vae)["likelihood"]


@pytest.mark.slow
def test_a_gan_has_no_likelihood(gan):
    it = card(gan)
    assert it["likelihood"] is None and not (gan / "evaluation" / "nats.npy").exists()
    assert it["evaluations"] == 1 and it["metrics"]["FD-own64"]["n"] == [60, 60]


@pytest.mark.slow
def test_toy_data_are_measured_against_their_law(workdir, monkeypatch):
    monkeypatch.setattr(genmap_jax.commands.evaluate, "TOY_POINTS", 20_000)
    folder = finished("vae_toy", workdir / "vae_toy", steps=300)
    evaluate_run(folder, EXPERIMENTS, samples=500)
    it, law = card(folder), toy.DENSITIES["gaussians8"]
    kl = it["metrics"]["KL(data|model)"]
    assert kl["value"] == pytest.approx(-law.entropy - it["likelihood"]["nats"], abs=0.15)  # other points, other noise
    assert kl["n"] == [20_000, 500] and it["likelihood"]["unit"] == "nats" and kl["low"] > -0.05
    assert it["metrics"]["modes"]["null"] == 8 and (folder / "evaluation" / "density.png").exists()
    assert "FD-xy" in it["metrics"] and "CMMD-xy" not in it["metrics"]


def test_mode_counts_of_the_law_and_of_a_collapsed_sampler():
    law = toy.DENSITIES["gaussians25"]
    x = np.asarray(law.sample(jax.random.key(0), 5000))
    found, near = law.modes_found(x)
    assert found == 25 and near == pytest.approx(1 - math.exp(-4.5), abs=0.006)
    assert law.modes_found(x[x[:, 0] > 0.5])[0] == 10
    assert law.modes_found(x + 0.5)[1] < 0.05
    assert law.mode_kl(x) == pytest.approx(24 / 10_000, rel=1.0)  # chi-square with 24 degrees of freedom over 2 N
    assert law.mode_kl(np.repeat(law.modes, 7, axis=0)) == pytest.approx(0.0, abs=1e-12)
    assert law.mode_kl(np.asarray(law.modes)[[0, 0, 0, 1]]) == pytest.approx(
        math.log(25) - (0.75 * math.log(4 / 3) + 0.25 * math.log(4))
    )
    assert law.mode_kl(x + 50.0) == math.inf


def test_labels_asked_for_are_compared_with_labels_seen():
    """A sampler that errs at every fifth example has 80 %, real data their own share."""
    asked = np.arange(100) % 2
    seen = np.where(np.arange(100) % 5 == 0, 1 - asked, asked)
    real = np.eye(2)[np.zeros(10, int)], np.arange(10) // 5
    (number,) = as_asked(real[0], np.eye(2)[seen], real[1], asked, 0).values()
    assert number.value == 80.0 and number.null == 50.0 and number.low < 80.0 < number.high


def test_a_model_that_memorises_is_flagged_and_real_data_are_not():
    train_set, validation, test = (data.load("digits", split) for split in ("train", "validation", "test"))
    images = train_set.take(np.arange(train_set.size))["image"]
    held_out = np.concatenate([s.take(np.arange(s.size))["image"] for s in (validation, test)])
    features = extractor("own", data="digits", levels=17).features
    sets = {"train": features(images), "held_out": features(held_out)}
    rng = np.random.default_rng(0)
    copies = images[rng.permutation(len(images))[:250]]
    noisy = np.clip(copies.astype(int) + rng.integers(-1, 2, copies.shape), 0, 16).astype(np.uint8)
    half = np.concatenate([copies[:125], held_out[:125]])
    for copied in (copies, noisy, half):
        numbers, verdict, why = quality.memorised(**sets, generated=features(copied))
        assert verdict and numbers["C_T"].value < -3 and "C_T" in why
    numbers, verdict, _ = quality.memorised(**sets, generated=features(held_out[::2]))
    assert not verdict and abs(numbers["C_T"].value) < 3
    blurred = ((held_out[:, 1:, 1:] // 2) + (held_out[:, :-1, :-1] // 2)).astype(np.uint8)
    blurred = np.pad(blurred, ((0, 0), (0, 1), (0, 1), (0, 0)))
    assert not quality.memorised(**sets, generated=features(blurred))[1], "bad samples are not copies"


@pytest.mark.slow
def test_every_quality_number_prefers_the_longer_trained_run(workdir):
    """The same GAN after 200 and after 2,000 updates. Path length is left out: it measures the latent space."""
    half, well = (finished("gan_digits", workdir / f"gan_{steps}", steps=steps) for steps in (200, 2000))
    cards = []
    for folder in (half, well):
        evaluate_run(folder, EXPERIMENTS)
        cards.append(card(folder)["metrics"])
    for name in sorted(set(cards[0]) - {"PPL-own64"}):
        worse, better = (metrics[name]["value"] for metrics in cards)
        null = cards[0][name]["null"]
        match cards[0][name]["better"]:
            case "lower":
                assert better < worse, name
            case "higher":
                assert better > worse, name
            case "null":
                assert abs(better - null) < abs(worse - null), name


@pytest.mark.slow
def test_a_damaged_sampler_is_refused(vae, monkeypatch):
    run = opening.open_run(vae, EXPERIMENTS)
    broken = run.algorithm._replace(sample=lambda s, k, n, c: np.full((n, 8, 8, 1), np.nan, np.float32))
    monkeypatch.setattr(opening, "open_run", lambda *a: dataclasses.replace(run, algorithm=broken))
    before = card(vae)
    (vae / "measured.npz").rename(vae / "aside.npz")
    evaluate_run(vae, EXPERIMENTS, samples=100)
    assert f"{vae}, step 120: 100 of 100 samples hold NaN" in card(vae)["samples_why"] and not card(vae)["metrics"]
    with pytest.raises(ValueError, match="10 of 10 samples hold NaN or infinite values; the model has diverged"):
        sample(vae, EXPERIMENTS, 10, out=vae / "never")
    assert not (vae / "never").exists()
    (vae / "aside.npz").rename(vae / "measured.npz")
    monkeypatch.undo()
    evaluate_run(vae, EXPERIMENTS, samples=100)
    assert card(vae)["metrics"] == before["metrics"]


# ---- single runs -----------------------------------------------------------------------------------------------------


def test_sample_and_list_say_where_their_output_is(vae, workdir, capsys):
    text = genmap("sample", vae, "-n", 10, "--out", workdir / "drawn", capsys=capsys)
    assert str(workdir / "drawn" / "samples.npz") in text
    assert np.load(workdir / "drawn" / "samples.npz")["image"].shape == (10, 8, 8, 1)
    text = genmap("list", workdir, capsys=capsys)
    assert re.search(rf"vae_digits +digits +0 +120/120 +[\d,]+ +[\d.e-]+ +0\.0% +finished, evaluated +{vae}", text)


@pytest.mark.slow
def test_a_run_without_a_density_is_compared_in_everything_else(vae, gan, capsys):
    text = genmap("compare", vae, gan, capsys=capsys)
    assert "gan_digits has no density" in text and "FD-own64" in text and str(vae) in text


def test_one_damaged_run_does_not_hide_the_others(vae, tmp_path, capsys):
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
        for file in ("config.json", "environment.json", "metrics.jsonl", "result.json"):
            (tmp_path / name / file).write_text((vae / file).read_text())
    (tmp_path / "broken" / "result.json").write_text('{"steps": 12')
    text = genmap("list", tmp_path, capsys=capsys)
    assert "vae_digits" in text and f"damaged: {tmp_path / 'broken' / 'result.json'}" in text and "1 run(s)" in text


@pytest.mark.slow
def test_compare_pairs_the_test_examples(vae, workdir, capsys):
    longer = finished("vae_digits", workdir / "vae_longer", steps=240)
    evaluate_run(longer, EXPERIMENTS, samples=100)
    text = genmap("compare", vae, longer, capsys=capsys)
    line = next(line for line in text.splitlines() if line.startswith("likelihood"))
    difference, error = (float(x) for x in line.split("/dim")[-1].split("(")[0].split("±"))
    values = [card(folder)["likelihood"] for folder in (vae, longer)]
    assert difference == pytest.approx(values[1]["value"] - values[0]["value"], abs=1e-3) and difference < 0
    unpaired = math.hypot(*(v["stderr"] / (64 * math.log(2)) for v in values))
    assert error < 0.7 * unpaired, "paired by example, or it would be as wide as the spread over examples"


def test_a_run_names_its_script_but_does_not_choose_it(vae, tmp_path, capsys):
    """The path in a run folder is data: only the script's name counts, within the folder of experiments."""
    marker = tmp_path / "ran"
    (tmp_path / "vae_digits.py").write_text(f"open({str(marker)!r}, 'w')")
    copy = tmp_path / "run"
    copy.mkdir()
    for name in ("config.json", "environment.json"):
        (copy / name).write_text((vae / name).read_text())
    environment = json.loads((copy / "environment.json").read_text())
    environment["command"][0] = str(tmp_path / "vae_digits.py")
    environment["experiment"] = "../vae_digits"
    (copy / "environment.json").write_text(json.dumps(environment))
    assert "no checkpoint" in genmap("evaluate", copy, capsys=capsys, code=2)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("evaluate", "nowhere"), "nowhere is not a run folder"),
        (("evaluate", "{vae}", "--features", "resnet"), "resnet"),
        (("evaluate", "{vae}", "--features", "inception"), "weights"),
        (("evaluate", "{vae}", "--samples", "3"), "at least 20"),
        (("evaluate", "{vae}", "--experiments", "nowhere"), "--experiments"),
        (("compare", "{vae}", "nowhere"), "genmap evaluate"),
        (("sample", "{vae}", "-n", "0"), "at least 1"),
        (("list", "nowhere"), "nowhere is not a folder"),
        (("map", "--data", "faces"), "no experiment on it, only on"),
        (("map", "--only", "vae,bert"), "--only bert"),
        (("map", "--budget", "0"), "above 0"),
        (("map", "nowhere"), "holds no run folder"),
        (("list", "--", "--steps", "3"), "genmap map"),
    ],
)
def test_bad_input_is_one_line_that_names_the_fix(vae, arguments, says, capsys):
    text = genmap(*[a.format(vae=vae) for a in arguments], capsys=capsys, code=2)
    assert says in text and "Traceback" not in text


# ---- the budget ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_budget_shortens_the_run_and_its_schedule_and_a_resumed_run_keeps_it(tmp_path):
    script = runs.read_experiment(EXPERIMENTS / "gan_toy.py")
    cfg = dataclasses.replace(
        script.config, steps=10**6, log_every=10**6, eval_every=10**6, sample_every=10**6, save_every=10**6
    )
    cfg = dataclasses.replace(cfg, model=dataclasses.replace(cfg.model, width=8))
    launch = Launch(workdir=tmp_path / "run", devices=1, tensorboard=False, budget=0.01)
    assert experiment.run(cfg, script.family, {}, launch) == 0
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert 1 <= stored["steps"] < 10**5 and result["steps"] == stored["steps"]
    assert stored["model"]["optim"]["decay"] == math.ceil(cfg.model.optim.decay * stored["steps"] / 10**6)
    assert experiment.run(cfg, script.family, {}, dataclasses.replace(launch, budget=10.0)) == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == stored


def test_a_budget_shortens_a_schedule_with_the_run_or_changes_nothing():
    cfg = runs.read_experiment(EXPERIMENTS / "gan_digits.py").config
    assert loop.shortened(cfg, cfg.steps + 1) is cfg
    half = loop.shortened(cfg, cfg.steps // 2)
    assert (half.steps, half.model.optim.decay) == (cfg.steps // 2, math.ceil(cfg.model.optim.decay / 2))


# ---- the map ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_map_resumes_and_measures_only_what_is_new(tmp_path):
    command = [sys.executable, "-m", "genmap_jax.commands.cli", "map", "--only", "vae", "--workdir", tmp_path]
    command += ["--seeds", "2", "--samples", "40", "--", "--steps", "3", "--eval-examples", "40"]
    run = lambda: subprocess.run(command, capture_output=True, text=True, cwd=ROOT)  # noqa: E731
    first = run()
    assert first.returncode == 0, first.stdout + first.stderr
    assert f"The map: {tmp_path / 'map.html'}" in first.stdout
    assert "[2/2] vae_digits-seed1, about" in first.stdout
    cards = [tmp_path / f"vae_digits-seed{seed}" / "evaluation" / "card.json" for seed in (0, 1)]
    assert [json.loads(path.read_text())["seed"] for path in cards] == [0, 1]
    for name in ("map.svg", "map.png", "numbers.csv", "numbers.parquet"):
        assert (tmp_path / name).exists(), name
    times = [path.stat().st_mtime_ns for path in cards]
    cards[1].unlink()  # as if stopped there
    again = run()
    assert again.returncode == 0 and again.stdout.count("already trained") == 1
    changed = [path.stat().st_mtime_ns != time for path, time in zip(cards, times, strict=True)]
    assert changed == [False, True]


def test_the_map_stops_with_the_exit_code_of_what_failed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(executors, "run_here", lambda arguments: 75)
    genmap("map", "--only", "vae", "--workdir", tmp_path, capsys=capsys, code=75)
