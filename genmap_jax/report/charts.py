"""The charts of the page: training curves, and quality against its price."""

from collections.abc import Callable
from typing import Any

from genmap_jax.files import read_metrics
from genmap_jax.report.findings import Rival, samples_per_second
from genmap_jax.report.numbers import digits
from genmap_jax.report.plot import Plot
from genmap_jax.report.rows import Group

CURVES = ("loss", "validation_bits")
"""How the names of the logged metrics begin that are drawn."""


def curves(group: Group) -> list[str]:
    """One SVG for each training curve that was logged, one line per seed."""
    logs = [read_metrics(folder / "metrics.jsonl") for folder in group.folders]
    logged = {name: value for rows in logs for row in rows for name, value in row.items()}
    names = [name for name, value in logged.items() if name.startswith(CURVES) and isinstance(value, int | float)]
    return [_curve(group, name, logs) for name in names]


def _curve(group: Group, name: str, logs: list[list[dict[str, Any]]]) -> str:
    lines = [line for rows in logs if (line := [(row["step"], row[name]) for row in rows if name in row])]
    plot = Plot(300, 190, x=[x for line in lines for x, _ in line], y=[y for line in lines for _, y in line])
    for line in lines:
        plot.line(line, 1 if len(lines) == 1 else 0.6)
        plot.dots(line if len(line) < 8 else [], 2)
    words, ends = name.replace("_", " "), ", ".join(digits(line[-1][1]) for line in lines)
    return plot.svg(words, "step", f"{words} of {group.label} on {group.data} while training; it ends at {ends}")


def price(rivals: list[Rival], metric: str) -> list[str]:
    """The metric against training and against sampling time, for rivals measured alike; [] for fewer than three."""
    timed = [r for r in rivals if r.group.samples_per_second and r.group.train_seconds.value > 0]
    sides: dict[str, Callable[[Group], float]] = {
        "seconds of training": lambda g: g.train_seconds.value,
        "seconds for 1,000 samples": lambda g: 1000 / samples_per_second(g),
    }
    return [_scatter(timed, metric, title, get) for title, get in sides.items()] if len(timed) > 2 else []


def _scatter(rivals: list[Rival], metric: str, title: str, get: Callable[[Group], float]) -> str:
    labels, numbers = [r.label for r in rivals], [r.number for r in rivals]
    points = [(get(r.group), r.number.value) for r in rivals]
    null, spread = numbers[0].null, 2 * (numbers[0].null_sd or 0)
    floor = [] if null is None else [null - spread, null + spread]
    intervals = [(n.low, n.high) for n in numbers if n.low is not None and n.high is not None]  # rivals all have one
    plot = Plot(470, 330, [x for x, _ in points], [*floor, *(e for ends in intervals for e in ends)], log=True)
    if null is not None:
        plot.level(null, spread, "real data")
    for (x, _), (low, high) in zip(points, intervals, strict=True):
        plot.line([(x, low), (x, high)])
    plot.dots(points, 4)
    plot.names(labels, points)
    said = "; ".join(f"{label} {digits(x)}, {n.text}" for label, (x, _), n in zip(labels, points, numbers, strict=True))
    named = f"{metric} on {rivals[0].group.data} against {title}"
    return plot.svg(f"{metric}, 95 % interval", title, named, f"{said}.")
