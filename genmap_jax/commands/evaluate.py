"""The card of a run: everything that was measured of it, in one JSON file beside its samples.

    RUN/evaluation/card.json       the numbers, each with N, seed, interval and null floor; the extractor with its hash
    RUN/evaluation/samples.npz     the samples that were measured, as a batch holds them; a grid of them as .png or .txt
    RUN/evaluation/nats.npy        log-probability of every test example, where the family has one
    RUN/evaluation/nearest.png     samples above the training images nearest to them
    RUN/evaluation/sampler.gif     the sampler at work, or a walk between latents
    RUN/evaluation/density.png     2-D toy data: the truth beside the model

It holds the numbers of result.json (commands/measure.py) and adds those that take features. What is measured follows
from the data: images and points are compared through features, text by what it repeats of the training text.
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

from genmap_jax import data
from genmap_jax.commands.measure import (
    POOL,
    Measured,
    Observer,
    as_batch,
    check_samples,
    held_out,
    held_out_conditions,
    truth_of,
)
from genmap_jax.evaluate import memorisation, quality
from genmap_jax.evaluate.features import Extractor, coordinates, own
from genmap_jax.evaluate.features import check as check_features
from genmap_jax.evaluate.features import extractor as make_extractor
from genmap_jax.evaluate.features.record import kept
from genmap_jax.evaluate.likelihood import LogProbs, joined
from genmap_jax.evaluate.path_length import perceptual_path_length, trimmed_mean
from genmap_jax.evaluate.quality import Number
from genmap_jax.evaluate.resampling import bootstrap, proportion
from genmap_jax.files import read_json, write_json
from genmap_jax.report import pictures
from genmap_jax.run import opening
from genmap_jax.run.logs import NonFinite
from genmap_jax.run.runs import Run, writing

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
    changes: dict[str, Any] | None = None,
) -> Path:
    """Measure the newest checkpoint of a run and return the folder of the card. It appears whole or not at all.

    samples: N at most; where real data must be split in two halves of N, they may allow less.
    features: "own", "efficientnet", "inception", "dinov2" or "clip", for images; the last three need `weights`.
    changes: fields of the model's configuration that are changed after training, see `opening.open_run`.
    Raises ValueError or FileNotFoundError naming what is wrong.
    """
    check_samples(samples)
    run = opening.open_run(folder, experiments, data_dir, changes)
    options: dict[str, Any] = {"features": features, "weights": weights, "seed": seed, "data_dir": data_dir}
    with writing(run.folder):
        return write_card(run, Observer(run, samples), **options, changes=changes)


def write_card(
    run: Run,
    observer: Observer,
    *,
    features: str = "own",
    weights: Path | None = None,
    seed: int = 0,
    data_dir: Path | None = None,
    changes: dict[str, Any] | None = None,
) -> Path:
    """Measure a run in full; see `evaluate_run`."""
    test = run.sources["test"]
    name = test.field
    extractor = _extractor(run, features, weights, data_dir)  # first of all: a missing file should fail at once
    measured = observer.kept(run, seed)
    card = dict(measured.card) | {"changes": changes or {}}
    card["asked"] = card["asked"] | {"features": features}
    described = ("name", "hash", "fit", "accuracy")
    card["extractor"] = None if extractor is None else {k: getattr(extractor, k) for k in described}
    card["memorises"], card["memorises_why"] = None, "not tested: no features"
    out = run.folder / "evaluation"
    with tempfile.TemporaryDirectory(prefix=".evaluation-", dir=run.folder) as temporary:
        scratch = Path(temporary)
        if measured.nats is not None:
            np.save(scratch / "nats.npy", measured.nats)
        if measured.generated is not None:
            train_set = _examples(run.sources["train"], name, POOL)
            numbers, verdict = with_features(run, measured, measured.generated, train_set, extractor, seed, data_dir)
            card |= verdict
            if test.space.image and extractor is not None:
                numbers |= path_length(run, extractor, len(measured.generated), seed)
            if test.density is not None:
                numbers |= against_the_density(run, observer, measured.generated, seed)
                density = _log_density(run, observer)
                shown = None if density is None else (lambda x: density(x).nats)
                pictures.densities(test.density, shown, measured.generated, scratch / "density.png")
            card["metrics"] = card["metrics"] | {key: dataclasses.asdict(number) for key, number in numbers.items()}
            arrays: dict[str, Any] = {name: measured.generated}
            np.savez_compressed(scratch / "samples.npz", **arrays)
            first, count = measured.generated[:64], len(measured.generated)
            cond = None if measured.cond is None else {field: x[:64] for field, x in measured.cond.items()}
            truth = None if (known := truth_of(run, count)) is None else known[:64]
            observer.picture(run, run.eval_key, first, cond, scratch / "samples", truth)
            if test.space.image:
                nearest_picture(measured.generated[:8], train_set, test.space.grey_levels, scratch / "nearest.png")
            if not test.space.text:
                frames = at_work(run, SHOWN[test.space.field], seed)
                if frames is not None:
                    pictures.animation(frames, scratch / "sampler.gif", test.space)
        write_json(scratch / "card.json", card)
        shutil.rmtree(out, ignore_errors=True)
        scratch.rename(out)
        scratch.mkdir()  # for the context manager to remove
    return out


def in_words(out: Path) -> str:
    """The headline numbers of a card, for the terminal."""
    card = read_json(out / "card.json")
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


def with_features(
    run: Run,
    measured: Measured,
    generated: np.ndarray,
    train_set: np.ndarray,
    extractor: Extractor | None,
    seed: int,
    data_dir: Path | None = None,
) -> tuple[dict[str, Number], dict[str, Any]]:
    """All numbers that compare samples with data through features; and whether the model copies, with the reason."""
    test, real, cond = run.sources["test"], held_out(run), measured.cond
    if extractor is None:
        unit = "tokens" if test.tokenizer is None else test.tokenizer.unit
        return repeated(train_set, real[test.field], generated, unit), {}
    held = real[test.field]
    flat = {"held_out": extractor.features(held), "generated": extractor.features(generated)}
    numbers = quality.distances(**flat, name=extractor.name, seed=seed)
    numbers |= quality.neighbours(**flat, name=extractor.name, seed=seed)
    if test.space.image:
        numbers |= quality.directions(**flat, name=extractor.name, seed=seed)
    memory, copies, why = quality.memorised(**flat, train=extractor.features(train_set), seed=seed)
    numbers |= memory
    if extractor.probabilities is not None:
        probabilities = {"held_out": extractor.probabilities(held), "generated": extractor.probabilities(generated)}
        numbers |= quality.class_score(**probabilities, name=extractor.name, seed=seed)
        if extractor.accuracy is not None:  # a classifier of these data, not of ImageNet
            numbers |= quality.class_balance(**probabilities, name=extractor.name, seed=seed)
            numbers |= trained_on_samples(run, extractor, held, generated, seed, data_dir)
            if cond is not None and "label" in cond:
                labels = real["label"], np.asarray(cond["label"])
                numbers |= as_asked(probabilities["held_out"], probabilities["generated"], *labels, seed)
    return numbers, {"memorises": copies, "memorises_why": why}


def as_asked(
    real: np.ndarray, generated: np.ndarray, real_labels: np.ndarray, asked: np.ndarray, seed: int
) -> dict[str, Number]:
    """Share of samples that a classifier gives the label they were asked for; in the null floor, real examples.

    real, generated: its class probabilities [N, K], [M, K]. real_labels [N], asked [M]: the labels.
    """
    right = 100.0 * (generated.argmax(1) == asked)
    null = 100.0 * float((real.argmax(1) == real_labels).mean())
    low, high = (100.0 * end for end in proportion(right > 0))
    n = (len(real), len(generated))
    return {"label as asked, %": Number(float(right.mean()), low, high, null, n=n, better="higher", seed=seed)}


def nearest_picture(generated: np.ndarray, train_set: np.ndarray, levels: int, path: Path) -> None:
    """Samples above the training images nearest to them."""
    flat = {"train": train_set.reshape(len(train_set), -1), "generated": generated.reshape(len(generated), -1)}
    where, _ = memorisation.nearest(**flat)
    pairs = np.concatenate([generated, train_set[where]])
    pictures.image_grid(pairs, levels, len(generated)).save(path)


def repeated(
    train_set: np.ndarray, held_out: np.ndarray, generated: np.ndarray, unit: str, window: int = 16
) -> dict[str, Number]:
    """Share of the windows of `window` bytes (or of another `unit`) of sampled text that stand in the training text."""
    repeats = lambda text: 100.0 * memorisation.copied(train=train_set, generated=text, window=window)  # noqa: E731
    each, fresh = repeats(generated), repeats(held_out)
    low, high = bootstrap(np.mean, each)
    error = float(fresh.std(ddof=1) / math.sqrt(len(fresh)))
    n = (len(train_set), len(generated))
    number = Number(float(each.mean()), low, high, float(fresh.mean()), error, n, better="null")
    return {f"copied {window} {unit}, %": number}


def trained_on_samples(
    run: Run,
    extractor: Extractor,
    held_out: np.ndarray,
    generated: np.ndarray,
    seed: int,
    data_dir: Path | None = None,
) -> dict[str, Number]:
    """Accuracy on real images of a classifier that saw samples only, labelled by the extractor's own classifier.

    The null floor does the same with real images of the same number.
    """
    test = run.sources["test"]
    classes = test.classes
    if classes is None or extractor.probabilities is None:
        return {}
    real, labels = _examples(test, "image", POOL), _examples(test, "label", POOL)
    n = min(len(held_out) // 2, len(generated))

    def accuracy(images: np.ndarray, given: np.ndarray) -> float:
        params, apply = own.train_classifier(images, given, classes, test.space.grey_levels, seed, TSTR_STEPS)
        return own.accuracy(params, apply, real, labels)

    def null() -> tuple[dict[str, np.ndarray], str]:
        return {"accuracy": np.array(accuracy(held_out[:n], guesses[:n]))}, "accuracy of the null floor"

    guesses = extractor.probabilities(held_out[:n]).argmax(1)
    inputs = {"images": held_out[:n], "labels": guesses, "real": real, "settings": np.array([seed, TSTR_STEPS])}
    floor, _ = kept(f"tstr-{extractor.name}", run.config.data, data_dir, inputs, null)  # the same for every run
    value = accuracy(generated[:n], extractor.probabilities(generated[:n]).argmax(1))
    number = Number(value, null=float(floor["accuracy"]), n=(len(real), n), better="higher", seed=seed)
    return {f"TSTR-{extractor.name}": number}


def path_length(run: Run, extractor: Extractor, count: int, seed: int) -> dict[str, Number]:
    """Perceptual path length of the family's latent space; nothing without one."""
    if run.algorithm.walk is None:
        return {}
    compiled, key = jax.jit(run.algorithm.walk), jax.random.fold_in(run.eval_key, seed)
    cond = held_out_conditions(run, count)
    walk = lambda t: np.asarray(compiled(run.state, key, jnp.asarray(t), cond))  # noqa: E731
    features = lambda x: extractor.features(x, rounded=False)  # noqa: E731
    mean, each = perceptual_path_length(walk, features, n=count, seed=seed)
    low, high = bootstrap(trimmed_mean, each, seed=seed)
    return {f"PPL-{extractor.name}": Number(mean, low, high, n=(0, len(each)), better="lower", seed=seed)}


def against_the_density(run: Run, observer: Observer, generated: np.ndarray, seed: int) -> dict[str, Number]:
    """KL divergences to the known law of a toy dataset, where the model has a density."""
    law, numbers = run.sources["test"].density, {}
    density = _log_density(run, observer)
    if law is not None and density is not None:
        x = np.asarray(law.sample(jax.random.key(1000 + seed), TOY_POINTS))
        here, there = density(x), density(generated)
        common = here.common_stderr
        forward = -law.entropy - here.nats
        backward = there.nats - np.asarray(law.log_prob(jnp.asarray(generated)), np.float64)
        for key, each in (("KL(data|model)", forward), ("KL(model|data)", backward)):
            finite = np.isfinite(each).all()
            low, high = bootstrap(np.mean, each, common_stderr=common, seed=seed) if finite else (None, None)
            numbers[key] = Number(float(each.mean()), low, high, n=(len(x), len(generated)), seed=seed)
    return numbers


def at_work(run: Run, shown: int, seed: int) -> np.ndarray | None:
    """Frames [T, n, ...] of the sampler, or of a walk between latents; None if there is neither.

    Raises ValueError that names the run if some are not finite.
    """
    key, algorithm, cond = jax.random.fold_in(run.eval_key, seed), run.algorithm, held_out_conditions(run, shown)
    if algorithm.trajectory is not None:
        compiled = jax.jit(algorithm.trajectory, static_argnums=(2, 4))
        return _frames(run, np.asarray(compiled(run.state, key, shown, cond, FRAMES)))
    if algorithm.walk is None:
        return None
    walk = jax.jit(algorithm.walk)
    frames = [np.asarray(walk(run.state, key, jnp.full(shown, t), cond)) for t in np.linspace(0, 1, FRAMES)]
    return _frames(run, np.stack(frames))


def _frames(run: Run, x: np.ndarray) -> np.ndarray:
    """[T, n, ...] as a batch holds them."""
    try:
        return as_batch(run, x.reshape(-1, *x.shape[2:])).reshape(x.shape)
    except NonFinite as error:
        raise ValueError(str(error)) from error


def _log_density(run: Run, observer: Observer) -> Callable[[np.ndarray], LogProbs] | None:
    """Points [N, D] -> their log-probabilities under the model; None without a density."""
    if run.algorithm.log_prob is None:
        return None
    log_prob, state = jax.jit(run.algorithm.log_prob), observer.prepared(run)
    return lambda x: joined([log_prob(state, {"x": jnp.asarray(x)}, run.eval_key)])


def _extractor(run: Run, kind: str, weights: Path | None, data_dir: Path | None) -> Extractor | None:
    """What samples are compared in: features of images, the coordinates of vectors, nothing for text."""
    space = run.sources["test"].space
    check_features(kind, weights, space.image)
    if space.image:
        field = run.sources["test"].field
        name = data.target(run.config.data) if field == "image" else run.config.data  # what its samples are like
        about: dict[str, Any] = {"levels": space.grey_levels, "data_dir": data_dir, "weights": weights}
        return make_extractor(kind, data=name, field=field, **about)
    return None if space.text else coordinates()


def _examples(source: data.Source, name: str, count: int) -> np.ndarray:
    """At most `count` examples of a split, evenly spaced."""
    return source.take(source.spaced(count))[name]
