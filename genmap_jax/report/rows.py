"""Evaluated run folders, read into rows: one group per experiment, its seeds aggregated, every seed's number kept.

A run folder is evaluated when it holds `evaluation/card.json` (`genmap evaluate` writes it). Nothing here computes a
metric: numbers come from the cards, and only mean, standard error and interval over seeds are added.
"""

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from genmap_jax.files import read_json
from genmap_jax.report.ablations import Ablation, read_ablation
from genmap_jax.report.numbers import Quantity

CONTINENTS = {
    "tractable": ("Explicit", "tractable density"),
    "approximate": ("Explicit", "approximate density"),
    "implicit": ("Implicit", "implicit density"),
}
"""Continent of a card -> (land, region) on the map, in the order of the page."""

Card = dict[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """One experiment: the same configuration on one or several seeds. A group is equal to itself only."""

    cards: list[Card]  # one per seed
    folders: list[Path]  # the run folders, likewise
    likelihood: Quantity | None  # cost of held-out data; None without a density
    upper: Quantity | None  # what stands beside the likelihood as a bound, of its own kind, where there is one
    metrics: dict[str, Quantity]
    train_seconds: Quantity
    samples_per_second: Quantity | None
    label: str  # the system, with as much after it as tells it from another one on the same data
    anchor: str = ""  # its id on the page

    @property
    def card(self) -> Card:
        """The first seed's card: what all seeds share is read from it."""
        return self.cards[0]

    @property
    def data(self) -> str:
        """The name of the data set."""
        return self.card["data"]

    @property
    def region(self) -> tuple[str, str]:
        """(land, region) on the map."""
        return CONTINENTS[self.card["continent"]]

    @property
    def extractor(self) -> str:
        """Hash of the feature extractor, "" without one: metrics of two extractors are never compared."""
        return (self.card.get("extractor") or {}).get("hash", "")

    @property
    def memorises(self) -> bool | None:
        """True if any seed is flagged; None if no seed was tested."""
        flags = [card["memorises"] for card in self.cards if card["memorises"] is not None]
        return any(flags) if flags else None

    @property
    def memorises_why(self) -> str:
        """The reasons, seed by seed where they differ."""
        whys = {card["seed"]: card["memorises_why"] for card in self.cards}
        if len(set(whys.values())) == 1:
            return self.card["memorises_why"]
        return "; ".join(f"seed {seed}: {why}" for seed, why in whys.items())

    def metric(self, prefix: str) -> Quantity | None:
        """The first metric of this name, whatever its extractor: "FD" finds "FD-own64"."""
        return next((m for name, m in self.metrics.items() if name.split("-")[0] == prefix), None)


@dataclasses.dataclass(frozen=True)
class Report:
    """All that a page is made from."""

    groups: list[Group]  # by data set, then by place on the map
    ablations: list[Ablation]
    unfinished: list[str]  # names of folders without a card or a table

    @property
    def fields(self) -> dict[str, list[Group]]:
        """Data set -> its groups: no number of one data set is compared with one of another."""
        names = dict.fromkeys(group.data for group in self.groups)
        return {name: [group for group in self.groups if group.data == name] for name in names}


def read(folders: Iterable[Path]) -> Report:
    """Read run folders and ablation folders, in any order.

    Runs of one script with the same config.json but for its seed are seeds of one group. Raises ValueError if a card is
    damaged, or if two folders are the same experiment with the same seed: their mean would count one run twice.
    """
    runs: dict[str, list[tuple[Card, Path]]] = {}
    ablations, unfinished = [], []
    for folder in map(Path, folders):
        if (folder / "evaluation" / "card.json").exists():
            card = _card(folder)
            runs.setdefault(_identity(folder, card), []).append((card, folder))
        elif (folder / "ablation.json").exists():
            ablations.append(read_ablation(folder))
        else:
            unfinished.append(folder.name)
    groups = [_group(sorted(members, key=lambda member: member[0]["seed"])) for members in runs.values()]
    sizes, place = Counter(group.data for group in groups), list(CONTINENTS)
    first = {data: i for i, data in enumerate(sizes)}
    groups.sort(key=lambda g: (-sizes[g.data], first[g.data], place.index(g.card["continent"])))
    return Report([_named(group, i, groups) for i, group in enumerate(groups, 1)], ablations, unfinished)


def _card(folder: Path) -> Card:
    path = folder / "evaluation" / "card.json"
    card = read_json(path)
    missing = [key for key in ("system", "continent", "objective", "citation", "experiment") if key not in card]
    if missing or card["continent"] not in CONTINENTS:
        wrong = f"no {missing[0]}" if missing else f"the continent {card['continent']!r}"
        raise ValueError(f"{path} has {wrong}; measure the run again with genmap evaluate {folder}")
    return card


def _identity(folder: Path, card: Card) -> str:
    """What two seeds of one experiment share."""
    path = folder / "config.json"
    config = {k: v for k, v in (read_json(path) if path.exists() else {}).items() if k not in ("seed", "name")}
    measured = (card.get("extractor") or {}).get("hash"), (card.get("likelihood") or {}).get("kind")
    return json.dumps([card["experiment"], card["data"], card["steps"], *measured, config], sort_keys=True)


def _group(members: list[tuple[Card, Path]]) -> Group:
    cards, folders = [card for card, _ in members], [folder for _, folder in members]
    seed, count = Counter(card["seed"] for card in cards).most_common(1)[0]
    if count > 1:
        same = " and ".join(folder.name for card, folder in members if card["seed"] == seed)
        raise ValueError(f"{same} are one experiment with one seed, {seed}: give one of them")
    likelihoods = {card["seed"]: card.get("likelihood") or {} for card in cards}
    names = dict.fromkeys(name for card in cards for name in card["metrics"])
    metrics = {name: aggregate({c["seed"]: c["metrics"].get(name) for c in cards}) for name in names}
    seconds, speed = (
        aggregate({card["seed"]: {"value": card.get(key), "better": better} for card in cards})
        for key, better in (("train_seconds", "lower"), ("samples_per_second", "higher"))
    )
    if seconds is None:
        raise ValueError(f"{folders[0]}: its card has no train_seconds; measure the run again with genmap evaluate")
    return Group(
        cards,
        folders,
        likelihood=aggregate(likelihoods),
        upper=aggregate({seed: entry.get("upper") for seed, entry in likelihoods.items()}),
        metrics={name: quantity for name, quantity in metrics.items() if quantity},
        train_seconds=seconds,
        samples_per_second=speed,
        label=cards[0]["system"],
    )


def aggregate(entries: dict[int, dict[str, Any] | None]) -> Quantity | None:
    """One quantity over seeds, from seed -> entry of the card; None if no card has it.

    The interval of one seed is its card's. Of several it is Student's t over seeds and, in quadrature, the mean one of
    the cards: all seeds are measured on the same real examples, whose chance the spread over seeds does not show.
    """
    given = {seed: entry for seed, entry in entries.items() if entry and entry.get("value") is not None}
    if not given:
        return None

    def each(key: str) -> list[float]:
        return [entry[key] for entry in given.values() if entry.get(key) is not None]

    values, lows, highs, nulls, spreads = map(each, ("value", "low", "high", "null", "null_sd"))
    mean, stderr, below, above = float(np.mean(values)), None, None, None
    if len(lows) == len(highs) == len(values):
        below, above = mean - float(np.mean(lows)), float(np.mean(highs)) - mean
    if len(values) > 1:
        from scipy.special import stdtrit

        stderr = float(np.std(values, ddof=1)) / math.sqrt(len(values))
        over_seeds = float(stdtrit(len(values) - 1, 0.975)) * stderr
        below, above = math.hypot(over_seeds, below or 0.0), math.hypot(over_seeds, above or 0.0)
    first = next(iter(given.values()))
    count = first.get("n") or ()
    return Quantity(
        value=mean,
        low=None if below is None else mean - below,
        high=None if above is None else mean + above,
        stderr=stderr,
        seeds=tuple((seed, entry["value"]) for seed, entry in given.items()),
        null=float(np.mean(nulls)) if nulls else None,
        null_sd=float(np.mean(spreads)) if spreads else None,
        n=tuple(count) if isinstance(count, list) else (count,) if count else (),
        **{key: first[key] for key in ("better", "unit", "kind") if key in first},
    )


def _named(group: Group, number: int, groups: list[Group]) -> Group:
    """The group with a label that is unique within its data set, and an anchor that is unique on the page."""
    card, label = group.card, group.label
    twins = [g for g in groups if g.data == group.data and g.card["system"] == label]
    if len(twins) > 1:
        alone = sum(g.card["experiment"] == card["experiment"] for g in twins) == 1
        label += f" ({card['experiment'] if alone else card['name']})"
    slug = "".join(c if c.isascii() and c.isalnum() else "-" for c in card["experiment"].lower())
    return dataclasses.replace(group, label=label, anchor=f"run-{number}-{slug}")
