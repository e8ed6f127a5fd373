"""Ablations: the baseline and its named variants, several seeds each, as one table.

The seeds of a variant are one program, `jax.vmap` over (state, batch, key): seed i sees the data order,
initialisation and noise that `--seed i` would give it alone. Finished variants are kept, so an interrupted table goes
on where it stopped.

Measured are bits per dimension and the energy distance of samples, where there are any; modes, on toy mixtures; and
with --features the Fréchet distance in those features, how far the shares of classes are off (TV), and how many samples
of a conditional model are of the label asked for.
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
from genmap_jax.data import toy
from genmap_jax.evaluate import quality
from genmap_jax.evaluate.distance import energy_distance
from genmap_jax.evaluate.examine import real_examples
from genmap_jax.evaluate.features import Extractor, extractor
from genmap_jax.evaluate.likelihood import bits_per_dim


def ablate(
    experiment: Experiment, family: train.Family, ablations: dict[str, dict[str, Any]], launch: train.Launch
) -> dict:
    """Train and print. Returns per variant {"bits_per_dim": [per seed] or None, "kind", "energy_distance", "seconds"},
    with further measures [per seed] under "more" and what real data score in the place of samples under "real".

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
        asked = {"config": configs.to_json(cfg), "seeds": launch.seeds, "features": launch.features}
        done = json.loads(path.read_text()) if path.exists() else {}
        if {key: done.get(key) for key in asked} != asked:
            print(f"{experiment.name}: {name}, {launch.seeds} seed(s), {cfg.steps} steps", flush=True)
            done = asked | {"result": run_seeds(cfg, family, launch.seeds, launch.data_dir, launch.features)}
            train.write_json(path, done)
        results[name] = done["result"]
    text, command = table(results), train.command_text(sys.argv)
    (folder / "table.txt").write_text(text + "\n")
    (folder / "command.txt").write_text(command + "\n")
    print(f"\n{text}\n\nReproduce: {command}\nNumbers of every seed: {folder}")
    return results


def run_seeds(
    cfg: Experiment, family: train.Family, seeds: int, data_dir: Path | None = None, features: str | None = None
) -> dict[str, Any]:
    """Train `seeds` seeds of one config as one vmapped program and measure each on held-out data."""
    algorithm = train.keyed_by_step(family(cfg.model, batch_size=cfg.batch_size))
    sources = train.load(cfg, data_dir)
    looks = features and extractor(features, data=cfg.data, levels=sources["test"].levels, data_dir=data_dir)
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
    result |= _measure(algorithm, cfg, sources["test"], state, keys[:, 2])
    more, real = _modes(algorithm, cfg, state, keys[:, 2])
    if looks:
        looked, seen = _looked_at(looks, algorithm, cfg, sources, state, keys[:, 2])
        more, real = more | looked, real | seen
    return result | {"more": more, "real": real}


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


def _modes(algorithm, cfg: Experiment, state, keys, count: int = 10_000) -> tuple[dict, dict]:
    """Of samples of each seed, on a toy mixture: modes found, KL over modes, share near one; and of the law itself."""
    law = toy.DENSITIES[cfg.data.removeprefix("toy/")] if cfg.data.startswith("toy/") else None
    if law is None or law.modes is None or algorithm.sample is None:
        return {}, {}
    draw = jax.jit(jax.vmap(lambda s, k: algorithm.sample(s, k, count, None)))
    sets = [*np.asarray(draw(state, keys)), np.asarray(law.sample(jax.random.key(1000), count))]
    found, near = zip(*(law.modes_found(x) for x in sets), strict=True)
    values = {"modes": found, "KL(modes)": [law.mode_kl(x) for x in sets], "near a mode, %": 100.0 * np.array(near)}
    return _last_apart(values)


def _looked_at(looks: Extractor, algorithm, cfg: Experiment, sources, state, keys) -> tuple[dict, dict]:
    """Fréchet distance of each seed's samples, and the share that is of the label asked for; and of real data."""
    both = [sources[split].take(sources[split].spaced(cfg.eval_examples)) for split in ("validation", "test")]
    images = np.concatenate([part["image"] for part in both])
    count, classes = min(1000, len(images) // 2), getattr(cfg.model, "classes", None)
    cond = None if classes is None else jnp.arange(count) % classes
    generated = np.asarray(jax.jit(jax.vmap(lambda s, k: algorithm.sample(s, k, count, cond)))(state, keys))
    real = looks.features(images)
    name, probabilities = looks.name, looks.probabilities
    values = _with_null(f"FD-{name}", quality.distances, looks.features, real, generated, name)
    if probabilities is not None and looks.accuracy is not None:  # a classifier of these data
        held_out = probabilities(images)
        values |= _with_null(f"TV-{name}", quality.class_balance, probabilities, held_out, generated, name)
        if classes is not None:
            labels = np.concatenate([part["label"] for part in both])
            share = lambda p, labels: 100.0 * float((p.argmax(1) == labels).mean())  # noqa: E731
            asked = [share(probabilities(x), np.asarray(cond)) for x in generated]
            values["label as asked, %"] = [*asked, share(held_out, labels)]
    return _last_apart(values)


def _with_null(key: str, measure, seen, real: np.ndarray, generated: np.ndarray, name: str) -> dict[str, list[float]]:
    """One number of `quality` for the samples of every seed, and its null floor."""
    numbers = [measure(held_out=real, generated=seen(x), name=name)[key] for x in generated]
    return {key: [number.value for number in numbers] + [numbers[0].null]}


def _last_apart(values: dict) -> tuple[dict, dict]:
    """Measures of every seed, and those of real data, which come last."""
    return {k: [float(x) for x in v[:-1]] for k, v in values.items()}, {k: float(v[-1]) for k, v in values.items()}


def table(results: dict[str, dict[str, Any]]) -> str:
    """Mean ± standard error over seeds and the difference to the baseline, paired by seed.

    Lower is better, but for modes and shares in per cent.
    """
    results = {name: {**result, **result["more"]} for name, result in results.items()}
    lines, baseline = [], results["baseline"]
    kinds = {r["kind"] for r in results.values() if r["kind"]}
    measures = {"bits_per_dim": f"bits/dim ({', '.join(sorted(kinds))})", "energy_distance": "energy distance"}
    measures |= {name: name for name in baseline["more"]}
    shown = {key: title for key, title in measures.items() if baseline[key] is not None}
    width = {key: max(17, len(title)) for key, title in shown.items()}
    column = max(map(len, [*results, "variant"]))
    header = f"{'variant':{column}s}" + "".join(
        f"  {title:>{width[key]}s}  {'difference':>18s}" for key, title in shown.items()
    )
    lines.append(header)
    for name, result in results.items():
        line = f"{name:{column}s}"
        for key in shown:
            values, reference = np.array(result[key], float), np.array(baseline[key], float)
            change = "" if name == "baseline" else plus_minus(values - reference, sign=True)
            line += f"  {plus_minus(values):>{width[key]}s}  {change:>18s}"
        lines.append(line)
    lines.append("every seed:")
    for name, result in results.items():
        for key in shown:
            lines.append(f"  {name:{column}s}  {key:16s} " + "  ".join(f"{v:.5f}" for v in result[key]))
    real = "  ".join(f"{name} {value:.4f}" for name, value in baseline["real"].items())
    return "\n".join([*lines, f"real data: {real}"] if real else lines)


def plus_minus(values: np.ndarray, sign: bool = False) -> str:
    """Mean ± standard error of values of several seeds, as text."""
    mean = f"{values.mean():{'+' if sign else ''}.4f}"
    if len(values) < 2:
        return mean
    return f"{mean} ± {values.std(ddof=1) / math.sqrt(len(values)):.4f}"
