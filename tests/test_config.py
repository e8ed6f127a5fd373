"""Configs: strict JSON round trip, overrides by dotted path, differences."""

import dataclasses
import json

import pytest

from genmap_jax.run import config as configs
from genmap_jax.run.config import Experiment


@dataclasses.dataclass(frozen=True)
class Model:
    width: int = 8
    shape: tuple[int, ...] = (8, 8, 1)
    name: str | None = None


CONFIG = Experiment(name="a", data="digits", model=Model(), steps=3, batch_size=4)


def test_json_round_trip_is_exact():
    changed = configs.replace(CONFIG, {"model.width": 9, "model.shape": (2, 3), "seed": 5})
    assert configs.from_json(CONFIG, json.loads(json.dumps(configs.to_json(changed)))) == changed


def test_unknown_fields_are_errors_that_name_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'width'"):
        configs.replace(CONFIG, {"model.widht": 9})
    with pytest.raises(ValueError, match="'more'"):
        configs.from_json(CONFIG, configs.to_json(CONFIG) | {"more": 1})


def test_a_file_from_before_a_field_has_its_default():
    """That of the class, whatever the experiment sets now; what has no default must be there."""
    written = configs.to_json(CONFIG)
    del written["seed"], written["model"]["width"]
    like = configs.replace(CONFIG, {"model.width": 64, "seed": 7})
    assert configs.from_json(like, written) == CONFIG
    del written["steps"]
    with pytest.raises(ValueError, match="'steps'"):
        configs.from_json(like, written)


def test_differences_are_dotted_paths():
    assert configs.differences(CONFIG, CONFIG) == {}
    changed = configs.replace(CONFIG, {"model.width": 9, "steps": 4})
    assert configs.differences(CONFIG, changed) == {"model.width": (8, 9), "steps": (3, 4)}
