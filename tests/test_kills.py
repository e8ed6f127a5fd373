"""The short form of tests/kills.py: every kind of command is killed at least once, and goes on."""

import kills
import pytest


@pytest.mark.slow
@pytest.mark.parametrize("kind", kills.KINDS)
def test_a_killed_command_goes_on(kind):
    assert kills.main(["--kinds", kind, "--kills", "1", "--seed", "1"]) == 0


def test_what_differs_is_named():
    with pytest.raises(kills.Differs, match="a differs; b is left behind; c is missing"):
        kills.compare({"a": 1, "b": 2}, {"a": 2, "c": 3})
