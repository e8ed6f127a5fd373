"""Where the wall time of a run went, over its restarts, and how much of a device it used."""

import dataclasses
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genmap_jax import data
from genmap_jax.algorithm import like_batch
from genmap_jax.approximate import vae
from genmap_jax.commands.cli import main
from genmap_jax.commands.measure import Observer
from genmap_jax.files import read_json, read_metrics
from genmap_jax.flops import flops
from genmap_jax.report.page import shares
from genmap_jax.run import loop, runs, speed
from genmap_jax.run.launch import Launch

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
CFG = runs.read_experiment(EXPERIMENTS / "vae_digits.py").config
CFG = dataclasses.replace(
    CFG,
    model=dataclasses.replace(CFG.model, hidden=(8,)),
    steps=10,
    save_every=5,
    log_every=5,
    eval_examples=20,
    samples=4,
)


def test_utilisation_is_of_the_peak_of_one_device():
    """8 devices, 4 steps a second of 8e12 operations each: 4 TFLOP/s on each, of the 989.4 of an H200."""
    device = lambda used: SimpleNamespace(device_kind="NVIDIA H200", memory_stats=lambda: used)  # noqa: E731
    here = [device({"peak_bytes_in_use": size * 2**30}) for size in (1, 3)]
    mesh = SimpleNamespace(size=8, devices=np.array(here * 4), local_devices=here)
    row = speed.speeds(4.0, 128, 8 * 10**12, mesh)
    assert row["tflops_per_device"] == 4.0 and row["utilisation"] == pytest.approx(4.0 / 989.4)
    assert row["examples_per_second"] == 512.0 and row["peak_gib"] == 3.0
    unknown = SimpleNamespace(device_kind="cpu", memory_stats=lambda: None)
    mesh = SimpleNamespace(size=1, devices=np.array([unknown]), local_devices=[unknown])
    assert set(speed.speeds(4.0, 128, 10**12, mesh)) == {"steps_per_second", "examples_per_second", "tflops_per_device"}


def test_every_moment_is_of_one_kind(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(speed.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(speed, "_began", 93.0)

    def later(seconds, *kind, **was):
        now[0] += seconds
        clock.turn(*kind, **was)

    clock = speed.Clock([tmp_path], 0)
    later(1.0, "data")
    later(2.0, "compile", was="data")
    later(4.0, "step")
    later(8.0, "data")
    later(0.5, "step", was="step")  # the devices had work meanwhile
    now[0] += 16.0
    clock.write(30)
    assert speed.time_spent(tmp_path) == {
        **{"start": 8.0, "compile": 4.0, "data": 2.0, "step": 24.5},
        **{"evaluation": 0.0, "saving": 0.0, "lost": 0.0},
    }
    now[0] += 10.0
    clock.turn("saving")
    clock.write(40)
    clock = speed.Clock([tmp_path], 20)  # killed at 40, goes on at 20: half of its steps are lost
    later(3.0, "step")
    now[0] += 6.0
    clock.write(26)
    spent = speed.time_spent(tmp_path)
    assert spent["lost"] == 34.5 / 2 and spent["step"] == 34.5 / 2 + 6.0 and spent["start"] == 11.0
    speed.Clock([tmp_path], 10).write(10)  # and again, at 10: all of these 6 steps, and a quarter more of the first 40
    assert speed.time_spent(tmp_path)["lost"] == 34.5 * 3 / 4 + 6.0
    assert sum(speed.time_spent(tmp_path).values()) == sum(spent.values())
    assert shares({"step": 3.0, "lost": 0.0, "start": 1.0}) == "step 75 %, start 25 %"


def trained(folder: Path, step=None, cfg=CFG) -> loop.Program:
    """Train `CFG` here, with another step if so asked."""
    program = loop.prepare(cfg, vae.FAMILY, Launch(devices=1, tensorboard=False))
    program = dataclasses.replace(program, step=step or program.step)
    loop.train(program, [cfg], [folder], Launch(devices=1, tensorboard=False), Observer(program, 20))
    return program


@pytest.mark.parametrize("flags", [{}, {"parallel": "pmap"}])
def test_operations_are_those_of_one_update(flags):
    """Of the whole batch on any number of devices, and of all seeds that are trained together."""
    algorithm = loop.bind(CFG, vae.FAMILY)
    key, batch = jax.random.key(0), like_batch(algorithm.reads, CFG.batch_size)
    one = flops(algorithm.step, jax.eval_shape(algorithm.init, key, batch), batch, key)
    assert one > 2 * 64 * 8 * CFG.batch_size
    assert loop.prepare(CFG, vae.FAMILY, Launch(devices=8 if flags else 1, **flags)).flops == one
    if not flags:
        assert loop.prepare(CFG, vae.FAMILY, Launch(devices=1), together=3).flops == 3 * one


def test_what_is_computed_a_second_time_to_save_memory_does_not_count():
    """Utilisation is of the operations of the model (Chowdhery et al. 2022, appendix B)."""
    script = runs.read_experiment(EXPERIMENTS / "gpt_digits.py")
    counted = []
    for remat in ("none", "full"):
        cfg = dataclasses.replace(script.config, model=dataclasses.replace(script.config.model, remat=remat))
        counted += [loop.prepare(cfg, script.family, Launch(devices=1)).flops]
        counted += [loop.operations(loop.bind(cfg, script.family), cfg.batch_size)]
    assert counted[0] == counted[1] == counted[2] < counted[3]
    model = runs.read_experiment(EXPERIMENTS / "latent_diffusion_glyphs.py").config.model
    changed = dataclasses.replace(model, autoencoder=dataclasses.replace(model.autoencoder, remat=True))
    assert loop.without_recomputation(changed) == model != changed
    glow = runs.read_experiment(EXPERIMENTS / "glow_cifar10.py").config.model
    assert not loop.without_recomputation(dataclasses.replace(glow, reversible=True)).reversible


def test_a_run_says_where_its_time_went(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["vae_digits.py"])
    began, folder = time.perf_counter(), tmp_path / "run"
    speed.Clock([], 0)  # not the first of this process
    program = trained(folder)
    assert "GFLOP a step, 1 cpu device(s) (mesh: the default on one), from step 0 to 10" in capsys.readouterr().out
    spent = speed.time_spent(folder)
    assert all(spent[kind] > 0 for kind in speed.KINDS) and spent["lost"] == 0
    assert sum(spent.values()) < time.perf_counter() - began
    (*_, row) = read_metrics(folder / "metrics.jsonl")
    assert row["tflops_per_device"] == pytest.approx(program.flops * row["steps_per_second"] / 1e12)
    assert row["examples_per_second"] == pytest.approx(row["steps_per_second"] * CFG.batch_size)
    result = read_json(folder / "result.json")
    assert result["speed"]["examples_per_second"] == row["examples_per_second"] and result["time"]["step"] > 0

    shutil.rmtree(folder / "checkpoints" / "10")  # as if killed before it was saved
    (folder / "result.json").unlink()
    trained(folder)
    again = speed.time_spent(folder)
    assert again["lost"] == pytest.approx(spent["step"] / 2)
    capsys.readouterr()
    main(["list", str(tmp_path)])
    title, line, _ = capsys.readouterr().out.splitlines()
    assert "examples/s  TFLOP/s   use  lost" in title
    assert f"{100 * again['lost'] / sum(again.values()):.1f}%" in line


@pytest.mark.parametrize("slow", ["data", "step"])
def test_time_for_data_is_that_for_which_devices_wait(tmp_path, monkeypatch, slow):
    """Slow data are waited for; data that are gathered while a slow step runs are not."""
    monkeypatch.setattr("sys.argv", ["vae_digits.py"])
    batch, algorithm = data.batch, loop.bind(CFG, vae.FAMILY)

    def slowly(*args):
        time.sleep(0.03)
        return batch(*args)

    def step(state, batch, key):
        work = lambda _, x: x @ x / 400.0  # noqa: E731
        state, metrics = algorithm.step(state, batch, key)
        x = jnp.full((400, 400), jnp.tanh(metrics["loss"]))
        return state, metrics | {"work": jax.lax.fori_loop(0, 100, work, x).mean() * 0.0}

    monkeypatch.setattr(data, "batch", slowly)
    jitted = jax.jit(step, donate_argnums=0) if slow == "step" else None
    trained(tmp_path / "run", jitted, dataclasses.replace(CFG, log_every=10))
    spent = speed.time_spent(tmp_path / "run")
    if slow == "data":
        assert spent["data"] > 0.9 * 10 * 0.03
    else:
        assert spent["data"] < 4 * 0.03 < spent["step"]  # the first is waited for, of the others few
