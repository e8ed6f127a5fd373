"""`genmap fit`: what a program holds and sends is read right, and the TPU's own compiler takes every experiment."""

import dataclasses
import json
import math
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from genmap_jax import parallel
from genmap_jax.algorithm import like_batch
from genmap_jax.approximate import vae
from genmap_jax.commands import compiled, fit
from genmap_jax.nn.conv import correlate
from genmap_jax.peaks import PEAKS, TPUS
from genmap_jax.run import config as configs
from genmap_jax.run import loop, runs

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
LIBTPU = Path(sys.prefix) / "libtpu"
"""Where .ci/run puts the TPU's compiler: beside the packages, for JAX would look for a TPU wherever it is installed."""
HLO = """HloModule jit_step, is_scheduled=true

%add.clone (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%inner (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %inside = f32[8]{0:T(128)} all-reduce(%p), channel_id=3, to_apply=%add.clone
}

%body (state: (s32[], f32[8])) -> (s32[], f32[8]) {
  %state = (s32[], f32[8]{0}) parameter(0)
  %g = bf16[2,16]{1,0:T(8,128)(2,1)S(1)} all-gather(%state), dimensions={0}
  ROOT %next = (s32[], f32[8]{0}) fusion(%state), kind=kLoop, calls=%inner
}

%condition (state: (s32[], f32[8])) -> pred[] {
  %state = (s32[], f32[8]{0}) parameter(0)
  ROOT %more = pred[] compare(%state, %state), direction=LT
}

%until (state: (s32[], f32[8])) -> pred[] {
  %limit.2 = s32[]{:T(128)} constant(5)
  %state = (s32[], f32[8]{0}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%state), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %limit.2), direction=LT, metadata={op_name="while/cond/lt"}
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  %r = (f32[64]{0:T(128)S(1)}, f32[4,4]{1,0}, /*index=2*/pred[3]{0}) all-reduce(%a, %a, %a), to_apply=%add.clone
  %start = (f32[4]{0}, f32[32]{0}) all-gather-start(%a), dimensions={0}
  %done = f32[32]{0} all-gather-done(%start)
  %both = ((f32[4]{0}, s8[2]{0}), (f32[32]{0}, s8[16]{0})) all-gather-start(%a, %a), dimensions={0}
  %first = f32[10]{0} all-reduce-start(%a), to_apply=%add.clone
  %last = f32[10]{0} all-reduce-done(%first)
  %loop = (s32[], f32[8]{0}) while(%a), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"12"}}
  %other = (s32[], f32[8]{0}) while(%a), condition=%condition, body=%body
  %scan = (s32[], f32[8]{0}) while(%a), condition=%until, body=%body
  ROOT %out = f32[8]{0} collective-permute(%a), source_target_pairs={{0,1},{1,0}}
}
"""


def test_collectives_are_counted_in_every_round_of_their_loops():
    found = compiled.collectives(HLO)
    assert found == {
        "all-reduce": compiled.Collective(2 + 18, 4 * 64 + 4 * 16 + 3 + 4 * 10 + 18 * 4 * 8),
        "all-gather": compiled.Collective(2 + 18, 4 * 32 + 4 * 32 + 16 + 18 * 2 * 32),
        "collective-permute": compiled.Collective(1, 4 * 8),
    }


def test_of_a_real_program_they_are_the_gradient():
    """A regression on eight devices sends its gradient once, and its loss."""
    place = parallel.placement("mesh", 8)
    batch = place.spread(jax.ShapeDtypeStruct((16, 30), jnp.float32))
    step = jax.value_and_grad(lambda w, x: jnp.square(x @ w).mean())
    program = jax.jit(step, out_shardings=parallel.NamedSharding(place.mesh, parallel.P()))
    compiled_ = program.lower(jax.ShapeDtypeStruct((30, 7), jnp.float32), batch).compile()
    assert compiled.collectives(compiled_.as_text())["all-reduce"].bytes == 4 * (30 * 7 + 1)
    held = compiled.memory(compiled_)
    assert held.arguments == 4 * (30 * 7 + 2 * 30) and held.outputs >= 4 * (30 * 7 + 1)


def test_an_output_over_an_argument_counts_once():
    double = lambda donated: jax.jit(lambda x: 2 * x, donate_argnums=donated).lower(jnp.zeros(1000)).compile()  # noqa: E731
    assert compiled.memory(double(())).outputs == 4000 and compiled.memory(double(0)).outputs == 0


def test_time_on_links_is_that_of_rings():
    """n devices with parts of B/n bytes each: a reduce-scatter, then an all-gather, send B (n - 1) / n each."""
    each = lambda **found: compiled.seconds_on_links(  # noqa: E731
        {name.replace("_", "-"): compiled.Collective(1, size) for name, size in found.items()}, 4, 100.0
    )
    assert each(all_reduce=800) == pytest.approx(2 * 800 * 3 / 4 / 100)
    assert each(reduce_scatter=200, all_gather=800) == pytest.approx(each(all_reduce=800))
    assert each(collective_permute=50) == pytest.approx(0.5)
    assert compiled.seconds_on_links({"all-reduce": compiled.Collective(1, 800)}, 1, 100.0) == 0


def test_code_that_differs_by_platform_follows_the_target():
    """On a CPU some convolutions are products; traced for a TPU, here, they are convolutions."""

    def trace():
        return str(jax.make_jaxpr(lambda x, k: correlate(x, k))(jnp.zeros((1, 4, 4, 2)), jnp.zeros((3, 3, 2, 2))))

    assert parallel.platform() == "cpu" and "conv_general_dilated" not in trace()
    with parallel.tracing_for("tpu"):
        assert parallel.platform() == "tpu" and "conv_general_dilated" in trace()
    assert parallel.platform() == "cpu" and "conv_general_dilated" not in trace()


def test_chips_have_a_peak():
    assert all(chip.kind in PEAKS and chip.memory < 2**37 < chip.bandwidth < 2**42 for chip in TPUS.values())


@pytest.mark.parametrize("name", ["v5e", "v5e:", "v7:2x2", "v5e:2x2x2x2", "v5e:2xa", "gpu"])
def test_a_target_that_is_none_is_named(name):
    with pytest.raises(ValueError, match=f"--target {name}: give a kind and a shape"):
        fit.target(name)


CFG = runs.read_experiment(EXPERIMENTS / "vae_digits.py").config


def a_slice(devices: int = 8) -> fit.Slice:
    """A slice in whose place the devices of this machine stand."""
    return fit.Slice("v5e:2x4", TPUS["v5e"], tuple(jax.devices()[:devices]))


def test_bad_input_is_named_before_compilation():
    with pytest.raises(ValueError, match=r"batch_size=12 does not divide over the 8 devices of v5e:2x4"):
        fit.Programs(dataclasses.replace(CFG, batch_size=12), vae.FAMILY, a_slice())
    with pytest.raises(ValueError, match="steps=0"):
        fit.Programs(dataclasses.replace(CFG, steps=0), vae.FAMILY, a_slice())


@pytest.mark.parametrize("needed", [lambda n: 2e9 + 3e6 * n, lambda n: 1e9 + 2e5 * n, lambda n: 1e9 + 5e6 * n**1.2])
def test_the_largest_batch_fits_and_a_larger_one_would_not(monkeypatch, needed):
    """Of a step whose need is known, also where it is not quite linear; no size is compiled twice."""
    sizes = []

    class Known:
        def __init__(self, cfg, family, where, fsdp):
            self.size = cfg.batch_size

        def step(self):
            sizes.append(self.size)
            size = int(needed(self.size))
            return fit.Fit(size <= TPUS["v5e"].memory, size, None, 0, {}, {})

    monkeypatch.setattr(fit, "Programs", Known)
    found = fit.largest_batch(CFG, vae.FAMILY, a_slice())
    truth = max(n for n in range(8, 200_000, 8) if needed(n) <= TPUS["v5e"].memory)
    assert 0.85 * truth <= found <= truth and found in sizes and len(set(sizes)) == len(sizes) <= fit.TRIES


def test_a_batch_divides_into_all_micro_batches():
    cfg = runs.read_experiment(EXPERIMENTS / "latent_diffusion_glyphs.py").config.model
    parts = {"autoencoder.accumulate": 4, "prior.accumulate": 6}
    assert fit.micro_batches(cfg) == 1 and fit.micro_batches(configs.replace(cfg, parts)) == 12


def test_no_batch_fits_where_the_state_does_not(monkeypatch):
    class Known:
        def __init__(self, cfg, family, where, fsdp):
            pass

        def step(self):
            return fit.Fit(False, 2**40, None, 0, {}, {})

    monkeypatch.setattr(fit, "Programs", Known)
    assert fit.largest_batch(CFG, vae.FAMILY, a_slice()) == 0


def test_what_does_not_fit_is_what_the_compiler_says():
    for text, size in [
        ("RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (22.46G) exceeds "
         "available HBM (15.75G).", 22.46),
        ("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.12G of 15.75G hbm. Exceeded", 20.12),
    ]:  # fmt: skip
        assert float(fit.FULL.search(text)[1]) == size


# ---- with the TPU's compiler -----------------------------------------------------------------------------------------

needs_libtpu = pytest.mark.skipif(
    not (LIBTPU.is_dir() or find_spec("libtpu")), reason="libtpu is not installed; .ci/run does it"
)


def environment() -> dict[str, str]:
    """With the TPU's compiler, which ends at flags for CPUs."""
    kept = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    return kept | {"PYTHONPATH": os.pathsep.join([str(LIBTPU), os.environ.get("PYTHONPATH", "")])}


def fitted(name: str, *flags: str) -> dict:
    """What `genmap fit` prints of an experiment, in a process of its own."""
    command = [sys.executable, "-m", "genmap_jax.commands.cli", "fit", name, "--json", *flags]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


DIGITS = sorted(
    script.path.stem
    for script in map(runs.read_experiment, runs.experiment_files(EXPERIMENTS))
    if script.config.data.endswith("digits")
)


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize("name", DIGITS)
def test_every_experiment_on_digits_compiles_for_a_tpu(name):
    script = runs.read_experiment(EXPERIMENTS / f"{name}.py")
    algorithm = loop.bind(script.config, script.family)
    state, batch = state_and_batch(algorithm, script.config.batch_size)
    values = fitted(name, "--target", "v5e:2x4", "--no-search")
    step = values["step"]
    size = lambda tree: sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))  # noqa: E731
    assert values["devices"] == 8 and step["fits"] and step["memory"]["arguments"] >= size(state) + size(batch) / 8
    # A gradient of every parameter is sent, but of the few that the loss does not depend on, and of some in halves.
    sent, params = step["collectives"]["all-reduce"]["bytes"], size(algorithm.params(state))
    assert 0.9 * params <= sent <= 4 * params
    assert all(0 < each < 1 for each in step["seconds"].values())
    assert (values["sampler"] is None) == (algorithm.sample is None)
    assert (values["likelihood"] is None) == (algorithm.log_prob is None)


@needs_libtpu
@pytest.mark.slow
def test_sharded_parameters_take_less_of_each_device_and_more_of_the_links():
    flags = ("--target", "v5e:2x4", "--no-search", "--model.width", "256")  # small arrays stay whole
    whole, parts = (fitted("gpt_digits", *flags, *more) for more in ([], ["--fsdp"]))
    assert parts["step"]["memory"]["arguments"] < whole["step"]["memory"]["arguments"] / 2
    assert "all-gather" in parts["step"]["collectives"] and "all-gather" not in whole["step"]["collectives"]


@needs_libtpu
@pytest.mark.slow
def test_two_compile_at_the_same_time():
    """The compiler is that of a device which one process may own; ours own none."""
    script = "from genmap_jax.commands.fit import target; print(len(target('v5e:2x4').devices), flush=True); input()"
    command, pipe = [sys.executable, "-c", script], subprocess.PIPE
    jobs = [subprocess.Popen(command, env=environment(), stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    assert [job.stdout.readline() for job in jobs] == ["8\n", "8\n"]
    for job in jobs:
        job.communicate("\n")


def state_and_batch(algorithm, n: int):
    """Shapes of a state and of a batch."""
    key, batch = jax.random.key(0), like_batch(algorithm.reads, n)
    return jax.eval_shape(algorithm.init, key, batch), batch


@pytest.mark.slow
@pytest.mark.parametrize("name", DIGITS)
def test_every_experiment_on_digits_is_lowered_for_cuda(name):
    """On a machine without a GPU: what only a GPU's part of JAX refuses is found here."""
    script = runs.read_experiment(EXPERIMENTS / f"{name}.py")
    with parallel.tracing_for("gpu"):
        algorithm = loop.bind(script.config, script.family)
        state, batch = state_and_batch(algorithm, script.config.batch_size)
        exported = jax.export.export(
            jax.jit(lambda s, b, k: jax.tree.leaves(algorithm.step(s, b, k))), platforms=["cuda"]
        )
        assert exported(state, batch, jax.random.key(0)).platforms == ("cuda",)
