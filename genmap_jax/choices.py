"""Choices of a configuration, checked in one place."""

import dataclasses
from typing import Any, Literal, get_args, get_origin


def check_choices(config: Any) -> None:
    """Raises ValueError naming the field and its choices, if a field declared as a `Literal` has another value."""
    for field in dataclasses.fields(config):
        value, kind = getattr(config, field.name), field.type
        options = [part for part in (kind, *get_args(kind)) if get_origin(part) is Literal]
        allowed = [choice for part in options for choice in get_args(part)]
        if allowed and value not in allowed and not (value is None and type(None) in get_args(kind)):
            raise ValueError(f"{field.name}={value!r}: choose one of {', '.join(map(repr, allowed))}")
