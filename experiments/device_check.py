"""Every experiment of some datasets on the accelerator at hand, beside the CPU of the same machine: numbers and speed.

    python experiments/device_check.py                          (digits and toy data; a few minutes on a GPU)
    python experiments/device_check.py --data digits,glyphs --out check.json

The columns are

deviation: the largest relative difference between the first losses on the device and on the CPU, in float32 and with
    products in full precision, for the same batches, keys and initial state;
default: the same, with products in the device's default precision (TF32 on recent GPUs);
steps/s: steps per second of the compiled step at the default precision, on a batch that is already on the device;
first: seconds of the first step, compilation included;
samples/s: samples per second of the compiled sampler, in batches of the training size.

Each measurement of speed takes --seconds. An experiment that fails is named and the others go on; the exit code is then
1.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from genmap_jax import data, places
from genmap_jax.algorithm import conditions
from genmap_jax.commands import map as mapping
from genmap_jax.commands.bad_input import Parser, number, told
from genmap_jax.options import Positive
from genmap_jax.run import loop
from genmap_jax.run.checkpoint import Checkpoints

FOLDER = Path(__file__).parent
STEPS = 3


def losses(script, algorithm, batches, device, precision: str) -> list[dict[str, float]]:
    """The metrics of the first steps on a device."""
    keys = jax.random.split(jax.random.key(script.config.seed), 3)
    with jax.default_device(device), jax.default_matmul_precision(precision):
        state = jax.jit(algorithm.init)(keys[0], batches[0])
        step, out = jax.jit(algorithm.step), []
        for batch in batches:
            state, metrics = step(state, batch, keys[1])
            out.append({name: float(value) for name, value in metrics.items()})
    return out


def deviation(ours: list[dict[str, float]], reference: list[dict[str, float]]) -> float:
    """The largest difference between two courses of metrics, relative to the size of each."""
    worst = 0.0
    for mine, other in zip(ours, reference, strict=True):
        for name, value in other.items():
            worst = max(worst, abs(mine[name] - value) / max(abs(value), 1e-2))
    return worst


def inputs(script):
    """The algorithm of an experiment and its first batches."""
    cfg = script.config
    algorithm = loop.bind(cfg, script.family)
    source = loop.load(cfg, algorithm, None)["train"]
    return algorithm, [data.batch(source, cfg.seed, i, cfg.batch_size) for i in range(STEPS)]


def resumed(script, algorithm, batches) -> float:
    """The largest difference of any number of the state after steps with a checkpoint between, and without one."""
    keys = jax.random.split(jax.random.key(script.config.seed), 3)
    with jax.default_device(jax.devices()[0]), jax.default_matmul_precision("highest"):
        state = jax.jit(algorithm.init)(keys[0], batches[0])
        step = jax.jit(algorithm.step)
        for batch in batches:
            state, _ = step(state, batch, keys[1])
        with tempfile.TemporaryDirectory() as folder:
            checkpoints = Checkpoints(Path(folder) / "checkpoints", keep=1)
            checkpoints.save(len(batches), state, {})
            checkpoints.wait()
            like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
            _, again = checkpoints.restore(like)
            checkpoints.close()
        for batch in batches:
            state, _ = step(state, batch, keys[1])
            again, _ = step(again, batch, keys[1])
    numbers = lambda x: np.asarray(x, np.float64)  # noqa: E731
    apart = jax.tree.map(lambda a, b: float(np.abs(numbers(a) - numbers(b)).max(initial=0.0)), state, again)
    return max(jax.tree.leaves(apart))


def contract(script) -> dict[str, float]:
    """What does not take long: how far the first losses are from those on the CPU, and a checkpoint between steps."""
    algorithm, batches = inputs(script)
    device, cpu = jax.devices()[0], jax.devices("cpu")[0]
    ours = losses(script, algorithm, batches, device, "highest")
    return {
        "resumed": resumed(script, algorithm, batches),
        "deviation": deviation(ours, losses(script, algorithm, batches, cpu, "highest")),
    }


def check(script, seconds: float) -> dict[str, float]:
    """All numbers of one experiment."""
    cfg, (algorithm, batches) = script.config, inputs(script)
    device, cpu = jax.devices()[0], jax.devices("cpu")[0]
    reference = losses(script, algorithm, batches, cpu, "highest")
    result = {
        "deviation": deviation(losses(script, algorithm, batches, device, "highest"), reference),
        "default": deviation(losses(script, algorithm, batches, device, "default"), reference),
    }
    keys, batch = jax.random.split(jax.random.key(0), 3), jax.device_put(batches[0])
    state, step = jax.jit(algorithm.init)(keys[0], batch), jax.jit(algorithm.step, donate_argnums=0)
    began = time.perf_counter()
    state, _ = jax.block_until_ready(step(state, batch, keys[1]))
    result["first"] = time.perf_counter() - began
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        for _ in range(20):
            state, metrics = step(state, batch, keys[1])
        jax.block_until_ready(metrics)
        count += 20
    result["steps_per_second"] = count / (time.perf_counter() - began)
    cond = conditions(algorithm.reads, batch)
    sample = jax.jit(lambda state, key: algorithm.sample(state, key, cfg.batch_size, cond))
    sample(state, keys[0]).block_until_ready()
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        sample(state, jax.random.fold_in(keys[0], count)).block_until_ready()
        count += 1
    result["samples_per_second"] = count * cfg.batch_size / (time.perf_counter() - began)
    return result


def scripts_of(datasets: list[str]) -> list:
    """The experiments of the map on these datasets."""
    return [script for name in datasets for script in mapping.members(FOLDER, name)]


def main() -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits,toy", help="datasets, comma-separated (default: digits,toy)")
    parser.add_argument("--seconds", type=number(Positive), default=1.0, help="length of each measurement of speed")
    parser.add_argument("--out", type=Path, help="also write the numbers as JSON")
    args = parser.parse_args()
    if args.out:
        places.writable(args.out.parent, "--out")
    scripts = scripts_of(args.data.split(","))
    device = jax.devices()[0]
    print(f"{device.platform} {device.device_kind}, jax {jax.__version__}")
    print("experiment                deviation   default   first    steps/s  samples/s", flush=True)
    results, failed = {}, False
    for script in scripts:
        try:
            r = results[script.path.stem] = check(script, args.seconds)
        except Exception as error:  # one family must not hide the others
            failed = True
            print(f"{script.path.stem:24s}  FAILED: {type(error).__name__}: {str(error).splitlines()[0]}", flush=True)
            continue
        print(f"{script.path.stem:24s} {r['deviation']:10.1e} {r['default']:9.1e} {r['first']:6.1f} s "
              f"{r['steps_per_second']:9.1f} {r['samples_per_second']:10.4g}", flush=True)  # fmt: skip
        if not np.isfinite(list(r.values())).all():
            failed = True
    if args.out:
        about = {"device": device.device_kind, "platform": device.platform, "jax": jax.__version__}
        args.out.write_text(json.dumps(about | {"experiments": results}, indent=1) + "\n")
    return int(failed)


if __name__ == "__main__":
    with told("device_check.py"):
        sys.exit(main())
