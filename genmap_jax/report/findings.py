"""What the numbers of a run say, in sentences. No sentence is written in advance of its numbers.

A difference is stated only where two 95 % intervals do not overlap, or where two costs, which have no interval, differ
by more than `CLEAR_FACTOR`. Numbers are compared only within one data set, and there only within one kind and unit of
likelihood, or one metric, extractor and sample size.
"""

import dataclasses
from collections.abc import Callable, Iterable

from genmap_jax.report.rows import KIND_WORDS, KINDS, Group, Number, digits

CLEAR_FACTOR = 1.25
"""Times and speeds are measured once, on a machine that may do other things: smaller factors are not called."""

QUALITY = ("FD", "KD", "CMMD", "energy")
"""Distances between samples and data; the first one measured is the headline."""

PLANE = "xy"
"""The extractor that returns points as they are: FD sees their mean and covariance only, and so no modes."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One sentence, or a few, and what it is about."""

    topic: str
    text: str


def findings(groups: list[Group]) -> list[Finding]:
    """All that can be said of the groups of one data set, best first; [] where the numbers support nothing."""
    ask = (likelihood, quality, speed, cost, modes, memorisation, ties, not_comparable)
    return [Finding(*said) for question in ask for said in question(groups)]


def headline(groups: list[Group]) -> str | None:
    """Name of the metric by which quality is told on one data set: the first of QUALITY that anybody has."""
    names = dict.fromkeys(name for group in groups for name in group.metrics)
    told = [name for want in QUALITY for name in names if name == want or name.startswith(want + "-")]
    return min(told, key=lambda name: name.endswith(f"-{PLANE}"), default=None)


Said = Iterable[tuple[str, str]]


def likelihood(groups: list[Group]) -> Said:
    """The best within each kind and unit that has at least two. Upper bounds on log p have no best."""
    sayings = {
        "exact": ("Best exact likelihood", "gives held-out data the most probability", ""),
        "lower_bound": (
            "Best bound on likelihood",
            "proves the most",
            " A bound can be loose: the true order may differ.",
        ),
        "estimate": ("Best estimate of likelihood", "has the lowest estimate", " An estimate can err to either side."),
    }
    if len(groups) == 1 and (number := groups[0].likelihood):
        yield "Likelihood", f"{groups[0].label}: {_shown(number)}, {KIND_WORDS[number.kind][1]}."
    for kind, (topic, claim, caveat) in sayings.items():
        same = [g for g in groups if g.likelihood and g.likelihood.kind == kind]
        for unit in dict.fromkeys(g.likelihood.unit for g in same):
            rivals = _ranked([g for g in same if g.likelihood.unit == unit])
            leaders = _leaders(rivals, _likelihood)
            if len(rivals) > 1 and len(leaders) == 1:
                first, second = rivals[:2]
                yield (
                    topic,
                    f"{first.label} {claim}: {_shown(first.likelihood)}. "
                    f"{second.label} follows with {_shown(second.likelihood)}.{caveat}",
                )
            elif len(rivals) > 1:
                yield topic, f"{_named(leaders, _likelihood)} cannot be told apart: their intervals overlap."


def quality(groups: list[Group]) -> Said:
    """The best samples, and how far they are from the floor that real data sets against real data."""
    for name, rivals in comparable(groups):
        leaders = _leaders(rivals, _metric(name))
        first = rivals[0]
        if len(rivals) == 1:
            if name == headline(groups) and first.metrics[name].null is not None:
                yield "Sample quality", f"{first.label}: {name} {_against_floor(first.metrics[name])}."
        elif len(leaders) == 1:
            second = rivals[1]
            yield (
                "Best samples",
                f"{first.label} comes nearest to the data: {name} {_against_floor(first.metrics[name])}. "
                f"{second.label} follows with {_shown(second.metrics[name])}.{_flattered(leaders)}",
            )
        else:
            best = f"{first.label}'s is {_against_floor(first.metrics[name])}"
            said = f"By {name}, {_named(leaders, _metric(name))} cannot be told apart. {best}.{_flattered(leaders)}"
            yield "Best samples", said


def speed(groups: list[Group]) -> Said:
    """The fastest samplers, and what better samples cost beside them."""
    timed = sorted((g for g in groups if g.samples_per_second), key=lambda g: -g.samples_per_second.value)
    fast = [g for g in timed if _ratio(timed[0], g) < CLEAR_FACTOR]
    if len(fast) == len(timed):
        return
    following = timed[len(fast)]
    if len(fast) == 1:
        text = f"{fast[0].label} draws {_rate(fast[0])}, {_times(_ratio(fast[0], following))} the next fastest, "
        text += f"{following.label}."
    else:
        text = f"{_list([f'{g.label} ({_rate(g)})' for g in fast])} are about equally fast; {following.label} follows "
        text += f"with {_rate(following)}."
    for name, rivals in comparable(groups):
        judged = [g for g in fast if g in rivals]
        if len(rivals) < 2 or not judged:
            continue
        unbeaten = [f for f in judged if not any(_clearly(g.metrics[name], f.metrics[name]) for g in rivals)]
        if unbeaten:
            text += f" No sampler here has clearly better samples than {_list([g.label for g in unbeaten])} by {name}."
            continue
        leaders = [g for g in _leaders(rivals, _metric(name)) if g.samples_per_second]
        better = [g for g in leaders if all(_clearly(g.metrics[name], f.metrics[name]) for f in judged)]
        if better:
            best = max(better, key=lambda g: g.samples_per_second.value)
            beaten = _list([_shown(f.metrics[name]) for f in judged])
            price = f"{best.label}, better by {name} ({_shown(best.metrics[name])} against {beaten})"
            text += f" {price}, draws {_rate(best)}: {_times(_ratio(fast[0], best))} slower{_evaluations(best)}."
    yield "Fastest sampler", text


def cost(groups: list[Group]) -> Said:
    """Which families nothing cheaper to train matches: the front of training seconds against quality."""
    for name, rivals in comparable(groups):
        if len(rivals) < 3:
            continue
        rivals = sorted(rivals, key=lambda g: g.train_seconds.value)
        front: list[Group] = []
        for group in rivals:
            same_price = [g for g in rivals if g.train_seconds.value <= CLEAR_FACTOR * group.train_seconds.value]
            if any(_clearly(g.metrics[name], group.metrics[name]) for g in same_price):
                continue
            if all(_clearly(group.metrics[name], other.metrics[name]) for other in front):
                front.append(group)
        others = [g for g in rivals if g not in front]
        longer = [g for g in others if g.train_seconds.value > front[-1].train_seconds.value]

        def point(group: Group, name: str = name) -> str:
            return f"{group.label} ({digits(group.train_seconds.value)} s, {name} {group.metrics[name].text})"

        topic = "Training cost against quality"
        if len(front) > 1:
            text = f"Longer training buys clearly better samples along {' → '.join(map(point, front))}"
            rest = (
                f"; {_list([g.label for g in others])} did not get clearly better ones for the time" if others else ""
            )
            yield topic, f"{text}{rest}."
        elif longer:
            text = f"Training longer than {point(front[0])} bought no clearly better samples"
            yield topic, f"{text}: {_list([*map(point, longer)])}."


def modes(groups: list[Group]) -> Said:
    """Who covers the data, who stays on it, and who does less of it than real data."""
    for precision_name, precise in comparable(groups, ("precision",)):
        for coverage_name, covering in comparable(groups, ("coverage",)):
            both = [g for g in precise if g in covering]
            if len(both) < 2:
                continue
            sharp = min(both, key=lambda g: g.metrics[precision_name].score)
            broad = min(both, key=lambda g: g.metrics[coverage_name].score)
            a, b = sharp.metrics[coverage_name], broad.metrics[coverage_name]
            c, d = sharp.metrics[precision_name], broad.metrics[precision_name]
            if sharp is not broad and _clearly(b, a) and _clearly(c, d):
                yield (
                    "Coverage against precision",
                    f"{sharp.label} has the highest precision ({_shown(c)} against {_shown(d)}), "
                    f"{broad.label} the highest coverage ({_shown(b)} against {_shown(a)}).",
                )
    for prefix, topic in (("coverage", "Parts of the data that are missed"), ("precision", "Samples off the data")):
        for name, rivals in comparable(groups, (prefix,)):
            lacking = [g for g in rivals if _below_null(g.metrics[name])]
            if lacking:
                parts = _list([f"{g.label} {_shown(g.metrics[name])}" for g in lacking])
                nulls = " or ".join(sorted({digits(g.metrics[name].null, g.metrics[name].null_sd) for g in lacking}))
                yield topic, f"{name} is below that of real data ({nulls}) for {parts}."


def memorisation(groups: list[Group]) -> Said:
    """Flags, with their reasons."""
    tested = [g for g in groups if g.memorises is not None]
    for group in (g for g in tested if g.memorises):
        yield "Memorisation", f"{group.label} is flagged as repeating training data: {group.memorises_why}."
    if tested and not any(g.memorises for g in tested):
        yield (
            "Memorisation",
            f"No flag on any of the {len(tested)} tested."
            if len(tested) > 1
            else (f"{tested[0].label} is not flagged: {tested[0].memorises_why}."),
        )


def ties(groups: list[Group]) -> Said:
    """Families whose quality cannot be told apart, below the best."""
    for name, rivals in comparable(groups):
        if len(rivals) < 3:
            continue
        cliques: list[list[Group]] = []
        for group in rivals:  # by value: a set of intervals that all overlap is one that shares a point
            clique = [g for g in rivals if _contains(g.metrics[name], group.metrics[name].score[1])]
            if len(clique) > 1 and not any(set(map(id, clique)) <= set(map(id, known)) for known in cliques):
                cliques = [known for known in cliques if not set(map(id, known)) <= set(map(id, clique))]
                cliques.append(clique)
        leaders = _leaders(rivals, _metric(name))
        cliques = [c for c in cliques if not set(map(id, c)) <= set(map(id, leaders))]
        if cliques:
            sets = "; ".join(_named(c, _metric(name)) for c in cliques)
            yield "Indistinguishable samples", f"By {name}, intervals overlap within each of: {sets}."


def not_comparable(groups: list[Group]) -> Said:
    """Numbers that stand in one table and still must not be ranked, and why."""
    if len(groups) < 2:
        return
    kinds: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        if group.likelihood:
            kinds.setdefault((group.likelihood.kind, group.likelihood.unit), []).append(group)
    if len(kinds) > 1:
        parts = []
        for (kind, unit), members in sorted(kinds.items(), key=lambda item: KINDS.index(item[0][0])):
            numbers = _list([f"{g.label} {g.likelihood.text}" for g in members])
            units = f" in {unit}" if len({u for _, u in kinds}) > 1 else ""
            parts.append(f"{KIND_WORDS[kind][1]}{units}: {numbers}")
        yield "Not comparable", f"Likelihoods of different kinds are not ranked. {_sentence('; '.join(parts))}."
    none = [g.label for g in groups if not g.likelihood]
    if none:
        yield "No likelihood", f"{_list(none)} {'has' if len(none) == 1 else 'have'} no density to evaluate."
    name = headline(groups)
    parts = _same_measure([g for g in groups if name in g.metrics], name) if name else []
    if len(parts) > 1:
        sets = "; ".join(_list([g.label for g in part]) for part in parts)
        yield "Not comparable", f"{name} with different extractors or numbers of samples: {sets}."


# ---- comparing -------------------------------------------------------------------------------------------------------

Get = Callable[[Group], Number]


def _likelihood(group: Group) -> Number:
    return group.likelihood


def _metric(name: str) -> Get:
    return lambda group: group.metrics[name]


def _clearly(better: Number, worse: Number) -> bool:
    """The 95 % intervals do not overlap. Stricter than a test at 5 %: it needs no assumption about common noise."""
    return better.score is not None and worse.score is not None and better.score[2] < worse.score[1]


def _contains(number: Number, cost: float) -> bool:
    return number.score[1] <= cost <= number.score[2]


def _ranked(groups: list[Group], get: Get = _likelihood) -> list[Group]:
    return sorted((g for g in groups if get(g).score), key=lambda g: get(g).score)


def _leaders(ranked: list[Group], get: Get) -> list[Group]:
    """The first, and all that are not clearly worse."""
    return [g for g in ranked if not _clearly(get(ranked[0]), get(g))]


def _same_measure(groups: list[Group], name: str) -> list[list[Group]]:
    """Groups whose `name` was measured with one extractor at one size, the largest set first."""
    sets: dict[tuple, list[Group]] = {}
    for group in groups:
        sets.setdefault((group.extractor, group.metrics[name].n), []).append(group)
    return sorted(sets.values(), key=len, reverse=True)


def comparable(groups: list[Group], prefixes: tuple[str, ...] = ()) -> Iterable[tuple[str, list[Group]]]:
    """(metric, groups by rank) for the headline metric or those with a prefix, one per comparable set."""
    if prefixes:
        names = dict.fromkeys(n for g in groups for n in g.metrics if n.split("-")[0] in prefixes)
    else:
        names = [name] if (name := headline(groups)) else []
    for name in names:
        for part in _same_measure([g for g in groups if name in g.metrics], name):
            ranked = _ranked(part, _metric(name))
            if ranked:
                yield name, ranked


def _below_null(number: Number) -> bool:
    return number.null is not None and number.high is not None and number.high < number.null - 2 * (number.null_sd or 0)


# ---- wording ---------------------------------------------------------------------------------------------------------


def _shown(number: Number) -> str:
    return f"{number.text} {number.interval}".strip()


def _against_floor(number: Number) -> str:
    text = _shown(number)
    if number.null is None:
        return text
    floor = digits(number.null, number.null_sd or None)
    reached = number.score is not None and number.low <= number.null + 2 * (number.null_sd or 0)
    if reached and number.better == "lower":
        return f"{text}, not clearly above the {floor} of real against real data"
    if number.multiple is not None:
        return f"{text}, {number.multiple:.2g} times the {floor} of real against real data"
    return f"{text}; real against real data has {floor}"


def _named(groups: list[Group], get: Get) -> str:
    return _list([f"{g.label} ({get(g).text})" for g in groups])


def _flattered(groups: list[Group]) -> str:
    flagged = [g.label for g in groups if g.memorises]
    return f" Copies score well: {_list(flagged)} {_is(flagged)} flagged for memorising." if flagged else ""


def _is(parts: list[str]) -> str:
    return "is" if len(parts) == 1 else "are"


def _rate(group: Group) -> str:
    return f"{digits(group.samples_per_second.value)} samples/s"


def _ratio(fast: Group, slow: Group) -> float:
    return fast.samples_per_second.value / slow.samples_per_second.value


def _evaluations(group: Group) -> str:
    count = group.card.get("evaluations")
    return f", with {count:,} network evaluations per sample" if count and count > 1 else ""


def _times(factor: float) -> str:
    return f"{digits(factor) if factor < 99.5 else f'{factor:,.0f}'} times"


def _list(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
