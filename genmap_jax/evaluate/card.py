"""The card of a run: everything that was measured of it, in one JSON file beside its samples.

    RUN/evaluation/card.json       the numbers, each with N, seed, interval and null floor; the extractor with its hash
    RUN/evaluation/samples.npz     the samples that were measured, as a batch holds them; a grid of them as .png or .txt
    RUN/evaluation/nats.npy        log-probability of every test example, where the family has one
    RUN/evaluation/nearest.png     samples above the training images nearest to them
    RUN/evaluation/sampler.gif     the sampler at work, or a walk between latents
    RUN/evaluation/density.png     2-D toy data: the truth beside the model

What is measured follows from the data: images and points are compared through features, text by its likelihood and by
what it repeats of the training text.
"""

import dataclasses
import math
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genmap_jax import data, runs, train
from genmap_jax.data import toy
from genmap_jax.evaluate import memorisation, quality
from genmap_jax.evaluate.examine import evaluated_batches, padded, timed_draws
from genmap_jax.evaluate.features import Extractor, coordinates, extractor, own
from genmap_jax.evaluate.likelihood import bits_per_dim, log_probs, summary
from genmap_jax.evaluate.path_length import perceptual_path_length
from genmap_jax.evaluate.quality import Number
from genmap_jax.evaluate.resampling import bootstrap
from genmap_jax.report import pictures
from genmap_jax.report.rows import CONTINENTS

POOL = 10_000
"""Held-out and training examples looked at, at most."""
TOY_POINTS = 100_000
"""Fresh points of a toy density for the KL divergences."""
TSTR_STEPS = 400
"""Updates of a classifier of samples."""
FRAMES, SHOWN = 24, {"image": 16, "x": 500}
"""Of the sampler at work: pictures, and examples on each."""


def evaluate_run(
    folder: Path,
    experiments: Path,
    *,
    samples: int = 1000,
    features: str = "own",
    weights: Path | None = None,
    seed: int = 0,
    data_dir: Path | None = None,
) -> Path:
    """Measure the newest checkpoint of a run and return the folder of the card. It appears whole or not at all.

    samples: N at most; where real data must be split in two halves of N, they may allow less.
    features: "own", "efficientnet", "inception", "dinov2" or "clip", for images; the last three need `weights`.
    Raises ValueError or FileNotFoundError naming what is wrong.
    """
    if samples < 20:
        raise ValueError(f"--samples {samples}: intervals and neighbours need at least 20")
    run = runs.open_run(folder, experiments, data_dir)
    name = run.sources["test"].field
    looks = _extractor(name, run, features, weights, data_dir)  # first of all: a missing file should fail at once
    held_out = np.concatenate([_examples(run.sources[split], name, POOL // 2) for split in ("validation", "test")])
    count = samples if name == "tokens" else min(samples, len(held_out) // 2)
    generated, speed = draw(run, count, seed)

    card: dict[str, Any] = about(run) | {"samples_per_second": speed, "evaluations": run.algorithm.evaluations}
    card["asked"] = {"samples": samples, "features": features}
    card["extractor"] = None if looks is None else {k: getattr(looks, k) for k in ("name", "hash", "fit", "accuracy")}
    out = run.folder / "evaluation"
    with tempfile.TemporaryDirectory(prefix=".evaluation-", dir=run.folder) as scratch:
        scratch = Path(scratch)
        card["likelihood"], nats = likelihood(run, name, seed)
        if nats is not None:
            np.save(scratch / "nats.npy", nats)
        train_set = _examples(run.sources["train"], name, POOL)
        card["memorises"], card["memorises_why"] = None, "not tested: no features"
        numbers: dict[str, Number] = {}
        if name == "tokens":
            numbers |= repeated(train_set, held_out, generated, run.sources["test"].tokenizer.unit)
        else:
            flat = {"held_out": looks.features(held_out), "generated": looks.features(generated)}
            numbers |= quality.distances(**flat, name=looks.name, seed=seed)
            numbers |= quality.neighbours(**flat, name=looks.name, seed=seed)
            if name == "image":
                numbers |= quality.directions(**flat, name=looks.name, seed=seed)
            scale = (run.sources["test"].levels or 2) - 1
            numbers |= quality.energy(held_out=held_out / scale, generated=generated / scale, seed=seed)
            memory, card["memorises"], card["memorises_why"] = quality.memorised(
                **flat, train=looks.features(train_set), seed=seed
            )
            numbers |= memory
        if name == "image" and looks.probabilities is not None:
            probabilities = {k: looks.probabilities(v) for k, v in (("held_out", held_out), ("generated", generated))}
            numbers |= quality.class_score(**probabilities, name=looks.name, seed=seed)
            if looks.accuracy is not None:  # a classifier of these data, not of ImageNet
                numbers |= quality.class_balance(**probabilities, name=looks.name, seed=seed)
                numbers |= trained_on_samples(run, looks, held_out, generated, seed)
                numbers |= as_asked(run, looks, count, seed)
        if name == "image" and run.algorithm.walk is not None:
            numbers |= path_length(run, looks, count, seed)
        if run.config.data.startswith("toy/"):
            numbers |= against_the_density(run, generated, seed)
            pictures.densities(_law(run), _log_density(run), generated, scratch / "density.png")
        card["metrics"] = {key: dataclasses.asdict(number) for key, number in numbers.items()}

        levels = run.sources["test"].levels
        np.savez_compressed(scratch / "samples.npz", **{name: generated})
        pictures.save({name: generated[:64]}, scratch / "samples", run.sources["test"])
        if name == "image":
            where, _ = memorisation.nearest(
                train=train_set.reshape(len(train_set), -1), generated=generated[:8].reshape(8, -1)
            )
            pair = np.concatenate([generated[:8], train_set[where]])
            pictures.image_grid(pair, levels).save(scratch / "nearest.png")
        if name != "tokens":
            frames = at_work(run, SHOWN[name], seed)
            if frames is not None:
                pictures.animation(frames, scratch / "sampler.gif", levels)
        train.write_json(scratch / "card.json", card)
        shutil.rmtree(out, ignore_errors=True)
        scratch.rename(out)
        scratch.mkdir()  # for the context manager to remove
    return out


def in_words(out: Path) -> str:
    """The headline numbers of a card, for the terminal."""
    card = runs.read_json(out / "card.json")
    lines = [f"{card['name']}: {card['system']} at step {card['steps']}"]
    if card["likelihood"]:
        x = card["likelihood"]
        lines.append(f"  {x['value']:.4f} {x['unit']} [{x['low']:.4f}, {x['high']:.4f}], {x['kind']}, N {x['n']}")
    for key, number in card["metrics"].items():
        interval = "" if number["low"] is None else f" [{number['low']:.4g}, {number['high']:.4g}]"
        null = "" if number["null"] is None else f"   real data: {number['null']:.4g}"
        null += "" if number["null_sd"] is None else f" ± {number['null_sd']:.2g}"
        lines.append(f"  {key:20s} {number['value']:.4g}{interval}{null}")
    lines.append(f"  memorises: {card['memorises']} ({card['memorises_why']})")
    return "\n".join(lines)


# ---- its parts -------------------------------------------------------------------------------------------------------


def about(run: runs.Run) -> dict[str, Any]:
    """What was trained, where and with what."""
    cfg, model = run.config, run.config.model
    parts = type(model).__module__.split(".")
    continent = next((p for p in parts if p in CONTINENTS), parts[0])
    return {
        "name": cfg.name,
        "experiment": run.experiment,
        "system": getattr(model, "system", run.experiment),
        "continent": continent,
        "objective": getattr(model, "objective", ""),
        "data": cfg.data,
        "seed": cfg.seed,
        "steps": run.step,
        "parameters": train.parameter_count(run.state),
        "train_seconds": run.seconds,
        "platform": jax.devices()[0].platform,
        "devices": len(run.environment["devices"]),
        "device_kind": run.environment["devices"][0],
        "commit": run.environment["commit"],
        "versions": run.environment["versions"],
        "command": train.command_text(run.environment["command"]),
    }


def draw(run: runs.Run, count: int, seed: int) -> tuple[np.ndarray, float]:
    """`count` samples as a batch holds them, drawn in batches of the training size; and samples per second."""
    size = min(run.config.batch_size, count)
    compiled = run.place.draw(lambda s, k: run.algorithm.sample(s, k, size, None), size)
    key = jax.random.fold_in(run.eval_key, 1 + seed)
    samples, speed = timed_draws(compiled, run.state, key, -(-count // size))
    samples = samples[:count]
    if not np.isfinite(samples.astype(np.float64)).all():
        raise ValueError(f"{run.folder}: the sampler gave NaN or infinite values; look at its training curves")
    return samples, speed


def likelihood(run: runs.Run, name: str, seed: int) -> tuple[dict[str, Any] | None, np.ndarray | None]:
    """Test log-probability with kind and interval, and that of every example; (None, None) without a density."""
    if run.algorithm.log_prob is None:
        return None, None
    test, place = run.sources["test"], run.place
    log_prob = padded(place, place.map_examples(run.algorithm.log_prob), run.config.batch_size)
    nats, kind, upper = log_probs(log_prob, run.state, evaluated_batches(test, run.config), run.eval_key)
    dims, kind = test.dims, test.kind(kind)
    measured = summary(nats, kind, dims)
    unit = {"image": "bits/dim", "tokens": "bits/byte", "x": "nats"}[name]

    def entry(nats: np.ndarray, kind: str) -> dict[str, Any]:
        cost = -nats if unit == "nats" else bits_per_dim(nats, dims)
        low, high = bootstrap(np.mean, cost, seed=seed)
        return {"kind": kind, "unit": unit, "value": float(cost.mean()), "low": low, "high": high, "n": len(nats)}

    bound = None if upper is None else entry(upper, "upper_bound")
    return entry(nats, kind) | {"nats": measured.nats, "stderr": measured.stderr, "upper": bound}, nats


def repeated(
    train_set: np.ndarray, held_out: np.ndarray, generated: np.ndarray, unit: str, window: int = 16
) -> dict[str, Number]:
    """Share of the windows of `window` bytes (or of another `unit`) of sampled text that stand in the training text."""
    share = lambda text: 100.0 * memorisation.copied(train=train_set, generated=text, window=window)  # noqa: E731
    each, fresh = share(generated), share(held_out)
    low, high = bootstrap(np.mean, each)
    error = float(fresh.std(ddof=1) / math.sqrt(len(fresh)))
    n = (len(train_set), len(generated))
    number = Number(float(each.mean()), low, high, float(fresh.mean()), error, n, better="null")
    return {f"copied {window} {unit}, %": number}


def trained_on_samples(
    run: runs.Run, looks: Extractor, held_out: np.ndarray, generated: np.ndarray, seed: int
) -> dict[str, Number]:
    """Accuracy on real images of a classifier that saw samples only, labelled by the extractor's own classifier.

    The null floor does the same with real images of the same number.
    """
    test = run.sources["test"]
    if test.classes is None:
        return {}
    real, labels = _examples(test, "image", POOL), _examples(test, "label", POOL)
    n = min(len(held_out) // 2, len(generated))
    right = {}
    for key, images in (("value", generated[:n]), ("null", held_out[:n])):
        given = looks.probabilities(images).argmax(1)
        params, apply = own.train_classifier(images, given, test.classes, test.levels, seed, TSTR_STEPS)
        right[key] = own.accuracy(params, apply, real, labels)
    return {f"TSTR-{looks.name}": Number(**right, n=(len(real), n), better="higher", seed=seed)}


def as_asked(run: runs.Run, looks: Extractor, count: int, seed: int) -> dict[str, Number]:
    """Share of samples of a conditional model that the extractor's classifier gives the label they were asked for.

    As many of each label. In the null floor, real test images and their labels.
    """
    classes, test = getattr(run.config.model, "classes", None), run.sources["test"]
    if classes is None:
        return {}
    labels = np.arange(count) % classes
    compiled = run.place.draw(lambda s, k: run.algorithm.sample(s, k, count, jnp.asarray(labels, jnp.int32)), count)
    generated = np.asarray(compiled(run.state, jax.random.fold_in(run.eval_key, 1 + seed)))
    right = 100.0 * (looks.probabilities(generated).argmax(1) == labels)
    real = _examples(test, "image", POOL), _examples(test, "label", POOL)
    null = 100.0 * (looks.probabilities(real[0]).argmax(1) == real[1]).mean()
    low, high = bootstrap(np.mean, right, seed=seed)
    return {"label as asked, %": Number(float(right.mean()), low, high, float(null), n=(0, count), better="higher")}


def path_length(run: runs.Run, looks: Extractor, count: int, seed: int) -> dict[str, Number]:
    """Perceptual path length of the family's latent space."""
    compiled, key = jax.jit(run.algorithm.walk), jax.random.fold_in(run.eval_key, seed)
    walk = lambda t: np.asarray(compiled(run.state, key, jnp.asarray(t)))  # noqa: E731
    mean, each = perceptual_path_length(walk, looks.features, n=count, seed=seed)
    low, high = bootstrap(np.mean, each, seed=seed)
    return {f"PPL-{looks.name}": Number(mean, low, high, n=(0, len(each)), better="lower", seed=seed)}


def against_the_density(run: runs.Run, generated: np.ndarray, seed: int) -> dict[str, Number]:
    """KL divergences to the known law of a toy dataset, where the model has a density; and which modes it found."""
    law = _law(run)
    numbers: dict[str, Number] = {}
    if run.algorithm.log_prob is not None:
        density = _log_density(run)
        x = np.asarray(law.sample(jax.random.key(1000 + seed), TOY_POINTS))
        forward = -law.entropy - density(x)
        backward = density(generated) - np.asarray(law.log_prob(jnp.asarray(generated)), np.float64)
        for key, each in (("KL(data|model)", forward), ("KL(model|data)", backward)):
            low, high = bootstrap(np.mean, each, seed=seed) if np.isfinite(each).all() else (None, None)
            numbers[key] = Number(float(each.mean()), low, high, n=(len(x), len(generated)), seed=seed)
    if law.modes is not None:
        found, near = law.modes_found(generated)
        numbers["modes"] = Number(float(found), null=float(len(law.modes)), n=(0, len(generated)), better="higher")
        real = law.mode_kl(np.asarray(law.sample(jax.random.key(2000 + seed), len(generated))))
        numbers["KL(modes)"] = Number(law.mode_kl(generated), null=real, n=(0, len(generated)))
        numbers["near a mode, %"] = Number(100.0 * near, null=98.9, n=(0, len(generated)), better="higher")
    return numbers


def at_work(run: runs.Run, shown: int, seed: int) -> np.ndarray | None:
    """Frames [T, n, ...] of the sampler, or of a walk between latents; None if there is neither."""
    key, algorithm = jax.random.fold_in(run.eval_key, seed), run.algorithm
    if algorithm.trace is not None:
        return np.asarray(jax.jit(algorithm.trace, static_argnums=(2, 3))(run.state, key, shown, FRAMES))
    if algorithm.walk is None:
        return None
    walk = jax.jit(algorithm.walk)
    frames = np.stack([np.asarray(walk(run.state, key, jnp.full(shown, t))) for t in np.linspace(0, 1, FRAMES)])
    levels = run.sources["test"].levels
    return frames if levels is None else np.clip(np.rint(frames), 0, levels - 1).astype(np.uint8)


def _law(run: runs.Run) -> toy.Density:
    return toy.DENSITIES[run.config.data.removeprefix("toy/")]


def _log_density(run: runs.Run) -> Callable[[np.ndarray], np.ndarray] | None:
    """Points [N, D] -> log-probability [N] under the model; None without a density."""
    if run.algorithm.log_prob is None:
        return None
    log_prob = jax.jit(run.algorithm.log_prob)
    return lambda x: np.asarray(log_prob(run.state, {"x": jnp.asarray(x)}, run.eval_key).nats, np.float64)


def _extractor(name: str, run: runs.Run, kind: str, weights: Path | None, data_dir: Path | None) -> Extractor | None:
    if name == "image":
        levels = run.sources["test"].levels
        return extractor(kind, data=run.config.data, levels=levels, data_dir=data_dir, weights=weights)
    return coordinates() if name == "x" else None


def _examples(source: data.Source, name: str, count: int) -> np.ndarray:
    """At most `count` examples of a split, evenly spaced."""
    return source.take(source.spaced(count))[name]
