"""Averages of parameters: their weights in closed form, and averages chosen after training."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genmap_jax import averaging
from genmap_jax.algorithm import ema_update
from genmap_jax.approximate import diffusion
from genmap_jax.commands import experiment
from genmap_jax.files import read_json, write_json
from genmap_jax.run import opening, runs
from genmap_jax.run.config import replace
from genmap_jax.run.launch import Launch
from genmap_jax.spaces import vectors

FOLDER = Path(__file__).parents[1] / "experiments"
WIDTHS = (0.05, 0.1)


@pytest.fixture
def walk():
    """Parameters of 2,000 updates that drift and shake, [2000, 3]: what training leaves behind."""
    noise = np.random.default_rng(0).standard_normal((2000, 3))
    return (np.log1p(np.arange(2000))[:, None] + 0.3 * np.cumsum(noise, axis=0) / 40.0 + noise).astype(np.float32)


def test_ema_is_its_closed_form_sum():
    """With the ramp of its half-life, after 50 updates of 32 examples: the weighted sum of all parameters, 1e-5."""
    params = np.random.default_rng(1).standard_normal((51, 4)).astype(np.float32)
    ema, batch, halflife, ramp = jnp.asarray(params[0]), 32, 60.0, 0.05
    weights = np.array([1.0] + [0.0] * 50)
    for step in range(50):
        ema = ema_update(ema, jnp.asarray(params[step + 1]), jnp.int32(step), batch, halflife, ramp)
        decay = 0.5 ** (batch / min(halflife, ramp * (step + 1) * batch))
        weights *= decay
        weights[step + 1] = 1.0 - decay
    assert 0.5 ** (batch / halflife) != pytest.approx(0.5 ** (1 / (ramp * 40)), abs=0.01)  # the ramp is part of it
    np.testing.assert_allclose(ema, weights @ params, rtol=1e-5, atol=1e-6)


def tracked(walk, widths):
    """Averages after every update, [2000, widths, 3]."""

    def step(averages, row):
        params, updates = row
        averages = averaging.power_update(averages, params, updates, widths)
        return averages, jnp.stack(averages)

    updates = jnp.arange(1, len(walk) + 1)
    first = tuple(jnp.full(3, 1e3) for _ in widths)  # what was there before the first update must not matter
    return np.asarray(jax.jit(lambda w: jax.lax.scan(step, first, (w, updates)))(jnp.asarray(walk))[1])


def test_power_average_is_its_closed_form_sum(walk):
    """Parameters of update i weigh (i^(gamma+1) - (i-1)^(gamma+1)) / t^(gamma+1): 2e-5 in float32, at three times."""
    found = tracked(walk, WIDTHS)
    for k, width in enumerate(WIDTHS):
        for t in (1, 10, 2000):
            power = (np.arange(t + 1) / t) ** (averaging.exponent(width) + 1.0)
            np.testing.assert_allclose(found[t - 1, k], np.diff(power) @ walk[:t], rtol=2e-5, atol=2e-5)


def test_width_is_the_standard_deviation_of_the_weights():
    """Gamma 16.97 and 6.94 of the paper; others numerically over updates, 1e-3; the widest is the plain mean."""
    assert averaging.exponent(0.05) == pytest.approx(16.97, abs=0.01)
    assert averaging.exponent(0.10) == pytest.approx(6.94, abs=0.01)
    assert averaging.exponent(averaging.WIDEST) == pytest.approx(0.0, abs=1e-6)
    place = (np.arange(100_000) + 0.5) / 100_000
    for width in (0.02, 0.15, 0.25):
        weight = place ** averaging.exponent(width)
        weight /= weight.sum()
        assert np.sqrt(weight @ (place - weight @ place) ** 2) == pytest.approx(width, rel=1e-3)
    for width in (0.0, 0.3, -1.0):
        with pytest.raises(ValueError, match="width="):
            averaging.exponent(width)


def test_post_hoc_average_is_the_one_that_was_not_tracked(walk):
    """From 20 snapshots: a held width to 1e-5 relative; narrower, middle and wider ones to a tenth of the difference
    between the two held."""
    steps = list(range(100, 2001, 100))
    found = tracked(walk, (*WIDTHS, 0.03, 0.07, 0.15))[-1]
    snapshots = tracked(walk, WIDTHS)[np.array(steps) - 1]
    made = lambda width: np.einsum("tk,tki->i", averaging.combination(WIDTHS, steps, width), snapshots)  # noqa: E731
    for k, width in enumerate(WIDTHS):
        np.testing.assert_allclose(made(width), found[k], rtol=1e-5)
    spread = np.abs(found[0] - found[1]).max()
    for k, width in enumerate((0.03, 0.07, 0.15), start=2):
        assert np.abs(made(width) - found[k]).max() < 0.1 * spread, width


@pytest.mark.parametrize("width", [0.03, 0.07, 0.1, 0.2])
@pytest.mark.parametrize("first", [200, 1000])
def test_weights_of_a_post_hoc_average_sum_to_one(first, width):
    """So that parameters which never moved are reproduced, wherever the snapshots fall."""
    weights = averaging.combination(WIDTHS, list(range(first, 2001, 200 if first == 200 else 50)), width)
    assert weights.sum() == pytest.approx(1.0, abs=1e-12)


def test_too_few_snapshots_for_a_width_are_refused():
    """Three, which is what a run keeps by default, do not make an average that reaches further back than they do."""
    last = [1800, 1900, 2000]
    assert averaging.combination(WIDTHS, last, 0.1).sum() == pytest.approx(1.0, abs=1e-9)  # held itself
    for width in (0.01, 0.2):
        with pytest.raises(ValueError, match=f"width={width}: .* at 3 snapshots miss"):
            averaging.combination(WIDTHS, last, width)


def test_the_first_average_of_a_run_is_its_first_update():
    """Each average looks at the parameters *after* the update: after one, they are equal, bit for bit."""
    cfg = diffusion.Config(vectors(2), width=8, blocks=1, power_ema=WIDTHS)
    algorithm = diffusion.algorithm(cfg, batch_size=4)
    batch = {"x": np.ones((4, 2), np.float32)}
    state = jax.jit(algorithm.init)(jax.random.key(0), batch)
    after, _ = jax.jit(algorithm.step)(state, batch, jax.random.key(1))
    for average in after.tracked:
        jax.tree.map(np.testing.assert_array_equal, average, after.params)


@pytest.mark.slow
def test_post_hoc_ema_of_a_run(tmp_path):
    """experiments/post_hoc_ema.py: of the checkpoints of a run, the held width is the state's own average, 1e-5."""
    script = runs.read_experiment(FOLDER / "ddpm_digits.py")
    cfg = replace(script.config, {"model.width": 16, "model.blocks": 1, "model.power_ema": WIDTHS, "steps": 12})
    cfg = replace(cfg, {"save_every": 1, "keep": 12, "sample_every": 100, "eval_every": 100, "batch_size": 16})
    cfg = replace(cfg, {"model.bound_steps": 2, "model.sample_steps": 2, "eval_examples": 16, "samples": 4})
    experiment.train(cfg, script.family, Launch(workdir=tmp_path / "run", tensorboard=False))
    environment = read_json(tmp_path / "run" / "environment.json")
    write_json(tmp_path / "run" / "environment.json", environment | {"experiment": "ddpm_digits"})
    run = opening.open_run(tmp_path / "run", FOLDER)
    spec = importlib.util.spec_from_file_location("post_hoc_ema", FOLDER / "post_hoc_ema.py")
    post_hoc_ema = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(post_hoc_ema)
    held, other = post_hoc_ema.reconstruct(run, (0.1, 0.2))
    for a, b in zip(jax.tree.leaves(held), jax.tree.leaves(run.state.tracked[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    bits, kind, distance = post_hoc_ema.measure(run, other)
    assert np.isfinite([bits, distance]).all() and kind == "lower_bound"
