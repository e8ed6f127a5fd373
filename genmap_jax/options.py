"""What the options of a configuration may be: said by their types, checked in one place.

    @dataclasses.dataclass(frozen=True)
    class Config:
        width: Count = 256                                   # 1, 2, ...
        beta: NotNegative = 1.0                              # 0 or above; never NaN or infinite
        dropped: Annotated[float, Range(0, below=1)] = 0.1
        network: Literal["mlp", "conv"] = "mlp"

    check_options(cfg)                                       # ValueError: width=0: give a whole number, at least 1

So a range stands beside its field, where a reader looks for it. Numbers are finite and texts are not empty whether or
not a range is given.
"""

import dataclasses
import math
import numbers
import sys
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers from `least` to `most`, or strictly `above` and `below`."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf
    hint: str = ""
    """Why, or what to give instead, in words."""

    def holds(self, value: float) -> bool:
        """Whether a number is in the range."""
        return self.least <= value <= self.most and self.above < value < self.below

    def __str__(self) -> str:
        ends = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        shown = {word: f"{end:,.3g}" if isinstance(end, float) else f"{end:,}" for word, end in ends.items()}
        text = " and ".join(f"{word} {shown[word]}" for word, end in ends.items() if math.isfinite(end))
        return f"{text} ({self.hint})" if self.hint else text


Count = Annotated[int, Range(1)]
Natural = Annotated[int, Range(0)]
Positive = Annotated[float, Range(above=0)]
NotNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]

LARGEST = sys.float_info.max
"""No float is larger; neither NaN nor infinity is at most this, and no whole number overflows in the comparison."""
WORDS = {int: "a whole number", float: "a finite number", str: "a text that is not empty", bool: "True or False"}


def check_options(config: Any, prefix: str = "") -> None:
    """Raises ValueError that names the first field, by its dotted path, whose value is not of its type and range.

    Looks into nested configurations too. Types that say nothing about values, such as arrays, are left alone.
    """
    for field in dataclasses.fields(config):
        name, value = prefix + field.name, getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            check_options(value, f"{name}.")
        elif not fits(value, field.type):
            raise ValueError(f"{name}={value!r}: give {words(field.type)}")


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of this type and range."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Literal:
        return value in args
    if origin is Annotated:
        return fits(value, args[0]) and all(part.holds(value) for part in args[1:] if isinstance(part, Range))
    if origin in (Union, UnionType):
        return any(fits(value, part) for part in args)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        each = args[:1] * len(value) if args[1:] == (...,) else args
        return len(value) == len(each) and all(map(fits, value, each))
    if kind is int:
        return isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if kind is float:
        real = isinstance(value, numbers.Real) and not isinstance(value, bool)
        return real and -LARGEST <= value <= LARGEST
    if kind is str:
        return isinstance(value, str) and value.strip() != ""
    return isinstance(value, kind) if kind in (bool, Path, NoneType) else True


def words(kind: Any) -> str:
    """The values of a type and range, in words."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Literal:
        return f"one of {', '.join(map(repr, args))}"
    if origin is Annotated:
        return ", ".join([words(args[0]), *(str(part) for part in args[1:] if isinstance(part, Range))])
    if origin in (Union, UnionType):
        return ", or ".join(map(words, args))
    if origin is tuple:
        return f"several values, each {words(args[0])}" if args[1:] == (...,) else f"({'; '.join(map(words, args))})"
    return WORDS.get(kind) or getattr(kind, "__name__", str(kind)).replace("NoneType", "None")
