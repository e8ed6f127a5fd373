"""Every experiment, and every ablation of it, at full size: shapes only, so that none rots."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from genmap_jax.algorithm import conditions, like_batch
from genmap_jax.commands import map as mapping
from genmap_jax.run import config as configs
from genmap_jax.run import runs

FOLDER = Path(__file__).parents[1] / "experiments"
NOT_EXPERIMENTS = {
    *("benchmarks", "complete", "device_check", "export", "gpu_check", "inpaint", "long_context", "pixel_samplers"),
    *("post_hoc_ema", "project", "reversible_memory", "sampler_steps", "style_mixing", "tarflow_decoding"),
    "truncation",
}
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in NOT_EXPERIMENTS)


def read(name: str):
    """What an experiment file declares."""
    return runs.read_experiment(FOLDER / f"{name}.py")


def variants():
    """All but the baselines on digits and toy data are slow: together they trace for minutes."""
    for name in NAMES:
        slow = () if name.endswith(("_digits", "_toy")) else (pytest.mark.slow,)
        yield pytest.param(name, "baseline", {}, marks=slow, id=name)
        for ablation, changes in read(name).ablations.items():
            yield pytest.param(name, ablation, changes, marks=pytest.mark.slow, id=f"{name}-{ablation}")


def test_every_family_is_on_the_map_of_digits_and_on_that_of_toy_data():
    families = lambda data: {s.path.stem.split("_")[0] for s in mapping.members(FOLDER, data)}  # noqa: E731
    digits = {"gpt", "pixelcnn", "flow", "vae", "ebm", "vdm", "ddpm", "score", "gan", "stylegan", "biggan", "cyclegan"}
    assert digits <= families("digits")
    assert {"flow", "cnf", "vae", "ebm", "diffusion", "score", "gan"} <= families("toy/rings")


@pytest.mark.parametrize(("name", "ablation", "changes"), list(variants()))
def test_full_size_shapes(name, ablation, changes):
    script = read(name)
    assert script.config.name == name
    cfg = configs.replace(script.config, changes)
    assert not changes or configs.differences(cfg, script.config), "an ablation must change something"
    algorithm = script.family.algorithm(cfg.model, batch_size=cfg.batch_size)
    key, batch = jax.eval_shape(lambda: jax.random.key(0)), like_batch(algorithm.reads, cfg.batch_size)
    state = jax.eval_shape(algorithm.init, key, batch)
    if changes and not name.endswith(("_digits", "_toy")):
        return  # an ablation of a large network: its parameters alone, for its step takes seconds to trace
    after, metrics = jax.eval_shape(algorithm.step, state, batch, key)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert all(value.shape == () for value in metrics.values())
    cond = conditions(algorithm.reads, like_batch(algorithm.reads, cfg.samples))
    samples = jax.eval_shape(lambda s, k, c: algorithm.sample(s, k, cfg.samples, c), state, key, cond)
    like = next(iter(batch.values()))
    assert samples.shape == (cfg.samples, *like.shape[1:])
    assert samples.dtype == (np.float32 if like.dtype == np.uint8 else like.dtype)
    if algorithm.log_prob is not None:
        assert jax.eval_shape(algorithm.log_prob, state, batch, key).nats.shape == (cfg.batch_size,)
    assert runs.parameter_count(algorithm, state) > 0


def test_every_experiment_says_how_to_run_it_and_what_to_expect():
    for name in NAMES:
        text = (FOLDER / f"{name}.py").read_text()
        document = text.split('"""')[1]
        assert f"python experiments/{name}.py" in document, name
        assert "Expect" in document or "Not trained by us" in document, name
        assert "Differs from the paper" in document, name


def test_dry_run_prints_config_and_parameters():
    done = subprocess.run(
        [sys.executable, FOLDER / "vae_digits.py", "--dry-run", "--model.latent", "5"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert '"latent": 5' in done.stdout and "parameters" in done.stdout


@pytest.mark.slow
def test_the_benchmarks_measure():
    """Regression: they once imported a file that was no longer there."""
    done = subprocess.run(
        [sys.executable, FOLDER / "benchmarks.py", "vae_digits", "--seconds", "0.1"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "vae_digits" in done.stdout.splitlines()[-1]


@pytest.mark.slow
def test_the_check_of_a_gpu_runs_at_toy_sizes(tmp_path):
    """Every part that eight minutes of a GPU hold, as `launch/gpu_check.sh --dry` runs them."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    parts = ("gpt2", "families", "decoding", "shakespeare")
    command = [sys.executable, FOLDER / "gpu_check.py", "--out", tmp_path, "--dry", "--parts", ",".join(parts)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in parts}
    assert found["families"] == {"vae_digits": {"resumed": 0.0, "deviation": 0.0}}
    assert found["shakespeare"]["best"]["step"] == 2
    for title, competitors in (item for name in ("gpt2", "decoding") for item in found[name].items()):
        if title != "peak_bytes":
            assert all(competitors[who]["rate"] > 0 for who in competitors if who != "kernels"), title


def test_a_misspelt_flag_names_the_right_one():
    done = subprocess.run(
        [sys.executable, FOLDER / "vae_digits.py", "--model.latnt", "5"], capture_output=True, text=True
    )
    assert done.returncode == 2 and "--model.latent" in done.stdout + done.stderr
