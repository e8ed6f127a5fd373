"""Experiments as frozen dataclasses: overrides by dotted path, and a strict JSON round trip."""

import dataclasses
import difflib
import json
from typing import Any, Generic, TypeVar

M = TypeVar("M")


@dataclasses.dataclass(frozen=True)
class Text:
    """How text becomes tokens; other data have none."""

    tokenizer: str = "bytes"
    """bytes, characters, or the path of a tokenizer.json of Hugging Face. Bits per dimension of held-out text are bits
    per byte all the same."""
    packed: bool = False
    """Documents in a window do not see each other. Else a window is one text."""


@dataclasses.dataclass(frozen=True)
class Experiment(Generic[M]):
    """What is trained. Everything here changes the result (or what is kept of it); where it runs is `train.Launch`."""

    name: str
    data: str
    """A dataset of `genmap_jax.data`: digits, glyphs, pydoc, toy/gaussians8, or a TFDS name such as cifar10."""
    model: M
    """The family's own configuration."""
    steps: int
    """Updates in all; a resumed run goes on to this number."""
    batch_size: int
    """Global, over all devices and processes."""
    seed: int = 0
    log_every: int = 50
    eval_every: int = 1000
    """Validation likelihood, where the family has one."""
    eval_examples: int = 2000
    """At most so many examples of a split are evaluated, evenly spaced."""
    sample_every: int = 1000
    save_every: int = 500
    keep: int = 3
    """Newest checkpoints kept."""
    samples: int = 64
    """Examples drawn for the sample pictures."""
    text: Text = Text()


def replace(config: Any, changes: dict[str, Any]) -> Any:
    """A copy of a nested dataclass with fields changed by dotted path: `replace(cfg, {"model.width": 64})`.

    Raises ValueError naming the nearest right field for an unknown one.
    """
    for path, value in changes.items():
        head, _, rest = path.partition(".")
        names = [f.name for f in dataclasses.fields(config)]
        if head not in names:
            near = difflib.get_close_matches(head, names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(names)}"
            raise ValueError(f"{type(config).__name__} has no field {head!r}{hint}")
        config = dataclasses.replace(config, **{head: replace(getattr(config, head), {rest: value}) if rest else value})
    return config


def to_json(config: Any) -> dict[str, Any]:
    """Nested dataclasses -> plain JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_json(like: Any, data: dict[str, Any]) -> Any:
    """JSON values -> a config of the same types as `like` (types come from code, never from the file).

    Raises ValueError for unknown or missing fields.
    """
    wrong = sorted(set(data) ^ {f.name for f in dataclasses.fields(like)})
    if wrong:
        raise ValueError(
            f"{type(like).__name__}: these fields are in the file or in the code, but not in both: {wrong}"
        )
    values = {}
    for name, value in data.items():
        current = getattr(like, name)
        if dataclasses.is_dataclass(current):
            value = from_json(current, value)
        elif isinstance(value, list):  # every sequence of a config is a tuple: frozen means frozen
            value = _tuples(value)
        values[name] = value
    return dataclasses.replace(like, **values)


def differences(a: Any, b: Any, prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted path -> (value in a, value in b) of every field where two configs of one type differ."""
    out: dict[str, tuple[Any, Any]] = {}
    for field in dataclasses.fields(a):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if dataclasses.is_dataclass(x) and type(x) is type(y):
            out |= differences(x, y, f"{prefix}{field.name}.")
        elif x != y:
            out[prefix + field.name] = (x, y)
    return out


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
