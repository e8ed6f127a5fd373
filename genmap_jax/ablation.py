"""Ablations: the baseline and its named variants, several seeds each, as one table.

The seeds of a variant are one program, `jax.vmap` over (state, batch, key): seed i sees the data order,
initialisation and noise that `--seed i` would give it alone. Finished variants are kept, so an interrupted table goes
on where it stopped.
"""

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genmap_jax import config as configs
from genmap_jax import data, train
from genmap_jax.config import Experiment
from genmap_jax.evaluate.distance import energy_distance
from genmap_jax.evaluate.examine import real_examples
from genmap_jax.evaluate.likelihood import bits_per_dim


def ablate(
    experiment: Experiment, family: train.Family, ablations: dict[str, dict[str, Any]], launch: train.Launch
) -> dict:
    """Train and print. Returns per variant {"bits_per_dim": [per seed] or None, "kind", "energy_distance", "seconds"}.

    Raises ValueError for an unknown ablation.
    """
    names = list(ablations) if launch.ablation == "all" else [launch.ablation] if launch.ablation else []
    unknown = [name for name in names if name not in ablations]
    if unknown:
        raise ValueError(f"no ablation {unknown[0]!r}; this experiment has: {', '.join(ablations) or 'none'}, or all")
    variants = {"baseline": experiment, **{name: configs.replace(experiment, ablations[name]) for name in names}}
    folder = (launch.workdir or Path("runs") / f"{experiment.name}_ablation").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    results = {}
    for name, cfg in variants.items():
        path = folder / f"{name}.json"
        asked = {"config": configs.to_json(cfg), "seeds": launch.seeds}
        done = json.loads(path.read_text()) if path.exists() else {}
        if {key: done.get(key) for key in asked} != asked:
            print(f"{experiment.name}: {name}, {launch.seeds} seed(s), {cfg.steps} steps", flush=True)
            done = asked | {"result": run_seeds(cfg, family, launch.seeds, launch.data_dir)}
            train.write_json(path, done)
        results[name] = done["result"]
    text, command = table(results), train.command_text(sys.argv)
    (folder / "table.txt").write_text(text + "\n")
    (folder / "command.txt").write_text(command + "\n")
    print(f"\n{text}\n\nReproduce: {command}\nNumbers of every seed: {folder}")
    return results


def run_seeds(cfg: Experiment, family: train.Family, seeds: int, data_dir: Path | None = None) -> dict[str, Any]:
    """Train `seeds` seeds of one config as one vmapped program and measure each on the test split."""
    algorithm = train.keyed_by_step(family(cfg.model, batch_size=cfg.batch_size))
    sources = train.load(cfg, data_dir)
    which = [cfg.seed + i for i in range(seeds)]
    keys = jnp.stack([jax.random.split(jax.random.key(seed), 3) for seed in which])  # as in `train.train`
    state = jax.jit(jax.vmap(algorithm.init))(keys[:, 0])
    step = jax.jit(jax.vmap(algorithm.step), donate_argnums=0)
    began = time.perf_counter()
    for i in range(cfg.steps):
        batches = [data.batch(sources["train"], seed, i, cfg.batch_size) for seed in which]
        state, metrics = step(state, {k: np.stack([b[k] for b in batches]) for k in batches[0]}, keys[:, 1])
        if i % train.IN_FLIGHT == 0:
            jax.block_until_ready(metrics)
    jax.block_until_ready(state)
    result: dict[str, Any] = {"seeds": which, "seconds": time.perf_counter() - began}
    return result | _measure(algorithm, cfg, sources["test"], state, keys[:, 2])


def _measure(algorithm, cfg: Experiment, test, state, keys) -> dict[str, Any]:
    result: dict[str, Any] = {"bits_per_dim": None, "kind": None, "energy_distance": None}
    rows = test.spaced(cfg.eval_examples)
    if algorithm.log_prob is not None:
        log_prob = jax.jit(jax.vmap(algorithm.log_prob, in_axes=(0, None, 0)))
        nats = []
        for start in range(0, len(rows), cfg.batch_size):
            part = rows[start : start + cfg.batch_size]
            batch = test.take(np.resize(part, cfg.batch_size))
            value = log_prob(
                state, batch, jax.vmap(lambda k, i=start: jax.random.fold_in(k, i // cfg.batch_size))(keys)
            )
            nats.append(np.asarray(value.nats)[:, : len(part)])
        means = np.concatenate(nats, axis=1).mean(axis=1, dtype=np.float64)
        result |= {
            "bits_per_dim": [bits_per_dim(float(m), test.dims) for m in means],
            "kind": test.kind(value.kind),
        }
    comparable = real_examples(test)
    if comparable is not None and algorithm.sample is not None:
        real, scale = comparable
        draw = jax.jit(jax.vmap(lambda s, k: algorithm.sample(s, k, len(real), None)))
        generated = np.asarray(draw(state, keys)) / scale
        finite = [np.isfinite(g).all() for g in generated]
        result["energy_distance"] = [
            energy_distance(real=real, generated=g).value if ok else math.nan
            for g, ok in zip(generated, finite, strict=True)
        ]
    return result


def table(results: dict[str, dict[str, Any]]) -> str:
    """Mean ± standard error over seeds and the difference to the baseline, paired by seed. Lower is better."""
    lines, baseline = [], results["baseline"]
    kinds = {r["kind"] for r in results.values() if r["kind"]}
    measures = {"bits_per_dim": f"bits/dim ({', '.join(sorted(kinds))})", "energy_distance": "energy distance"}
    shown = {key: title for key, title in measures.items() if baseline[key] is not None}
    header = f"{'variant':16s}" + "".join(f"  {title:>34s}  {'difference':>20s}" for title in shown.values())
    lines.append(header)
    for name, result in results.items():
        line = f"{name:16s}"
        for key in shown:
            values, reference = np.array(result[key], float), np.array(baseline[key], float)
            change = "" if name == "baseline" else plus_minus(values - reference, sign=True)
            line += f"  {plus_minus(values):>34s}  {change:>20s}"
        lines.append(line)
    lines.append("every seed:")
    for name, result in results.items():
        for key in shown:
            lines.append(f"  {name:16s} {key:16s} " + "  ".join(f"{v:.5f}" for v in result[key]))
    return "\n".join(lines)


def plus_minus(values: np.ndarray, sign: bool = False) -> str:
    """Mean ± standard error of values of several seeds, as text."""
    mean = f"{values.mean():{'+' if sign else ''}.4f}"
    if len(values) < 2:
        return mean
    return f"{mean} ± {values.std(ddof=1) / math.sqrt(len(values)):.4f}"
