"""One self-contained HTML page from evaluated run folders, readable offline; its map and numbers as files beside it."""

import base64
import dataclasses
import hashlib
import io
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from genmap_jax.report import charts
from genmap_jax.report.findings import comparable, findings, headline
from genmap_jax.report.map_picture import svg_map, write_map
from genmap_jax.report.rows import KIND_WORDS, KINDS, Ablation, Group, Number, Report, digits, read
from genmap_jax.report.tables import write_tables


def write_page(folders: list[Path], path: Path) -> Path:
    """Write the page of run folders and ablation folders to `path`; returns `path`.

    Beside it: map.svg, map_phone.svg, map.png, numbers.csv, numbers.parquet. Folders without a card are named as not
    finished. Raises ValueError if two folders are the same experiment with the same seed.
    """
    import jinja2

    report = read(folders)
    path.parent.mkdir(parents=True, exist_ok=True)
    if report.groups:
        write_map(report.groups, path.with_name("map"))
    write_tables(report, path.with_name("numbers"))
    source = files("genmap_jax.report")
    script = source.joinpath("page.js").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    text = environment.from_string(source.joinpath("page.html.jinja").read_text(encoding="utf-8")).render(
        report=report,
        summary=summary(report),
        maps=[(wide, svg_map(report.groups, portrait=wide == "phone", links=True)) for wide in ("wide", "phone")]
        if report.groups
        else [],
        findings={data: (findings(groups), _price_charts(groups)) for data, groups in report.fields.items()},
        columns=columns(report.groups),
        bodies=bodies(report),
        methods=methods(report),
        families=[family(group, report) for group in report.groups],
        ablations=[a for a in report.ablations if a.name not in {g.card["experiment"] for g in report.groups}],
        style=source.joinpath("page.css").read_text(encoding="utf-8"),
        ablation_rows=ablation_rows,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    path.write_text(text, encoding="utf-8")
    return path


def summary(report: Report) -> str:
    """What was measured, in one sentence."""
    runs = sum(len(group.cards) for group in report.groups)
    minutes = sum(card["train_seconds"] for group in report.groups for card in group.cards) / 60
    systems, data = len({g.card["system"] for g in report.groups}), len(report.fields)
    return (
        f"{_count(systems, 'family', 'families')} on {_count(data, 'data set')}, measured in {_count(runs, 'run')} "
        f"that trained for {digits(minutes)} minutes in all on {_machines(report)}."
    )


def _count(n: int, one: str, many: str = "") -> str:
    return f"{n} {one if n == 1 else many or one + 's'}"


def _machines(report: Report) -> str:
    cards = [card for group in report.groups for card in group.cards]
    kinds = dict.fromkeys((card["devices"], card.get("device_kind") or card["platform"]) for card in cards)
    return " and ".join(_count(n, f"{kind} device") for n, kind in kinds)


def _price_charts(groups: list[Group]) -> list[str]:
    return [svg for metric, members in comparable(groups) for svg in charts.price(members, metric)]


# ---- the table -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Cell:
    """Text, small lines under it, and what it is sorted by: `rank` first, which no direction turns round."""

    text: str
    notes: tuple[str, ...] = ()
    value: float | str | None = None
    rank: int = 0
    flag: bool = False


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of the comparison. `first` is the direction of the first sort, the one that puts the best on top."""

    title: str
    cell: Callable[[Group], Cell]
    first: str = "ascending"
    number: Callable[[Group], Number | None] | None = None
    """The metric it shows: what real data scores on it stands in the row above the families."""

    def reference(self, groups: list[Group]) -> str:
        """What real data scores, "" if nothing says."""
        measured = [n for g in groups if self.number and (n := self.number(g)) and n.null is not None]
        nulls = sorted({n.null: digits(n.null, max(n.null_sd or 0, n.half_width or 0)) for n in measured}.items())
        return " to ".join(dict.fromkeys(text for _, text in (nulls[:1] + nulls[-1:])))


MISSING = Cell("")


def columns(groups: list[Group]) -> list[Column]:
    """The columns after the family's name; metrics that nobody has are left out."""
    distance = {g.data: headline([h for h in groups if h.data == g.data]) for g in groups}
    metrics = [
        _metric_column(name, first)
        for name, first in (
            ("KD", "ascending"),
            ("precision", "descending"),
            ("recall", "descending"),
            ("density", "descending"),
            ("coverage", "descending"),
        )
        if any(g.metric(name) for g in groups)
    ]
    return [
        Column("Likelihood", likelihood_cell),
        Column(
            "Distance to data",
            lambda g: _distance_cell(g, distance[g.data]),
            number=lambda g: g.metrics.get(distance[g.data]),
        ),
        *metrics,
        Column("Parameters", lambda g: Cell(f"{g.card['parameters']:,}", value=g.card["parameters"])),
        Column("Training, s", lambda g: _cost_cell(g.train_seconds)),
        Column("Samples/s", lambda g: _cost_cell(g.samples_per_second), "descending"),
        Column("Network evaluations", _evaluations_cell),
        Column("Memorises", _memory_cell),
    ]


def likelihood_cell(group: Group) -> Cell:
    """Sorted by kind, then by value: no bound or estimate gets a place among exact numbers. Without a density: last."""
    number = group.likelihood
    if number is None:
        return Cell("none", ("no density",), None, len(KINDS))
    notes = [number.interval, KIND_WORDS[number.kind][1]]
    if group.upper:
        notes.append(f"other bound {group.upper.text}")
    return Cell(number.text, tuple(notes), number.value, KINDS.index(number.kind))


def _metric_column(name: str, first: str) -> Column:
    def cell(group: Group) -> Cell:
        number = group.metric(name)
        return Cell(number.text, (number.interval,), number.value) if number else MISSING

    return Column(name[0].upper() + name[1:], cell, first, lambda g: g.metric(name))


def _distance_cell(group: Group, name: str | None) -> Cell:
    number = group.metrics.get(name)
    if number is None:
        return MISSING
    multiple = number.floor if number.multiple is not None else ""
    return Cell(f"{name.split('-')[0]} {number.text}", (number.interval, multiple), number.value)


def _memory_cell(group: Group) -> Cell:
    if group.memorises is None:
        return Cell("not tested")
    if group.memorises:
        return Cell("⚑ flagged", (group.memorises_why,), 1, flag=True)
    return Cell("no flag", value=0)


def _cost_cell(number: Number | None) -> Cell:
    if number is None:
        return MISSING
    return Cell(digits(number.value), (f"± {digits(number.stderr)}",) if number.stderr else (), number.value)


def _evaluations_cell(group: Group) -> Cell:
    count = group.card.get("evaluations")
    return Cell("adaptive") if count is None else Cell(f"{count:,}", value=count)


def bodies(report: Report) -> list[tuple[dict[str, Any], list[Group]]]:
    """(heading, groups): one table body for each data set and extractor, the sets within which rows are sorted."""
    sets: dict[tuple[str, str], list[Group]] = {}
    for group in report.groups:
        sets.setdefault((group.data, group.extractor), []).append(group)
    shown = columns(report.groups)
    return [
        ({"text": _field(data, members[0]), "reference": any(column.reference(members) for column in shown)}, members)
        for (data, _), members in sets.items()
    ]


def _field(data: str, group: Group) -> str:
    extractor = group.card.get("extractor")
    return f"{data}, features of {extractor['name']} {extractor['hash'][:8].strip('0')}".strip() if extractor else data


# ---- methods ---------------------------------------------------------------------------------------------------------


def methods(report: Report) -> list[tuple[str, str]]:
    """(topic, text) of how the numbers came about, read from the cards."""
    cards = [card for group in report.groups for card in group.cards]
    if not cards:
        return []
    said = [
        (
            "Likelihood",
            "Shown as a cost on held-out test data, lower is better: bits per dimension, bits per byte of text, or "
            "nats per example. “≤” comes from a lower bound on log p, “≥” from an upper bound, “≈” is an estimate that "
            "can err to either side, no sign is exact. The kinds are never ranked against each other.",
        )
    ]
    extractors = {(g.data, g.extractor): g.card["extractor"] for g in report.groups if g.card.get("extractor")}
    for (data, _), e in extractors.items():
        said.append(("Features", f"On {data}: {e['name']}, hash {e['hash']}, fitted on {e['fit']}."))
    sizes = {f"{data}: " + _sizes(members) for data, members in report.fields.items() if headline(members)}
    if sizes:
        sizes = "; ".join(sorted(sizes))
        said.append(("Examples", f"{sizes}. Those of every other number stand beside it, family by family."))
    if any(n.null is not None for g in report.groups for n in g.metrics.values()):
        said.append(
            (
                "The floor",
                "The null value of a metric is what real data scores against other real data at the same sample size: "
                "no model can be told from the data below it. “1.30 × floor” is a distance 1.3 times as long.",
            )
        )
    several = any(len(group.cards) > 1 for group in report.groups)
    single = any(len(group.cards) == 1 for group in report.groups)
    intervals = "Intervals are 95 %. "
    if single:
        intervals += (
            "With one seed they are bootstrap intervals over examples: they do not cover the luck of the training run. "
        )
    if several:
        intervals += (
            "With several seeds the value is the mean, ± its standard error, and the interval is Student's t over "
            "seeds, or as wide as that over examples if this is wider. "
        )
    intervals += "A finding needs two intervals that do not overlap; times and speeds, measured once, a factor of 1.25."
    said.append(("Intervals", intervals))
    seeds = "; ".join(f"{g.label} on {g.data}: {', '.join(str(c['seed']) for c in g.cards)}" for g in report.groups)
    said.append(("Seeds", f"{seeds}."))
    versions = dict.fromkeys(f"{name} {v}" for card in cards for name, v in (card.get("versions") or {}).items())
    commits = dict.fromkeys(str(card["commit"]) for card in cards if card.get("commit"))
    seconds = sum(card["train_seconds"] for card in cards)
    machine = f"{_machines(report)}, {digits(seconds)} s of training in all"
    machine += f"; commit {', '.join(commits)}" if commits else ""
    said.append(("Machine and code", machine + (f"; {', '.join(versions)}." if versions else ".")))
    return said


def _sizes(groups: list[Group]) -> str:
    name = headline(groups)
    pairs = dict.fromkeys(g.metrics[name].n for g in groups if name in g.metrics)
    return " or ".join(f"{real:,} real and {generated:,} generated" for real, generated in pairs) + f" for {name}"


# ---- one family ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture as data. `moving`: what a Play button puts in its place."""

    src: str
    width: int
    height: int
    alt: str
    caption: str
    moving: str = ""
    smooth: bool = False


def family(group: Group, report: Report) -> dict[str, Any]:
    """What the section of a group shows."""
    folder = group.folders[0] / "evaluation"
    of = f"{group.label} on {group.data}"
    text = folder / "samples.txt"
    return {
        "group": group,
        "pictures": list(filter(None, _pictures(group, folder, of))),
        "text": text.read_text(encoding="utf-8", errors="replace")[:1500] if text.exists() else "",
        "of": of,
        "curves": charts.curves(group),
        "numbers": numbers(group),
        "commands": list(dict.fromkeys(card["command"] for card in group.cards)),
        "ablations": [a for a in report.ablations if a.name == group.card["experiment"]],
    }


def _pictures(group: Group, folder: Path, of: str):
    points = (folder / "density.png").exists()  # drawn, not made of pixels
    yield _picture(folder / "samples.png", f"Samples of {of}", "Samples, none selected.", smooth=points)
    alt = f"{group.label}'s sampler at work on {group.data}: the end of it until played"
    yield _moving(folder / "sampler.gif", alt, "The sampler at work; the still is its end.", smooth=points)
    nearest = "Samples above, and below each the training image nearest to it."
    why = f" Memorisation {'flagged' if group.memorises else 'not flagged'}: {group.memorises_why}."
    yield _picture(
        folder / "nearest.png",
        f"Eight samples of {of}, each above its nearest training image",
        nearest + (why if group.memorises is not None else ""),
    )
    yield _picture(
        folder / "density.png",
        f"The true law of {group.data} beside that of {group.label}",
        "Truth and model.",
        smooth=True,
    )


def _picture(path: Path, alt: str, caption: str, smooth: bool = False) -> Picture | None:
    if not path.exists():
        return None
    from PIL import Image

    with Image.open(path) as picture:
        width, height = picture.size
    return Picture(_data(path.read_bytes(), "png"), width, height, alt, caption, smooth=smooth)


def _moving(path: Path, alt: str, caption: str, smooth: bool = False) -> Picture | None:
    if not path.exists():
        return None
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(path) as picture:
        picture.seek(getattr(picture, "n_frames", 1) - 1)
        picture.convert("RGB").save(buffer, "png", optimize=True)
        width, height = picture.size
    return Picture(
        _data(buffer.getvalue(), "png"), width, height, alt, caption, _data(path.read_bytes(), "gif"), smooth
    )


def _data(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def numbers(group: Group) -> list[tuple[str, ...]]:
    """(quantity, value, interval, real data, N, every seed) of all that a group has."""
    rows = [
        (f"likelihood, {KIND_WORDS[n.kind or 'exact'][1]}", n) for n in (group.likelihood, group.upper) if n is not None
    ]
    rows += [(name, number) for name, number in group.metrics.items()]
    rows.append(("training, s", group.train_seconds))
    if group.samples_per_second:
        rows.append(("samples/s", group.samples_per_second))
    shown = []
    for name, n in rows:
        null = "" if n.null is None else digits(n.null, n.null_sd) + (f" ± {digits(n.null_sd)}" if n.null_sd else "")
        value = n.text + (f" ± {digits(n.stderr)}" if n.stderr else "")
        count = " real, ".join(f"{k:,}" for k in n.n) + (" generated" if len(n.n) == 2 else "")
        seeds = ", ".join(f"{seed}: {digits(v, n.half_width)}" for seed, v in n.seeds)
        shown.append((name, value, n.interval, null, count, seeds))
    for name in ("parameters", "steps", "evaluations"):
        if group.card.get(name) is not None:
            shown.append((name, f"{group.card[name]:,}", "", "", "", ""))
    return shown


def ablation_rows(ablation: Ablation) -> list[tuple[str, list[str]]]:
    """(variant, cells): mean ± standard error and difference to the baseline for each quantity."""
    return [
        (name.replace("_", " "), [text for quantity in ablation.quantities for text in ablation.cell(name, quantity)])
        for name in ablation.variants
    ]
