"""What is measured of a run while it trains and when it is finished: the one place where results are made.

`Observer` is what the training loop calls: validation likelihood, pictures of samples, and at the end `measure`, whose
numbers are result.json. `genmap evaluate` adds to the same numbers what takes features (commands/evaluate.py), and the
tables of ablations read them; so no two of them can disagree.
"""

import dataclasses
import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from genmap_jax import data
from genmap_jax.algorithm import LogProb, conditions
from genmap_jax.data import toy
from genmap_jax.evaluate import quality, translation
from genmap_jax.evaluate.likelihood import Likelihood, LogProbs, log_probs, summary
from genmap_jax.evaluate.quality import Number
from genmap_jax.evaluate.resampling import bootstrap
from genmap_jax.files import read_json, read_metrics, read_sound
from genmap_jax.parallel import Placement
from genmap_jax.report import pictures
from genmap_jax.run import config as configs
from genmap_jax.run.config import Experiment
from genmap_jax.run.logs import NonFinite
from genmap_jax.run.loop import Program
from genmap_jax.run.runs import Run, command_text, parameter_count
from genmap_jax.run.speed import last_speeds, time_spent
from genmap_jax.units import bits_per_dim

PREPARE, BACK = 2**31 - 1, 2**31 - 2  # folded into keys for `Algorithm.prepare` and `.back`: numbers of no batch
LEAST_SAMPLES = 20
"""Of fewer there are no intervals and no neighbours."""
POOL = 10_000
"""At most so many held-out and so many training examples are looked at."""

log = logging.getLogger(__name__)

Bound = Program | Run
"""An experiment bound to devices and data."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """What was measured of a run without features."""

    card: dict[str, Any]
    """What result.json holds: plain JSON values."""
    generated: np.ndarray | None
    """The samples, as a batch holds them."""
    cond: data.Examples | None
    """The conditions that each was asked for."""
    nats: np.ndarray | None
    """Log-probability of every test example that was evaluated."""


class Observer:
    """Likelihood and samples of one program, compiled once each and used for all of its runs."""

    def __init__(self, bound: Bound, samples: int = 1000):
        """`samples`: so many are drawn and measured at the end, at most; see `held_out`."""
        self.bound, self.samples = bound, samples
        self.finished: dict[Path, Run] = {}
        """The last state of every run that was finished, by its folder."""
        algorithm, place, cfg = bound.algorithm, bound.place, bound.config
        self.size = max(1, min(cfg.batch_size, samples))
        """Samples are drawn in batches of so many."""
        self._prepare = algorithm.prepare and jax.jit(algorithm.prepare)
        self._drew = False  # whether the sampler has been compiled
        self._prepared: tuple[tuple[Path, int], Any] | None = None
        self._log_prob = algorithm.log_prob and padded(place, place.map_examples(algorithm.log_prob), cfg.batch_size)
        sample, back = algorithm.sample, algorithm.back
        self._sample = sample and place.draw(lambda state, key, cond: sample(state, key, self.size, cond), self.size)
        self._back = back and place.draw(lambda state, key, x: back(state, key, x), self.size)

    # ---- what the loop calls

    def begin(self, run: Run) -> None:
        """Save a picture of the first training batch."""
        if jax.process_index() == 0:
            train, cfg = run.sources["train"], run.config
            first = data.batch(train, cfg.seed, 0, cfg.batch_size)[train.field]
            save_picture(first[: cfg.samples], run.folder / "samples" / "inputs", train)

    def validate(self, run: Run) -> dict[str, Any]:
        """Bits per dimension of the validation split, and their kind; nothing for a family without a density."""
        if self._log_prob is None:
            return {}
        measured, _ = self._likelihood(run, "validation")
        return {
            "validation_bits_per_dim": measured.bits_per_dim,
            "validation_nats": measured.nats,
            "kind": measured.kind,
        }

    def draw(self, run: Run) -> None:
        """Save a picture of samples, with the same noise and conditions at every step, so that they can be compared.

        Raises NonFinite as `drawn`.
        """
        if self._sample is None:
            return
        count = run.config.samples
        cond = held_out_conditions(run, count)
        drawn, _ = self.drawn(run, run.eval_key, cond, count)
        self.picture(run, run.eval_key, drawn, cond, run.folder / "samples" / f"{run.step:08d}", truth_of(run, count))

    def picture(
        self,
        run: Run,
        key: jax.Array,
        drawn: np.ndarray,
        cond: data.Examples | None,
        stem: Path,
        truth: np.ndarray | None = None,
    ) -> Path:
        """Save a picture of samples; of translations, each beside its source, its truth and its way back, if known.

        As many images in all as there are samples, but of translations the first eight at least.
        cond, truth: of as many examples as `drawn`, as `held_out_conditions` and `truth_of` give them.
        """
        given, sets = translated_from(run), [drawn]
        if given is not None and cond is not None:
            sets = [cond[given], drawn, *([] if truth is None else [truth])]
            sets += [] if self._back is None else [self.returned(run, key, drawn)]
        some, path = max(8, -(-len(drawn) // len(sets))), stem
        if jax.process_index() == 0:
            shown = pictures.beside(*(each[:some] for each in sets)) if len(sets) > 1 else drawn
            path = save_picture(shown, stem, run.sources["test"], 8 // len(sets) * len(sets))
        return path

    def finish(self, run: Run) -> dict[str, Any]:
        """Measure a finished run, keep the arrays in measured.npz, and return what result.json holds."""
        measured = self.measure(run)
        self.finished[run.folder] = run
        if jax.process_index() == 0:
            if why := measured.card.get("samples_why"):
                log.warning("no samples were measured: %s", why)
            arrays: dict[str, Any] = {"nats": measured.nats, "generated": measured.generated}
            np.savez_compressed(run.folder / "measured.npz", **{k: v for k, v in arrays.items() if v is not None})
        return measured.card

    # ---- the numbers

    def measure(self, run: Run, seed: int = 0, known: Measured | None = None) -> Measured:
        """Test likelihood with its kind and interval, samples with their energy distance to held-out data, speed.

        known: measured before of this state, with other samples: its likelihood stands.
        Without samples that are finite, "samples_why" says so in the place of their numbers.
        """
        card = about(run) | {"asked": _asked(run, self.samples, seed)}
        card["likelihood"], nats = (known.card["likelihood"], known.nats) if known else self._entry(run, seed)
        card["metrics"], card["samples_per_second"] = {}, None
        if self._sample is None:
            return Measured(card, None, None, nats)
        real = held_out(run)
        text = run.sources["test"].space.text
        count = run.config.samples if text else min(self.samples, len(real[run.sources["test"].field]) // 2)
        cond = held_out_conditions(run, count)
        key = jax.random.fold_in(run.eval_key, 1 + seed)
        try:
            generated, card["samples_per_second"] = self.drawn(run, key, cond, count, timed=True)
        except NonFinite as error:
            card["samples_why"] = str(error)
            return Measured(card, None, None, nats)
        numbers: dict[str, Number] = {}
        if not text:
            field, scale = run.sources["test"].field, (run.sources["test"].levels or 2) - 1
            numbers |= quality.energy(held_out=real[field] / scale, generated=generated / scale, seed=seed)
        numbers |= self._translation(run, key, generated, cond, seed)
        if run.sources["test"].density is not None:
            numbers |= modes(run.sources["test"].density, generated, seed)
        card["metrics"] = {key: dataclasses.asdict(number) for key, number in numbers.items()}
        return Measured(card, generated, cond, nats)

    def kept(self, run: Run, seed: int = 0) -> Measured:
        """What `finish` kept of this very state, as far as it was asked the same; the rest is measured now."""
        card, arrays = read_sound(run.folder / "result.json"), read_arrays(run.folder / "measured.npz")
        asked = _asked(run, self.samples, seed)
        if card is None or arrays is None or card["steps"] != run.step:
            return self.measure(run, seed)
        if card.get("asked", {}) | {"samples": self.samples} != asked:
            return self.measure(run, seed)
        nats, generated = arrays.get("nats"), arrays.get("generated")
        if (card["likelihood"] is None) != (nats is None):
            return self.measure(run, seed)
        cond = None if generated is None else held_out_conditions(run, len(generated))
        found = Measured(card, generated, cond, nats)
        return found if card["asked"] == asked else self.measure(run, seed, found)

    def drawn(
        self, run: Run, key: jax.Array, cond: data.Examples | None, count: int, timed: bool = False
    ) -> tuple[np.ndarray, float]:
        """`count` samples as a batch holds them, cond [count, ...], drawn in batches; and samples per second.

        timed: the speed is that of a compiled sampler, if need be by drawing once more.
        Raises NonFinite as `as_batch`.
        """
        parts, seconds = [], 0.0
        batches = -(-count // self.size)
        again = timed and batches == 1 and not self._drew  # the first one compiles
        for i in [0] * again + list(range(batches)):
            rows = self.rows(i, count)
            some = None if cond is None else {name: np.asarray(values)[rows] for name, values in cond.items()}
            began = time.perf_counter()
            parts.append(self.batch(run, key, i, some))
            seconds = time.perf_counter() - began  # of the last one, which was compiled before
        self._drew = True
        return as_batch(run, np.concatenate(parts)[:count]), self.size / seconds

    def rows(self, number: int, count: int) -> np.ndarray:
        """Which of `count` examples batch `number` holds, [size]; the last one begins again with the first."""
        return np.arange(number * self.size, (number + 1) * self.size) % count

    def batch(self, run: Run, key: jax.Array, number: int, cond: data.Examples | None) -> np.ndarray:
        """`size` samples, as the algorithm makes them: those of this number among the batches of a key."""
        if self._sample is None:
            raise ValueError(f"{run.config.name}: this family does not sample")
        return np.asarray(self._sample(run.state, jax.random.fold_in(key, number), cond))

    def returned(self, run: Run, key: jax.Array, drawn: np.ndarray) -> np.ndarray:
        """What samples [n, ...] were translated from, by the family's own way back, as a batch holds it."""
        if self._back is None:
            raise ValueError(f"{run.config.name}: this family has no way back from its samples")
        parts, key = [], jax.random.fold_in(key, BACK)
        for i in range(-(-len(drawn) // self.size)):
            there = drawn[self.rows(i, len(drawn))]
            parts.append(np.asarray(self._back(run.state, jax.random.fold_in(key, i), there)))
        return as_batch(run, np.concatenate(parts)[: len(drawn)])

    def _translation(
        self, run: Run, key: jax.Array, generated: np.ndarray, cond: data.Examples | None, seed: int
    ) -> dict[str, Number]:
        """How true samples are that are translations of images, and the way back; nothing for other samples."""
        given = translated_from(run)
        numbers: dict[str, Number] = {}
        if given is None or cond is None:
            return {}
        source, truth = cond[given], truth_of(run, len(generated))
        about: dict[str, Any] = {"levels": run.sources["test"].space.grey_levels, "seed": seed}
        if truth is not None:
            numbers |= translation.to_truth(translated=generated, truth=truth, **about)
            numbers |= translation.of_nothing(source=source, truth=truth, **about)
        if truth is not None and self._back is not None:
            returned = self.returned(run, key, truth)
            numbers |= translation.to_truth(translated=returned, truth=source, way=" (way back)", **about)
        if self._back is not None:
            returned = self.returned(run, key, generated)
            numbers |= translation.of_cycle(source=source, returned=returned, **about)
        return numbers

    def prepared(self, run: Run) -> Any:
        """The state as `Algorithm.log_prob` takes it; what costs once is done once for each step of a run."""
        if self._prepare is None:
            return run.state
        if self._prepared is None or self._prepared[0] != (run.folder, run.step):
            value = self._prepare(run.state, jax.random.fold_in(run.eval_key, PREPARE))
            self._prepared = (run.folder, run.step), value
        return self._prepared[1]

    def _likelihood(self, run: Run, split: str) -> tuple[Likelihood, LogProbs]:
        if self._log_prob is None:
            raise ValueError(f"{run.config.name}: this family has no density")
        source, state = run.sources[split], self.prepared(run)
        found = log_probs(self._log_prob, state, evaluated_batches(source, run.config), run.eval_key)
        return summary(found.nats, source.kind(found.kind), source.dims, found.common_stderr), found

    def _entry(self, run: Run, seed: int) -> tuple[dict[str, Any] | None, np.ndarray | None]:
        """Test log-probability with kind and interval, and that of every example; (None, None) without a density."""
        if self._log_prob is None:
            return None, None
        measured, found = self._likelihood(run, "test")
        test = run.sources["test"]
        costs = lambda nats: -nats if test.space.unit == "nats" else bits_per_dim(nats, test.dims)  # noqa: E731

        def entry(found: LogProbs, kind: str) -> dict[str, Any]:
            cost, common = costs(found.nats), costs(-found.common_stderr)
            low, high = bootstrap(np.mean, cost, common_stderr=common, seed=seed)
            return {
                **{"kind": kind, "unit": test.space.unit, "value": float(cost.mean())},
                **{"low": low, "high": high, "common_stderr": common, "n": len(cost)},
            }

        upper = None if found.upper is None else entry(found.upper, found.upper.kind)
        said = {"nats": measured.nats, "stderr": measured.stderr, "upper": upper}
        return entry(found, measured.kind) | said, found.nats


def read_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of measured.npz; None if there is none, and with a warning if it is damaged: measure again."""
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as held:
            return {name: held[name] for name in held}
    except Exception as error:  # zipfile, zlib and numpy raise all kinds of it
        log.warning("%s is damaged, what it held is measured again (%s)", path, error)
        return None


def check_samples(samples: int) -> None:
    """Raises ValueError for a number of samples that intervals cannot be had from."""
    if samples < LEAST_SAMPLES:
        raise ValueError(f"--samples {samples}: intervals and neighbours need at least {LEAST_SAMPLES}")


def card_is_current(folder: Path, samples: int, features: str) -> bool:
    """Whether the card of a finished run is of its last step and was asked the same."""
    card, result = read_sound(folder / "evaluation" / "card.json"), read_sound(folder / "result.json")
    if card is None or result is None:
        return False
    asked = card.get("asked", {})
    return (asked.get("samples"), asked.get("features"), card["steps"]) == (samples, features, result["steps"])


# ---- parts -----------------------------------------------------------------------------------------------------------


def about(run: Run) -> dict[str, Any]:
    """What was trained, where and with what."""
    cfg, family, made = run.config, run.family, read_json(run.folder / "environment.json")
    return {
        "name": cfg.name,
        "experiment": made["experiment"],
        "system": family.name,
        "continent": family.continent,
        "objective": family.objective,
        "citation": family.citation,
        "data": cfg.data,
        "seed": cfg.seed,
        "steps": run.step,
        "parameters": parameter_count(run.algorithm, run.state),
        "evaluations": run.algorithm.evaluations,
        "train_seconds": run.seconds,
        "speed": last_speeds(read_metrics(run.folder / "metrics.jsonl")),
        "time": time_spent(run.folder),
        "platform": jax.devices()[0].platform,
        "devices": len(made["devices"]),
        "device_kind": made["devices"][0],
        "commit": made["commit"],
        "versions": made["versions"],
        "command": command_text(made["command"]),
    }


def as_batch(run: Run, samples: np.ndarray) -> np.ndarray:
    """Samples as a batch holds them. Raises NonFinite, with the run and how many there are, if some are not finite."""
    try:
        return run.sources["test"].space.as_batch(samples)
    except ValueError as error:
        raise NonFinite(
            f"{run.folder}, step {run.step}: {error}; the model has diverged (look at its training curves), or its "
            "sampler makes too few or too large steps"
        ) from error


def held_out(run: Run) -> data.Examples:
    """At most `POOL` held-out examples and what comes with all of them, half of them each from validation and test."""
    parts = [run.sources[split].take(run.sources[split].spaced(POOL // 2)) for split in ("validation", "test")]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0] if name in parts[1]}


def held_out_conditions(run: Run, count: int, rows: np.ndarray | None = None) -> data.Examples | None:
    """Conditions for `count` samples, those of held-out examples evenly spaced; None for an unconditional family.

    rows: of these samples only.
    """
    if len(run.algorithm.reads) == 1:
        return None
    return conditions(run.algorithm.reads, run.sources["test"].take(_rows(run, count, rows)))


def translated_from(run: Bound) -> str | None:
    """The condition of which samples are translations: images like those that are sampled; None without."""
    (_, space), *given = run.algorithm.reads.items()
    return next((name for name, each in given if space.image and each == space), None)


def truth_of(run: Run, count: int) -> np.ndarray | None:
    """The true translations of what `held_out_conditions` gives; None where they are not known."""
    test = run.sources["test"]
    return test.take(_rows(run, count))[test.field] if test.aligned else None


def _rows(run: Run, count: int, rows: np.ndarray | None = None) -> np.ndarray:
    """The test examples that go with `count` samples, evenly spaced; rows: those of these samples only."""
    where = run.sources["test"].spaced(count)
    return where[(np.arange(count) if rows is None else rows) % len(where)]


def modes(law: toy.Density, generated: np.ndarray, seed: int) -> dict[str, Number]:
    """Of samples of a mixture on the plane: modes found, KL divergence over the modes, share near one."""
    if law.modes is None:
        return {}
    found, near = law.modes_found(generated)
    real = law.mode_kl(np.asarray(law.sample(jax.random.key(2000 + seed), len(generated))))
    n = (0, len(generated))
    return {
        "modes": Number(float(found), null=float(len(law.modes)), n=n, better="higher"),
        "KL(modes)": Number(law.mode_kl(generated), null=real, n=n),
        "near a mode, %": Number(100.0 * near, null=98.9, n=n, better="higher"),
    }


def evaluated_batches(source: data.Source, cfg: Experiment) -> Iterator[data.Examples]:
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


def save_picture(examples: np.ndarray, stem: Path, source: data.Source, columns: int = 8) -> Path:
    """Write examples of a source as a picture or text; see `report.pictures.save`."""
    decode = None if source.tokenizer is None else source.tokenizer.decode
    return pictures.save({source.space.field: np.asarray(examples)}, stem, source.space, decode, columns)


def _asked(run: Run, samples: int, seed: int) -> dict[str, Any]:
    """What the numbers depend on beside the state, as JSON has it."""
    values = {path: configs.value_at(run.config.model, path) for path in run.family.sampling}
    asked = {"samples": samples, "seed": seed, "eval_examples": run.config.eval_examples, "sampling": values}
    return json.loads(json.dumps(asked))
