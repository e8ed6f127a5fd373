"""What the numbers of a run say, in sentences. No sentence is written in advance of its numbers.

A difference is stated only where two 95 % intervals do not overlap, or where two costs, which have no interval, differ
by more than `CLEAR_FACTOR`. Numbers are compared only within one data set, and there only within one kind and unit of
likelihood, or one metric, extractor and sample size.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from genmap_jax.report.numbers import KINDS, Quantity, digits
from genmap_jax.report.rows import Group

CLEAR_FACTOR = 1.25
"""Times and speeds are measured once, on a machine that may do other things: smaller factors are not called."""

QUALITY = ("FD", "KD", "CMMD", "energy")
"""Distances between samples and data; the first one measured is the headline."""

PLANE = "xy"
"""The extractor that returns points as they are: FD sees their mean and covariance only, and so no modes."""

CLAIMS = {
    "exact": ("Best exact likelihood", "gives held-out data the most probability", ""),
    "lower_bound": ("Best bound on likelihood", "proves the most", " A bound can be loose: the true order may differ."),
    "estimate": ("Best estimate of likelihood", "has the lowest estimate", " An estimate can err to either side."),
}
"""Kind of likelihood -> (topic, claim, caveat). Upper bounds on log p have no best."""


class Finding(NamedTuple):
    """One sentence, or a few, and what it is about."""

    topic: str
    text: str


class Rival(NamedTuple):
    """A group with the quantity by which it is compared."""

    group: Group
    number: Quantity

    @property
    def label(self) -> str:
        """What the page calls the group."""
        return self.group.label


Said = Iterator[tuple[str, str]]


def findings(groups: list[Group]) -> list[Finding]:
    """All that can be said of the groups of one data set, best first; [] where the numbers support nothing."""
    ask = (likelihood, quality, speed, cost, coverage, missed, memorisation, not_comparable)
    return [Finding(*said) for question in ask for said in question(groups)]


# ---- comparing -------------------------------------------------------------------------------------------------------


def headline(groups: list[Group]) -> str | None:
    """Name of the metric by which quality is told on one data set: the first of QUALITY that anybody has."""
    names = dict.fromkeys(name for group in groups for name in group.metrics)
    told = [name for want in QUALITY for name in names if name.split("-")[0] == want]
    return min(told, key=lambda name: name.endswith(f"-{PLANE}"), default=None)


def comparable(groups: list[Group], prefix: str = "") -> Iterator[tuple[str, list[Rival]]]:
    """(metric, rivals, the best first) of the headline metric or those with a prefix, one per comparable set."""
    names = dict.fromkeys(name for g in groups for name in g.metrics if name.split("-")[0] == prefix)
    for name in names if prefix else filter(None, [headline(groups)]):
        for members in _same_measure(groups, name):
            if rivals := _ranked(Rival(g, g.metrics[name]) for g in members):
                yield name, rivals


def _same_measure(groups: list[Group], name: str) -> list[list[Group]]:
    """Groups whose `name` was measured with one extractor at one size, the largest set first."""
    sets: dict[tuple, list[Group]] = {}
    for group in groups:
        if name in group.metrics:
            sets.setdefault((group.extractor, group.metrics[name].n), []).append(group)
    return sorted(sets.values(), key=len, reverse=True)


def _ranked(rivals: Iterable[Rival]) -> list[Rival]:
    return sorted((r for r in rivals if r.number.score), key=_score)


def _score(rival: Rival) -> tuple[float, float, float]:
    score = rival.number.score
    assert score is not None  # `_ranked` leaves out what no finding may rank
    return score


def _clearly(better: Quantity, worse: Quantity) -> bool:
    """The 95 % intervals do not overlap. Stricter than a test at 5 %: it needs no assumption about common noise."""
    return better.score is not None and worse.score is not None and better.score[2] < worse.score[1]


def _leaders(rivals: list[Rival]) -> list[Rival]:
    """The first, and all that are not clearly worse."""
    return [rival for rival in rivals if not _clearly(rivals[0].number, rival.number)]


# ---- questions -------------------------------------------------------------------------------------------------------


def likelihood(groups: list[Group]) -> Said:
    """The best within each kind and unit that has at least two."""
    if len(groups) == 1 and (number := groups[0].likelihood):
        yield "Likelihood", f"{groups[0].label}: {number.shown}, {KINDS[number.kind][1]}."
    for (kind, _), members in _by_kind(groups).items():
        rivals = _ranked(members)
        if kind not in CLAIMS or len(rivals) < 2:
            continue
        topic, claim, caveat = CLAIMS[kind]
        first, second, leaders = rivals[0], rivals[1], _leaders(rivals)
        if len(leaders) > 1:
            yield topic, f"{_named(leaders)} cannot be told apart: their intervals overlap."
        else:
            follows = f"{second.label} follows with {second.number.shown}."
            yield topic, f"{first.label} {claim}: {first.number.shown}. {follows}{caveat}"


def _by_kind(groups: list[Group]) -> dict[tuple[str, str], list[Rival]]:
    """(kind, unit) of a likelihood -> the groups that have one, the kinds in the order of the table."""
    kinds: dict[tuple[str, str], list[Rival]] = {}
    for kind in KINDS:
        for group in groups:
            if group.likelihood and group.likelihood.kind == kind:
                kinds.setdefault((kind, group.likelihood.unit), []).append(Rival(group, group.likelihood))
    return kinds


def quality(groups: list[Group]) -> Said:
    """The best samples, and how far they are from the floor that real data sets against real data."""
    for name, rivals in comparable(groups):
        first, leaders = rivals[0], _leaders(rivals)
        best = _against_floor(first.number)
        if len(rivals) == 1:
            if first.number.null is not None:
                yield "Sample quality", f"{first.label}: {name} {best}."
            continue
        if len(leaders) == 1:
            follows = f"{rivals[1].label} follows with {rivals[1].number.shown}."
            text = f"{first.label} comes nearest to the data: {name} {best}. {follows}"
        else:
            text = f"By {name}, {_named(leaders)} cannot be told apart. {first.label}'s is {best}."
        if flagged := [r.label for r in leaders if r.group.memorises]:
            text += f" Copies score well: {_and(flagged)} {_have(flagged, 'is', 'are')} flagged for memorising."
        yield "Best samples", text


def speed(groups: list[Group]) -> Said:
    """The fastest samplers, and what better samples cost beside them."""
    timed = sorted((g for g in groups if g.samples_per_second), key=samples_per_second, reverse=True)
    fast = [g for g in timed if samples_per_second(timed[0]) < CLEAR_FACTOR * samples_per_second(g)]
    if len(fast) == len(timed):
        return
    second = timed[len(fast)]
    if len(fast) == 1:
        text = f"{fast[0].label} draws {_rate(fast[0])}, {_times(fast[0], second)} the next fastest, {second.label}."
    else:
        text = f"{_and([f'{g.label} ({_rate(g)})' for g in fast])} are about equally fast; "
        text += f"{second.label} follows with {_rate(second)}."
    yield "Fastest sampler", text + "".join(_price(name, rivals, fast) for name, rivals in comparable(groups))


def _price(name: str, rivals: list[Rival], fast: list[Group]) -> str:
    """What samples cost that are clearly better than those of the fastest samplers; "" where nothing can be said."""
    judged = [r for r in rivals if r.group in fast]
    if len(rivals) < 2 or not judged:
        return ""
    unbeaten = [f.label for f in judged if not any(_clearly(r.number, f.number) for r in rivals)]
    if unbeaten:
        return f" No sampler here has clearly better samples than {_and(unbeaten)} by {name}."
    timed = [r for r in _leaders(rivals) if r.group.samples_per_second]
    better = [r for r in timed if all(_clearly(r.number, f.number) for f in judged)]
    if not better:
        return ""
    best = max(better, key=lambda r: samples_per_second(r.group))
    count = best.group.card.get("evaluations")
    evaluations = f", with {count:,} network evaluations per sample" if count and count > 1 else ""
    beaten = _and([f.number.shown for f in judged])
    return (
        f" {best.label}, better by {name} ({best.number.shown} against {beaten}), draws {_rate(best.group)}: "
        f"{_times(fast[0], best.group)} slower{evaluations}."
    )


def cost(groups: list[Group]) -> Said:
    """Which families nothing cheaper to train matches: the front of training seconds against quality."""
    for name, rivals in comparable(groups):
        if len(rivals) < 3:
            continue
        front = _front(rivals)
        others = [r for r in sorted(rivals, key=_seconds) if r not in front]
        longer = [r for r in others if _seconds(r) > _seconds(front[-1])]

        def point(rival: Rival, name: str = name) -> str:
            return f"{rival.label} ({digits(_seconds(rival))} s, {name} {rival.number.text})"

        if len(front) > 1:
            text = f"Longer training buys clearly better samples along {' → '.join(map(point, front))}"
            if others:
                text += f"; {_and([r.label for r in others])} did not get clearly better ones for the time"
            yield "Training cost against quality", f"{text}."
        elif longer:
            text = f"Training longer than {point(front[0])} bought no clearly better samples"
            yield "Training cost against quality", f"{text}: {_and([*map(point, longer)])}."


def _front(rivals: list[Rival]) -> list[Rival]:
    """Rivals, the cheapest first, each clearly better than those before and not clearly worse than any of its price."""
    front: list[Rival] = []
    for rival in sorted(rivals, key=_seconds):
        same_price = [r for r in rivals if _seconds(r) <= CLEAR_FACTOR * _seconds(rival)]
        beaten = any(_clearly(other.number, rival.number) for other in same_price)
        if not beaten and all(_clearly(rival.number, other.number) for other in front):
            front.append(rival)
    return front


def coverage(groups: list[Group]) -> Said:
    """Who covers the data, and who stays on it."""
    for _, precise in comparable(groups, "precision"):
        for _, covering in comparable(groups, "coverage"):
            both = [(p, c) for p in precise for c in covering if p.group is c.group]
            if len(both) < 2:
                continue
            sharp, broad = both[0], min(both, key=lambda pair: _score(pair[1]))
            (p, c), (other_p, other_c) = [(r.number, s.number) for r, s in (sharp, broad)]
            if _clearly(p, other_p) and _clearly(other_c, c):
                yield (
                    "Coverage against precision",
                    f"{sharp[0].label} has the highest precision ({p.shown} against {other_p.shown}), "
                    f"{broad[0].label} the highest coverage ({other_c.shown} against {c.shown}).",
                )


def missed(groups: list[Group]) -> Said:
    """Who covers less of the data, or stays on it less, than real data."""
    for prefix, topic in (("coverage", "Parts of the data that are missed"), ("precision", "Samples off the data")):
        for name, rivals in comparable(groups, prefix):
            lacking = [r for r in rivals if _below_null(r.number)]
            if lacking:
                nulls = {digits(n.null, n.null_sd) for n in (r.number for r in lacking) if n.null is not None}
                parts = _and([f"{r.label} {r.number.shown}" for r in lacking])
                yield topic, f"{name} is below that of real data ({' or '.join(sorted(nulls))}) for {parts}."


def _below_null(number: Quantity) -> bool:
    return number.null is not None and number.high is not None and number.high < number.null - 2 * (number.null_sd or 0)


def memorisation(groups: list[Group]) -> Said:
    """Flags, with their reasons."""
    tested = [g for g in groups if g.memorises is not None]
    flagged = [g for g in tested if g.memorises]
    for group in flagged:
        yield "Memorisation", f"{group.label} is flagged as repeating training data: {group.memorises_why}."
    if len(tested) == 1 and not flagged:
        yield "Memorisation", f"{tested[0].label} is not flagged: {tested[0].memorises_why}."
    elif tested and not flagged:
        yield "Memorisation", f"No flag on any of the {len(tested)} tested."


def not_comparable(groups: list[Group]) -> Said:
    """Numbers that stand in one table and still must not be ranked, and why."""
    if len(groups) < 2:
        return
    kinds = _by_kind(groups)
    if len(kinds) > 1:
        one_unit = len({unit for _, unit in kinds}) == 1
        parts = [
            f"{KINDS[kind][1]}{'' if one_unit else f' in {unit}'}: "
            + _and([f"{r.label} {r.number.text}" for r in members])
            for (kind, unit), members in kinds.items()
        ]
        text = "; ".join(parts)
        yield "Not comparable", f"Likelihoods of different kinds are not ranked. {text[0].upper()}{text[1:]}."
    if none := [g.label for g in groups if not g.likelihood]:
        yield "No likelihood", f"{_and(none)} {_have(none, 'has', 'have')} no density to evaluate."
    name = headline(groups)
    sets = _same_measure(groups, name) if name else []
    if len(sets) > 1:
        text = "; ".join(_and([g.label for g in members]) for members in sets)
        yield "Not comparable", f"{name} with different extractors or numbers of samples: {text}."


# ---- wording ---------------------------------------------------------------------------------------------------------


def _against_floor(number: Quantity) -> str:
    if number.null is None:
        return number.shown
    floor = digits(number.null, number.null_sd)
    reached = number.low is not None and number.low <= number.null + 2 * (number.null_sd or 0)
    if reached and number.better == "lower":
        return f"{number.shown}, not clearly above the {floor} of real against real data"
    if number.multiple is not None:
        return f"{number.shown}, {number.multiple:.2g} times the {floor} of real against real data"
    return f"{number.shown}; real against real data has {floor}"


def _named(rivals: list[Rival]) -> str:
    return _and([f"{r.label} ({r.number.text})" for r in rivals])


def _seconds(rival: Rival) -> float:
    return rival.group.train_seconds.value


def samples_per_second(group: Group) -> float:
    """Samples per second of a group that was timed."""
    assert group.samples_per_second is not None  # every question asks timed groups only
    return group.samples_per_second.value


def _rate(group: Group) -> str:
    return f"{digits(samples_per_second(group))} samples/s"


def _times(fast: Group, slow: Group) -> str:
    return f"{digits(samples_per_second(fast) / samples_per_second(slow))} times"


def _and(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _have(parts: Sequence[str], one: str, many: str) -> str:
    return one if len(parts) == 1 else many
