"""The runner: run folders, exact continuation after every kind of stop, errors before compilation."""

import dataclasses
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genmap_jax.algorithm import like_batch
from genmap_jax.approximate import vae
from genmap_jax.commands import ablation
from genmap_jax.commands.experiment import run as command
from genmap_jax.commands.train import Also
from genmap_jax.files import read_metrics
from genmap_jax.implicit import gan
from genmap_jax.optim import Optim
from genmap_jax.run import config, logs, loop
from genmap_jax.run.checkpoint import Checkpoints
from genmap_jax.run.config import Experiment
from genmap_jax.run.launch import PREEMPTED, Launch
from genmap_jax.run.speed import SPEEDS
from genmap_jax.spaces import Space, images, vectors
from genmap_jax.tractable import gpt

ROOT = Path(__file__).parents[1]
TINY = Experiment(
    name="tiny",
    data="digits",
    model=vae.Config(
        space=images(8, 8, 1, levels=17), latent=2, hidden=(16,), importance_samples=2, ema_halflife=500.0
    ),
    steps=12,
    batch_size=16,
    log_every=2,
    eval_every=12,
    sample_every=6,
    save_every=4,
)


def final_state(workdir: Path, step: int):
    """Every array of a checkpoint, as Orbax itself reads it."""
    checkpoints = Checkpoints(workdir / "checkpoints")
    algorithm = vae.algorithm(TINY.model, batch_size=TINY.batch_size)
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.eval_shape(algorithm.init, jax.random.key(0), like_batch(algorithm.reads, TINY.batch_size))
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)
    found, state = checkpoints.restore(like)
    checkpoints.close()
    assert found == step
    return state


def run(workdir: Path, cfg: Experiment = TINY, **changes) -> int:
    return command(cfg, vae.FAMILY, {}, Launch(workdir=workdir, devices=1, tensorboard=False, **changes))


def rows(workdir: Path) -> list[dict]:
    return read_metrics(workdir / "metrics.jsonl")


def test_a_profile_records_steps_and_changes_nothing(tmp_path):
    """Two steps after ten: a trace with each compiled operation twice. A run with fewer to go says so beforehand."""
    longer = dataclasses.replace(TINY, steps=13)
    assert run(tmp_path / "a", longer, profile=2) == run(tmp_path / "b", longer) == 0
    (trace,) = (tmp_path / "a/profile").rglob("*.trace.json.gz")
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    times = Counter(event["name"] for event in events if "fusion" in event.get("name", ""))
    assert min(times.values()) == 2 and not any(count % 2 for count in times.values())
    assert list((tmp_path / "a/profile").rglob("*.xplane.pb")) and not (tmp_path / "b/profile").exists()
    timeless = lambda row: {k: v for k, v in row.items() if k not in SPEEDS}  # noqa: E731
    assert [*map(timeless, rows(tmp_path / "a"))] == [*map(timeless, rows(tmp_path / "b"))]
    with pytest.raises(ValueError, match="--profile 9: of 13 steps at most 3 can be recorded"):
        run(tmp_path / "c", longer, profile=9)
    with pytest.raises(ValueError, match="--profile 2: of 7 steps at most 0 can be recorded"):
        run(tmp_path / "b", dataclasses.replace(TINY, steps=20), profile=2)


def test_a_run_folder_is_complete(tmp_path):
    assert run(tmp_path) == 0
    assert config.from_json(TINY, json.loads((tmp_path / "config.json").read_text())) == TINY
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert environment["versions"]["jax"] == jax.__version__ and environment["command"]
    assert [row["step"] for row in rows(tmp_path)] == [2, 4, 6, 8, 10, 12]
    assert rows(tmp_path)[-1]["kind"] == "lower_bound" and rows(tmp_path)[-1]["validation_bits_per_dim"] > 0
    assert sorted(p.name for p in (tmp_path / "samples").iterdir()) == ["00000006.png", "00000012.png", "inputs.png"]
    assert sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == [4, 8, 12]
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["likelihood"]["kind"] == "lower_bound" and result["likelihood"]["n"] == 300
    assert result["steps"] == 12 and result["samples_per_second"] > 0 and result["parameters"] > 0


@pytest.mark.slow
def test_a_longer_run_continues_bit_exactly(tmp_path):
    """8 steps and then 12 equal 12 at once: state and logged metrics."""
    run(tmp_path / "whole")
    run(tmp_path / "parts", dataclasses.replace(TINY, steps=8))
    run(tmp_path / "parts")
    for a, b in zip(
        jax.tree.leaves(final_state(tmp_path / "whole", 12)),
        jax.tree.leaves(final_state(tmp_path / "parts", 12)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    pick = lambda r: {k: r[k] for k in ("step", "loss", "kl", "recon", "examples")}  # noqa: E731
    assert [pick(r) for r in rows(tmp_path / "whole")] == [pick(r) for r in rows(tmp_path / "parts")]


def test_metrics_ahead_of_the_checkpoint_are_dropped_on_resume(tmp_path):
    run(tmp_path, dataclasses.replace(TINY, steps=8))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 10, "seconds": 1}\n{"step": 1')  # logged, then killed in the middle of a row
    run(tmp_path)
    assert [row["step"] for row in rows(tmp_path)] == [2, 4, 6, 8, 10, 12]


def start(workdir: Path, *flags: str) -> subprocess.Popen:
    """A real experiment in a process of its own."""
    command = [
        sys.executable,
        "experiments/vae_digits.py",
        "--workdir",
        str(workdir),
        "--platform",
        "cpu",
        "--log-every",
        "5",
    ]
    common = ["--save-every", "20", "--eval-every", "100000", "--sample-every", "100000", "--no-tensorboard"]
    return subprocess.Popen(
        [*command, *common, *flags], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def saved_steps(workdir: Path) -> list[int]:
    return sorted(int(p.name) for p in (workdir / "checkpoints").glob("[0-9]*") if p.name.isdigit())


def wait_for_checkpoint(job: subprocess.Popen, workdir: Path, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not saved_steps(workdir):
        assert job.poll() is None and time.monotonic() < deadline, job.stdout.read()
        time.sleep(0.1)


@pytest.mark.slow  # within one process: tests/test_stops.py
def test_sigterm_saves_and_kill_resumes(tmp_path):
    """SIGTERM: exit 75, this very step saved. kill -9: back to the last save. The end equals an unbroken run."""
    job = start(tmp_path / "broken", "--steps", "1000000")
    wait_for_checkpoint(job, tmp_path / "broken")
    job.send_signal(signal.SIGTERM)
    output, _ = job.communicate(timeout=60)
    assert job.returncode == PREEMPTED == 75, output
    stopped = saved_steps(tmp_path / "broken")[-1]
    assert f"saved step {stopped}" in output
    assert rows(tmp_path / "broken")[-1]["step"] == stopped - stopped % 5, "no row of its own"

    job = start(tmp_path / "broken", "--steps", "1000000")
    while not (saved_steps(tmp_path / "broken") or [0])[-1] > stopped:
        assert job.poll() is None, job.stdout.read()
        time.sleep(0.1)
    os.kill(job.pid, signal.SIGKILL)
    job.communicate()
    last = saved_steps(tmp_path / "broken")[-1]

    end = str(last + 30)
    for name in ("broken", "whole"):
        job = start(tmp_path / name, "--steps", end)
        output, _ = job.communicate(timeout=300)
        assert job.returncode == 0, output
    losses = [[(row["step"], row["loss"]) for row in rows(tmp_path / name)] for name in ("whole", "broken")]
    assert losses[1] == losses[0], "the same steps and losses, to the last bit"


def diverging(cfg, *, batch_size, axis_name=None):
    """A VAE whose loss becomes NaN at step 7."""
    algorithm = vae.algorithm(cfg, batch_size=batch_size, axis_name=axis_name)

    def step(state, batch, key):
        after, metrics = algorithm.step(state, batch, key)
        return after, metrics | {"loss": jnp.where(after.step == 7, jnp.nan, metrics["loss"])}

    return algorithm._replace(step=step)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    family = vae.FAMILY._replace(algorithm=diverging)
    with pytest.raises(logs.NonFinite, match=r"step 7: loss is nan\. Last good checkpoint: step 4"):
        command(TINY, family, {}, Launch(workdir=tmp_path, devices=1, tensorboard=False))
    assert saved_steps(tmp_path) == [4]


def test_samples_that_are_not_finite_stop_the_run(tmp_path):
    """Not black pictures of a run that goes on: the run, the step and how many there are."""

    def sampling_nan(cfg, *, batch_size, axis_name=None):
        algorithm = vae.algorithm(cfg, batch_size=batch_size, axis_name=axis_name)
        broken = lambda state, *how: algorithm.sample(state, *how).at[1].set(jnp.where(state.step > 6, jnp.nan, 0.0))  # noqa: E731
        return algorithm._replace(sample=broken)

    family = vae.FAMILY._replace(algorithm=sampling_nan)
    with pytest.raises(logs.NonFinite, match=rf"{tmp_path}, step 12: 4 of {TINY.samples} samples .* step 8 in"):
        command(TINY, family, {}, Launch(workdir=tmp_path, devices=1, tensorboard=False))
    assert (tmp_path / "samples" / "00000006.png").exists() and not (tmp_path / "samples" / "00000012.png").exists()
    assert not (tmp_path / "result.json").exists()


def test_another_config_in_the_same_folder_is_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(ValueError, match="model.latent: 2 there, 3 here"):
        run(tmp_path, config.replace(TINY, {"model.latent": 3}))
    with pytest.raises(ValueError, match="seed"):
        run(tmp_path, dataclasses.replace(TINY, seed=1))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": "digit"}, "digits"),
        ({"model.space": images(16, 16, 1, levels=17)}, "model.space.shape"),
        ({"model.space": images(8, 8, 1)}, "levels"),
        ({"model.space": Space((8, 8), 17)}, "space.shape"),
        ({"steps": 0}, "steps"),
        ({"save_every": 0}, "save_every"),
        ({"model.optim.decay": 10, "model.optim.warmup": 20}, "optim.decay=10"),
    ],
)
def test_bad_input_is_named_before_anything_is_written(changes, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        run(tmp_path / "run", config.replace(TINY, changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("pydoc", {"vocab": 100}, "--model.vocab to at least 256"),
        ("pydoc", {"classes": 2}, "no labels.*leave model.classes out"),
        ("digits", {"classes": 7, "shape": (8, 8, 1), "vocab": 17}, "has 10 classes.*--model.classes 10"),
    ],
)
def test_tokens_and_labels_that_the_model_does_not_have_are_named(name, changes, words):
    model = gpt.Config(**{"vocab": 256, "length": 64} | changes)
    with pytest.raises(ValueError, match=words):
        experiment = config.Experiment(name="x", data=name, model=model, steps=1, batch_size=1)
        loop.load(experiment, gpt.algorithm(model, batch_size=1), None)


def result(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def table(folder: Path, cfg: Experiment, ablations: dict, seeds: int, **also) -> int:
    launch = Launch(workdir=folder, devices=1, tensorboard=False)
    return command(cfg, vae.FAMILY, ablations, launch, Also(ablation="all" if ablations else None, seeds=seeds, **also))


@pytest.mark.slow
def test_seeds_in_one_program_are_the_runs_of_those_seeds(tmp_path):
    """Seeds 0 and 1 in one program equal `--seed 0` and `--seed 1` (SGD, 1e-4 relative on the likelihood)."""
    cfg = config.replace(TINY, {"model.optim": Optim(name="sgd", lr=1e-2, clip=0.0), "steps": 5})
    launch = Launch(workdir=tmp_path, devices=1, tensorboard=False)
    assert ablation.together(cfg, vae.FAMILY, launch, 2)
    table(tmp_path / "table", cfg, {}, 2)
    for seed in (0, 1):
        run(tmp_path / str(seed), dataclasses.replace(cfg, seed=seed))
        alone, beside = result(tmp_path / str(seed)), result(tmp_path / "table" / f"baseline-seed{seed}")
        assert beside["likelihood"]["value"] == pytest.approx(alone["likelihood"]["value"], rel=1e-4)
        assert beside["seed"] == seed


def test_convolutions_on_a_cpu_are_trained_seed_by_seed(tmp_path):
    conv = config.replace(TINY, {"model.network": "conv", "model.hidden": (4, 8), "model.blocks": 1})
    launch = Launch(workdir=tmp_path, devices=1)
    assert not ablation.together(conv, vae.FAMILY, launch, 3)
    assert not ablation.together(TINY, vae.FAMILY, launch, 1)
    assert not ablation.together(TINY, vae.FAMILY, dataclasses.replace(launch, parallel="pmap"), 3)


@pytest.mark.parametrize("every", [1, 4])
def test_lazy_penalties_are_trained_seed_by_seed(every, tmp_path):
    """As one program both branches would be computed at every step."""
    game = gan.Config(vectors(2), latent=2, width=4, depth=1, penalty_every=every)
    cfg = dataclasses.replace(TINY, model=game)
    assert ablation.together(cfg, gan.FAMILY, Launch(workdir=tmp_path, devices=1), 3) == (every == 1)


@pytest.mark.slow
def test_an_ablation_killed_between_two_saves_goes_on_bit_for_bit(tmp_path):
    """Two seeds in one program; afterwards one of them lost its last checkpoints, as after a kill between two saves."""
    table(tmp_path / "whole", TINY, {}, 2)
    table(tmp_path / "broken", dataclasses.replace(TINY, steps=8), {}, 2)
    shutil.rmtree(tmp_path / "broken" / "baseline-seed1" / "checkpoints" / "8")
    table(tmp_path / "broken", TINY, {}, 2)
    for seed in (0, 1):
        folders = [tmp_path / name / f"baseline-seed{seed}" for name in ("whole", "broken")]
        assert rows(folders[0])[-1]["loss"] == rows(folders[1])[-1]["loss"]
        a, b = (jax.tree.leaves(final_state(folder, 12)) for folder in folders)
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)


@pytest.mark.slow
def test_a_seed_that_diverges_does_not_stop_the_others(tmp_path, capsys):
    def third_seed_diverges(cfg, *, batch_size, axis_name=None):
        algorithm = vae.algorithm(cfg, batch_size=batch_size, axis_name=axis_name)

        def init(key, batch):
            state = algorithm.init(key, batch)
            marked = jnp.array_equal(jax.random.key_data(key), jax.random.key_data(first_key(2)))
            return state.replace(params=jax.tree.map(lambda x: jnp.where(marked, jnp.nan, x), state.params))

        return algorithm._replace(init=init)

    first_key = lambda seed: jax.random.split(jax.random.key(seed), 3)[0]  # noqa: E731
    launch = Launch(workdir=tmp_path, devices=1, tensorboard=False)
    family = vae.FAMILY._replace(algorithm=third_seed_diverges)
    assert command(dataclasses.replace(TINY, steps=3), family, {}, launch, Also(seeds=3)) == 3
    values = json.loads((tmp_path / "ablation.json").read_text())["table"]["baseline"]["likelihood"]
    assert np.isfinite(values[:2]).all() and np.isnan(values[2])
    assert "step 1" in capsys.readouterr().out


def test_ablation_table_has_errors_and_paired_differences(tmp_path, capsys):
    short, ablations = dataclasses.replace(TINY, steps=3), {"wide": {"model.hidden": (32,)}}
    assert table(tmp_path, short, ablations, 3) == 0
    text = capsys.readouterr().out
    summary = json.loads((tmp_path / "ablation.json").read_text())
    a, b = (np.array(summary["table"][name]["likelihood"]) for name in ("baseline", "wide"))
    assert len(a) == 3 and len(set(a)) == 3
    assert list(a) == [result(tmp_path / f"baseline-seed{i}")["likelihood"]["value"] for i in range(3)]
    error = (b - a).std(ddof=1) / np.sqrt(3)
    assert f"{(b - a).mean():+.4f} ± {error:.4f}" in text and "lower_bound" in text
    table(tmp_path, short, ablations, 3)
    assert capsys.readouterr().out.count("already trained") == 6, "finished runs are not trained again"
    launch = Launch(workdir=tmp_path)
    with pytest.raises(ValueError, match="has: wide"):
        command(TINY, vae.FAMILY, ablations, launch, Also(ablation="widee"))
    for changed in ({"budget": 1.0}, {"distributed": True}):
        with pytest.raises(ValueError, match=f"--{next(iter(changed))}"):
            ablation.ablate(TINY, vae.FAMILY, {}, dataclasses.replace(launch, **changed), Also(seeds=2))


def test_a_variant_is_an_ordinary_run(tmp_path):
    launch, ablations = Launch(workdir=tmp_path, devices=1, tensorboard=False), {"wide": {"model.hidden": (32,)}}
    assert command(dataclasses.replace(TINY, steps=2), vae.FAMILY, ablations, launch, Also(variant="wide")) == 0
    assert json.loads((tmp_path / "config.json").read_text())["model"]["hidden"] == [32]
    with pytest.raises(ValueError, match="'x'.*this experiment has: wide"):
        command(TINY, vae.FAMILY, ablations, launch, Also(variant="x"))


def test_schedules_count_examples_not_steps():
    """Twice the batch, half the steps: the same learning rate after the same number of examples."""
    from genmap_jax.optim import schedule

    cfg = Optim(lr=1.0, warmup=1000, decay=10_000, final=0.1)
    for examples in (0, 500, 1000, 5000, 10_000, 20_000):
        assert schedule(cfg, 50)(examples // 50) == pytest.approx(float(schedule(cfg, 100)(examples // 100)), abs=1e-6)
    assert float(schedule(cfg, 100)(10)) == pytest.approx(1.0) and float(schedule(cfg, 100)(100)) == pytest.approx(0.1)


def test_ema_forgets_by_half_in_a_halflife_of_examples():
    """Closed form: after h examples of a constant target, half of the start is left, for any batch size."""
    from genmap_jax.algorithm import ema_update

    for batch in (10, 50):
        ema = {"w": jnp.ones(())}
        for step in range(1000, 1000 + 500 // batch):
            ema = ema_update(ema, {"w": jnp.zeros(())}, jnp.int32(step * 50), batch, halflife=500.0)
        assert float(ema["w"]) == pytest.approx(0.5, abs=1e-5)
    assert ema_update(None, {"w": 1}, jnp.int32(0), 10, None) is None


def test_weight_decay_leaves_biases_and_gains_alone():
    """Of any shape, and whatever else the tree is made of: the name tells."""
    from genmap_jax.optim import optimizer

    params = {"kernel": jnp.ones((2, 2)), "gain": jnp.ones((3, 2)), "bias": jnp.ones(2), "list": [jnp.ones((2, 2))]}
    for name in ("adam", "muon"):
        tx = optimizer(Optim(name=name, lr=0.1, muon_lr=0.1, weight_decay=0.5, clip=0.0), 1)
        updates, _ = jax.jit(tx.update)(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
        after = optax.apply_updates(params, updates)
        np.testing.assert_allclose(after.pop("kernel"), 0.95, rtol=1e-6)
        assert all((p == 1.0).all() for p in jax.tree.leaves(after))
    tx = optimizer(Optim(weight_decay=0.5), 1)
    tx.update(jnp.zeros((2, 2)), tx.init(jnp.ones((2, 2))), jnp.ones((2, 2)))  # one array without a name


def test_muon_orthogonalises_kernels_and_leaves_the_rest_to_adam():
    """The first update of a kernel, a convolution's as a matrix of [inputs of a window, outputs], is muon_lr times a
    matrix of singular values about 1; that of an embedding or of a stack of kernels is Adam's own."""
    from genmap_jax.optim import optimizer

    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)  # noqa: E731
    params = {
        "dense": {"kernel": draw(12, 12), "bias": draw(12)},
        "embedding": draw(7, 12),
        "conv": {"kernel": draw(2, 2, 3, 12)},
        "stack": {"kernel": draw(3, 2, 2)},
    }
    grads = jax.tree.map(lambda p: draw(*p.shape), params)
    updates = {}
    for name in ("adam", "muon"):
        tx = optimizer(Optim(name=name, lr=0.1, muon_lr=0.02, clip=0.0), 1)
        updates[name], _ = jax.jit(tx.update)(grads, tx.init(params), params)
    for name in ("dense", "conv"):
        update = updates["muon"][name].pop("kernel").reshape(12, 12)
        sizes = np.linalg.svd(-update / 0.02, compute_uv=False)
        assert 0.6 < sizes.min() and sizes.max() < 1.3
        updates["adam"][name].pop("kernel")
    jax.tree.map(np.testing.assert_array_equal, updates["muon"], updates["adam"])
