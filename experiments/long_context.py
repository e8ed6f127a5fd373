"""A GPT with rotary positions read at four times the length it was trained at.

    python experiments/gpt_pydoc.py --model.positions rope --model.length 256 --workdir runs/rope
    python experiments/long_context.py runs/rope

Prints bits per byte of test text in windows of 4 L bytes, L the length of the training, for every way to read them:

    cut         in windows of L, each read without what comes before it
    overlapping in windows of L that begin every L / 2: each byte sees at least L / 2 before it
    plain       at once, at positions never trained
    linear, ntk, yarn     rotary frequencies scaled by 4 (genmap_jax/nn/rope.py)
    dual chunk            chunks of 3 L / 4, so that no distance is larger than the trained ones

Expect, over all positions (39 windows; standard errors 0.08, common to the ways), seed 0, jax 0.10.2: overlapping
1.923, dual chunk 1.935, cut 1.958, yarn 2.501, ntk 2.622, plain 3.372, linear 5.543. A model this small, not tuned
further at the new length, gains nothing from scaled frequencies; dual chunks beat cutting; overlapping windows, at
twice the work, beat both.
"""

import argparse
import dataclasses
from pathlib import Path

import jax
import numpy as np

from genmap_jax import data, runs
from genmap_jax.evaluate.likelihood import summary
from genmap_jax.nn.rope import Scaling
from genmap_jax.tractable import gpt

TIMES = 4


def ways(cfg: gpt.Config) -> dict[str, gpt.Config]:
    """Name -> the model at TIMES its length. The parameters are the same."""
    length = cfg.length
    change = lambda **changes: dataclasses.replace(cfg, length=TIMES * length, **changes)  # noqa: E731
    scaled = {kind: change(scaling=Scaling(kind, float(TIMES), length)) for kind in ("linear", "ntk", "yarn")}
    return {"plain": change(), **scaled, "dual chunk": change(chunk=3 * length // 4, trained=length)}


def table(cfg: gpt.Config, params, tokens: np.ndarray, batch: int = 8) -> dict[str, np.ndarray]:
    """Way -> nats of every token [N, TIMES L] under it; tokens int32 [N, TIMES L]."""

    def nats(cfg: gpt.Config, tokens: np.ndarray) -> np.ndarray:
        each = jax.jit(lambda t: gpt.token_log_prob(cfg, params, t))
        return np.concatenate([np.asarray(each(tokens[i : i + batch])) for i in range(0, len(tokens), batch)])

    length, n = cfg.length, len(tokens)
    half = length // 2
    results = {"cut": nats(cfg, tokens.reshape(-1, length)).reshape(n, -1)}
    shifted = nats(cfg, tokens[:, half:-half].reshape(-1, length)).reshape(n, -1, length)[:, :, half:]
    overlapping = results["cut"].reshape(n, TIMES, 2, half).copy()
    overlapping[:, 1:, 0] = shifted  # the first halves, but of the first window, with the half before them
    results["overlapping"] = overlapping.reshape(n, -1)
    return results | {name: nats(stretched, tokens) for name, stretched in ways(cfg).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    args = parser.parse_args()
    run = runs.open_run(args.run, Path(__file__).parent)
    cfg = run.config.model
    if getattr(cfg, "positions", None) != "rope":
        parser.error(f"{args.run} is not a GPT with rotary positions: train one with --model.positions rope")
    test = data.load(run.config.data, "test", length=TIMES * cfg.length)
    tokens = test.take(np.arange(test.size))["tokens"]
    print(f"{len(tokens)} windows of {tokens.shape[1]} bytes; trained at {cfg.length}. Bits per byte ± standard error")
    print(f"{'':12s} {'all positions':>18s} {'beyond the trained':>20s}")
    for name, nats in table(cfg, run.state.averaged, tokens).items():
        cells = []
        for part in (nats, nats[:, cfg.length :]):
            measured = summary(part.sum(1, dtype=np.float64), "exact", part.shape[1])
            cells.append(f"{measured.bits_per_dim:.4f} ± {measured.bits_per_dim_stderr:.4f}")
        print(f"{name:12s} {cells[0]:>18s} {cells[1]:>20s}", flush=True)


if __name__ == "__main__":
    main()
