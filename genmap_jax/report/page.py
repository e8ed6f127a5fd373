"""One self-contained HTML page from evaluated run folders, readable offline; its map and numbers as files beside it."""

import base64
import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from genmap_jax.files import write_text
from genmap_jax.report import charts
from genmap_jax.report.comparison import bodies, columns
from genmap_jax.report.findings import CLEAR_FACTOR, comparable, findings
from genmap_jax.report.map_picture import page_map, write_map
from genmap_jax.report.numbers import KINDS, Quantity, digits
from genmap_jax.report.rows import Card, Group, Report, read
from genmap_jax.report.tables import write_tables


def write_page(
    folders: Iterable[Path], path: Path, waiting: Sequence[str] = (), remaining_seconds: float | None = None
) -> Path:
    """Write the page of run folders and ablation folders to `path`, and return `path`.

    waiting: names of the runs still to come, while the map grows: the page names them, and is all that is written.
    Without any, map.svg, map.png, numbers.csv and numbers.parquet are written beside it.
    remaining_seconds: how long these runs are expected to take, if that is known.
    Folders without a card are named as not finished. Raises ValueError as `rows.read` does.
    """
    report = read(folders)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not waiting:
        write_tables(report, path.with_name("numbers"))
        if report.groups:
            write_map(report.groups, path.with_name("map"))
    write_text(path, _render(report, waiting, remaining_seconds))
    return path


def _render(report: Report, waiting: Sequence[str], remaining_seconds: float | None) -> str:
    import jinja2

    source = files("genmap_jax.report")
    template, style, script = (
        source.joinpath(f"page.{kind}").read_text(encoding="utf-8") for kind in ("html.jinja", "css", "js")
    )
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    groups, cards = report.groups, [card for group in report.groups for card in group.cards]
    return environment.from_string(template).render(
        report=report,
        summary=_summary(groups, cards),
        waiting=waiting,
        remaining=_minutes(remaining_seconds),
        maps={kind: page_map(groups, kind == "phone") for kind in ("wide", "phone")} if groups else {},
        findings={data: (findings(members), _prices(members)) for data, members in report.fields.items()},
        columns=columns(groups),
        bodies=bodies(groups),
        methods=_methods(groups, cards),
        clear_factor=CLEAR_FACTOR,
        families=[family(group, report) for group in groups],
        ablations=[a for a in report.ablations if a.experiment not in {g.card["experiment"] for g in groups}],
        unfinished=[name for name in report.unfinished if name not in waiting],
        style=style,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _summary(groups: list[Group], cards: list[Card]) -> str:
    """What was measured, in one sentence."""
    if not groups:
        return "Nothing has been measured yet."
    systems, data = len({g.card["system"] for g in groups}), len({g.data for g in groups})
    return (
        f"{_count(systems, 'family', 'families')} on {_count(data, 'data set', 'data sets')}, measured in "
        f"{_count(len(cards), 'run', 'runs')} that trained for "
        f"{digits(sum(card['train_seconds'] for card in cards) / 60)} minutes in all on {_machines(cards)}."
    )


def _count(n: int, one: str, many: str) -> str:
    return f"{n} {one if n == 1 else many}"


def _machines(cards: list[Card]) -> str:
    kinds = dict.fromkeys((card["devices"], card["device_kind"] or card["platform"]) for card in cards)
    return " and ".join(_count(n, f"{kind} device", f"{kind} devices") for n, kind in kinds)


def _minutes(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"about {_count(round(seconds / 60), 'minute', 'minutes')}" if seconds >= 90 else "about a minute"


def _prices(groups: list[Group]) -> list[str]:
    return [svg for metric, rivals in comparable(groups) for svg in charts.price(rivals, metric)]


def _methods(groups: list[Group], cards: list[Card]) -> dict[str, str]:
    """Topic -> how these numbers came about; what holds for every page is said by the template."""
    extractors = {(g.data, g.extractor): g.card["extractor"] for g in groups if g.extractor}
    features = [
        f"on {data}: {e['name']}, hash {e['hash']}, fitted on {e['fit']}" for (data, _), e in extractors.items()
    ]
    versions = dict.fromkeys(f"{name} {v}" for card in cards for name, v in (card["versions"] or {}).items())
    commits = dict.fromkeys(f"commit {card['commit']}" for card in cards if card["commit"])
    machine = [f"{_machines(cards)}, {digits(sum(card['train_seconds'] for card in cards))} s of training in all"]
    said = {"Features": features, "Machine and code": [*machine, *commits, ", ".join(versions)]}
    return {topic: f"{'; '.join(parts)}." for topic, parts in said.items() if parts}


# ---- one family ------------------------------------------------------------------------------------------------------


class Picture(NamedTuple):
    """A picture as data. `moving`: what a Play button puts in its place. `smooth`: drawn, not made of pixels."""

    src: str
    width: int
    height: int
    alt: str
    caption: str
    moving: str
    smooth: bool


def family(group: Group, report: Report) -> dict[str, Any]:
    """What the section of a group shows."""
    folder, of = group.folders[0] / "evaluation", f"{group.label} on {group.data}"
    text = folder / "samples.txt"
    return {
        "group": group,
        "of": of,
        "pictures": list(_pictures(group, folder, of)),
        "text": text.read_text(encoding="utf-8", errors="replace")[:1500] if text.exists() else "",
        "curves": charts.curves(group),
        "numbers": numbers(group),
        "commands": list(dict.fromkeys(card["command"] for card in group.cards)),
        "ablations": [a for a in report.ablations if a.experiment == group.card["experiment"]],
    }


def _pictures(group: Group, folder: Path, of: str) -> Iterator[Picture]:
    """Those of the pictures that there are."""
    flag = f" Memorisation {'flagged' if group.memorises else 'not flagged'}: {group.memorises_why}."
    said = {
        "samples.png": (f"Samples of {of}", "Samples, none selected."),
        "sampler.gif": (
            f"The sampler of {of} at work: its end until played",
            "The sampler at work; the still is its end.",
        ),
        "nearest.png": (
            f"Eight samples of {of}, each above its nearest training image",
            f"Samples above, and below each the training image nearest to it.{flag}",
        ),
        "density.png": (f"The true law of {group.data} beside that of {group.label}", "Truth and model."),
    }
    smooth = not (folder / "nearest.png").exists()
    for name, words in said.items():
        if (folder / name).exists():
            yield _picture(folder / name, *words, smooth)


def _picture(path: Path, alt: str, caption: str, smooth: bool) -> Picture:
    """A picture file; of an animation the last frame, and the whole as what moves."""
    from PIL import Image

    content, moving = path.read_bytes(), ""
    with Image.open(path) as picture:
        if path.suffix == ".gif":
            moving, buffer = _data(content, "gif"), io.BytesIO()
            picture.seek(getattr(picture, "n_frames", 1) - 1)
            picture.convert("RGB").save(buffer, "png")
            content = buffer.getvalue()
        return Picture(_data(content, "png"), *picture.size, alt, caption, moving, smooth)


def _data(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


SPEEDS = {
    "examples_per_second": "examples/s in training",
    "tflops_per_device": "TFLOP/s on each device in training",
    "utilisation": "share of the device's peak in bfloat16",
    "peak_gib": "GiB in use on a device, at most",
}
"""What a card says of the speed of training, of its first seed -> as the page says it."""


def shares(spent: dict[str, float]) -> str:
    """Shares of the wall time, the largest first, as in: step 81 %, evaluation 12 %, start 7 %."""
    whole = sum(spent.values()) or 1.0
    parts = sorted(((100 * seconds / whole, kind) for kind, seconds in spent.items()), reverse=True)
    return ", ".join(f"{kind} {share:.0f} %" for share, kind in parts if share >= 0.5)


def numbers(group: Group) -> list[tuple[str, ...]]:
    """(quantity, value, interval, real data, N, every seed) of all that a group has."""
    quantities: dict[str, Quantity | None]
    quantities = {f"likelihood, {KINDS[n.kind][1]}": n for n in (group.likelihood, group.upper) if n}
    quantities |= group.metrics | {"training, s": group.train_seconds, "samples/s": group.samples_per_second}
    shown: list[tuple[str, ...]] = []
    for name, n in quantities.items():
        if n is None:
            continue
        null = n.real + (f" ± {digits(n.null_sd)}" if n.null_sd else "")
        value = n.text + (f" ± {digits(n.stderr)}" if n.stderr else "")
        count = " real, ".join(f"{k:,}" for k in n.n) + (" generated" if len(n.n) == 2 else "")
        seeds = ", ".join(f"{seed}: {digits(v, n.half_width)}" for seed, v in n.seeds)
        shown.append((name, value, n.interval, null, count, seeds))
    if spent := group.card.get("time"):
        shown.append(
            ("wall time of the first seed" if len(group.cards) > 1 else "wall time", shares(spent), "", "", "", "")
        )
    for name, title in SPEEDS.items():
        if value := group.card.get("speed", {}).get(name):
            shown.append((title, digits(value), "", "", "", ""))
    counts = {name: group.card[name] for name in ("parameters", "steps", "evaluations") if group.card[name] is not None}
    return shown + [(name, f"{count:,}", "", "", "", "") for name, count in counts.items()]
