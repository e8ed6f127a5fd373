"""Small charts of the page, as SVG in the page's own colours: training curves, and quality against its price."""

from collections.abc import Callable
from typing import Any

from genmap_jax.logs import read_metrics
from genmap_jax.report.map_picture import inline_svg
from genmap_jax.report.rows import Group, Number, digits

CURVES = ("loss", "loss_d", "loss_g", "validation_bits_per_dim")
# Drawn in these, shown in the colours of the page's scheme.
COLOURS = {"#010203": "currentColor", "#040506": "var(--accent)", "#070809": "var(--soft)", "#0a0b0c": "var(--line)"}
INK, ACCENT, SOFT, LINE = COLOURS


def curves(group: Group) -> list[str]:
    """One SVG for each training curve that was logged, one line per seed."""
    logs = [read_metrics(folder / "metrics.jsonl") for folder in group.folders]
    names = [name for name in CURVES if any(name in row for rows in logs for row in rows)]
    return [_curve(group, name, logs) for name in names]


def _curve(group: Group, name: str, logs: list[list[dict[str, Any]]]) -> str:
    figure, axes = _axes(3.2, 2.1)
    ends = []
    for rows in logs:
        points = [(row["step"], row[name]) for row in rows if isinstance(row.get(name), int | float)]
        if points:
            style = {"color": ACCENT, "alpha": 1 if len(logs) == 1 else 0.6, "marker": "o" if len(points) < 8 else ""}
            axes.plot(*zip(*points, strict=True), linewidth=1.2, markersize=3.5, **style)
            ends.append(digits(points[-1][1]))
    words = name.replace("_", " ")
    axes.set_title(words, loc="left", fontsize=9, color=INK)
    axes.set_xlabel("step", fontsize=8, color=SOFT)
    of = f"{group.label} on {group.data}"
    return _themed(inline_svg(figure, f"{words} of {of} while training; it ends at {', '.join(ends)}"))


def price(groups: list[Group], metric: str) -> list[str]:
    """The metric against training and against sampling time, for groups measured alike; [] for fewer than three."""
    sides: list[tuple[str, Callable[[Group], float]]] = [
        ("seconds of training", lambda g: g.train_seconds.value),
        ("seconds for 1,000 samples", lambda g: 1000 / g.samples_per_second.value),
    ]
    timed = [g for g in groups if g.samples_per_second and g.samples_per_second.value > 0 and g.train_seconds.value > 0]
    return [_scatter(timed, metric, title, get) for title, get in sides] if len(timed) > 2 else []


def _scatter(groups: list[Group], metric: str, title: str, get: Callable[[Group], float]) -> str:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    figure, axes = _axes(5.2, 3.6)
    numbers: list[Number] = [g.metrics[metric] for g in groups]
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.4g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    xs, ys = [get(g) for g in groups], [n.value for n in numbers]
    errors = [[n.value - n.low for n in numbers], [n.high - n.value for n in numbers]]
    null, spread = numbers[0].null, numbers[0].null_sd or 0
    if null is not None:
        axes.axhspan(null - 2 * spread, null + 2 * spread, color=LINE, linewidth=0)
        axes.axhline(null, color=SOFT, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.text(0.01, null, "real data", transform=axes.get_yaxis_transform(), va="bottom", fontsize=8, color=SOFT)
    axes.errorbar(xs, ys, errors, fmt="o", color=ACCENT, markersize=6, elinewidth=1.1, capsize=0)
    room = max(1.5, (max(xs) / min(xs)) ** 0.16)
    axes.set_xlim(min(xs) / room, max(xs) * room)
    axes.margins(y=0.12)
    axes.set_xlabel(title, fontsize=9, color=SOFT)
    axes.set_title(f"{metric}, 95 % interval", loc="left", fontsize=10, color=INK)
    _label(figure, axes, groups, xs, ys)
    said = "; ".join(f"{g.label} {digits(x)}, {n.text}" for g, x, n in zip(groups, xs, numbers, strict=True))
    return _themed(inline_svg(figure, f"{metric} on {groups[0].data} against {title}", f"{said}."))


def _label(figure, axes, groups: list[Group], xs: list[float], ys: list[float]) -> None:
    """Names beside their points, each on the first side where it covers no other name or point."""
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    figure.canvas.draw()
    rises = (5, -11, 17, -23, 29, -35, 41, -47, 53)
    sides = [(dx, dy, side) for dy in rises for dx, side in ((7, "left"), (-7, "right"))]
    points = axes.transData.transform(list(zip(xs, ys, strict=True)))
    frame = axes.get_window_extent()
    taken = [text.get_window_extent() for text in axes.texts] + [Bbox.from_extents(*at - 4, *at + 4) for at in points]
    for group, at in zip(groups, points, strict=True):
        name = group.label if len(group.label) <= 20 else group.label[:19] + "…"
        boxes = []
        for dx, dy, side in sides:
            text = axes.annotate(
                name, at, xycoords="figure pixels", xytext=(dx, dy), textcoords="offset points",
                ha=side, fontsize=9, color=INK, parse_math=False,
                arrowprops={"arrowstyle": "-", "color": SOFT, "linewidth": 0.5, "shrinkB": 4} if abs(dy) > 11 else None,
            )  # fmt: skip
            text.set_in_layout(False)  # a name must not move the point it belongs to
            text.get_window_extent()  # finds its place
            box = Text.get_window_extent(text)  # without its line
            hidden = sum(box.overlaps(other) for other in taken)
            outside = box.x0 < frame.x0 or box.x1 > frame.x1 or box.y0 < frame.y0
            boxes.append((hidden + 2 * outside, len(boxes), text, box))
            if boxes[-1][0] == 0:
                break
        best = min(boxes, key=lambda item: item[:2])
        for item in boxes:
            if item is not best:
                item[2].remove()
        taken.append(best[3])


def _axes(width: float, height: float):
    """A figure of inches, dressed in colours that the page replaces."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", dpi=72)
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.tick_params(labelsize=8, colors=SOFT, labelcolor=SOFT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(SOFT)
    return figure, axes


def _themed(svg: str) -> str:
    for drawn, shown in COLOURS.items():
        svg = svg.replace(drawn, shown)
    return svg
