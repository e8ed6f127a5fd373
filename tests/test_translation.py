"""Translations measured and drawn by code that knows no family: errors to the truth, the way back, both directions."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genmap_jax.commands import cli
from genmap_jax.commands.experiment import run
from genmap_jax.commands.train import Also
from genmap_jax.data.renderings import RENDERINGS, bold
from genmap_jax.evaluate import translation
from genmap_jax.evaluate.features import own
from genmap_jax.report import pictures
from genmap_jax.run.launch import Launch
from genmap_jax.run.runs import read_experiment

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
DRY = Path(__file__).parent / "dry" / "experiments"

# ---- numbers ---------------------------------------------------------------------------------------------------------


def test_errors_are_percent_of_the_range():
    """An image off by 4 of 16 grey values everywhere is off by 25 %; uint8 does not wrap around."""
    x, y = np.zeros((3, 8, 8, 1), np.uint8), np.full((3, 8, 8, 1), 4, np.uint8)
    np.testing.assert_array_equal(translation.errors(x, y, 17), [25.0] * 3)
    np.testing.assert_array_equal(translation.errors(y, x, 17), [25.0] * 3)


def test_truth_doing_nothing_and_inversion():
    """Of four translations one is the negative of its truth: error (0 + 0 + 0 + 75) / 4, 25 % inverted."""
    truth = np.full((4, 2, 2, 1), 2, np.uint8)
    translated = np.concatenate([truth[:3], 16 - truth[3:]])
    numbers = translation.to_truth(translated=translated, truth=truth, levels=17)
    numbers |= translation.of_nothing(source=truth + 8, truth=truth, levels=17)
    values = {name: number.value for name, number in numbers.items()}
    assert values == {"error to truth, %": 75 / 4, "inverted, %": 25.0, "error untranslated, %": 50.0}
    assert 0 < numbers["inverted, %"].low < 25 < numbers["inverted, %"].high < 100
    assert translation.of_cycle(source=truth, returned=truth + 4, levels=17)["cycle error, %"].value == 25.0


def test_sets_beside_each_other():
    a, b = np.zeros((2, 3, 3, 1)), np.ones((2, 3, 3, 1))
    assert pictures.beside(a, b)[:, 0, 0, 0].tolist() == [0, 1, 0, 1]


def test_renderings_are_what_they_say():
    image = np.zeros((1, 5, 5, 3), np.uint8)
    image[0, 1, 2] = (9, 7, 5)
    assert {tuple(at) for at in np.argwhere(bold(image, 17)[0, ..., 0] == 9)} == {
        (i, j) for i in (1, 2) for j in (2, 3)
    }
    assert RENDERINGS["rotated"](image, 17)[0, 1, 2].tolist() == [5, 9, 7]
    assert RENDERINGS["negative"](image, 17)[0, 1, 2].tolist() == [7, 9, 11]
    for name, rendering in RENDERINGS.items():
        assert (rendering(image, 17).shape, rendering(image, 17).dtype) == (image.shape, np.uint8), name


# ---- a run -----------------------------------------------------------------------------------------------------------


def train(script, folder: Path, also: Also = Also(), **changes) -> Path:  # noqa: B008
    cfg = dataclasses.replace(script.config, steps=3, batch_size=16, samples=12, **changes)
    assert run(cfg, script.family, {}, Launch(workdir=folder, devices=1, tensorboard=False), also) == 0
    return folder


@pytest.fixture(scope="module")
def linear(tmp_path_factory) -> Path:
    """A run of the linear translator of the tests."""
    return train(read_experiment(DRY / "dry_translator.py"), tmp_path_factory.mktemp("linear") / "run")


def sample(folder: Path, *words: str) -> None:
    cli.main(["sample", str(folder), "--experiments", str(DRY), *words])


def test_own_images_are_translated_from_the_command_line(linear, tmp_path, capsys):
    """Photographs of any size, both directions; the picture has source, translation and the way back of each."""
    folder = tmp_path / "mine"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i, size in enumerate(((20, 30), (8, 8), (50, 40))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(folder / f"{i}.png")
    drawn = {}
    for way, field in (("ab", "image"), ("ba", "source")):
        out = tmp_path / way
        sample(linear, "--from", str(folder), "--direction", way, "--out", str(out))
        with np.load(out / "samples.npz") as arrays:
            assert {name: x.shape for name, x in arrays.items()} == {field: (3, 8, 8, 1)}
            drawn[way] = arrays[field]
        high, wide = pictures.zoomed(8, 8)
        with Image.open(out / "samples.png") as picture:
            assert picture.size == (6 * wide, 2 * high), "two rows of source, translation and way back, twice"
    assert (drawn["ab"] != drawn["ba"]).any() and len(np.unique(drawn["ab"], axis=0)) == 3
    sample(linear, "--from", "train[:5]", "-n", "3", "--out", str(tmp_path / "split"))
    assert "3 samples" in capsys.readouterr().out


def test_a_picture_of_a_translation_shows_its_truth(linear):
    """Of twelve samples the first eight, each as source, translation, truth and way back: eight images in a row."""
    high, wide = pictures.zoomed(8, 8)
    with Image.open(linear / "samples" / "00000003.png") as picture:
        assert picture.size == (8 * wide, 4 * high)


@pytest.mark.parametrize(
    ("given", "words"),
    [("nope", "--from nope.*no split"), ("EMPTY", "no data that can be read"), ("TEXT", "holds text, no images")],
)
def test_what_cannot_be_translated_is_refused_in_one_line(linear, tmp_path, capsys, given, words):
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "TEXT").mkdir()
    (tmp_path / "TEXT" / "a.txt").write_text("words")
    path = given if given == "nope" else str(tmp_path / given)
    with pytest.raises(SystemExit) as stop:
        sample(linear, "--from", path, "--out", str(tmp_path / "out"))
    assert stop.value.code == 2
    assert re.search(words, capsys.readouterr().err)


@pytest.mark.slow
def test_cyclegan_is_measured_in_both_directions(tmp_path, monkeypatch):
    """FD is a distance to the target domain; after a change of direction, to the sources."""
    monkeypatch.setattr(own, "STEPS", 5)
    monkeypatch.setattr(own, "RECIPE", -1)
    script = read_experiment(EXPERIMENTS / "cyclegan_digits.py")
    model = dataclasses.replace(script.config.model, width=4, blocks=1)
    folder = train(script, tmp_path / "run", Also(features="own", measured_samples=40), model=model)
    card = json.loads((folder / "evaluation" / "card.json").read_text())
    assert "of digits (train)" in card["extractor"]["fit"] and "cycle error, %" in card["metrics"]
    assert all((folder / "evaluation" / name).exists() for name in ("samples.png", "sampler.gif", "nearest.png"))
    cli.main(["evaluate", str(folder), "--samples", "40", "--model.direction", "ba"])
    card = json.loads((folder / "evaluation" / "card.json").read_text())
    assert card["changes"] == {"direction": "ba"} and "rendered/bold,digits" in card["extractor"]["fit"]
    with np.load(folder / "evaluation" / "samples.npz") as drawn:
        assert list(drawn) == ["source"]
