"""What the runner asks of a state, whatever its family: held-out likelihood, samples, the numbers of a result."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from genmap_jax.algorithm import Algorithm, Batch, LogProb
from genmap_jax.config import Experiment
from genmap_jax.evaluate.distance import energy_distance, null_floor
from genmap_jax.evaluate.likelihood import Likelihood, evaluate_log_prob
from genmap_jax.parallel import Placement
from genmap_jax.report import pictures


def evaluated_batches(source, cfg: Experiment) -> Iterator[Batch]:
    """At most `cfg.eval_examples` of a split, evenly spaced, in batches of the training size or less."""
    chosen = source.spaced(cfg.eval_examples)
    for start in range(0, len(chosen), cfg.batch_size):
        yield source.take(chosen[start : start + cfg.batch_size])


def padded(place: Placement, log_prob: Callable, full: int) -> Callable:
    """`log_prob(state, batch, key)` for up to `full` examples: filled up to the one compiled size, then cut."""

    def evaluate(state, batch, key) -> LogProb:
        size = len(next(iter(batch.values())))
        rows = np.resize(np.arange(size), full)
        mine = np.array_split(rows, jax.process_count())[jax.process_index()]
        value = log_prob(state, place.put({k: v[mine] for k, v in batch.items()}), key)
        return jax.tree.map(lambda x: x[:size], value)

    return evaluate


def timed_draws(sample: Callable, state, key, times: int) -> tuple[np.ndarray, float]:
    """`times` draws of the compiled `sample(state, key)`, joined, and samples per second of it."""
    sample(state, key).block_until_ready()  # compiled before the clock starts
    began = time.perf_counter()
    drawn = np.concatenate([np.asarray(sample(state, jax.random.fold_in(key, i))) for i in range(times)])
    return drawn, len(drawn) / (time.perf_counter() - began)


def real_examples(source) -> tuple[np.ndarray, int] | None:
    """(examples, scale): what the energy distance compares samples / scale with; images are in [0, 1].

    None for text, which has no distance between examples that means anything.
    """
    held_out = source.take(np.arange(min(source.size, 1000)))
    if "image" in held_out:
        scale = source.levels - 1
        return held_out["image"] / scale, scale
    return (held_out["x"] / 1, 1) if "x" in held_out else None


class Examiner:
    """Looks at a state: likelihood on held-out data, pictures of samples, and the numbers of result.json."""

    def __init__(self, algorithm: Algorithm, place: Placement, cfg: Experiment, sources: dict, workdir: Path, key):
        self.cfg, self.sources, self.workdir, self.key = cfg, sources, workdir, key
        self._place = place
        self._log_prob = algorithm.log_prob and padded(place, place.map_examples(algorithm.log_prob), cfg.batch_size)
        self._sample = algorithm.sample and place.draw(
            lambda s, k: algorithm.sample(s, k, cfg.samples, None), cfg.samples
        )

    def likelihood(self, state, split: str) -> dict[str, Any]:
        """Bits per dimension of a split, named by split and kind; nothing for a family without a density."""
        if self._log_prob is None:
            return {}
        measured = self._measured(state, split)
        return {f"{split}_bits_per_dim": measured.bits_per_dim, f"{split}_nats": measured.nats, "kind": measured.kind}

    def _measured(self, state, split: str) -> Likelihood:
        source = self.sources[split]
        batches = evaluated_batches(source, self.cfg)
        measured = evaluate_log_prob(self._log_prob, state, batches, self.key, source.dims)
        return dataclasses.replace(measured, kind=source.kind(measured.kind))

    def draw(self, state, step: int) -> np.ndarray | None:
        """Draw samples with the same noise at every step, so pictures can be compared; process 0 saves them."""
        if self._sample is None:
            return None
        samples = np.asarray(self._sample(state, self.key))
        if jax.process_index() == 0:
            test = self.sources["test"]
            pictures.save({test.field: samples}, self.workdir / "samples" / f"{step:08d}", test)
        return samples

    def result(self, state, step: int, seconds: float) -> dict[str, Any]:
        """What result.json holds: test likelihood with its kind, distance of samples to test data, speed."""
        cfg, test = self.cfg, self.sources["test"]
        result: dict[str, Any] = {
            "name": cfg.name,
            "family": type(cfg.model).__module__,
            "data": cfg.data,
            "steps": step,
            "seed": cfg.seed,
            "train_seconds": seconds,
            "devices": self._place.mesh.size,
            "platform": jax.devices()[0].platform,
        }
        if self._log_prob is not None:
            result["likelihood"] = dataclasses.asdict(self._measured(state, "test")) | {"split": "test"}
        if self._sample is None:
            return result
        drawn, result["samples_per_second"] = timed_draws(self._sample, state, self.key, 4)
        comparable = real_examples(test)
        if comparable is not None:
            real, scale = comparable
            generated = drawn / scale
            distance, floor = energy_distance(real=real, generated=generated), null_floor(real=real)
            result["energy_distance"] = dataclasses.asdict(distance) | {
                "null_floor": floor.value,
                "null_stderr": floor.stderr,
                "n": [len(real), len(generated)],
            }
        return result
