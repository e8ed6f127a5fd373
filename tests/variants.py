"""Values of a test's parameter that only the whole suite tries, where one of them shows the property just as well."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def chosen(values: Iterable[Any], quick: Collection[Any]) -> list:
    """All values as parameters of a test, those that are not among `quick` marked as slow; tuples are several."""
    mark = lambda value: () if value in quick else pytest.mark.slow  # noqa: E731
    return [pytest.param(*(v if isinstance(v, tuple) else (v,)), marks=mark(v)) for v in values]
