"""The map as a picture: a land for each way of having a density, a place for each family that was measured.

Coasts follow the places: a land is the smooth union of the boxes of its texts, a little roughened. So a new family
makes room for itself, and a text never hangs over the water.
"""

import math
import textwrap
from functools import reduce
from html import escape
from pathlib import Path

import numpy as np

from genmap_jax.report import svg
from genmap_jax.report.findings import headline
from genmap_jax.report.map_layout import Box, Layout, Region, by_region, hull, layout
from genmap_jax.report.pictures import zoomed
from genmap_jax.report.rows import Group

OCEAN = ("#9cc3d3", "#8bb6c9", "#7ba9bf", "#6c9cb5")  # from the coast outwards
LAND = {"tractable density": "#f6e7bd", "approximate density": "#f2cfa4", "implicit density": "#d5e3c2"}
INK, SOFT, SHORE, DEEP = "#1f2a33", "#4d5a63", "#5b7f92", "#10242f"
SERIF = "STIXGeneral"  # bundled with matplotlib: the picture is the same on every machine
SIGNS = {
    "exact": ("exact", "= exact"),
    "lower_bound": ("bound", "≤ upper bound on the bits"),
    "upper_bound": ("bound", "≥ lower bound on the bits"),
    "estimate": ("estimate", "≈ estimate"),
}
"""Kind of a likelihood -> (word after a number, words of the key)."""

TITLE = "The measured map of generative models"
THUMBNAIL = 76
"""Side of a thumbnail."""
ROUGH = 8.0
"""By how much a coast lies outside of its smooth line, on average."""
MARGIN = 24.0
"""From a text to the coast, before capes and bays."""


def write_map(groups: list[Group], stem: Path) -> None:
    """Write `stem`.svg and `stem`.png, the same picture."""
    plan = layout(groups, portrait=False)
    figure = draw(groups, plan)
    figure.savefig(stem.with_suffix(".png"), dpi=144)
    picture = svg.element(plan.width, plan.height, svg.drawn(figure, "map"), TITLE, describe(groups))
    stem.with_suffix(".svg").write_text(picture, encoding="utf-8")


def page_map(groups: list[Group], portrait: bool) -> str:
    """The map as an element of a page: below its heading, and every place leads to its group's section."""
    plan, prefix, top = layout(groups, portrait), "phone" if portrait else "wide", 84 if portrait else 60
    content = svg.drawn(draw(groups, plan, top), prefix)
    for region in plan.regions:
        for group, box in zip(region.groups, region.places, strict=True):
            name = f"{escape(group.label)} on {escape(group.data)}"
            size = f'x="{box.x:g}" y="{box.y - top:g}" width="{box.width:g}" height="{box.height:g}"'
            content += f'<a href="#{group.anchor}" aria-label="{name}"><rect {size} rx="8" fill="transparent"/></a>'
    return svg.element(plan.width, plan.height - top, content, TITLE, describe(groups), role="group")


def describe(groups: list[Group]) -> str:
    """The map in words, for those who do not see it."""
    parts = []
    for (_, region), members in by_region(groups).items():
        places = "; ".join(", ".join([g.label, *_lines(g, groups)]) for g in members)
        parts.append(f"{region.capitalize()}: {places}.")
    return " ".join(parts)


def _lines(group: Group, groups: list[Group]) -> list[str]:
    """What stands under a family's name."""
    lines = [f"{group.card['objective']} · {group.data}", "no density"]
    if group.likelihood:
        lines[1] = f"{group.likelihood.text} · {SIGNS[group.likelihood.kind][0]}"
    quality = headline([g for g in groups if g.data == group.data])
    if quality and (number := group.metrics.get(quality)):
        lines.append(f"{quality.split('-')[0]} {number.floor or number.text}")
    return lines


# ---- drawing ---------------------------------------------------------------------------------------------------------


def draw(groups: list[Group], plan: Layout, top: float = 0):
    """The figure, one unit a point. top: so much is cut off, and the title with it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(plan.width / 72, (plan.height - top) / 72))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, plan.width), ylim=(plan.height, top))
    axes.set_axis_off()
    _ground(axes, plan)
    for land, box in plan.lands.items():
        _text(axes, box.middle, box.y + 30, land.upper(), 30, box.width, align="center", spacing=0.28)
    for region in plan.regions:
        label = region.label
        _text(axes, label.middle, label.y + 19, region.name, 18, label.width, "center", style="italic", color=SOFT)
        for group, box in zip(region.groups, region.places, strict=True):
            _place(axes, group, box, _lines(group, groups))
    _key(axes, groups, plan)
    if not top:
        _paragraph(axes, TITLE, 44, plan, size=28, step=30, characters=25, style="italic")
    return figure


def _paragraph(axes, text: str, y: float, plan: Layout, *, size: float, step: float, characters: int, **style) -> None:
    """A text in one line to the left of a wide picture; broken and centred in a narrow one."""
    wide = plan.width > 500
    for i, line in enumerate(textwrap.wrap(text, 200 if wide else characters)):
        x, align = (32, "left") if wide else (plan.width / 2, "center")
        _text(axes, x, y + step * i, line, size, plan.width - 60, align, color=DEEP, **style)


def _key(axes, groups: list[Group], plan: Layout) -> None:
    """What the signs before the numbers mean."""
    kinds = {g.likelihood.kind for g in groups if g.likelihood}
    signs = " · ".join(words for kind, (_, words) in SIGNS.items() if kind in kinds)
    signs += ": not ranked against each other" if len(kinds) > 1 else ""
    floors = any(n.floor for g in groups for n in g.metrics.values())
    floor = "× floor: distance to the data as a multiple of that of real data to real data" if floors else ""
    bottom = plan.height - (43 if plan.width > 500 else 85)
    _paragraph(axes, signs, bottom, plan, size=15.5, step=21, characters=48)
    _paragraph(axes, floor, bottom + (21 if plan.width > 500 else 42), plan, size=15.5, step=21, characters=48)


def _place(axes, group: Group, box: Box, lines: list[str]) -> None:
    """A thumbnail and beside it the name and what was measured."""
    from matplotlib.patches import FancyBboxPatch

    left, top = box.x, box.y + (box.height - THUMBNAIL) / 2
    frame = FancyBboxPatch(
        (left + 3, top + 3), THUMBNAIL - 6, THUMBNAIL - 6,
        boxstyle="round,pad=3,rounding_size=7", facecolor="#fffdf6", edgecolor=INK, linewidth=1.1,
    )  # fmt: skip
    axes.add_patch(frame)
    _thumbnail(axes, group.folders[0] / "evaluation", left, top, frame)
    x, width = left + THUMBNAIL + 13, box.width - THUMBNAIL - 13
    names = textwrap.wrap(group.label, 17, max_lines=2, placeholder="…")
    step = 22 if len(names) + len(lines) < 5 else 20
    y = box.y + (box.height - step * (len(names) + len(lines) - 1)) / 2 + 7
    for name in names:
        _text(axes, x, y, name, 22 if len(names) == 1 else 17, width, weight="bold")
        y += step - 2
    _text(axes, x, y, lines[0], 15, width, style="italic", color=SOFT, keep=f" · {group.data}")
    for i, line in enumerate(lines[1:], 1):
        _text(axes, x, y + i * step, line, 17, width)


def _thumbnail(axes, folder: Path, left: float, top: float, frame) -> None:
    """Some of the group's own samples: four images, points or a few lines of text."""
    arrays = np.load(folder / "samples.npz") if (folder / "samples.npz").exists() else {}
    if "image" in arrays:
        from PIL import Image

        height, width = (2 * side - 2 for side in zoomed(*arrays["image"].shape[1:3]))
        with Image.open(folder / "samples.png") as picture:
            four = np.asarray(picture.convert("RGB").crop((0, 0, width, height)))
        inner = (left + 4, left + THUMBNAIL - 4, top + THUMBNAIL - 4, top + 4)
        axes.imshow(four, extent=inner, interpolation="none", zorder=3, aspect="auto").set_clip_path(frame)
    elif "x" in arrays:
        points = arrays["x"][:400, :2].astype(float)
        low, high = np.percentile(points, [1, 99], axis=0)
        unit = (points - (low + high) / 2) / (max(high - low) or 1.0)
        unit = unit[np.abs(unit).max(axis=1) < 0.55]
        at = unit * [1, -1] * (THUMBNAIL - 18) + [left + THUMBNAIL / 2, top + THUMBNAIL / 2]
        axes.plot(*at.T, ".", markersize=2.2, color="#1f5f86", alpha=0.6, markeredgewidth=0, zorder=3)
    elif (folder / "samples.txt").exists():
        lines = (folder / "samples.txt").read_text(encoding="utf-8").split("\n")
        shown = [line.strip()[:11] for line in lines if line.strip()][:5]
        for i, line in enumerate(shown):
            _text(axes, left + 8, top + 18 + 12 * i, line, 8.5, THUMBNAIL - 14, family="DejaVu Sans Mono")


def _text(
    axes, x, y, text, size, room, align="left", *, family=SERIF, color=INK, spacing=0.0, keep="", **style
) -> None:
    """One line on a baseline, made smaller, and then shorter, until it fits into `room`; its ending `keep` stays."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    text = "".join(c if c.isprintable() else "�" for c in text)
    font = FontProperties(family=[family, "DejaVu Sans"], size=size, **style)

    def advance(text: str) -> float:
        return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]

    def length(text: str) -> float:
        return advance(text) + spacing * font.get_size() * (len(text) - 1)

    while length(text) > room and font.get_size() > 0.8 * size:
        font.set_size(font.get_size() - 0.5)
    if length(text) > room:
        text = text.removesuffix(keep)
        while len(text) > 1 and length(text + "…" + keep) > room:
            text = text[:-1]
        text += "…" + keep
    x -= length(text) / 2 if align == "center" else 0
    for piece in text if spacing else [text]:
        axes.text(x, y, piece, fontproperties=font, color=color, parse_math=False, zorder=4)
        x += advance(piece) + spacing * font.get_size()


# ---- land and water --------------------------------------------------------------------------------------------------


def _ground(axes, plan: Layout) -> None:
    """Water with depth lines, then every land with its regions."""
    step = 4.0
    x, y = np.meshgrid(np.arange(-step, plan.width + 2 * step, step), np.arange(-step, plan.height + 2 * step, step))
    rough = _roughness(x, y)
    shapes: dict[str, list[np.ndarray]] = {land: [] for land in plan.lands}
    for region in plan.regions:
        shapes[region.land].append(_distance(x, y, hull([region.label, *region.places]), MARGIN))
    names = {
        land: _distance(x, y, Box(box.middle - 90, box.y, 180, box.height), 14) for land, box in plan.lands.items()
    }
    coasts = {land: reduce(_smooth_union, [*shapes[land], names[land]]) + rough for land in shapes}
    water = reduce(np.minimum, coasts.values())
    axes.contourf(x, y, water, levels=[-1e9, 12, 30, 56, 1e9], colors=OCEAN)
    _graticule(axes, plan.width, plan.height)
    for land, coast in coasts.items():
        regions = [region for region in plan.regions if region.land == land]
        _land(axes, x, y, coast, names[land], regions, shapes[land], rough)


def _land(axes, x, y, coast: np.ndarray, name: np.ndarray, regions: list[Region], shapes: list, rough) -> None:
    """One land of one or two regions: each up to the coast and to the border between them, which spares the name."""
    border = shapes[0] - shapes[1] + rough + ROUGH if len(regions) == 2 else np.full_like(coast, -1e3)
    for side, region in zip((1, -1), regions, strict=False):
        axes.contourf(x, y, np.maximum(coast, side * border), levels=[-1e9, 0], colors=[LAND[region.name]])
    if len(regions) == 2:
        line = np.where((coast < -3) & (name > -8), border, np.nan)
        axes.contour(x, y, line, levels=[0], colors=[SOFT], linewidths=1.1, linestyles=[(0, (4, 4))])
    axes.contour(x, y, coast, levels=[0], colors=[SHORE], linewidths=1.6)


def _graticule(axes, width: float, height: float) -> None:
    """Faint meridians and parallels: this is a map."""
    along, style = np.linspace(0, 1, 60), {"color": "white", "alpha": 0.16, "linewidth": 0.8}
    for at in range(130, math.ceil(width), 130):
        axes.plot(at + (at - width / 2) * 0.05 * np.sin(np.pi * along), along * height, **style)
    for at in range(130, math.ceil(height), 130):
        axes.plot(along * width, at + (at - height / 2) * 0.05 * np.sin(np.pi * along), **style)


def _roughness(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A fixed smooth field of about -ROUGH ± 14 units: capes and bays, the same in every picture."""
    rng = np.random.default_rng(7)
    total = np.full_like(x, -ROUGH)
    for wavelength, height in ((330, 4.5), (170, 3.4), (90, 2.4), (48, 1.5), (27, 0.9)):
        for _ in range(3):
            angle, phase = rng.uniform(0, 2 * np.pi, 2)
            total += height * np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / wavelength + phase)
    return np.where(total > 0, 14 * np.tanh(total / 14), total)  # less than MARGIN: no bay reaches a text


def _distance(x: np.ndarray, y: np.ndarray, box: Box, margin: float, radius: float = 36) -> np.ndarray:
    """Signed distance to a box grown by a margin and rounded, negative inside."""
    dx = np.abs(x - box.middle) - box.width / 2 - margin + radius
    dy = np.abs(y - box.y - box.height / 2) - box.height / 2 - margin + radius
    outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
    return outside + np.minimum(np.maximum(dx, dy), 0) - radius


def _smooth_union(one: np.ndarray, other: np.ndarray, k: float = 60) -> np.ndarray:
    """The minimum of two distances, which fills the notch between their shapes over about `k` units."""
    h = np.clip(0.5 + 0.5 * (other - one) / k, 0, 1)
    return other + (one - other) * h - k * h * (1 - h)
