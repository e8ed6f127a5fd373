"""Counts of operations against closed forms; the map orders and shortens its runs by them."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from genmap_jax import parallel
from genmap_jax.algorithm import Algorithm, like_batch
from genmap_jax.commands import map as mapping
from genmap_jax.flops import flops
from genmap_jax.nn.conv import correlate
from genmap_jax.run.loop import operations
from genmap_jax.run.runs import read_experiment
from genmap_jax.spaces import images
from genmap_jax.tractable import gpt

A, B = jnp.ones((5, 3)), jnp.ones((3, 7))
IMAGE, KERNEL = jnp.ones((2, 8, 8, 4)), jnp.ones((3, 3, 4, 6))
EXPERIMENTS = Path(__file__).parents[1] / "experiments"


def conv(x, kernel, stride=1, **options):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), **options
    )


@pytest.mark.parametrize(
    ("function", "args", "expected"),
    [
        (jnp.dot, (A, B), 2 * 5 * 3 * 7),
        (lambda a, b: jnp.sin(a) @ b, (A, B), 2 * 5 * 3 * 7),
        (jax.vmap(jnp.dot, in_axes=(None, 0)), (A, jnp.ones((4, 3, 7))), 4 * 2 * 5 * 3 * 7),
        (jax.jit(lambda a, b: a @ b), (A, B), 2 * 5 * 3 * 7),
        (jax.grad(lambda a, b: jnp.square(a @ b).sum(), argnums=(0, 1)), (A, B), 3 * 2 * 5 * 3 * 7),
        (conv, (IMAGE, KERNEL), 2 * (3 * 3 * 4) * (2 * 8 * 8 * 6)),
        (
            jax.grad(lambda x, k: jnp.square(conv(x, k, stride=2)).sum(), argnums=(0, 1)),
            (IMAGE, KERNEL),
            3 * 2 * (3 * 3 * 4) * (2 * 4 * 4 * 6),
        ),
        (
            lambda x, k: conv(x, k, feature_group_count=2),
            (IMAGE, jnp.ones((3, 3, 2, 6))),
            2 * 3 * 3 * 2 * 2 * 8 * 8 * 6,
        ),
        (lambda x: jax.lax.scan(lambda c, _: (c @ c, None), x, None, length=11)[0], (jnp.eye(4),), 11 * 2 * 4**3),
        (lambda x: jax.lax.fori_loop(0, 11, lambda _, c: c @ c, x), (jnp.eye(4),), 11 * 2 * 4**3),
        (lambda x: jax.lax.cond(x[0, 0] > 0, lambda x: x @ x, lambda x: x, x), (jnp.eye(4),), 2 * 4**3),
        (jax.checkpoint(lambda a, b: a @ b), (A, B), 2 * 5 * 3 * 7),
    ],
)
def test_counts_are_those_of_closed_forms(function, args, expected):
    assert flops(function, *args) == expected
    assert flops(function, *jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), args)) == expected


def test_an_update_of_a_gpt_is_the_published_formula():
    """6 N + 12 L D T operations per token for N parameters without positions (Chowdhery et al. 2022, appendix B): 1 %.

    Biases and normalisations are parameters, but in no product; here they are a hundredth of N.
    """
    cfg = gpt.Config(vocab=512, length=64, layers=2, heads=2, width=128)
    params = jax.eval_shape(lambda: gpt.init_params(cfg, jax.random.key(0)))
    count = sum(leaf.size for leaf in jax.tree.leaves(params)) - params["positions"].size
    tokens = jax.ShapeDtypeStruct((3, 64), jnp.int32)
    counted = flops(jax.grad(lambda params, tokens: gpt.log_prob(cfg, params, tokens).sum()), params, tokens)
    assert counted / (3 * 64) == pytest.approx(6 * count + 12 * cfg.layers * cfg.width * cfg.length, rel=0.01)


def test_operations_of_an_update_are_the_same_on_every_platform():
    """A GPU's kernel of attention is one call in the program, and cannot even be traced without a GPU; a CPU makes wide
    convolutions of fewer products. Counting changes nothing of what is compiled afterwards."""
    text = gpt.Config(vocab=64, length=16, layers=1, heads=2, width=64, dtype="bfloat16")
    algorithm = gpt.algorithm(text, batch_size=2)
    counted = operations(algorithm, 2)
    with parallel.tracing_for("gpu"):
        assert operations(algorithm, 2) == counted > 6 * 2 * 16 * 12 * 64**2

    x, kernel = jnp.ones((2, 8, 8, 128)), jnp.ones((3, 3, 128, 128))
    made = Algorithm(
        reads={"image": images(8, 8, 1)},
        init=lambda key, batch: kernel,
        step=lambda kernel, batch, key: (correlate(x, kernel, pad=1), {}),
    )
    assert operations(made, 2) == 2 * x.size * kernel.size // 128
    program = jax.make_jaxpr(made.step)(kernel, like_batch(made.reads, 2), jax.random.key(0))
    assert "conv_general_dilated" not in str(program)


def test_work_of_an_experiment_grows_with_its_steps_and_width():
    script = read_experiment(EXPERIMENTS / "vae_digits.py")
    config = script.config
    twice = script._replace(config=type(config)(**{**vars(config), "steps": 2 * config.steps}))
    assert mapping.work(twice) == 2 * mapping.work(script) > 10**9
    assert mapping.work(script) < mapping.work(read_experiment(EXPERIMENTS / "gpt_digits.py"))


def test_a_map_keeps_to_its_budget_and_passes_on_what_is_left():
    """Eight runs of which some need less than their share: together at most the budget, later ones get more."""
    needed, overhead, budget = [0.2, 0.7, 0.8, 1.3, 2.3, 0.7, 0.7, 2.0], 0.95, 15.0
    spent, given = 0.0, []
    for i, need in enumerate(needed):
        given.append(mapping.training_minutes(budget - spent, len(needed) - i))
        spent += min(need, given[-1]) + overhead
    assert spent <= budget + 0.1
    assert given[-1] > 1.5 * given[0]
    assert mapping.training_minutes(0.5, 4) == mapping.LEAST


def test_a_map_of_many_runs_has_time_for_each():
    """Unless told: 15 minutes, which one run of digits does not need, and 3 for each of many."""
    assert [mapping.planned_minutes(count) for count in (1, 5, 12, 36)] == [15.0, 15.0, 36.0, 108.0]


def test_the_process_of_a_map_leaves_the_accelerator_to_its_runs(tmp_path):
    """It counts work on the CPU whatever JAX_PLATFORMS says; here that names a platform which is not there."""
    code = f"""
from pathlib import Path
import jax
from genmap_jax.commands import executors, map
ran = []
executors.run_here = lambda command: ran.append(Path(command[0]).stem) or 9
scripts = map.members(Path({str(EXPERIMENTS)!r}), "digits", "gpt,vae")
code = map.make_map(scripts, Path("w"), data="digits", budget=1.0, seeds=1, samples=100, features="own")
print(code, ran, jax.devices()[0].platform)
"""
    env = os.environ | {"JAX_PLATFORMS": "cuda", "PYTHONPATH": str(EXPERIMENTS.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["9 ['vae_digits'] cpu"], done.stdout + done.stderr


def test_remaining_minutes_are_within_the_budget():
    assert mapping.remaining_minutes(8, 0, 0.0, 15.0) == 15.0
    assert mapping.remaining_minutes(6, 2, 2.0, 15.0) == 6.0
    assert mapping.remaining_minutes(6, 2, 10.0, 15.0) == 5.0
