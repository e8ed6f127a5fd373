"""How fast the runner and every family are on this machine. Prints a table, asserts nothing.

    bash launch/local.sh experiments/benchmarks.py                   (about 6 minutes on 2 CPU cores)
    bash launch/local.sh experiments/benchmarks.py vae_digits --seconds 10

bare: steps per second of a loop over the compiled step, with one fixed batch that is already on the device.
runner: the same step inside `genmap_jax.train` (new batches, metrics, progress, logging), and its share of bare. The
    two are measured in turn and the medians are compared: timings of a shared machine wander.
first step: wall seconds from starting Python to the end of the first step, compilation cache empty and filled.
samples: examples per second of the compiled sampler.

    bash launch/local.sh experiments/benchmarks.py --peers           (families beside their peers; extra `parity`)

beside peers: the same work by us and by another implementation, both with all cores, in turn; medians and ratios.
Expect on 2 CPU cores, jax 0.10.2 and torch 2.13.0, float32, our rate over theirs: GPT 4x128 updates 1.10; decoding one
string 14 with their cache and 44 without, 16 strings 2.8 and 39; GAN of gan_digits 1.60, DCGAN with R1 0.63; U-Net of
diffusion 0.76 (0.9 on two emulated devices, which for the others are no faster than one), its sampler 0.67.
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

from genmap_jax import data, mapping, parallel, runs, train
from genmap_jax.logs import read_metrics

FOLDER = Path(__file__).parent
NAMES = [path.stem for path in mapping.members(FOLDER, "digits")]
ROUNDS = 3
NEVER = 10**9


def bare_loop(cfg, family, seconds: float):
    """A function that measures the steps per second of the compiled step alone, again at each call."""
    place = parallel.placement("mesh", 1, cfg.batch_size)
    algorithm = train.keyed_by_step(family(cfg.model, batch_size=cfg.batch_size))
    key = jax.random.key(0)
    state = place.init(algorithm, key)
    step = place.compile(algorithm, state)
    batch = place.put(data.batch(train.load(cfg, None)["train"], 0, 0, cfg.batch_size))

    def measure() -> float:
        nonlocal state
        state, _ = step(state, batch, key)
        jax.block_until_ready(state)
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            for _ in range(train.IN_FLIGHT):
                state, metrics = step(state, batch, key)
            jax.block_until_ready(metrics)
            count += train.IN_FLIGHT
        return count / (time.perf_counter() - began)

    return measure


def runner_rate(cfg, family, steps: int) -> float:
    """Steps per second of the training loop after its first row, which holds the compilation."""
    cfg = dataclasses.replace(cfg, steps=steps, eval_every=NEVER, sample_every=NEVER, save_every=NEVER, eval_examples=2)
    with tempfile.TemporaryDirectory() as folder:
        train.train(cfg, family, train.Launch(workdir=Path(folder), devices=1))
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
    algorithm = family(cfg.model, batch_size=cfg.batch_size)
    state = jax.jit(algorithm.init)(jax.random.key(0))
    draw = jax.jit(lambda s, k: algorithm.sample(s, k, cfg.samples, None))
    draw(state, jax.random.key(0)).block_until_ready()
    times = []
    for i in range(ROUNDS):
        began = time.perf_counter()
        draw(state, jax.random.key(i)).block_until_ready()
        times.append(time.perf_counter() - began)
    return cfg.samples / statistics.median(times)


def our_updates(family, cfg, batch, updates: int, devices: int):
    """A function that makes `updates` updates on one batch. cfg: of the model, batch: as `data.batch` gives it."""
    size = len(next(iter(batch.values())))
    place = parallel.placement(devices=devices, batch_size=size)
    algorithm = train.keyed_by_step(family(cfg, batch_size=size, axis_name=place.axis_name))
    key = jax.random.key(0)
    state = place.init(algorithm, key)
    step = place.compile(algorithm, state)
    batch = place.put(batch)

    def run() -> None:
        nonlocal state
        for i in range(updates):
            state, metrics = step(state, batch, key)
            if i % train.IN_FLIGHT == 0:
                jax.block_until_ready(metrics)
        jax.block_until_ready(metrics)

    return run


def beside_peers(name: str) -> None:
    """Print, for every comparison of experiments/peers/NAME.py, the median rate of each competitor and our ratio."""
    spec = importlib.util.spec_from_file_location(f"peer_{name}", FOLDER / "peers" / f"{name}.py")
    peer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(peer)
    for title, (units, competitors) in peer.comparisons(our_updates).items():
        runs_of = {who: set_up() for who, set_up in competitors.items()}
        for run in runs_of.values():  # compilation and first touches
            run()
        rates: dict[str, list[float]] = {who: [] for who in runs_of}
        for _ in range(2 * ROUNDS + 1):
            for who, run in runs_of.items():
                began = time.perf_counter()
                run()
                rates[who].append(units / (time.perf_counter() - began))
        print(f"\n{title}")
        for who, each in rates.items():
            ratio = statistics.median(a / b for a, b in zip(rates["ours"], each, strict=True))
            spread = f"({min(each):.1f} to {max(each):.1f})"
            print(f"  {who:18s} {statistics.median(each):10.1f}  {spread:20s} ours: {ratio:.2f} x", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=NAMES, help="experiments to measure; default: all on digits")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement")
    parser.add_argument("--peers", action="store_true", help="measure the families beside their peers instead")
    args = parser.parse_args()
    if args.peers:
        jax.config.update("jax_num_cpu_devices", 2)  # without an accelerator: a competitor of its own
        print(f"{os.cpu_count()} cores, jax {jax.__version__}")
        for path in sorted((FOLDER / "peers").glob("*.py")):
            beside_peers(path.stem)
        return
    rows = []
    for name in args.names:
        cfg, family, _ = runs.read_experiment(FOLDER / f"{name}.py")
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
    main()
