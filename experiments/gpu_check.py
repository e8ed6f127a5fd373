"""What a GPU must show, in eight minutes: every family beside the CPU, training and decoding beside PyTorch.

    bash launch/gpu_check.sh --out FOLDER                    (extras: cuda12 or cuda13, and parity)
    bash launch/gpu_check.sh --out FOLDER --parts gpt2
    bash launch/gpu_check.sh --out FOLDER --dry              (toy sizes, also on a CPU: a test of the script itself)

The parts, the most valuable first. Each runs as a process of its own and is ended at its limit; what eight minutes do
not hold is named, for `--parts`:

gpt2: updates of GPT-2 small in bfloat16, of 5 micro-batches of 12 x 1,024 tokens, beside the same model in PyTorch
    (`torch.compile`, bfloat16, fused attention and AdamW); the share of the card's peak, and a profile;
families: the first three steps of every experiment on digits on the GPU and on the CPU of the same machine, in float32
    with full precision, from the same state; and three steps, a checkpoint and three more beside six without a break;
decoding: 256 tokens of GPT-2 small in bfloat16, for 1 and 64 strings, beside transformers with a static cache;
shakespeare: `experiments/gpt_shakespeare_gpu.py`, nanoGPT's recipe for a GPU (needs Tiny Shakespeare, prepared);
edm: updates of EDM's network for CIFAR-10 beside the same network in PyTorch (`torch.compile`, channels last), both
    with TF32 products;
stylegan: updates of a StyleGAN2 for 32x32 images with all lazy penalties, beside the same game in PyTorch.

Competitors take turns, and medians are compared. Model FLOPs utilisation counts 6 N + 12 L D T operations per token for
N parameters without those of positions, L layers D wide and T tokens, of which nothing is left out for causality
(nanoGPT's formula, after Chowdhery et al. 2022, appendix B), and divides by the card's dense peak in bfloat16.
"""

import argparse
import concurrent.futures
import gzip
import json
import math
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from genmap_jax import places
from genmap_jax.commands.bad_input import Parser, number, told
from genmap_jax.files import write_json
from genmap_jax.options import Positive

FOLDER = Path(__file__).parent
LIMITS = {"gpt2": 130, "families": 200, "decoding": 140, "shakespeare": 120, "edm": 300, "stylegan": 200}  # seconds
Save = Callable[[dict], None]  # writes what a part knows so far, so that its limit leaves that much


# ---- beside PyTorch --------------------------------------------------------------------------------------------------


def on_card(name: str):
    """The module experiments/peers/NAME.py, whose tensors are on the GPU, if there is one, and multiplied in TF32."""
    import torch
    from benchmarks import peer

    if torch.cuda.is_available():
        torch.set_default_device("cuda")  # before the peer is imported, which makes tensors
        torch.set_float32_matmul_precision("high")  # as JAX does by itself
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    return peer(name)


def beside(comparisons: Callable, dry: bool, save: Save) -> dict:
    """What was measured, by title and competitor. comparisons: of a peer, for a GPU. One that fails is named."""
    import jax
    from benchmarks import in_turn, our_updates

    results: dict = {}
    for title, (units, competitors) in comparisons(our_updates, dry).items():
        runs_of, measured = {}, results.setdefault(title, {})
        for who, set_up in competitors.items():
            began = time.perf_counter()
            try:
                run = synchronous(set_up())
                run()
            except Exception as error:  # the others go on
                measured[who] = {"failed": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
                print(f"  {who}: {measured[who]['failed']}", flush=True)
                continue
            runs_of[who], measured[who] = run, {"first": time.perf_counter() - began}
            print(f"  {who} was set up, compiled and run once in {measured[who]['first']:.0f} s", flush=True)
            save(results)
        for who, rates in in_turn(title, units, runs_of).items():
            measured[who] |= rates
        save(results)
        if "ours" in runs_of:
            measured["kernels"] = kernels(runs_of["ours"])
            for line in measured["kernels"]["longest"][:12]:
                print("    {share:6.1%} {name}".format(**line), flush=True)
    results["peak_bytes"] = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return results


def synchronous(run: Callable[[], None]) -> Callable[[], None]:
    """The same, to the end of what it started on a GPU by PyTorch."""
    import torch

    def whole():
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return whole


def kernels(run: Callable[[], None]) -> dict:
    """What the device did in one call: busy milliseconds, and the operations that took longest with their shares."""
    import jax

    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run()
        traces = list(Path(folder).rglob("*.trace.json.gz"))
        events = json.loads(gzip.open(traces[0]).read())["traceEvents"] if traces else []
    devices = {
        e["pid"] for e in events if e.get("name") == "process_name" and "GPU" in e.get("args", {}).get("name", "")
    }
    streams = {
        (e["pid"], e["tid"])
        for e in events
        if e.get("name") == "thread_name" and "Stream" in e.get("args", {}).get("name", "")
    }
    spent: dict[str, float] = defaultdict(float)
    for e in events:
        if e.get("ph") == "X" and e["pid"] in devices and (e["pid"], e["tid"]) in streams:
            spent[f"{e.get('args', {}).get('hlo_op', '')} {e['name'][:60]}".strip()] += e.get("dur", 0.0)
    total = sum(spent.values())
    order = sorted(spent, key=lambda name: -spent[name])[:60]
    longest = [{"name": name, "share": spent[name] / total, "us": spent[name]} for name in order]
    return {"busy_ms": total / 1e3, "longest": longest}


def gpt2(dry: bool, save: Save) -> dict:
    """Training of GPT-2 small, with the utilisation of the card."""
    import jax

    from genmap_jax.peaks import peak_flops

    peer = on_card("gpt")
    results = beside(peer.on_gpu, dry, save)
    peak = peak_flops(jax.devices()[0].device_kind)
    for title in (title for title in results if title.startswith("GPT-2")):
        for who, measured in results[title].items():
            if peak and "rate" in measured:
                measured["mfu"] = measured["rate"] * peer.flops_per_token(peer.GPT2) / peak
                print(f"  {title}: {who:24s} {measured['mfu']:.1%} of {peak / 1e12:.0f} TFLOP/s", flush=True)
    return results


# ---- every family ----------------------------------------------------------------------------------------------------


def families(dry: bool, save: Save) -> dict:
    """The numbers of `device_check.py` for every experiment on digits, several at a time, so without those of speed."""
    from device_check import scripts_of

    names = [script.path.stem for script in scripts_of(["digits"])]
    names = ["vae_digits"] if dry else names
    results = {}
    processes = min(len(names), os.cpu_count() or 1)
    with concurrent.futures.ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        jobs = {pool.submit(one_family, name): name for name in names}
        for job in concurrent.futures.as_completed(jobs):
            name = jobs[job]
            try:
                results[name] = job.result()
                shown = "  ".join(f"{what} {value:.1e}" for what, value in results[name].items())
            except Exception as error:  # one family must not hide the others
                shown = f"{type(error).__name__}: {str(error).splitlines()[0]}"
                results[name] = {"failed": shown}
            print(f"  {name:24s} {shown}", flush=True)
            save(results)
    return results


def one_family(name: str) -> dict[str, float]:
    from device_check import contract

    from genmap_jax.run import runs

    return contract(runs.read_experiment(FOLDER / f"{name}.py"))


# ---- a real training -------------------------------------------------------------------------------------------------


def shakespeare(dry: bool, save: Save) -> dict:
    """nanoGPT's recipe: nats per character of the best validation, and the seconds to it, as the run counts them."""
    from genmap_jax.files import read_json, read_metrics

    with tempfile.TemporaryDirectory() as folder:
        script = "gpt_pydoc" if dry else "gpt_shakespeare_gpu"
        command = [sys.executable, str(FOLDER / f"{script}.py"), "--workdir", folder, "--no-tensorboard"]
        subprocess.run([*command, *(["--steps", "2", "--eval-every", "1"] if dry else [])], check=True)
        rows, result = read_metrics(Path(folder) / "metrics.jsonl"), read_json(Path(folder) / "result.json")
    nats = [
        {"step": row["step"], "seconds": row["seconds"], "nats": row["validation_bits_per_dim"] * math.log(2.0)}
        for row in rows
        if "validation_bits_per_dim" in row
    ]
    best = min(nats, key=lambda row: row["nats"])
    print(f"  best {best}", flush=True)
    return {"best": best, "course": nats, "result": result, "last": rows[-1]}


PARTS: dict[str, Callable[[bool, Save], dict]] = {
    "gpt2": gpt2,
    "families": families,
    "decoding": lambda dry, save: beside(on_card("gpt").decoding_on_gpu, dry, save),
    "shakespeare": shakespeare,
    "edm": lambda dry, save: beside(on_card("diffusion").on_gpu, dry, save),
    "stylegan": lambda dry, save: beside(on_card("stylegan").on_gpu, dry, save),
}


# ---- all parts -------------------------------------------------------------------------------------------------------


def run_part(name: str, out: Path, limit: float, dry: bool) -> bool:
    """One part as a process of its own, ended at its limit. Whether it came to its end."""
    command = [sys.executable, __file__, "--out", str(out), "--part", name, *(["--dry"] if dry else [])]
    # Competitors share the card, and processes do: nobody takes it all beforehand.
    part = subprocess.Popen(
        command, env=os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}, start_new_session=True
    )
    try:
        return part.wait(limit) == 0
    except subprocess.TimeoutExpired:
        os.killpg(part.pid, 9)
        part.wait()
        return False


def main() -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the numbers of each part, as JSON")
    parser.add_argument("--parts", default=",".join(LIMITS), help="parts to run, comma-separated")
    parser.add_argument("--seconds", type=number(Positive), default=480.0, help="for all parts together")
    parser.add_argument("--part", choices=list(LIMITS), help=argparse.SUPPRESS)  # the process of one part
    parser.add_argument("--dry", action="store_true", help="run the whole script at toy sizes, on a CPU too")
    args = parser.parse_args()
    places.writable(args.out, "--out").mkdir(parents=True, exist_ok=True)
    if args.part:
        sys.path.insert(0, str(FOLDER))
        save = lambda result: write_json(args.out / f"{args.part}.json", result)  # noqa: E731
        save(PARTS[args.part](args.dry, save))
        return 0
    chosen = args.parts.split(",")
    for name in chosen:
        if name not in LIMITS:
            parser.error(f"--parts {name}: there are {', '.join(LIMITS)}")
    began, failed = time.perf_counter(), []
    for name in chosen:
        left = args.seconds - (time.perf_counter() - began)
        if left < 20:
            print(f"{name}: no time left", flush=True)
            failed.append(name)
            continue
        print(f"{name} (at most {min(left, LIMITS[name]):.0f} s)", flush=True)
        started = time.perf_counter()
        if not run_part(name, args.out, min(left, LIMITS[name]), args.dry):
            failed.append(name)
            print(f"{name}: NOT FINISHED", flush=True)
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
    return int(bool(failed))


if __name__ == "__main__":
    with told("gpu_check.py"):
        sys.exit(main())
