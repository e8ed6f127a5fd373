"""A fork outside of the checkout: one family and one experiment, copied and changed, and nothing else touched."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from genmap_jax.evaluate.features import own

ROOT = Path(__file__).parents[1]


def change(text: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text


@pytest.fixture
def fork(tmp_path) -> Path:
    """The VAE with another network under another name, in two files."""
    family = (ROOT / "genmap_jax" / "approximate" / "vae.py").read_text()
    experiment = (ROOT / "experiments" / "vae_digits.py").read_text()
    (tmp_path / "my_family.py").write_text(
        change(family, ("nn.silu(nn.Dense(width", "jnp.tanh(nn.Dense(width"), ('name="VAE"', 'name="My VAE"'))
    )
    (tmp_path / "my_digits.py").write_text(
        change(
            experiment,
            ("from genmap_jax.approximate import vae", "import my_family as vae"),
            ('name="vae_digits"', 'name="my_digits"'),
        )
    )
    return tmp_path


def run(fork: Path, *arguments: object) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "1"}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=fork, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_fork_trains_resumes_is_measured_and_drawn(fork):
    quick = ["--log-every", 4, "--save-every", 4, "--eval-examples", 40, "--no-tensorboard", "--batch-size", 16]
    run(fork, "my_digits.py", "--steps", 8, "--workdir", "runs/whole", *quick)
    run(fork, "my_digits.py", "--steps", 4, "--workdir", "runs/parts", *quick)
    assert "from step 4 to 8" in run(fork, "my_digits.py", "--steps", 8, "--workdir", "runs/parts", *quick)
    losses = [
        [json.loads(line)["loss"] for line in (fork / "runs" / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "parts")
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 2

    genmap = ("-m", "genmap_jax.commands.cli")
    run(fork, *genmap, "sample", "runs/whole", "-n", 5, "--experiments", ".", "--model.importance-samples", 3)
    assert np.load(fork / "runs/whole/drawn/samples.npz")["image"].shape == (5, 8, 8, 1)
    own.own("digits", 17)  # trained once for all tests
    run(fork, *genmap, "evaluate", "runs/whole", "--experiments", ".", "--samples", 40)
    card = json.loads((fork / "runs" / "whole" / "evaluation" / "card.json").read_text())
    assert card["system"] == "My VAE" and card["likelihood"]["kind"] == "lower_bound" and "FD-own64" in card["metrics"]
    run(fork, *genmap, "map", "runs/whole", "--workdir", "page")
    assert "My VAE" in (fork / "page" / "map.html").read_text()
