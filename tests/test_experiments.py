"""Every experiment, and every ablation of it, at full size: shapes only, so that none rots."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from genmap_jax import config as configs
from genmap_jax import mapping, runs, train

FOLDER = Path(__file__).parents[1] / "experiments"
NOT_EXPERIMENTS = {"benchmarks", "complete", "export", "long_context", "post_hoc_ema", "sampler_steps"}
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in NOT_EXPERIMENTS)


def read(name: str):
    """(CONFIG, ALGORITHM, ABLATIONS) of an experiment file."""
    return runs.read_experiment(FOLDER / f"{name}.py")


def variants():
    for name in NAMES:
        yield name, "baseline", {}
        for ablation, changes in read(name)[2].items():
            yield name, ablation, changes


def batch_shapes(cfg) -> dict[str, jax.ShapeDtypeStruct]:
    if getattr(cfg.model, "shape", None) is None:
        return {"tokens": jax.ShapeDtypeStruct((cfg.batch_size, cfg.model.length), jnp.int32)}
    if len(cfg.model.shape) == 1:
        return {"x": jax.ShapeDtypeStruct((cfg.batch_size, *cfg.model.shape), jnp.float32)}
    return {
        "image": jax.ShapeDtypeStruct((cfg.batch_size, *cfg.model.shape), jnp.uint8),
        "label": jax.ShapeDtypeStruct((cfg.batch_size,), jnp.int32),
    }


def test_every_family_is_on_the_map_of_digits_and_on_that_of_toy_data():
    families = lambda data: {path.stem.split("_")[0] for path in mapping.members(FOLDER, data)}  # noqa: E731
    assert {"gpt", "vae", "ebm", "vdm", "ddpm", "score", "gan"} <= families("digits")
    assert {"vae", "ebm", "diffusion", "score", "gan"} <= families("toy/rings")


@pytest.mark.parametrize(
    ("name", "ablation", "changes"), list(variants()), ids=lambda v: v if isinstance(v, str) else ""
)
def test_full_size_shapes(name, ablation, changes):
    cfg, family, _ = read(name)
    assert cfg.name == name
    cfg = configs.replace(cfg, changes)
    assert not changes or configs.differences(cfg, read(name)[0]), "an ablation must change something"
    algorithm = family(cfg.model, batch_size=cfg.batch_size)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(algorithm.init, key)
    after, metrics = jax.eval_shape(algorithm.step, state, batch_shapes(cfg), key)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert all(value.shape == () for value in metrics.values())
    samples = jax.eval_shape(lambda s, k: algorithm.sample(s, k, cfg.samples, None), state, key)
    data = batch_shapes(cfg)
    like = data.get("image", data.get("tokens", data.get("x")))
    assert samples.shape == (cfg.samples, *like.shape[1:]) and samples.dtype == like.dtype
    if algorithm.log_prob is not None:
        assert jax.eval_shape(algorithm.log_prob, state, data, key).nats.shape == (cfg.batch_size,)
    assert train.parameter_count(state) > 0


def test_every_experiment_says_how_to_run_it_and_what_to_expect():
    for name in NAMES:
        text = (FOLDER / f"{name}.py").read_text()
        document = text.split('"""')[1]
        assert f"python experiments/{name}.py" in document, name
        assert "Expect:" in document or "Not trained by us" in document, name
        assert "Differs from the paper" in document, name


def test_dry_run_prints_config_and_parameters():
    done = subprocess.run(
        [sys.executable, FOLDER / "vae_digits.py", "--dry-run", "--model.latent", "5"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert '"latent": 5' in done.stdout and "parameters" in done.stdout


def test_the_benchmarks_measure():
    """Regression: they once imported a file that was no longer there."""
    done = subprocess.run(
        [sys.executable, FOLDER / "benchmarks.py", "vae_digits", "--seconds", "0.1"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "vae_digits" in done.stdout.splitlines()[-1]


def test_a_misspelt_flag_names_the_right_one():
    done = subprocess.run(
        [sys.executable, FOLDER / "vae_digits.py", "--model.latnt", "5"], capture_output=True, text=True
    )
    assert done.returncode == 2 and "--model.latent" in done.stdout + done.stderr
