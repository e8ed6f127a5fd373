"""A GPT with rotary positions read at four times the length it was trained at.

    for s in 0 1 2; do python experiments/gpt_pydoc.py --model.positions rope --model.length 256 --seed $s \\
        --workdir runs/rope$s; done
    python experiments/long_context.py runs/rope0 runs/rope1 runs/rope2

It prints bits per byte of test text in windows of 4 L tokens (--times 4), where L is the trained length, for every way
of reading them:

    cut         in windows of L, each read without what comes before it
    overlapping in windows of L that begin every L / 2: each token sees at least L / 2 before it
    plain       at once, at positions that were never trained
    linear, ntk, yarn     rotary frequencies scaled by 4 (genmap_jax/nn/rope.py)
    dual chunk            chunks of 3 L / 4, so that no distance is larger than the trained ones

Expect these bits per byte over all positions of 39 windows (mean ± standard error of seeds 0 to 2, and each seed; jax
0.10.2):

    overlapping 1.902 ± 0.004    1.9031 1.8942 1.9078
    dual chunk  1.916 ± 0.001    1.9174 1.9133 1.9170
    cut         1.932 ± 0.004    1.9341 1.9251 1.9376
    yarn        2.530 ± 0.011    2.5480 2.5104 2.5330
    ntk         2.500 ± 0.070    2.6229 2.4959 2.3808
    plain       3.395 ± 0.062    3.3981 3.5010 3.2865
    linear      5.568 ± 0.025    5.5568 5.6161 5.5301

A model this small that is not trained further at the new length gains nothing from scaled frequencies. Dual chunk
attention beats cutting, and overlapping windows, at twice the work, beat both.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Annotated

import jax
import numpy as np

from genmap_jax import data
from genmap_jax.algorithm import averaged
from genmap_jax.commands.bad_input import Parser, number, told
from genmap_jax.nn.rope import Scaling
from genmap_jax.options import Range
from genmap_jax.report.numbers import plus_minus
from genmap_jax.run import opening
from genmap_jax.tractable import gpt
from genmap_jax.units import bits_per_dim


def ways(cfg: gpt.Config, times: int) -> dict[str, gpt.Config]:
    """Name -> the model at `times` its length. The parameters are the same."""
    length = cfg.length
    change = lambda **changes: dataclasses.replace(cfg, length=times * length, **changes)  # noqa: E731
    scaled = {kind: change(scaling=Scaling(kind, float(times), length)) for kind in ("linear", "ntk", "yarn")}
    return {"plain": change(), **scaled, "dual chunk": change(chunk=3 * length // 4, trained=length)}


def table(cfg: gpt.Config, params, tokens: np.ndarray, batch: int = 8) -> dict[str, np.ndarray]:
    """Way -> nats of every token [N, T] under it; tokens int32 [N, T], T a multiple of the trained length."""

    def nats(cfg: gpt.Config, tokens: np.ndarray) -> np.ndarray:
        each = jax.jit(lambda t: gpt.token_log_prob(cfg, params, t))
        return np.concatenate([np.asarray(each(tokens[i : i + batch])) for i in range(0, len(tokens), batch)])

    length, n, times = cfg.length, len(tokens), tokens.shape[1] // cfg.length
    half = length // 2
    results = {"cut": nats(cfg, tokens.reshape(-1, length)).reshape(n, -1)}
    shifted = nats(cfg, tokens[:, half:-half].reshape(-1, length)).reshape(n, -1, length)[:, :, half:]
    overlapping = results["cut"].reshape(n, times, 2, half).copy()
    overlapping[:, 1:, 0] = shifted  # the first halves, but of the first window, with the half before them
    results["overlapping"] = overlapping.reshape(n, -1)
    return results | {name: nats(stretched, tokens) for name, stretched in ways(cfg, times).items()}


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="of one experiment; seeds, for instance")
    times = number(Annotated[int, Range(2)])
    parser.add_argument("--times", type=times, default=4, help="of the trained length (default: 4)")
    args = parser.parse_args()
    found: dict[str, list[list[float]]] = {}  # way -> for every run, bits per byte of all and of later positions
    for folder in args.runs:
        run = opening.open_run(folder, Path(__file__).parent)
        cfg, dims = run.config.model, run.sources["test"].bytes_per_token
        if not isinstance(cfg, gpt.Config) or cfg.positions != "rope":
            parser.error(f"{folder} is not a GPT with rotary positions: train one with --model.positions rope")
        text = dataclasses.asdict(run.config.text)
        test = data.load(run.config.data, "test", length=args.times * cfg.length, **text)
        tokens = test.take(np.arange(test.size))["tokens"]
        print(f"{folder}: {len(tokens)} windows of {tokens.shape[1]} tokens; trained at {cfg.length}", flush=True)
        for way, nats in table(cfg, averaged(run.state), tokens).items():
            parts = [bits_per_dim(part.mean(dtype=np.float64), dims) for part in (nats, nats[:, cfg.length :])]
            found.setdefault(way, []).append(parts)
    print(f"\nBits per byte{'':12s} {'all positions':>20s} {'beyond the trained':>20s}   all positions, each run")
    for way, each in found.items():
        whole, beyond = np.array(each).T
        seeds = " ".join(f"{value:.4f}" for value in whole)
        print(f"{way:25s} {plus_minus(whole):>20s} {plus_minus(beyond):>20s}   {seeds}")


if __name__ == "__main__":
    with told("long_context.py"):
        main()
