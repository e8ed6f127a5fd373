"""Ranges of options: every number of every configuration has one, and what is outside is refused by its name."""

import dataclasses
import importlib
import inspect
import math
import pkgutil
import re
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from families import BATCH, FAMILIES

from genmap_jax.commands.train import Also
from genmap_jax.options import Count, Natural, NotNegative, Positive, Range, Share, check_options
from genmap_jax.run import config as configs
from genmap_jax.run.config import Experiment
from genmap_jax.run.launch import Launch
from genmap_jax.run.runs import read_experiment

HERE = Path(__file__).parent
DRY = [read_experiment(path) for path in sorted((HERE / "dry" / "experiments").glob("*.py"))]
BAD = (math.nan, math.inf, -math.inf, -1, 0)

# What is not refused: name of the field -> values of BAD that mean something, as its documentation says. A number of a
# new family belongs here only if its documentation says what 0, or -1, means.
MEANINGS: dict[str, set[float]] = {
    **{name: {-1, 0} for name in ("log_snr_max", "log_snr_min", "log_sigma", "mu", "fourier")},
    **{name: {0} for name in ("lr", "muon_lr", "b1", "b2", "weight_decay", "clip", "warmup", "decay", "final")},
    **{name: {0} for name in ("beta", "blocks", "frequencies", "noise", "reinit", "alpha")},
    **{
        name: {0}
        for name in (
            "label_drop",
            "dropout",
            "attention",
            "eta",
            "churn",
            "guidance",
            "guidance_interval",
            "guidance_rescale",
            "corrector_steps",
        )
    },
    **{name: {0} for name in ("r1", "r2", "gradient_penalty", "dragan", "lecam", "consistency", "auxiliary")},
    **{name: {0} for name in ("augment_p", "ada_target", "original", "stop", "seed")},
    **{name: {0} for name in ("temperature", "strength", "truncation", "noise_std", "kinetic", "jacobian", "logit")},
    **{name: {0} for name in ("path_length", "mixing", "attention", "orthogonal", "standing")},
    **{name: {0} for name in ("decay_from", "cycle", "identity", "l1", "contrastive", "pool", "dropout")},
}


def numbers(config: Any, prefix: str = ""):
    """(dotted path, type, value) of every field that holds numbers, of nested configurations too."""
    for field in dataclasses.fields(config):
        value, path = getattr(config, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            yield from numbers(value, f"{path}.")
        elif holds_numbers(field.type):
            yield path, field.type, value


def holds_numbers(kind: Any) -> bool:
    return kind in (int, float) or (get_origin(kind) is not Literal and any(map(holds_numbers, get_args(kind))))


def with_bad(kind: Any, value: Any, bad: float):
    """Values for a field that hold a bad number: the number itself, or a tuple with it in each of its places."""
    args = get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        for part in filter(holds_numbers, args):
            yield from with_bad(part, value, bad)
    elif get_origin(kind) is tuple:
        fine = value if isinstance(value, tuple) and value else (1,) * (1 if args[-1] is ... else len(args))
        for place in range(len(fine)):
            yield (*fine[:place], bad, *fine[place + 1 :])
    else:
        yield bad


def accepted(config: Any, check: Any) -> dict[str, set[float]]:
    """Last name of a field -> the values of BAD without a meaning that `check` lets pass in it.

    What is refused is refused by name, in one line.
    """
    found: dict[str, set[float]] = {}
    for path, kind, value in numbers(config):
        name = path.rpartition(".")[2]
        for bad in [bad for bad in BAD if bad not in MEANINGS.get(name, ())]:
            for changed in with_bad(kind, value, bad):
                try:
                    check(configs.replace(config, {path: changed}))
                except ValueError as error:
                    assert re.search(rf"\b{name}\b", str(error)), f"{path}={changed}: {error}"
                    assert "\n" not in str(error)
                else:
                    found.setdefault(name, set()).add(bad)
    return found


def one_of_each() -> list:
    """A case for every class of configuration that a family has."""
    cases: dict[type, Any] = {}
    for name, case in FAMILIES.items():
        cases.setdefault(type(case.config), pytest.param(case.config, case.family, id=name))
    dry = {type(script.config.model): pytest.param(script.config.model, script.family, id=script.path.stem)
           for script in DRY}  # fmt: skip
    return [*cases.values(), *dry.values()]


@pytest.mark.parametrize(("config", "family"), one_of_each())
def test_numbers_outside_of_their_range_are_refused_by_name(config, family):
    found = accepted(config, lambda cfg: family.algorithm(cfg, batch_size=BATCH))
    assert found == {}, "give these a range, or a meaning"


@pytest.mark.parametrize("options", [Experiment("a", "digits", DRY[0].config.model, 1, 16), Launch(), Also()])
def test_flags_outside_of_their_range_are_refused_by_name(options):
    assert accepted(options, check_options) == {}


def test_no_meaning_is_left_over():
    there = {path.rpartition(".")[2] for case in FAMILIES.values() for path, _, _ in numbers(case.config)}
    there |= {path.rpartition(".")[2] for script in DRY for path, _, _ in numbers(script.config)}
    assert set(MEANINGS) <= there


def test_every_family_is_walked():
    walked = {type(case.config) for case in FAMILIES.values()}
    for package in ("tractable", "approximate", "implicit"):
        folder = importlib.import_module(f"genmap_jax.{package}")
        for module in pkgutil.walk_packages(folder.__path__, f"{folder.__name__}."):
            classes = inspect.getmembers(importlib.import_module(module.name), dataclasses.is_dataclass)
            assert {kind for name, kind in classes if name == "Config"} <= walked, module.name


def test_a_number_that_nobody_checks_fails_the_walk():
    @dataclasses.dataclass(frozen=True)
    class Loose:
        width: Count = 8
        speed: float = 1.0
        sizes: tuple[int, ...] = (1, 2)

    assert accepted(Loose(), check_options) == {"speed": {-1, 0}, "sizes": {-1, 0}}


@dataclasses.dataclass(frozen=True)
class Inner:
    ratio: Annotated[float, Range(0, below=1)] = 0.5


@dataclasses.dataclass(frozen=True)
class Outer:
    count: Count = 1
    many: tuple[Natural, ...] = (1, 2)
    pair: tuple[NotNegative, Positive] = (0.0, 1.0)
    share: Share = 1
    rate: Positive | None = None
    kind: Literal["a", "b"] = "a"
    name: str = "x"
    on: bool = False
    folder: Path | None = None
    inner: Inner = Inner()
    anything: Any = None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"count": 0}, "count=0: give a whole number, at least 1"),
        ({"count": True}, "count=True: give a whole number"),
        ({"count": 1.0}, "count=1.0: give a whole number"),
        ({"count": "1"}, "count='1': give a whole number"),
        ({"many": (1, -1)}, "many=(1, -1): give several values, each a whole number, at least 0"),
        ({"many": [1]}, "many=[1]"),
        ({"pair": (0.0, 0.0)}, "pair=(0.0, 0.0): give (a finite number, at least 0; a finite number, above 0)"),
        ({"pair": (0.0,)}, "pair=(0.0,)"),
        ({"share": 1.1}, "share=1.1: give a finite number, at least 0 and at most 1"),
        ({"rate": 0}, "rate=0: give a finite number, above 0, or None"),
        ({"kind": "c"}, "kind='c': give one of 'a', 'b'"),
        ({"name": " "}, "name=' ': give a text that is not empty"),
        ({"on": 1}, "on=1: give True or False"),
        ({"folder": "x"}, "folder='x'"),
        ({"inner.ratio": 1.0}, "inner.ratio=1.0: give a finite number, at least 0 and below 1"),
    ],
)
def test_the_message_names_the_path_and_what_is_allowed(changes, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        check_options(configs.replace(Outer(), changes))


def test_values_in_their_range_pass():
    check_options(Outer())
    fine = {"count": 2, "many": (), "pair": (0, 1), "share": 0, "rate": 1e-9, "folder": Path("x"), "inner.ratio": 0}
    check_options(configs.replace(Outer(), fine | {"anything": object(), "kind": "b"}))
