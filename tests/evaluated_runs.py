"""Evaluated run folders with numbers that a test chooses, and pictures of small images, points or text."""

import json
from pathlib import Path

import numpy as np

from genmap_jax.report import pictures
from genmap_jax.spaces import images, tokens, vectors

TEXT = b"def read(path):\n    return open(path).read()\n\n\n"
SPACES = {"image": images(8, 8, 1, levels=17), "tokens": tokens(2 * len(TEXT), 256), "x": vectors(2)}


def interval(value, half, *, null=None, null_sd=None, better="lower", n=(250, 250)):
    """A metric as a card has it."""
    return {"value": value, "low": value - half, "high": value + half, "null": null, "null_sd": null_sd} | {
        "n": list(n),
        "better": better,
        "seed": 0,
    }


def density(kind, value, half=0.03, unit="bits/dim", upper=None):
    """A likelihood as a card has it."""
    low, high = value - half, value + half
    return {"kind": kind, "unit": unit, "value": value, "low": low, "high": high, "null": None} | {
        "nats": -44.36 * value,
        "stderr": half / 2,
        "n": 300,
        "upper": upper,
    }


def quality(fd, half=0.15, *, kd=0.02, precision=0.9, coverage=0.9, recall=0.8):
    """The metrics of images: FD, KD, precision, recall, density, coverage, C_T, AuthPct."""
    return {
        "FD-own64": interval(fd, half, null=0.9, null_sd=0.1),
        "KD-own64": interval(kd, 0.01, null=0.0, null_sd=0.004),
        "precision-own64": interval(precision, 0.02, null=0.93, null_sd=0.01, better="higher"),
        "recall-own64": interval(recall, 0.03, null=0.92, null_sd=0.01, better="higher"),
        "density-own64": interval(precision, 0.05, null=1.0, null_sd=0.03, better="higher"),
        "coverage-own64": interval(coverage, 0.02, null=0.95, null_sd=0.01, better="higher"),
        "C_T": interval(0.3, 1.0, null=0.0, null_sd=1.0, better="null"),
        "AuthPct": {"value": 59.0, "low": None, "high": None, "null": 60.0, "null_sd": 2.0, "n": [1297, 250]}
        | {"better": "null", "seed": 0},
    }


def make_run(root: Path, experiment: str, *, field: str = "image", drawn=False, config=None, **card) -> Path:
    """Write an evaluated run folder below `root` and return it; its samples and curves only if `drawn`.

    `card` replaces entries of the card.
    """
    seed = card.get("seed", 0)
    folder = root / f"{experiment}_{seed}"
    evaluation = folder / "evaluation"
    evaluation.mkdir(parents=True)
    own64 = {"name": "own64", "hash": "1f3a9c0b77de", "fit": "train split, 1297 images", "accuracy": 0.96}
    full = {
        "name": experiment,
        "experiment": experiment,
        "system": experiment.split("_")[0].upper(),
        "continent": "implicit",
        "objective": "adversarial",
        "citation": "Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661",
        "data": "digits",
        "seed": seed,
        "steps": 2000,
        "parameters": 193_696,
        "train_seconds": 35.0,
        "samples_per_second": 1400.0,
        "evaluations": 1,
        "platform": "cpu",
        "devices": 1,
        "device_kind": "cpu",
        "commit": "153b976",
        "versions": {"jax": "0.10.2", "flax": "0.12.8"},
        "command": f"python experiments/{experiment}.py --seed {seed}",
        "likelihood": None,
        "extractor": own64 if field == "image" else None,
        "metrics": quality(1.5) if field == "image" else {},
        "memorises": False,
        "memorises_why": "C_T z = 0.3, AuthPct 59 against 60 of held-out data",
    } | card
    (evaluation / "card.json").write_text(json.dumps(full, indent=1))
    resolved = {"name": experiment, "data": full["data"], "model": {}, "seed": seed, "steps": full["steps"]}
    resolved |= config or {}
    (folder / "config.json").write_text(json.dumps(resolved))
    if drawn:
        draw(folder, field, seed + len(experiment))
    return folder


def draw(folder: Path, field: str, seed: int) -> None:
    """Write the training curves, samples and pictures of a run folder."""
    rows = [{"step": s, "loss": 2 / s**0.3 + seed / 50, "seconds": s / 90} for s in range(50, 2001, 50)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rng, space, evaluation = np.random.default_rng(seed), SPACES[field], folder / "evaluation"
    batch = examples(field, rng)
    pictures.save(batch, evaluation / "samples", space, lambda row: bytes(row.tolist()).decode())
    np.savez(evaluation / "samples.npz", **batch)
    if field == "image":
        pairs = np.concatenate([batch["image"][:8], examples("image", rng)["image"][:8]])
        pictures.image_grid(pairs, 17).save(evaluation / "nearest.png")
        noise, mix = rng.integers(0, 17, (16, 8, 8, 1)), np.linspace(0, 1, 6)[:, None, None, None, None]
        frames = np.round(mix * batch["image"][:16] + (1 - mix) * noise).astype(np.uint8)
        pictures.animation(frames, evaluation / "sampler.gif", space)
    elif field == "x":
        pictures.animation(np.stack([2 * batch["x"], batch["x"]]), evaluation / "sampler.gif", space)


def examples(field: str, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """64 images or rows of text, or 500 points."""
    if field == "image":  # rings of any size, here and there
        y, x, radius = (
            rng.uniform(2.5, 4.5, (64, 1, 1)),
            rng.uniform(2.5, 4.5, (64, 1, 1)),
            rng.uniform(1, 3, (64, 1, 1)),
        )
        distance = np.hypot(np.arange(8)[:, None] - y, np.arange(8) - x)
        return {"image": np.rint(16 * np.exp(-((distance - radius) ** 2)))[..., None].astype(np.uint8)}
    if field == "tokens":
        return {"tokens": np.tile(np.frombuffer(TEXT, np.uint8), (64, 2))}
    angle = rng.integers(0, 8, 500) * np.pi / 4
    return {"x": np.stack([np.cos(angle), np.sin(angle)], 1) * 2 + rng.normal(0, 0.1, (500, 2))}


def make_ablation(root: Path, experiment: str) -> Path:
    """Write an ablation folder below `root` and return it."""
    folder = root / f"{experiment}_ablation"
    bits = {"baseline": [1.870, 1.861, 1.875], "latent_2": [2.301, 2.297, 2.310], "beta_4": [1.962, 1.955, 1.969]}
    changes = {"baseline": {}, "latent_2": {"model.latent": 2}, "beta_4": {"model.beta": 4.0}}
    folder.mkdir(parents=True)
    measures = [
        {"key": "likelihood", "title": "bits/dim (lower_bound)", "better": "lower", "kind": "lower_bound"},
        {"key": "energy", "title": "energy distance", "better": "lower", "kind": None},
    ]
    table = {name: {"likelihood": v, "energy": [x / 20 for x in v]} for name, v in bits.items()}
    said = {
        "experiment": experiment,
        "command": f"python experiments/{experiment}.py --ablation all --seeds 3",
        "baseline": "baseline",
        "seeds": [0, 1, 2],
        "variants": {k: {"changes": v, "runs": [f"{k}-seed{i}" for i in range(3)]} for k, v in changes.items()},
        "measures": measures,
        "table": table,
        "real": {"energy": 0.0021},
    }
    (folder / "ablation.json").write_text(json.dumps(said))
    (folder / "table.txt").write_text("the same, for people\n")
    return folder
