"""Speed of the runner and of every family on this machine. It prints a table and asserts nothing.

    bash launch/local.sh experiments/benchmarks.py                   (about 6 minutes on 2 CPU cores)
    bash launch/local.sh experiments/benchmarks.py vae_digits --seconds 10

The columns are

bare: steps per second of a loop over the compiled step, with one fixed batch that is already on the device;
runner: the same step inside `genmap_jax.run.loop` (new batches, metrics, progress, logging), and its share of bare. The
    two are measured in turn and their medians are compared, since timings of a shared machine fluctuate;
first step: seconds from starting Python to the end of the first step, with the compilation cache empty and filled;
samples: examples per second of the compiled sampler.

    bash launch/local.sh experiments/benchmarks.py --peers           (families beside their peers; extra `parity`)

With --peers the same work is done in turn by us and by another implementation, each with all cores; medians and ratios
are printed.

Expect, on 2 CPU cores, with jax 0.10.2 and torch 2.13.0 in float32, as our rate divided by theirs: updates of a GPT of
4 layers, 128 wide, 1.10; decoding one string 14 with their cache and 44 without, 16 strings 2.8 and 39; updates of the
GAN of gan_digits 1.60, of a DCGAN with R1 0.63; updates of diffusion's U-Net 0.76 (0.9 on two emulated devices, which
for the others are no faster than one), its sampler 0.67; updates and samples of a spline flow 2.7 to 3.7 and 2.5 to
4.8 times those of nflows 0.14; updates of a small Glow 1.1 to 1.3, its samples 2.4; updates of a PixelCNN++ on 8x8
images 1.76 and on 32x32 1.06; updates of a StyleGAN2 with its lazy penalties 1.08 to 1.25; of a CycleGAN 1.26.
"""

import argparse
import dataclasses
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from genmap_jax import data, parallel
from genmap_jax.algorithm import conditions
from genmap_jax.commands import map as mapping
from genmap_jax.commands.ablation import together
from genmap_jax.commands.bad_input import Parser, number, told
from genmap_jax.files import read_metrics
from genmap_jax.options import Count, Positive
from genmap_jax.run import config as configs
from genmap_jax.run import loop, runs
from genmap_jax.run.launch import Launch

FOLDER = Path(__file__).parent
NAMES = [script.path.stem for script in mapping.members(FOLDER, "digits")]
ROUNDS = 3
NEVER = 10**9


def bare_loop(cfg, family, seconds: float):
    """A function that measures the steps per second of the compiled step alone, again at each call."""
    program, key = loop.prepare(cfg, family, Launch(devices=1)), jax.random.key(0)
    batch = program.place.put(data.batch(program.sources["train"], 0, 0, cfg.batch_size))
    state, step = program.place.init(program.algorithm, key, batch), program.step

    def measure() -> float:
        nonlocal state
        state, _ = step(state, batch, key)
        jax.block_until_ready(state)
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            for _ in range(loop.IN_FLIGHT):
                state, metrics = step(state, batch, key)
            jax.block_until_ready(metrics)
            count += loop.IN_FLIGHT
        return count / (time.perf_counter() - began)

    return measure


class Nothing:
    """An observer that measures nothing."""

    def begin(self, run) -> None: ...

    def validate(self, run) -> dict:
        return {}

    def draw(self, run) -> None: ...

    def finish(self, run) -> dict:
        return {}


def runner_rate(cfg, family, steps: int) -> float:
    """Steps per second of the training loop after its first row, which holds the compilation."""
    cfg = dataclasses.replace(cfg, steps=steps, eval_every=NEVER, sample_every=NEVER, save_every=NEVER, eval_examples=2)
    with tempfile.TemporaryDirectory() as folder:
        launch = Launch(devices=1)
        loop.train(loop.prepare(cfg, family, launch), [cfg], [Path(folder)], launch, Nothing())
        rows = read_metrics(Path(folder) / "metrics.jsonl")
    first, last = rows[0], rows[-1]
    return (last["step"] - first["step"]) / (last["seconds"] - first["seconds"])


def first_step(name: str, cache: Path) -> float:
    """Seconds from starting Python to the first logged step."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(Path(__file__).with_name(f"{name}.py")), "--workdir", folder, "--devices", "1"]
        environment = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        began = time.perf_counter()
        job = subprocess.Popen(
            [*command, "--log-every", "1"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for line in job.stdout:
            if " step 1/" in line:
                break
        seconds = time.perf_counter() - began
        job.kill()
        job.communicate()
    return seconds


def sampling_rate(cfg, family) -> float:
    program = loop.prepare(cfg, family, Launch(devices=1))
    algorithm, source = program.algorithm, program.sources["train"]
    state = jax.jit(algorithm.init)(jax.random.key(0), data.batch(source, 0, 0, cfg.batch_size))
    cond = conditions(algorithm.reads, source.take(source.spaced(cfg.samples)))
    draw = jax.jit(lambda s, k: algorithm.sample(s, k, cfg.samples, cond))
    draw(state, jax.random.key(0)).block_until_ready()
    times = []
    for i in range(ROUNDS):
        began = time.perf_counter()
        draw(state, jax.random.key(i)).block_until_ready()
        times.append(time.perf_counter() - began)
    return cfg.samples / statistics.median(times)


def our_updates(family, cfg, batch, updates: int, devices: int):
    """A function that makes `updates` updates on one batch.

    family: (cfg, *, batch_size, axis_name) -> Algorithm. cfg: of the model, batch: as `data.batch` gives it.
    """
    size = len(next(iter(batch.values())))
    place = parallel.placement(devices=devices, batch_size=size)
    algorithm = loop.keyed_by_step(family(cfg, batch_size=size, axis_name=place.axis_name))
    key, batch = jax.random.key(0), place.put(batch)
    state = place.init(algorithm, key, batch)
    step = place.compile(algorithm, state)

    def run() -> None:
        nonlocal state
        for i in range(updates):
            state, metrics = step(state, batch, key)
            if i % loop.IN_FLIGHT == 0:
                jax.block_until_ready(metrics)
        jax.block_until_ready(metrics)

    return run


def seeds_at_once(script, variant: str, seeds: int, seconds: float) -> None:
    """Print how fast the seeds of one variant are trained as one program and one after another."""
    cfg = configs.replace(script.config, script.ablations.get(variant, {}))
    one, launch = loop.prepare(cfg, script.family, Launch(devices=1)), Launch(devices=1)
    batch, keys = data.batch(one.sources["train"], 0, 0, cfg.batch_size), jax.random.split(jax.random.key(0), seeds)
    batches = {name: np.stack([values] * seeds) for name, values in batch.items()}
    many = loop.prepare(cfg, script.family, launch, together=seeds)
    states = {
        1: jax.jit(one.algorithm.init)(keys[0], batch),
        seeds: jax.jit(jax.vmap(one.algorithm.init))(keys, batches),
    }
    runs_of = {1: (one.step, batch, keys[0]), seeds: (many.step, batches, keys)}
    rates: dict[int, list[float]] = {1: [], seeds: []}
    for turn in range(2 * ROUNDS + 2):
        count = (1, seeds)[turn % 2]
        step, inputs, key = runs_of[count]
        updates, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            for _ in range(loop.IN_FLIGHT):
                states[count], metrics = step(states[count], inputs, key)
            jax.block_until_ready(metrics)
            updates += loop.IN_FLIGHT * count
        if turn > 1:  # the first turn of each compiles
            rates[count].append(updates / (time.perf_counter() - began))
    apart, at_once = (statistics.median(rates[count]) for count in (1, seeds))
    taken = "at once" if together(cfg, script.family, launch, seeds) else "one after another"
    print(f"{cfg.name:16s} {variant:16s} {apart:12.1f} {at_once:12.1f} {at_once / apart:8.2f} x   {taken}", flush=True)


def peer(name: str):
    """The module experiments/peers/NAME.py."""
    spec = importlib.util.spec_from_file_location(f"peer_{name}", FOLDER / "peers" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def in_turn(title: str, units: int, competitors: dict) -> dict[str, dict[str, float]]:
    """Let competitors take turns; print and return the rate of each (units of work per second) and our ratio to it.

    competitors: name -> a function that does `units` of work and has been run before; ours is "ours".
    """
    rates: dict[str, list[float]] = {who: [] for who in competitors}
    for _ in range(2 * ROUNDS + 1):
        for who, run in competitors.items():
            began = time.perf_counter()
            run()
            rates[who].append(units / (time.perf_counter() - began))
    measured = {}
    print(f"\n{title}")
    for who, each in rates.items():
        measured[who] = {"rate": statistics.median(each), "least": min(each), "most": max(each)}
        line = f"  {who:18s} {measured[who]['rate']:10.1f}  {f'({min(each):.1f} to {max(each):.1f})':20s}"
        if "ours" in rates:
            ratio = statistics.median(a / b for a, b in zip(rates["ours"], each, strict=True))
            measured[who]["ours_over_this"] = ratio
            line += f" ours: {ratio:.2f} x"
        print(line, flush=True)
    return measured


def beside_peers(name: str) -> None:
    """Print, for every comparison of experiments/peers/NAME.py, the median rate of each competitor and our ratio."""
    for title, (units, competitors) in peer(name).comparisons(our_updates).items():
        runs_of = {who: set_up() for who, set_up in competitors.items()}
        for run in runs_of.values():  # compilation and first touches
            run()
        in_turn(title, units, runs_of)


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=NAMES, help="experiments to measure; default: all on digits")
    parser.add_argument("--seconds", type=number(Positive), default=5.0, help="length of each measurement")
    parser.add_argument(
        "--seeds", type=number(Count), metavar="N", help="measure N seeds at once beside one after another"
    )
    parser.add_argument("--peers", action="store_true", help="measure the families beside their peers instead")
    args = parser.parse_args()
    known = [path.stem for path in runs.experiment_files(FOLDER)]
    for name in args.names:
        if name not in known:
            parser.error(f"{name}: there is no such experiment, but {', '.join(known)}")
    if args.peers and (args.names != NAMES or args.seeds or args.seconds != parser.get_default("seconds")):
        parser.error("--peers makes measurements of its own: give no names, --seconds or --seeds with it")
    if args.peers:
        jax.config.update("jax_num_cpu_devices", 2)  # without an accelerator: a competitor of its own
        print(f"{os.cpu_count()} cores, jax {jax.__version__}")
        for path in sorted((FOLDER / "peers").glob("*.py")):
            beside_peers(path.stem)
        return
    if args.seeds:
        print("experiment       variant          one by one      at once    ratio   an ablation takes")
        for name in args.names:
            script = runs.read_experiment(FOLDER / f"{name}.py")
            for variant in ("baseline", *(v for v in script.ablations if v in ("conv", "dcgan"))):
                seeds_at_once(script, variant, args.seeds, args.seconds)
        return
    rows = []
    for name in args.names:
        _, cfg, family, _ = runs.read_experiment(FOLDER / f"{name}.py")
        measure = bare_loop(cfg, family, args.seconds)
        steps = max(3 * cfg.log_every, round(measure() * args.seconds / cfg.log_every) * cfg.log_every)
        pairs = [(measure(), runner_rate(cfg, family, steps)) for _ in range(ROUNDS)]
        bare, runner = (statistics.median(values) for values in zip(*pairs, strict=True))
        with tempfile.TemporaryDirectory() as cache:
            cold, warm = first_step(name, Path(cache)), first_step(name, Path(cache))
        share = statistics.median(b / a for a, b in pairs)
        rows.append((name, bare, bare * cfg.batch_size, runner, share, cold, warm, sampling_rate(cfg, family)))
    device = jax.devices()[0]
    print(f"\n{device.platform} {device.device_kind}, {os.cpu_count()} cores, jax {jax.__version__} ")
    print("experiment       bare steps/s  examples/s  runner steps/s  share  first step cold  cached  samples/s")
    for name, bare, examples, runner, share, cold, warm, samples in rows:
        print(
            f"{name:16s} {bare:12.1f} {examples:11.0f} {runner:15.1f} {share:6.1%} "
            f"{cold:14.1f} s {warm:5.1f} s {samples:10.4g}"
        )


if __name__ == "__main__":
    with told("benchmarks.py"):
        main()
