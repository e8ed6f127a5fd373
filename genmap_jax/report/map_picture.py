"""The map as a picture: a land for each way of having a density, a place for each family that was measured.

Coasts follow the places: a land is the smooth union of the boxes of its texts, a little roughened. So a new family
makes room for itself, and a text never hangs over the water.
"""

import dataclasses
import hashlib
import io
import math
import re
from collections.abc import Iterable
from html import escape
from pathlib import Path

import numpy as np

from genmap_jax.report.findings import headline
from genmap_jax.report.rows import Group, place_words

OCEAN = ("#9cc3d3", "#8bb6c9", "#7ba9bf", "#6c9cb5")  # from the coast outwards
LAND = {
    "tractable density": "#f6e7bd",
    "approximate density": "#f2cfa4",
    "implicit density": "#d5e3c2",
    "": "#e3dcea",
}
INK, SOFT, SHORE, DEEP = "#1f2a33", "#4d5a63", "#5b7f92", "#10242f"
SHORT_KIND = {"exact": "exact", "lower_bound": "bound", "upper_bound": "bound", "estimate": "estimate"}
SERIF = "STIXGeneral"  # bundled with matplotlib: the picture is the same on every machine

PLACE = (288, 92)  # width and height of a place: thumbnail and four lines
PITCH = (322, 124)
THUMBNAIL = 76
ROUGH = 8.0
MARGIN = 24.0  # from a text to the coast, before capes and bays
EDGE = 100.0  # from the outermost places to the edge of the picture


@dataclasses.dataclass
class _Box:
    """A text block on the map: top left corner and size, in picture units, y downwards."""

    x: float
    y: float
    width: float
    height: float


@dataclasses.dataclass
class _Region:
    land: str
    name: str
    groups: list[Group]
    label: _Box
    places: list[_Box]


def write_map(groups: list[Group], stem: Path) -> tuple[Path, Path, Path]:
    """Write `stem`.svg, `stem`.png (the same picture) and `stem`_phone.svg (one column); returns the paths."""
    paths = stem.with_suffix(".svg"), stem.with_suffix(".png"), stem.with_name(f"{stem.name}_phone.svg")
    paths[0].write_text(svg_map(groups), encoding="utf-8")
    figure = _draw(groups, portrait=False)
    figure.savefig(paths[1], dpi=144)
    paths[2].write_text(svg_map(groups, portrait=True), encoding="utf-8")
    return paths


def svg_map(groups: list[Group], *, portrait: bool = False, links: bool = False) -> str:
    """The map as an SVG element with title and description. `links`: places lead to the groups' anchors of a page."""
    figure = _draw(groups, portrait=portrait, links=links)
    svg = inline_svg(figure, "The measured map of generative models", describe(groups))
    if not links:
        return svg
    for group in groups:
        # Frame and name are both links for the mouse; for the keyboard and for readers the place is one.
        before, *after = re.split(f'<a xlink:href="#{group.anchor}" target="_blank">', svg)
        named = f'<a href="#{group.anchor}" aria-label="{escape(group.label)} on {escape(group.data)}">'
        silent = f'<a href="#{group.anchor}" tabindex="-1" aria-hidden="true">'
        svg = before + "".join((silent if i else named) + part for i, part in enumerate(after))
    return svg.replace('role="img"', 'role="group"', 1)


def describe(groups: list[Group]) -> str:
    """The map in words, for those who do not see it."""
    parts = []
    for (land, region), members in _by_region(groups).items():
        places = "; ".join(", ".join([g.label, *_lines(g, headline_of(groups, g))]) for g in members)
        parts.append(f"{place_words(land, region)}: {places}.")
    return " ".join(parts)


def headline_of(groups: list[Group], group: Group) -> str | None:
    """The quality metric of the group's data set."""
    return headline([g for g in groups if g.data == group.data])


def inline_svg(figure, title: str, description: str = "") -> str:
    """A figure as an <svg> element fit for a page: named, ids its own, coordinates short, no XML prologue."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    FigureCanvasSVG(figure)
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "genmap", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bd="[^"]*"', lambda m: re.sub(r"(\d+\.\d)\d+", r"\1", m[0]), svg)  # a tenth of a point is enough
    svg = re.sub(r"\s*\n\s*", " ", svg)
    svg = re.sub(r'(<image\b[^>]*?) id="[^"]*"', r"\1", svg)  # made from the content: equal pictures, equal ids
    # Several pictures share a page, and browsers resolve an id to its first use.
    own = hashlib.sha256((title + svg).encode()).hexdigest()[:8]
    svg = re.sub(r'\bid="([^"]*)"', rf'id="{own}-\1"', svg)
    ids = set(re.findall(rf'\bid="{own}-([^"]*)"', svg))
    svg = re.sub(r'href="#([^"]*)"', lambda m: f'href="#{own}-{m[1]}"' if m[1] in ids else m[0], svg)
    svg = re.sub(r"url\(#([^)]*)\)", rf"url(#{own}-\1)", svg)
    named = f'role="img" aria-labelledby="{own}-title"' + (f' aria-describedby="{own}-desc"' if description else "")
    texts = f'<title id="{own}-title">{escape(title)}</title>'
    texts += f'<desc id="{own}-desc">{escape(description)}</desc>' if description else ""
    return re.sub(r"<svg([^>]*)>", lambda m: f"<svg {named}{m[1]}>{texts}", svg, count=1).strip()


# ---- layout ----------------------------------------------------------------------------------------------------------


def _by_region(groups: list[Group]) -> dict[tuple[str, str], list[Group]]:
    regions: dict[tuple[str, str], list[Group]] = {}
    for group in sorted(groups, key=lambda g: list(LAND).index(g.land[1])):
        regions.setdefault(group.land, []).append(group)
    return regions


def _layout(groups: list[Group], portrait: bool) -> tuple[list[_Region], float, float]:
    """Regions side by side (one below the other if `portrait`), and width and height of the picture."""
    members = _by_region(groups)
    most = max(map(len, members.values()), default=1)
    if portrait:
        return _stack(members)
    # The number of rows that gives the picture the shape of a page.
    options = [_columns(members, rows) for rows in range(1, most + 1)]
    return min(options, key=lambda option: abs(math.log(option[1] / option[2] / 1.55)))


def _columns(members: dict[tuple[str, str], list[Group]], rows: int) -> tuple[list[_Region], float, float]:
    depth = {key: min(rows, len(groups)) for key, groups in members.items()}
    tallest = max(depth.values(), default=1)
    x, top, regions, previous = EDGE, 168.0, [], None
    for (land, name), groups in members.items():
        if previous is not None:
            x += 40 if land == previous else 150
        previous = land
        deep = depth[land, name]
        columns = -(-len(groups) // deep)
        # A lower land lies in the middle; the regions of one land begin on one line.
        start = top + 42 + (tallest - max(d for key, d in depth.items() if key[0] == land)) * PITCH[1] / 2
        places = []
        for i in range(len(groups)):
            column, row = i // deep, i % deep
            # Places lean aside, and a column that is not full is centred: towns are not on a grid.
            short = (deep - min(deep, len(groups) - column * deep)) * PITCH[1] / 2
            lean = 7 * (-1) ** (row + column + len(regions)) if deep > 1 else 0
            places.append(_Box(x + column * PITCH[0] + lean, start + short + row * PITCH[1], *PLACE))
        width = columns * PITCH[0] - (PITCH[0] - PLACE[0])
        regions.append(_Region(land, name, groups, _Box(x, start - 42, width, 24), places))
        x += width
    width = max(x + EDGE, 760)
    for region in regions:
        for box in (region.label, *region.places):
            box.x += (width - EDGE - x) / 2
    return regions, width, top + 42 + tallest * PITCH[1] + 104


def _stack(members: dict[tuple[str, str], list[Group]]) -> tuple[list[_Region], float, float]:
    y, regions, previous = 168.0, [], None
    for (land, name), groups in members.items():
        if previous is not None:
            y += 26 if land == previous else 132
        previous = land
        label = _Box(56, y, PLACE[0], 24)
        y += 42
        places = []
        for i in range(len(groups)):
            places.append(_Box(56 + (5 * (-1) ** i if len(groups) > 1 else 0), y, *PLACE))
            y += PITCH[1] - 6
        regions.append(_Region(land, name, groups, label, places))
    return regions, 400, y + 168


# ---- drawing ---------------------------------------------------------------------------------------------------------


def _draw(groups: list[Group], *, portrait: bool, links: bool = False):
    """The figure. With `links` it is part of a page, whose heading stands above it: no title."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    regions, width, height = _layout(groups, portrait)
    top = (84 if portrait else 60) if links else 0
    figure = Figure(figsize=(width / 72, (height - top) / 72))  # one unit is one point: fonts and boxes share a scale
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, top))
    axes.set_axis_off()
    titles = _lands(regions)
    _ground(axes, regions, titles, width, height)
    for land, box in titles.items():
        _text(axes, box.x + box.width / 2, box.y + 30, land.upper(), 30, box.width, align="center", spacing=0.28)
    for region in regions:
        label, middle = region.label, region.label.x + region.label.width / 2
        _text(axes, middle, label.y + 19, region.name, 18, label.width, align="center", style="italic", color=SOFT)
        for group, box in zip(region.groups, region.places, strict=True):
            lines = _lines(group, headline_of(groups, group))
            _place(axes, group, box, lines, f"#{group.anchor}" if links else None)
    _key(axes, groups, width, height, portrait)
    if not links:
        _title(axes, width, portrait)
    return figure


def _lands(regions: list[_Region]) -> dict[str, _Box]:
    """Land -> the box of its name, above its highest region."""
    titles = {}
    for land in dict.fromkeys(region.land for region in regions):
        boxes = [r.label for r in regions if r.land == land]
        left, right = min(b.x for b in boxes), max(b.x + b.width for b in boxes)
        titles[land] = _Box(left, min(b.y for b in boxes) - 48, right - left, 36)
    return titles


def _ground(axes, regions: list[_Region], titles: dict[str, _Box], width: float, height: float) -> None:
    """Water with depth lines, then every region up to its coast and its border."""
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((0, 0), width, height, facecolor=OCEAN[-1], edgecolor="none"))
    if not regions:
        return
    step = 4.0
    x, y = np.meshgrid(np.arange(-step, width + 2 * step, step), np.arange(-step, height + 2 * step, step))
    rough = _roughness(x, y)
    coast, names, distances = {}, {}, []
    for region in regions:
        distances.append(_distance(x, y, _hull([region.label, *region.places]), MARGIN))
    for land, title in titles.items():
        own = [d for d, region in zip(distances, regions, strict=True) if region.land == land]
        name = _Box(title.x + title.width / 2 - 90, title.y, 180, title.height)
        names[land] = _distance(x, y, name, 14)
        coast[land] = _smooth_union([*own, names[land]], 60) + rough
    water = np.minimum.reduce(list(coast.values()))
    edges = [0, 12, 30, 56, 1e9]
    axes.contourf(x, y, water, levels=edges, colors=OCEAN, antialiased=True)
    _graticule(axes, width, height)
    for region, mine in zip(regions, distances, strict=True):
        neighbours = [d for d, r in zip(distances, regions, strict=True) if r is not region and r.land == region.land]
        border = mine - np.minimum.reduce(neighbours) + rough + ROUGH if neighbours else np.full_like(x, -1e3)
        if neighbours and regions.index(region) > 0 and regions[regions.index(region) - 1].land == region.land:
            border = mine - np.minimum.reduce(neighbours) - rough - ROUGH  # the same line, seen from the other side
        inside = np.maximum(coast[region.land], border)
        axes.contourf(x, y, inside, levels=[-1e9, 0], colors=[LAND[region.name]], antialiased=True)
        if neighbours:
            line = np.where((coast[region.land] < -3) & (names[region.land] > -8), border, np.nan)
            axes.contour(x, y, line, levels=[0], colors=[SOFT], linewidths=1.1, linestyles=[(0, (4, 4))])
    for land in coast.values():
        axes.contour(x, y, land, levels=[0], colors=[SHORE], linewidths=1.6)


def _graticule(axes, width: float, height: float) -> None:
    """Faint meridians and parallels: this is a map."""
    along = np.linspace(0, 1, 60)
    for i in range(1, math.ceil(width / 130)):
        bend = (i * 130 - width / 2) * 0.05 * np.sin(np.pi * along)
        axes.plot(i * 130 + bend, along * height, color="white", alpha=0.16, linewidth=0.8)
    for i in range(1, math.ceil(height / 130)):
        bend = (i * 130 - height / 2) * 0.05 * np.sin(np.pi * along)
        axes.plot(along * width, i * 130 + bend, color="white", alpha=0.16, linewidth=0.8)


def _roughness(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A fixed smooth field of about -ROUGH ± 14 units: capes and bays, the same in every picture."""
    rng = np.random.default_rng(7)
    total = np.full_like(x, -ROUGH)
    for wavelength, height in ((330, 4.5), (170, 3.4), (90, 2.4), (48, 1.5), (27, 0.9)):
        for _ in range(3):
            angle, phase = rng.uniform(0, 2 * np.pi, 2)
            total += height * np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / wavelength + phase)
    return np.where(total > 0, 14 * np.tanh(total / 14), total)  # less than MARGIN: no bay reaches a text


def _hull(boxes: list[_Box]) -> _Box:
    """The smallest box around boxes."""
    x, y = min(b.x for b in boxes), min(b.y for b in boxes)
    return _Box(x, y, max(b.x + b.width for b in boxes) - x, max(b.y + b.height for b in boxes) - y)


def _distance(x: np.ndarray, y: np.ndarray, box: _Box, margin: float) -> np.ndarray:
    """Signed distance to a box grown by a margin and rounded, negative inside."""
    radius = 36
    dx = np.abs(x - box.x - box.width / 2) - box.width / 2 - margin + radius
    dy = np.abs(y - box.y - box.height / 2) - box.height / 2 - margin + radius
    outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
    return outside + np.minimum(np.maximum(dx, dy), 0) - radius


def _smooth_union(distances: list[np.ndarray], k: float) -> np.ndarray:
    """Minimum that fills the notch between two shapes over about `k` units."""
    total = distances[0]
    for other in distances[1:]:
        h = np.clip(0.5 + 0.5 * (other - total) / k, 0, 1)
        total = other + (total - other) * h - k * h * (1 - h)
    return total


def _lines(group: Group, quality: str | None) -> list[str]:
    """What stands under a family's name."""
    lines = [f"{group.card['objective']} · {group.data}"]
    likelihood = group.likelihood
    lines.append(f"{likelihood.text} · {SHORT_KIND[likelihood.kind]}" if likelihood else "no density")
    if quality in group.metrics:
        number = group.metrics[quality]
        short = quality.split("-")[0]
        lines.append(f"{short} {number.floor}" if number.multiple is not None else f"{short} {number.text}")
    return lines


def _place(axes, group: Group, box: _Box, lines: list[str], url: str | None) -> None:
    from matplotlib.patches import FancyBboxPatch

    left, top = box.x, box.y + (box.height - THUMBNAIL) / 2
    frame = FancyBboxPatch(
        (left + 3, top + 3),
        THUMBNAIL - 6,
        THUMBNAIL - 6,
        boxstyle="round,pad=3,rounding_size=7",
        facecolor="#fffdf6",
        edgecolor=INK,
        linewidth=1.1,
        url=url,
    )
    axes.add_patch(frame)
    _thumbnail(axes, group, left, top, frame)
    x, width = left + THUMBNAIL + 13, box.width - THUMBNAIL - 13
    names = _wrapped(group.label, 22, width)
    step = 22 if len(names) + len(lines) < 5 else 20
    y = box.y + (box.height - step * (len(names) + len(lines) - 1)) / 2 + 7
    for name in names:
        _text(axes, x, y, name, 22 if len(names) == 1 else 17, width, weight="bold", url=url)
        y += step - 2
    _text(axes, x, y, lines[0], 15, width, style="italic", color=SOFT, keep=f" · {group.data}")
    for line in lines[1:]:
        y += step
        _text(axes, x, y, line, 17, width)


def _wrapped(text: str, size: float, room: float) -> list[str]:
    """A name in one line, or in two if it has a space and is far too long."""
    from matplotlib.font_manager import FontProperties

    words = text.split()
    if len(words) < 2 or _advance(text, FontProperties(family=SERIF, weight="bold", size=0.75 * size)) <= room:
        return [text]
    cut = min(range(1, len(words)), key=lambda i: abs(len(" ".join(words[:i])) - len(" ".join(words[i:]))))
    return [" ".join(words[:cut]), " ".join(words[cut:])]


def _thumbnail(axes, group: Group, left: float, top: float, frame) -> None:
    """Four of the group's own samples: images, points or text."""
    folder = group.folders[0] / "evaluation"
    inner = (left + 4, left + THUMBNAIL - 4, top + THUMBNAIL - 4, top + 4)
    arrays = np.load(folder / "samples.npz") if (folder / "samples.npz").exists() else {}
    if "image" in arrays and (folder / "samples.png").exists():
        from PIL import Image

        height = arrays["image"].shape[1]
        cell = height * max(1, 48 // height) + 2  # as `pictures.image_grid` lays it out
        with Image.open(folder / "samples.png") as picture:
            four = np.asarray(picture.convert("RGB").crop((0, 0, 2 * cell - 2, 2 * cell - 2)))
        shown = axes.imshow(four, extent=inner, interpolation="none", zorder=3, aspect="auto")
        shown.set_clip_path(frame)
    elif "x" in arrays:
        points = arrays["x"][:400, :2].astype(float)
        low, high = np.percentile(points, [1, 99], axis=0)
        unit = (points - (low + high) / 2) / (max(high - low) or 1.0)
        unit = unit[np.abs(unit).max(axis=1) < 0.55]
        at = unit * [1, -1] * (THUMBNAIL - 18) + [left + THUMBNAIL / 2, top + THUMBNAIL / 2]
        axes.plot(*at.T, ".", markersize=2.2, color="#1f5f86", alpha=0.6, markeredgewidth=0, zorder=3)
    elif (folder / "samples.txt").exists():
        lines = [line for line in (folder / "samples.txt").read_text().splitlines() if line.strip()][:5]
        for i, line in enumerate(lines):
            line = line.strip()[:11]
            at = top + 18 + 12 * i
            axes.text(left + 8, at, line, size=8.5, family="DejaVu Sans Mono", color=INK, parse_math=False, zorder=3)
    else:
        axes.plot(left + THUMBNAIL / 2, top + THUMBNAIL / 2, "o", color=INK, markersize=8)


def _title(axes, width: float, portrait: bool) -> None:
    lines = ["The measured map", "of generative models"] if portrait else ["The measured map of generative models"]
    for i, line in enumerate(lines):
        at, align = (width / 2, "center") if portrait else (32, "left")
        _text(axes, at, 44 + 30 * i, line, 28, width - 60, align=align, style="italic", color=DEEP)


def _key(axes, groups: list[Group], width: float, height: float, portrait: bool) -> None:
    """What the signs before the numbers mean."""
    signs = {"exact": "= exact", "lower_bound": "≤ upper bound on the bits", "estimate": "≈ estimate"}
    kinds = [g.likelihood.kind for g in groups if g.likelihood]
    key = [sign for kind, sign in signs.items() if kind in kinds]
    lines = [" · ".join(key)] if key else []
    if len(key) > 1 and portrait:
        lines.append("not ranked against each other")
    elif len(key) > 1:
        lines[0] += ": not ranked against each other"
    if any(n.multiple is not None for g in groups for n in g.metrics.values()):
        lines.append("× floor: distance to the data as a multiple of")
        lines.append("that of real data to real data")
        if not portrait:
            lines[-2:] = [" ".join(lines[-2:])]
    for i, line in enumerate(lines):
        at, align = (width / 2, "center") if portrait else (32, "left")
        _text(axes, at, height - 22 - 21 * (len(lines) - 1 - i), line, 15.5, width - 60, align=align, color=DEEP)


def _text(
    axes,
    x: float,
    y: float,
    text: str,
    size: float,
    room: float,
    *,
    align: str = "left",
    weight: str = "normal",
    style: str = "normal",
    color: str = INK,
    spacing: float = 0.0,
    url: str | None = None,
    keep: str = "",
) -> None:
    """One line on a baseline, made smaller, and then shorter, until it fits into `room`; its ending `keep` stays."""
    from matplotlib.font_manager import FontProperties

    text = "".join(c if c.isprintable() else "�" for c in text)
    font = FontProperties(family=[SERIF, "DejaVu Sans"], weight=weight, style=style, size=size)

    def length(text: str) -> float:
        return _advance(text, font) + spacing * font.get_size() * (len(text) - 1)

    while length(text) > room and font.get_size() > 0.8 * size:
        font.set_size(font.get_size() - 0.5)
    if length(text) > room:
        text = text.removesuffix(keep)
        while len(text) > 1 and length(text + "…" + keep) > room:
            text = text[:-1]
        text += "…" + keep
    if align == "center":
        x -= length(text) / 2
    pieces: Iterable[str] = text if spacing else [text]
    for piece in pieces:
        axes.text(x, y, piece, fontproperties=font, color=color, parse_math=False, url=url, zorder=4)
        x += _advance(piece, font) + spacing * font.get_size()


def _advance(text: str, font) -> float:
    """Width of a text in points."""
    from matplotlib.textpath import text_to_path

    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]
