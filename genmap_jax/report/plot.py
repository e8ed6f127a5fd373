"""A plot as an SVG element: axes with ticks, and marks at data coordinates, in the colours of the page."""

import math
from collections.abc import Iterable
from html import escape

from genmap_jax.report import svg

Point = tuple[float, float]


class Plot:
    """Axes of two ranges, and what is drawn between them. The x axis may be logarithmic."""

    def __init__(self, width: int, height: int, x: Iterable[float], y: Iterable[float], *, log: bool = False):
        self.width, self.height, self.log = width, height, log
        self.left, self.right, self.top, self.bottom = 48, width - 10, 28, height - 36
        self.x, self.y = _range(map(math.log10, x), 0.2) if log else _range(x), _range(y)
        self.marks: list[str] = []

    def at(self, x: float, y: float) -> Point:
        """Data -> units of the picture."""
        across = ((math.log10(x) if self.log else x) - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return self.left + across * (self.right - self.left), self.bottom - up * (self.bottom - self.top)

    def path(self, points: Iterable[Point], style: str) -> None:
        """A line through points in units of the picture."""
        at = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        self.marks.append(f'<path fill="none" {style} d="M{at}"/>')

    def line(self, points: Iterable[Point], opacity: float = 1) -> None:
        """A line through points of the data; what is not finite is left out."""
        style = f'stroke="var(--accent)" stroke-width="1.4" stroke-opacity="{opacity:g}"'
        self.path((self.at(x, y) for x, y in points if math.isfinite(y)), style)

    def dots(self, points: Iterable[Point], radius: float) -> None:
        """A dot at each point of the data."""
        for x, y in (self.at(*point) for point in points):
            self.marks.append(f'<circle fill="var(--accent)" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"/>')

    def level(self, value: float, spread: float, name: str) -> None:
        """A dashed line at a value of y, in a band of ± spread."""
        (_, y), (_, top) = self.at(*self._corner(value)), self.at(*self._corner(value + spread))
        size = f'x="{self.left}" y="{top:.1f}" width="{self.right - self.left}" height="{2 * (y - top):.1f}"'
        self.marks.append(f'<rect fill="var(--line)" {size}/>')
        self.path([(self.left, y), (self.right, y)], 'stroke="var(--soft)" stroke-dasharray="4 3"')
        self.text(self.left + 4, y - 4, name, 11)

    def names(self, names: list[str], points: list[Point]) -> None:
        """Names beside their points, each at the nearest place where it covers no other name or point."""
        taken = [self.at(*point) for point in points]
        rises = [sign * 13 * i for i in range(12) for sign in (1, -1)]
        for name, (x, y) in zip(names, taken[:], strict=True):
            name = name if len(name) <= 20 else name[:19] + "…"
            places = (
                [(x + side * (11 + 7 * i), y + rise) for i in range(len(name))] for rise in rises for side in (1, -1)
            )
            letters = next(filter(lambda place: self._free(place, taken), places), [(x + 11, y)])
            (left, height), side = letters[0], 1 if letters[0][0] > x else -1
            if abs(height - y) > 13:
                self.path([(x, y), (left, height)], 'stroke="var(--soft)" stroke-width=".5"')
            self.text(x + 8 * side, height + 4, name, 12, "start" if side > 0 else "end", "currentColor")
            taken += letters

    def _free(self, letters: list[Point], taken: list[Point]) -> bool:
        inside = all(self.left < x < self.width and self.top < y < self.bottom - 8 for x, y in letters)
        return inside and not any(abs(x - a) < 9 and abs(y - b) < 12 for x, y in letters for a, b in taken)

    def text(self, x: float, y: float, text: str, size: float, anchor: str = "start", ink: str = "var(--soft)") -> None:
        """A text on its baseline."""
        where = f'x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" text-anchor="{anchor}" fill="{ink}"'
        self.marks.append(f"<text {where}>{escape(text)}</text>")

    def svg(self, heading: str, x_title: str, title: str, description: str = "") -> str:
        """The plot with its axes, as an element with a title and a description."""
        thin = 'stroke="var(--soft)"'
        self.path([(self.left, self.top), (self.left, self.bottom), (self.right, self.bottom)], thin)
        for value in _decades(*self.x) if self.log else _ticks(*self.x):
            x, _ = self.at(value, self.y[0])
            self.path([(x, self.bottom), (x, self.bottom + 4)], thin)
            self.text(x, self.bottom + 16, _round(value), 11, "middle")
        for value in _ticks(*self.y):
            _, y = self.at(*self._corner(value))
            self.path([(self.left - 4, y), (self.left, y)], thin)
            self.text(self.left - 7, y + 4, _round(value), 11, "end")
        self.text((self.left + self.right) / 2, self.height - 4, x_title, 12, "middle")
        self.text(self.left, 14, heading, 13, ink="currentColor")
        return svg.element(self.width, self.height, "".join(self.marks), title, description)

    def _corner(self, y: float) -> Point:
        return (10 ** self.x[0] if self.log else self.x[0]), y


def _range(values: Iterable[float], room: float = 0.0) -> Point:
    """The least and the greatest of what is finite, with some room, at least as much as given."""
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    room = max(room, 0.08 * (high - low)) or 0.1 * abs(high) or 1.0
    return low - room, high + room


def _ticks(low: float, high: float) -> list[float]:
    """At most six round values between two."""
    unit = 10.0 ** math.floor(math.log10((high - low) / 5))
    step = next(m * unit for m in (1, 2, 5, 10) if (high - low) / (m * unit) <= 5)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten between two logarithms."""
    powers = range(math.floor(low), math.ceil(high))
    return [m * 10.0**power for power in powers for m in (1, 2, 5) if low <= power + math.log10(m) <= high]


def _round(value: float) -> str:
    return f"{value:,.6g}".replace("-", "−")
