"""The table of all families side by side: what each column shows, and by what its rows are sorted."""

from collections.abc import Callable
from typing import NamedTuple

from genmap_jax.report.findings import headline
from genmap_jax.report.numbers import KINDS, Quantity, digits
from genmap_jax.report.rows import Group

METRICS = ("KD", "precision", "recall", "density", "coverage")
"""Metrics with a column of their own, if anybody has them."""


class Cell(NamedTuple):
    """Text, small lines under it, and what it is sorted by: `rank` first, which no direction turns round."""

    text: str = ""
    notes: tuple[str, ...] = ()
    value: float | None = None
    rank: int = 0
    flag: bool = False


class Column(NamedTuple):
    """A column: its cells, the direction of the first sort, and the metric of which real data has a score."""

    title: str
    cell: Callable[[Group], Cell]
    first: str = "ascending"
    number: Callable[[Group], Quantity | None] = lambda group: None

    def reference(self, groups: list[Group]) -> str:
        """What real data scores, "" if nothing says."""
        scores = sorted((n.null, n.real) for g in groups if (n := self.number(g)) and n.null is not None)
        return " to ".join(dict.fromkeys(text for _, text in scores[:1] + scores[-1:]))


def columns(groups: list[Group]) -> list[Column]:
    """The columns after the family's name; metrics that nobody has are left out."""
    return [
        Column("Likelihood", likelihood_cell),
        _distance_column(groups),
        *(column for name in METRICS for column in _metric_column(name, groups)),
        Column("Parameters", lambda g: _count_cell(g.card["parameters"])),
        Column("Training, s", lambda g: _cost_cell(g.train_seconds)),
        Column("Samples/s", lambda g: _cost_cell(g.samples_per_second), "descending"),
        Column("Network evaluations", lambda g: _count_cell(g.card["evaluations"])),
        Column("Memorises", _memory_cell),
    ]


def likelihood_cell(group: Group) -> Cell:
    """Sorted by kind, then by value: no bound or estimate gets a place among exact numbers. Without a density: last."""
    number = group.likelihood
    if number is None:
        return Cell("none", ("no density",), rank=len(KINDS))
    other = (f"{group.upper.text}, {KINDS[group.upper.kind][1]}",) if group.upper else ()
    notes = (number.interval, KINDS[number.kind][1], *other)
    return Cell(number.text, notes, number.value, rank=list(KINDS).index(number.kind))


def _distance_column(groups: list[Group]) -> Column:
    """The headline metric of each data set; "" is none."""
    names = {g.data: headline([h for h in groups if h.data == g.data]) or "" for g in groups}

    def cell(group: Group) -> Cell:
        number, name = group.metrics.get(names[group.data]), names[group.data]
        if number is None:
            return Cell()
        return Cell(f"{name.split('-')[0]} {number.text}", (number.interval, number.floor), number.value)

    return Column("Distance to data", cell, number=lambda g: g.metrics.get(names[g.data]))


def _metric_column(name: str, groups: list[Group]) -> list[Column]:
    """The column of one metric; [] if nobody has it."""
    numbers = [number for group in groups if (number := group.metric(name))]

    def cell(group: Group) -> Cell:
        number = group.metric(name)
        return Cell(number.text, (number.interval,), number.value) if number else Cell()

    first = "descending" if numbers and numbers[0].better == "higher" else "ascending"
    return [Column(name[0].upper() + name[1:], cell, first, lambda g: g.metric(name))] if numbers else []


def _cost_cell(number: Quantity | None) -> Cell:
    if number is None:
        return Cell()
    return Cell(digits(number.value), (f"± {digits(number.stderr)}",) if number.stderr else (), number.value)


def _count_cell(count: int | None) -> Cell:
    return Cell("adaptive") if count is None else Cell(f"{count:,}", value=count)


def _memory_cell(group: Group) -> Cell:
    if group.memorises:
        return Cell("⚑ flagged", (group.memorises_why,), 1, flag=True)
    return Cell("not tested") if group.memorises is None else Cell("no flag", value=0)


def bodies(groups: list[Group]) -> list[tuple[str, list[str], list[Group]]]:
    """(heading, what real data scores in each column, groups) of each body of the table.

    One for each data set and extractor: the sets within which rows are sorted.
    """
    sets: dict[str, list[Group]] = {}
    for group in groups:
        extractor = group.card.get("extractor")
        features = f", features of {extractor['name']} {extractor['hash'][:8].strip('0')}" if extractor else ""
        sets.setdefault((group.data + features).strip(), []).append(group)
    shown = columns(groups)
    return [(heading, [column.reference(same) for column in shown], same) for heading, same in sets.items()]
