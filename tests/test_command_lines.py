"""Command lines that cannot work: refused in one line that names what is wrong, with exit code 2, before anything is
compiled."""

import dataclasses
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from genmap_jax import data, parallel
from genmap_jax.commands import cli, experiment
from genmap_jax.run import loop
from genmap_jax.run.launch import Launch
from genmap_jax.run.runs import Script, read_experiment

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "experiments"
SCRIPTS: dict[str, Script] = {}


def lines(command: str, flags: str) -> list[str]:
    """A command line for each value of each flag: flags stand apart by a comma and a space, values by a bar."""
    out = []
    for each in re.split(r",\s+", flags.strip()):
        flag, _, values = each.partition(" ")
        flag = flag if flag.startswith("-") else f"--{flag}"
        out += [f"{command} {flag} {value}" for value in values.split("|")]
    return out


TABLE = """
vae_digits: steps 0|-1|1.5|many, batch-size 0|-1, seed -1|99999999999999999999|4294967296, keep 0|-1
vae_digits: log_every 0|-1, eval_every 0|-1, sample_every 0|-1, save_every 0|-3, samples 0|-1
vae_digits: eval_examples 0|1|-3, eval-examples 1 --dry-run, seed 4294967295 --seeds 2
vae_digits: name ..|../x|/tmp/x|a/b|., data nonsense|toy/nonsense|digits/1.0.0|../digits|/etc|pair/digits
vae_digits: budget 0|-1|inf|nan, devices 0|-1|99999, seeds 0|-1, measured-samples 0|5|-1
vae_digits: profile 0|-1|x, steps 20 --profile 11
vae_digits: model.dtype float16, model.accumulate 0|-1|3
ebm_digits: model.dtype float16, model.accumulate 0|-1|3
flow_digits: model.dtype float16, model.accumulate 0|-1|3
cyclegan_digits: model.dtype float16, model.accumulate 0|-1|3
gan_digits: model.dtype float16
ddpm_digits: model.dtype float16, model.accumulate 0|-1|3
score_digits: model.dtype float16, model.accumulate 0|-1|3
vae_digits: stuck-after 0|-1|nan|inf, fsdp --parallel pmap, wandb, text.tokenizer characters, text.packed
vae_digits: workdir {file}|{file}/sub|{link}|{link}/sub|gs://bucket/run|''|, data-dir {file}|gs://bucket|''
vae_digits: platform '', name '', data '', ablation ''|nope, variant ''|nope|baseline --ablation all
vae_digits: executor slurm, executor ray, ablation all --budget 1, seeds 2 --budget 1
vae_digits: features resnet|''|inception|dinov2|clip, weights {file}|{file} --features own
vae_digits: weights {missing} --features inception|{missing} --features efficientnet
vae_digits: weights {file} --features inception|{file} --features dinov2
vae_digits: augment nope, latnt 5, dry-run --steps 0, dry-run --data nonsense, dry-run --batch-size 0
vae_digits: dry-run --model.space.shape 9 9 1, dry-run --workdir {file}, dry-run --ablation nope
diffusion_toy: augment flip, features inception --weights {file}, data digits|pydoc
vae_digits: model.optim.lr nan|inf|-1, model.optim.muon-lr nan|inf|-1, model.optim.b1 1|2|-1|nan
vae_digits: model.optim.b2 1|2|-1|nan, model.optim.eps 0|-1|nan|inf, model.optim.weight-decay -1|nan|inf
vae_digits: model.optim.clip -1|nan|inf, model.optim.warmup -1, model.optim.decay -1, model.optim.final -1|2|nan
vae_digits: model.optim.name rmsprop
vae_digits: model.latent 0|-1, model.hidden 0 0|-5, model.blocks -1, model.beta -1|nan|inf
vae_digits: model.importance-samples 0|-1, model.ema-halflife 0|-1|nan|inf, model.network nope
vae_digits: model.space.shape 9 9 1|0 0 1|-8 8 1|8 8|8, model.space.levels 0|-1|1|16|300
vae_digits: model.network conv --model.hidden 8 8 8 8 8, model.network conv --model.hidden
gpt_digits: model.vocab 0|-1|5|300, model.length 0|-1|5, model.layers 0|-1, model.heads 0|-1|3
gpt_digits: model.kv-heads 0|-1|3, model.width 0|-1, model.hidden 0|-5, model.norm-eps 0|-1|nan|inf
gpt_digits: model.softcap -1|0|nan|inf, model.window 0|-1, model.global-every 0|-1|2
gpt_digits: model.theta 0|-1|1|nan|inf, model.scaling.factor 0|-1|nan|inf, model.scaling.original -1
gpt_digits: model.scaling.fast 0|nan, model.scaling.slow 0|-1, model.chunk 0|-1|5, model.trained 0|-1
gpt_digits: model.temperature 0|-1|nan|inf, model.top-k 0|-1|99, model.top-p 0|-1|2|nan
gpt_digits: model.min-p 0|-1|2|nan, model.stop -1|99, model.accumulate 0|-1|3, model.ema-halflife 0|-1
gpt_digits: model.classes 0|-1|3, model.shape 9 9 1|0 8 1, model.init zero
gpt_pydoc: data digits, model.vocab 20, model.length 99999999, text.tokenizer nope.json|''
ebm_digits: model.width 0|-1, model.depth 0|-1, model.frequencies -1, model.mu nan|inf, model.s 0|-1|nan
ebm_digits: model.eps 0|-1|nan|inf, model.chain-steps 0|-1, model.noise -1|nan|inf, model.reinit -1|2|nan
ebm_digits: model.chains-per-example 0|-1, model.alpha -1|nan|inf, model.sample-steps 0|-1
ebm_digits: model.ais-chains 0|1|-1, model.ais-temperatures 0|-1, model.ema-halflife 0
ddpm_digits: model.classes 0|-1|3, model.label-drop -1|1|2|nan, model.log-snr-max nan|inf|-99
ddpm_digits: model.log-snr-min nan|99, model.log-sigma 0 0|0 -1|nan 1, model.data-std 0|-1|nan|inf
ddpm_digits: model.width 0|-1, model.blocks 0|-1, model.network unet --model.channel-mult
ddpm_digits: model.channel-mult 0|-1 1, model.attention 0|-1, model.head-width 0|-1, model.patch 0|-1
ddpm_digits: model.fourier nan|0.5, model.sample-steps 0|-1, model.eta -1|2|nan, model.churn -1|nan|inf
ddpm_digits: model.guidance -1|nan|inf|2, model.guidance-interval 1 1|2 1|-1 1|nan 1
ddpm_digits: model.guidance-rescale -1|2|nan, model.bound-steps 0|-1, model.bound-draws 0|-1
ddpm_digits: model.probes 0|-1, model.tol 0|-1|nan|inf, model.power-ema 0|-1|1|nan, model.ema-halflife 0
score_digits: model.beta-max 0|-1|0.1|nan|inf, model.sigma-max 0|-1|0.01|nan, model.width 0, model.blocks 0
score_digits: model.sample-steps 0|-1, model.corrector-steps -1, model.snr 0|-1|nan|inf, model.eta 2
score_digits: model.churn -1, model.probes 0, model.spacing 0|-1|2|nan, model.tol 0|nan
score_digits: model.ema-halflife -1|nan, model.network conv --model.channel-mult
gan_digits: model.latent 0|-1, model.width 0|-1, model.depth 0|-1, model.r1 -1|nan|inf, model.r2 -1|nan
gan_digits: model.gradient-penalty -1|nan, model.dragan -1|nan, model.lecam -1|nan, model.consistency -1|nan
gan_digits: model.auxiliary -1|nan, model.penalty-every 0|-1, model.critic-steps 0|-1|7
gan_digits: model.accumulate 0|-1|7, model.augment nope, model.augment-p -1|2|nan, model.ada-target -1|1|nan|0.6
gan_digits: model.ada-ramp 0|-1, model.ema-halflife 0|nan, model.classes 0|-1|3, model.loss nope
cyclegan_digits: model.space.shape 9 9 1|6 8 1, model.objective nope|paired, model.generator vit, model.width 0|-1
cyclegan_digits: model.blocks 0|-1, model.patch-layers 0|-1|2, model.patches 0, model.embedding 0, model.depth 0
cyclegan_digits: model.dropout 1|-1|nan, model.init-std 0|nan, model.temperature 0|-1, model.cycle -1|nan
cyclegan_digits: model.identity -1|inf, model.l1 -1, model.contrastive -1, model.pool -1, model.direction up
cyclegan_digits: model.optim.decay 0, model.optim.decay-from 99999999, model.optim.shape square
cyclegan_digits: data rendered/nope,digits|rendered/bold,pydoc|aligned/pair/digits,digits|digits
latent_diffusion_glyphs: model.bound-samples 0|-1, model.prior-optim.lr nan|-1, model.prior.eta 2
latent_diffusion_glyphs: model.autoencoder.latent 0, model.prior.guidance 2, model.prior.power-ema 0.1
genmap map: budget 0|-1|inf|nan|soon, seeds 0|-1|1.5, samples 0|5|-1, features nope|''|inception, data ''|faces
genmap map: only ''|vae,|vae_digits,bert, weights {file}, workdir {file}|{file}/x|{link}|gs://b/x|''
genmap map: executor mars, experiments {missing}|{file}x|'', data-dir {file}|gs://b
genmap map --: dry-run, workdir x, seed 3, budget 1, features own, ablation all, executor slurm, data_dir=x
genmap map {run}: seeds 2, budget 3, only vae, data toy, features own --samples 30, weights {file}
genmap sample {run}: -n 0, -n -1|2000000000|many, seed -1|99999999999999999999|x, label 3|-1, out {file}|{file}/x|''
genmap sample {run}: model.importance-samples 0|-1|x, model.latent 5, model.beta 2, model.nope 1, steps 5
genmap sample {run}: from test|{missing}|{empty}, direction ba|up
genmap sample {run}: experiments {missing}|gs://b, data-dir {file}|gs://b/x
genmap evaluate {run}: samples 0|5|-3|x, features nope|inception|'', weights {missing}|{file}, data-dir {file}
genmap evaluate {run}: model.importance-samples 0, model.hidden 3, weights {file} --features own
genmap prepare digits: data-dir {file}|gs://b|'', raw {missing}|'', size 8, crop
genmap prepare own_name: raw {missing}|{empty}, raw {empty} --size 0|{empty} --size x
"""
"""Each row: a command, and flags with values that it must refuse."""
ALONE = """
genmap
genmap nope
genmap sample
genmap sample {missing}
genmap sample {file}
genmap sample ''
genmap sample {run} -- --steps 3
genmap evaluate
genmap evaluate {missing}
genmap evaluate {file}
genmap evaluate ''
genmap evaluate {run} {missing}
genmap compare {run}
genmap compare {run} {missing}
genmap list {missing}
genmap list {file}
genmap list ''
genmap list -- --steps 3
genmap map {missing}
genmap map {file}
genmap map ''
genmap prepare
genmap prepare ''
genmap prepare nope
genmap prepare toy/rings
genmap prepare ../x
"""
WRONG = [line for row in TABLE.strip().splitlines() for line in lines(*row.split(": ", 1))] + ALONE.strip().splitlines()


FAMILIES = ("gpt_digits", "ebm_digits", "ddpm_digits", "score_digits", "gan_digits", "cyclegan_digits")
"""Their lines are slow tests, for reading one takes a tenth of a second; test_ranges.py walks all their options."""


def marked() -> Iterator:
    """Of the other experiments' lines, the first of every flag is quick."""
    seen: set[tuple[str, ...]] = set()
    for line in WRONG:
        command, *words = shlex.split(line)
        quick = command == "genmap" or (command not in FAMILIES and (command, *words[:1]) not in seen)
        seen.add((command, *words[:1]))
        yield pytest.param(line, marks=() if quick else pytest.mark.slow)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run of two steps."""
    script, folder = read_experiment(FOLDER / "vae_digits.py"), tmp_path_factory.mktemp("run") / "run"
    cfg = dataclasses.replace(script.config, steps=2, batch_size=16, eval_examples=2, samples=2, save_every=2)
    cfg = dataclasses.replace(cfg, model=dataclasses.replace(cfg.model, hidden=(8,), importance_samples=1))
    launch = Launch(devices=1, tensorboard=False)
    nothing = SimpleNamespace(begin=id, draw=id, validate=lambda run: {}, finish=lambda run: {})  # it measures nothing
    assert loop.train(loop.prepare(cfg, script.family, launch), [cfg], [folder], launch, nothing) == 0
    return folder


@pytest.fixture(scope="module")
def names(run, tmp_path_factory) -> dict[str, Path]:
    """What the words in braces stand for; and data that would be prepared, and say so, at the first use of a line."""
    data.load("pydoc", "train", length=64)
    folder = tmp_path_factory.mktemp("places")
    places = {name: folder / name for name in ("file", "link", "missing", "empty")} | {"run": run}
    places["file"].write_text("a file")
    places["link"].symlink_to(folder / "gone")
    places["empty"].mkdir()
    return places


def refused(line: str, names: dict[str, Path], capsys, monkeypatch) -> str:
    """What a command line says, which must be refused. In this process: it is the same code, without the start."""
    program, *words = (word.format(**names) for word in shlex.split(line))
    monkeypatch.setattr(sys, "argv", [str(FOLDER / f"{program}.py"), *words])
    with pytest.raises(SystemExit) as exit:
        if program == "genmap":
            cli.main()
        else:
            script = SCRIPTS.setdefault(program, read_experiment(FOLDER / f"{program}.py"))
            experiment.main(script.config, script.family, script.ablations)
    assert exit.value.code == 2
    return capsys.readouterr().err


@pytest.fixture
def idle(monkeypatch, tmp_path):
    """Nothing is trained, compiled or submitted."""

    def computes(*_, **__):
        raise AssertionError("this is computed before the command line is refused")

    for name in ("train", "within_budget"):
        monkeypatch.setattr(loop, name, computes)
    monkeypatch.setattr(subprocess, "Popen", computes)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_are_many_and_they_differ():
    assert len(set(WRONG)) == len(WRONG) >= 250


@pytest.mark.parametrize("line", list(marked()))
def test_it_is_refused_in_one_line_that_names_what_is_wrong(line, names, idle, capsys, monkeypatch):
    said = refused(line, names, capsys, monkeypatch)
    assert "Traceback" not in said
    assert len(said.splitlines()) == 1 or "For full helptext" in said, said  # tyro, about a word it cannot read
    words = [
        word.format(**names) for word in shlex.split(line)[1:]
    ]  # a flag, a part of its path, or its value is named
    parts = [part for word in words for part in re.split(r"[.=]", word.strip("-").replace("-", "_")) if part]
    assert not words or any(part in said.replace("-", "_") for part in [*parts, *filter(None, words)]), said
    assert not any(idle.iterdir()), "a refused command leaves nothing behind"


# ---- what is no word of a command line -------------------------------------------------------------------------------


def test_a_split_of_one_window_is_told_before_training(names, idle, capsys, monkeypatch, tmp_path_factory):
    raw, prepared = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("data")
    (raw / "input.txt").write_text("To be, or not to be, that is the question:\n" * 60)
    data.prepare("tiny_shakespeare", prepared, raw)
    said = refused(f"gpt_shakespeare --model.length 100 --devices 1 --data-dir {prepared}", names, capsys, monkeypatch)
    assert "one example" in said and "--model.length" in said


def test_a_dry_run_makes_the_checks_of_a_start(run, idle, capsys, monkeypatch, names):
    said = refused(f"vae_digits --dry-run --workdir {run}", names, capsys, monkeypatch)
    assert "another config" in said
    said = refused("vae_digits --dry-run --ablation all --model.space.levels 16", names, capsys, monkeypatch)
    assert "--model.space.levels 17" in said


def test_every_variant_is_checked_before_the_first_is_trained(idle, names, capsys, monkeypatch):
    script = read_experiment(FOLDER / "vae_digits.py")
    broken = script._replace(ablations={"good": {"model.latent": 2}, "bad": {"model.latent": 0}})
    monkeypatch.setitem(SCRIPTS, "vae_digits", broken)
    assert "latent=0" in refused("vae_digits --ablation all", names, capsys, monkeypatch)


def test_many_samples_are_those_of_one_batch_after_another_and_need_no_memory_for_all(run, tmp_path, monkeypatch):
    """The file is written part by part: what it holds is what is drawn in memory."""
    from genmap_jax.commands import sample as sampling

    sampling.sample(run, FOLDER, 40, out=tmp_path / "all")
    whole = np.load(tmp_path / "all" / "samples.npz", allow_pickle=False)["image"]
    assert whole.shape == (40, 8, 8, 1) and whole.dtype == np.uint8
    opened = sampling.opening.open_run(run, FOLDER)
    observer = sampling.Observer(opened, 40)
    key = sampling.jax.random.fold_in(opened.eval_key, 1)
    np.testing.assert_array_equal(whole, observer.drawn(opened, key, None, 40)[0])
    parts = [len(part) for part in np.split(whole, [16, 32])]
    assert parts == [16, 16, 8] and observer.size == 16


def test_a_file_of_samples_is_whole_or_not_there(tmp_path):
    from genmap_jax.commands.sample import write_arrays

    def parts():
        yield np.zeros((2, 3), np.float32)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_arrays(tmp_path / "samples.npz", "x", parts(), 4)
    assert not any(tmp_path.iterdir())
    write_arrays(tmp_path / "samples.npz", "x", iter([np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32)]), 4)
    np.testing.assert_array_equal(np.load(tmp_path / "samples.npz")["x"].mean(1), [0, 0, 1, 1])


def test_scripts_of_the_current_folder_are_not_run(idle, run, names, capsys, monkeypatch):
    """`genmap` inside a folder of others runs the package's experiments, unless it is told otherwise."""
    (idle / "experiments").mkdir()
    (idle / "experiments" / "vae_digits.py").write_text(f"open({str(idle / 'ran')!r}, 'w')\nCONFIG = 1\nFAMILY = 1\n")
    refused(f"genmap sample {run} --label 3", names, capsys, monkeypatch)
    assert not (idle / "ran").exists()
    refused(f"genmap sample {run} --label 3 --experiments experiments", names, capsys, monkeypatch)
    assert (idle / "ran").exists()


def test_a_platform_that_is_not_there_is_told_with_those_that_are(monkeypatch):
    found, asked = jax.devices(), []

    def devices():
        asked.append(jax.config.jax_platforms)
        if len(asked) == 1:
            raise AssertionError  # as JAX does for a platform that it knows
        return found

    before = jax.config.jax_platforms
    monkeypatch.setattr(jax, "devices", devices)
    with pytest.raises(ValueError, match="--platform or JAX_PLATFORMS.* only cpu"):
        parallel.available()
    jax.config.update("jax_platforms", before)


PROCESSES = [
    ("vae_digits.py --platform nonsense", {}, "only cpu"),
    ("vae_digits.py --platform tpu", {}, "only cpu"),
    ("vae_digits.py --steps 2", {"GENMAP_COORDINATOR": "localhost:1"}, "GENMAP_NUM_PROCESSES"),
    ("vae_digits.py --steps 2", {"GENMAP_PROCESS_ID": "1"}, "GENMAP_COORDINATOR"),
    ("vae_digits.py --distributed", {}, "--distributed"),
    ("benchmarks.py nonsense", {}, "vae_digits"),
    ("benchmarks.py --seconds -1 vae_digits", {}, "above 0"),
    ("sampler_steps.py {run}", {}, "VAE"),
    ("post_hoc_ema.py {run}", {}, "power-ema"),
    ("long_context.py {run}", {}, "rotary"),
    ("tarflow_decoding.py {run}", {}, "not a TarFlow"),
    ("reversible_memory.py --depth 0", {}, "at least 1"),
    ("project.py {run}", {}, "give a run of StyleGAN2"),
    ("style_mixing.py {run}", {}, "give a run of StyleGAN2"),
    ("truncation.py {run}", {}, "give a run of StyleGAN2 or BigGAN"),
    ("device_check.py --seconds 0", {}, "above 0"),
    ("device_check.py --data nonsense", {}, "nonsense"),
    ("gpu_check.py --out {run} --parts nonsense", {}, "gpt2, families"),
    ("gpu_check.py --out {file}/x", {}, "is a file"),
    ("export.py {run} out", {}, "not a GPT"),
    ("complete.py {run}", {}, "not a GPT"),
    ("inpaint.py {run}", {}, "a PixelCNN"),
    ("pixel_samplers.py {run}", {}, "a PixelCNN"),
    ("inpaint.py {run} --candidates 0", {}, "at least 1"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("line", "environment", "says"), PROCESSES)
def test_a_process_of_its_own_refuses_in_one_line(line, environment, says, names, tmp_path):
    script, *words = line.format(**names).split()
    environ = {k: v for k, v in os.environ.items() if k != "JAX_PLATFORMS"} | environment
    command = [sys.executable, str(FOLDER / script), *words]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1 and says in done.stderr and "Traceback" not in done.stderr
    assert not any(tmp_path.iterdir())
