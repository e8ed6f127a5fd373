"""A measured quantity with its interval, and numbers as text with as many digits as they support."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

KINDS = {
    "exact": ("", "exact"),
    "lower_bound": ("≤ ", "lower bound on log p"),
    "upper_bound": ("≥ ", "upper bound on log p"),
    "estimate": ("≈ ", "estimate"),
    "dequantised_upper_bound": ("≥ ", "upper bound on the log-density of dequantised values"),
}
"""Kind of log-probability -> (sign before the number, words), in the order of the table; no two are ranked together.

A likelihood is shown as a cost (bits, or nats per example), so a lower bound on log p bounds it from above. The last
kind stands beside an estimate only.
"""


def digits(value: float, width: float | None = None) -> str:
    """A number with two significant digits of the half-width of its interval, or three of its own."""
    if not math.isfinite(value):
        return str(value)
    scale = width / 10 if width else abs(value) / 100
    places = min(6, max(0, -math.floor(math.log10(scale)))) if scale else 2
    return f"{value:,.{places}f}".replace("-", "−")


def plus_minus(values: Sequence[float] | np.ndarray, sign: str = "") -> str:
    """Mean ± standard error of the values of several seeds, with two digits of the error. sign: "+" shows it always."""
    values = np.asarray(values, float)
    error = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None
    places = max(0, min(6, 1 - math.floor(math.log10(error)))) if error and math.isfinite(error) else 4
    text = f"{values.mean():{sign}.{places}f}" + ("" if error is None else f" ± {error:.{places}f}")
    return text.replace("-", "−")


@dataclasses.dataclass(frozen=True)
class Quantity:
    """One quantity of an experiment, measured on one or several seeds."""

    value: float  # mean over seeds
    low: float | None = None  # 95 % interval: of the card for one seed, otherwise as `rows.aggregate` says
    high: float | None = None
    stderr: float | None = None  # of the mean over seeds; None for one seed
    seeds: tuple[tuple[int, float], ...] = ()  # (seed, value) of every run
    null: float | None = None  # what real data scores against real data at the same size, where that makes sense
    null_sd: float | None = None
    n: tuple[int, ...] = ()  # examples it was measured on: (real, generated), or (test,) for a likelihood
    better: str = "lower"  # or "higher", or "null": the nearer to the null the better
    unit: str = ""
    kind: str = ""  # of a likelihood: one of KINDS

    @property
    def score(self) -> tuple[float, float, float] | None:
        """(value, low, high) of a cost, the lower the better; None where no finding may rank it.

        That is without an interval, and where the nearer to the null is the better.
        """
        if self.low is None or self.high is None or self.better == "null":
            return None
        return (self.value, self.low, self.high) if self.better == "lower" else (-self.value, -self.high, -self.low)

    @property
    def multiple(self) -> float | None:
        """The value as a multiple of its null; None where the null is absent or too close to zero to divide by."""
        if self.better != "lower" or not self.null or self.null_sd is None or self.null < 3 * self.null_sd:
            return None
        return self.value / self.null

    @property
    def half_width(self) -> float | None:
        """Half the interval: it says how many digits mean something."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    @property
    def text(self) -> str:
        """The value alone: "≤ 1.870 bits/dim"."""
        sign = KINDS[self.kind][0] if self.kind else ""
        return f"{sign}{digits(self.value, self.half_width)} {self.unit}".strip()

    @property
    def interval(self) -> str:
        """The interval alone, "[1.838, 1.902]", or nothing."""
        if self.low is None or self.high is None:
            return ""
        return f"[{digits(self.low, self.half_width)}, {digits(self.high, self.half_width)}]"

    @property
    def shown(self) -> str:
        """The value and its interval."""
        return f"{self.text} {self.interval}".strip()

    @property
    def real(self) -> str:
        """What real data scores, or nothing."""
        return "" if self.null is None else digits(self.null, max(self.null_sd or 0, self.half_width or 0))

    @property
    def floor(self) -> str:
        """The multiple of the null, "1.33 × floor", or nothing."""
        multiple = self.multiple
        return "" if multiple is None else f"{multiple:.{2 if multiple < 9.95 else 0}f} × floor"
