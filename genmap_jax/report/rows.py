"""Evaluated run folders, read into rows: one group per experiment, its seeds aggregated, every seed's number kept.

A run folder is evaluated when it holds `evaluation/card.json` (`genmap evaluate` writes it). Nothing here computes a
metric: numbers come from the cards, and only mean, standard error and interval over seeds are added.
"""

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

CONTINENTS = {
    "tractable": ("Explicit", "tractable density"),
    "approximate": ("Explicit", "approximate density"),
    "implicit": ("Implicit", "implicit density"),
}
"""Continent of a card -> (land, region) on the map. Any other continent is a land of its own."""

KINDS = ("exact", "lower_bound", "upper_bound", "estimate")
"""Kinds of log-probability, in the order in which the table lists them. No two are ever ranked against each other."""

# A likelihood is shown as a cost (bits, or nats per example), so a lower bound on log p is an upper bound on it.
KIND_WORDS = {
    "exact": ("", "exact"),
    "lower_bound": ("≤ ", "lower bound on log p"),
    "upper_bound": ("≥ ", "upper bound on log p"),
    "estimate": ("≈ ", "estimate"),
}
"""Kind -> (sign before the number, words after it)."""


@dataclasses.dataclass(frozen=True)
class Number:
    """One measured quantity of an experiment."""

    value: float
    """Mean over seeds."""
    low: float | None = None
    """95 % interval. One seed: the card's. Several: Student's t over seeds, or the cards' mean width if wider."""
    high: float | None = None
    stderr: float | None = None
    """Standard error of the mean over seeds; None for one seed."""
    seeds: tuple[tuple[int, float], ...] = ()
    """(seed, value) of every run."""
    null: float | None = None
    """What real data scores against real data at the same size, where that makes sense."""
    null_sd: float | None = None
    n: tuple[int, ...] = ()
    """Examples it was measured on: (real, generated), or (test,) for a likelihood."""
    better: str = "lower"
    """"lower", "higher", or "null": the nearer to the null value the better."""
    unit: str = ""
    kind: str | None = None
    """Of a likelihood: one of KINDS."""

    @property
    def score(self) -> tuple[float, float, float] | None:
        """(value, low, high) of a cost, the lower the better; None without an interval, which no finding may use."""
        if self.low is None or self.high is None:
            return None
        if self.better == "higher":
            return -self.value, -self.high, -self.low
        if self.better == "null" and self.null is not None:
            below, above = self.low - self.null, self.high - self.null
            nearest = 0.0 if below <= 0 <= above else min(abs(below), abs(above))
            return abs(self.value - self.null), nearest, max(abs(below), abs(above))
        return self.value, self.low, self.high

    @property
    def multiple(self) -> float | None:
        """Value as a multiple of its null; None where the null is absent or too close to zero to divide by."""
        if self.better != "lower" or not self.null or self.null_sd is None or self.null < 3 * self.null_sd:
            return None
        return self.value / self.null

    @property
    def text(self) -> str:
        """The value alone, with as many digits as its interval supports: "≤ 1.870 bits/dim"."""
        sign = KIND_WORDS[self.kind][0] if self.kind else ""
        return f"{sign}{digits(self.value, self.half_width)}{' ' + self.unit if self.unit else ''}"

    @property
    def interval(self) -> str:
        """ "[1.838, 1.902]", or nothing."""
        if self.low is None or self.high is None:
            return ""
        return f"[{digits(self.low, self.half_width)}, {digits(self.high, self.half_width)}]"

    @property
    def floor(self) -> str:
        """How far from real data: "1.3 × floor", or the null itself where a multiple means nothing."""
        if self.multiple is not None:
            return f"{self.multiple:.2f} × floor" if self.multiple < 9.95 else f"{self.multiple:.0f} × floor"
        if self.null is None:
            return ""
        return f"real data {digits(self.null, max(self.half_width or 0, self.null_sd or 0))}"

    @property
    def half_width(self) -> float | None:
        """Half the interval: what says how many digits mean something."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


def place_words(land: str, region: str) -> str:
    """ "Explicit, tractable density"; the land alone where it has no regions, the region where it says it all."""
    return region.capitalize() if land.lower() in region else f"{land}, {region}" if region else land


def digits(value: float, width: float | None = None) -> str:
    """A number with two significant digits of its half-width, or three of its own."""
    if not math.isfinite(value):
        return str(value)
    scale = width / 10 if width else abs(value) / 100
    places = min(6, max(0, -math.floor(math.log10(scale)))) if scale else 2
    return f"{value:,.{places}f}".replace("-", "−")


@dataclasses.dataclass(frozen=True)
class Group:
    """One experiment: the same configuration on one or several seeds."""

    cards: list[dict[str, Any]]
    folders: list[Path]
    label: str
    """What the page calls it: the system, with as much after it as tells it from another one on the same data."""
    anchor: str
    """Its id on the page."""
    likelihood: Number | None
    upper: Number | None
    """The likelihood's other bound, where there is one."""
    metrics: dict[str, Number]
    train_seconds: Number
    samples_per_second: Number | None

    @property
    def card(self) -> dict[str, Any]:
        """The first seed's card: what all seeds share is read from it."""
        return self.cards[0]

    @property
    def data(self) -> str:
        return self.card["data"]

    @property
    def land(self) -> tuple[str, str]:
        """(land, region) on the map."""
        return CONTINENTS.get(self.card["continent"], (self.card["continent"].replace("_", " ").capitalize(), ""))

    @property
    def place(self) -> str:
        """Land and region in words."""
        return place_words(*self.land)

    @property
    def extractor(self) -> str:
        """Hash of the feature extractor, "" without one: metrics of two extractors are never compared."""
        return (self.card.get("extractor") or {}).get("hash", "")

    @property
    def memorises(self) -> bool | None:
        """True if any seed is flagged; None if no seed was tested."""
        flags = [card["memorises"] for card in self.cards if card.get("memorises") is not None]
        return any(flags) if flags else None

    @property
    def memorises_why(self) -> str:
        """The reasons, seed by seed where they differ."""
        whys = [(card["seed"], card.get("memorises_why") or "") for card in self.cards]
        if len({why for _, why in whys}) == 1:
            return whys[0][1]
        return "; ".join(f"seed {seed}: {why}" for seed, why in whys if why)

    def metric(self, prefix: str) -> Number | None:
        """The first metric of this name, whatever its extractor: "FD" finds "FD-own64"."""
        return next((m for name, m in self.metrics.items() if name == prefix or name.startswith(prefix + "-")), None)


@dataclasses.dataclass(frozen=True)
class Ablation:
    """The baseline and variants of one experiment, over the same seeds."""

    name: str
    command: str
    quantities: dict[str, str]
    """Key of the variants' numbers -> what its column is called."""
    variants: dict[str, dict[str, list[float]]]
    """Variant, the baseline first -> quantity -> one number per seed."""
    seeds: list[int]
    kinds: dict[str, str]
    """Variant -> kind of its likelihood; variants without one are not in it."""

    @property
    def kind(self) -> str:
        """The kinds of likelihood in the table, in words."""
        return ", ".join(KIND_WORDS[kind][1] for kind in KINDS if kind in self.kinds.values())

    def cell(self, variant: str, quantity: str) -> tuple[str, str]:
        """(mean ± standard error, difference to the baseline paired by seed); "" where there is none."""
        values, baseline = self.variants[variant].get(quantity), self.variants["baseline"].get(quantity)
        if not values:
            return "", ""
        paired = variant != "baseline" and baseline is not None and len(baseline) == len(values)
        change = np.subtract(values, baseline) if paired else None
        return _plus_minus(np.array(values)), "" if change is None else _plus_minus(change, sign="+")


@dataclasses.dataclass(frozen=True)
class Report:
    """All that a page is made from."""

    groups: list[Group]
    """By data set, then by place on the map."""
    ablations: list[Ablation]
    unfinished: list[str]
    """Names of folders without a card or a table."""

    @property
    def fields(self) -> dict[str, list[Group]]:
        """Data set -> its groups: no number of one data set is compared with one of another."""
        names = dict.fromkeys(group.data for group in self.groups)
        return {name: [group for group in self.groups if group.data == name] for name in names}


def read(folders: list[Path]) -> Report:
    """Read run folders and ablation folders, in any order.

    Runs of one script with the same config.json but for its seed are seeds of one group. Raises ValueError if two
    folders are the same experiment with the same seed: their mean would count one run twice.
    """
    runs: dict[tuple, list[tuple[Path, dict[str, Any]]]] = {}
    ablations, unfinished = [], []
    for folder in map(Path, folders):
        path = folder / "evaluation" / "card.json"
        if path.exists():
            card = json.loads(path.read_text())
            runs.setdefault(_identity(folder, card), []).append((folder, card))
        elif (folder / "table.txt").exists():
            ablations.append(_ablation(folder))
        else:
            unfinished.append(folder.name)
    groups = [_group(sorted(members, key=lambda member: member[1]["seed"])) for members in runs.values()]
    data = list(dict.fromkeys(group.data for group in groups))
    order = list(CONTINENTS)
    groups.sort(key=lambda g: (-len([h for h in groups if h.data == g.data]), data.index(g.data), _place(g, order)))
    return Report(list(_labelled(groups)), ablations, unfinished)


def _place(group: Group, order: list[str]) -> int:
    continent = group.card["continent"]
    return order.index(continent) if continent in order else len(order)


def _identity(folder: Path, card: dict[str, Any]) -> tuple:
    config = folder / "config.json"
    resolved = json.loads(config.read_text()) if config.exists() else {}
    resolved = {key: value for key, value in resolved.items() if key not in ("seed", "name")}
    likelihood, extractor = card.get("likelihood") or {}, card.get("extractor") or {}
    shared = [card["experiment"], card["data"], card["steps"], extractor.get("hash"), likelihood.get("kind")]
    return *shared, json.dumps(resolved, sort_keys=True)


def _group(members: list[tuple[Path, dict[str, Any]]]) -> Group:
    folders, cards = [folder for folder, _ in members], [card for _, card in members]
    for seed, count in Counter(card["seed"] for card in cards).items():
        if count > 1:
            same = [folder.name for folder, card in members if card["seed"] == seed]
            raise ValueError(f"{' and '.join(same)} are one experiment with one seed, {seed}: give one of them")
    likelihoods = [card.get("likelihood") for card in cards]
    metrics = {name: None for card in cards for name in card["metrics"]}
    numbers = {name: _number(cards, [card["metrics"].get(name) for card in cards]) for name in metrics}
    return Group(
        cards=cards,
        folders=folders,
        label=cards[0]["system"],
        anchor="",
        likelihood=_number(cards, likelihoods),
        upper=_number(cards, [(likelihood or {}).get("upper") for likelihood in likelihoods]),
        metrics={name: number for name, number in numbers.items() if number is not None},
        train_seconds=_number(cards, [{"value": card["train_seconds"]} for card in cards]),
        samples_per_second=_number(
            cards, [{"value": card.get("samples_per_second"), "better": "higher"} for card in cards]
        ),
    )


def _number(cards: list[dict[str, Any]], entries: list[dict[str, Any] | None]) -> Number | None:
    """Aggregate one quantity's entries, one per card; None if no card has it."""
    pairs = [(c["seed"], e) for c, e in zip(cards, entries, strict=True) if e and e.get("value") is not None]
    if not pairs:
        return None
    values = np.array([entry["value"] for _, entry in pairs], float)
    first = pairs[0][1]
    widths = [(e["value"] - e["low"], e["high"] - e["value"]) for _, e in pairs if e.get("low") is not None]
    below, above = np.mean(widths, axis=0) if len(widths) == len(pairs) else (None, None)
    stderr = None
    if len(values) > 1:
        from scipy.stats import t

        stderr = float(values.std(ddof=1) / math.sqrt(len(values)))
        over_seeds = float(t.ppf(0.975, len(values) - 1)) * stderr
        below, above = max(over_seeds, below or 0.0), max(over_seeds, above or 0.0)
    nulls = [entry["null"] for _, entry in pairs if entry.get("null") is not None]
    deviations = [entry["null_sd"] for _, entry in pairs if entry.get("null_sd") is not None]
    count = first.get("n") or ()
    mean = float(values.mean())
    return Number(
        value=mean,
        low=None if below is None else float(mean - below),
        high=None if above is None else float(mean + above),
        stderr=stderr,
        seeds=tuple((seed, entry["value"]) for seed, entry in pairs),
        null=float(np.mean(nulls)) if nulls else None,
        null_sd=float(np.mean(deviations)) if deviations else None,
        n=tuple(count) if isinstance(count, list | tuple) else (count,),
        better=first.get("better", "lower"),
        unit=first.get("unit", ""),
        kind=first.get("kind"),
    )


def _labelled(groups: list[Group]) -> Iterator[Group]:
    """The same groups with labels that are unique within a data set, and anchors that are unique on the page."""
    for i, group in enumerate(groups):
        label, card = group.label, group.card
        twins = [g for g in groups if g.data == group.data and g.label == label]
        if len(twins) > 1:
            experiments = Counter(g.card["experiment"] for g in twins)
            label += f" ({card['experiment'] if experiments[card['experiment']] == 1 else card['name']})"
        slug = "".join(c if c.isascii() and c.isalnum() else "-" for c in card["experiment"].lower())
        yield dataclasses.replace(group, label=label, anchor=f"run-{i + 1}-{slug}")


def _ablation(folder: Path) -> Ablation:
    """Numbers from the variants' JSON files, in the order of table.txt."""
    lines = (folder / "table.txt").read_text().split("every seed:")[0].splitlines()
    files = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    order = [line.split()[0] for line in lines if line.split()]
    names = [name for name in order if name in files] + [name for name in files if name not in order]
    results = {name: files[name]["result"] for name in names}
    variants = {
        name: {key: v for key, v in result.items() if key != "seeds" and isinstance(v, list)}
        for name, result in results.items()
    }
    keys = dict.fromkeys(key for variant in variants.values() for key in variant)
    titles = {"bits_per_dim": "bits/dim"}
    command = folder / "command.txt"
    return Ablation(
        name=files["baseline"]["config"]["name"],
        command=command.read_text().strip() if command.exists() else "",
        quantities={key: titles.get(key, key.replace("_", " ")) for key in keys},
        variants=variants,
        seeds=results["baseline"]["seeds"],
        kinds={name: result["kind"] for name, result in results.items() if result.get("kind")},
    )


def _plus_minus(values: np.ndarray, sign: str = "") -> str:
    stderr = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
    places = max(0, min(6, 1 - math.floor(math.log10(stderr)))) if stderr else 4
    text = f"{values.mean():{sign}.{places}f}" + (f" ± {stderr:.{places}f}" if stderr is not None else "")
    return text.replace("-", "−")
