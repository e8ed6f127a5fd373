"""Experiments as frozen dataclasses: overrides by dotted path, and a strict JSON round trip."""

import dataclasses
import difflib
import json
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from genmap_jax.options import Count, Range

M = TypeVar("M")
Every = Annotated[int, Range(1, hint="to leave it out, give a large number")]
Seed = Annotated[int, Range(0, 2**32 - 1)]


@dataclasses.dataclass(frozen=True)
class Text:
    """How text becomes tokens; other data have none."""

    tokenizer: str = "bytes"
    """The tokenizer: bytes, characters, or the path of a tokenizer.json of Hugging Face. Likelihoods of held-out text
    are bits per byte whichever it is."""
    packed: bool = False
    """Attention is masked across the documents of a packed window. Otherwise a window is read as one text."""

    def __post_init__(self) -> None:
        if self.tokenizer not in ("", "bytes", "characters"):  # a path: the run is to open from any folder
            object.__setattr__(self, "tokenizer", str(Path(self.tokenizer).expanduser().absolute()))


@dataclasses.dataclass(frozen=True)
class Experiment(Generic[M]):
    """What is trained. Everything here changes the result (or what is kept of it); where it runs is `run.launch`."""

    name: str
    """The name of the experiment, in files and on pages."""
    data: str
    """The dataset: digits, glyphs, colours, pydoc, toy/gaussians8, a name given to `genmap prepare`, or a TFDS name
    such as cifar10; part/N,SET, every N-th training example; a pair of domains: fonts, pair/SOURCE,TARGET,
    rendered/RENDERING,NAME or aligned/PAIR."""
    model: M
    """The family's own configuration."""
    steps: Count
    """The number of updates in all; a resumed run goes on to this number."""
    batch_size: Count
    """The global number of examples in an update, over all devices and processes."""
    seed: Seed = 0
    """The seed of initialisation, data order and noise."""
    augment: tuple[str, ...] = ()
    """Augmentations of training images, by their names in `genmap_jax.data.augmentation`, applied in this order. They
    are never applied in evaluation."""
    log_every: Every = 50
    """Metrics are averaged over so many steps and logged."""
    eval_every: Every = 1000
    """The validation likelihood is measured every so many steps, where the family has one."""
    eval_examples: Annotated[int, Range(2, hint="for a standard error")] = 2000
    """At most so many examples of a split are evaluated, evenly spaced."""
    sample_every: Every = 1000
    """Sample pictures are drawn every so many steps."""
    save_every: Every = 500
    """A checkpoint is saved every so many steps."""
    keep: Count = 3
    """So many of the newest checkpoints are kept."""
    samples: Count = 64
    """The number of examples on a sample picture."""
    text: Text = Text()
    """How text becomes tokens; other data leave it alone."""


# Fields that change what is kept of a run or how long it goes on, but not the course of its training.
HARMLESS = ("steps", "log_every", "eval_every", "eval_examples", "sample_every", "save_every", "keep", "samples")


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


def value_at(config: Any, path: str) -> Any:
    """The field of a nested dataclass at a dotted path."""
    for name in path.split("."):
        config = getattr(config, name)
    return config


def to_json(config: Any) -> dict[str, Any]:
    """Nested dataclasses -> plain JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_json(like: Any, data: dict[str, Any]) -> Any:
    """JSON values -> a config of the same types as `like` (types come from code, never from the file).

    A field that an older file does not have yet takes the default of its class, which stands for what was done before
    there was the field. Raises ValueError for unknown fields, and for missing ones without a default.
    """
    if not isinstance(data, dict):
        raise ValueError(f"{type(like).__name__}: {data!r} is not an object of its fields")
    defaults = {f.name: f.default for f in dataclasses.fields(like)}
    values = {name: value for name, value in defaults.items() if value is not dataclasses.MISSING and name not in data}
    wrong = sorted(set(data) ^ (set(defaults) - set(values)))
    if wrong:
        raise ValueError(
            f"{type(like).__name__}: these fields are in the file or in the code, but not in both: {wrong}"
        )
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
