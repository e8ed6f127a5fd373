"""Datasets are the same bytes everywhere, splits do not leak, batches are a function of (seed, step)."""

import contextlib
import gzip
import hashlib
import io
import itertools
import json
import os
import platform
import shutil
import struct
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from genmap_jax import data
from genmap_jax.commands import cli
from genmap_jax.data import glyphs, loading, preparation, pydoc, raw, renderings, sources
from genmap_jax.spaces import images, labels, tokens, vectors

ROOT = Path(__file__).parents[1]
SPLITS = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = SPLITS


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data folder in which each embedded set is built once."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(autouse=True)
def nothing_outside(monkeypatch, tmp_path):
    """No test reads or writes the user's own data folders."""
    monkeypatch.setenv("GENMAP_DATA", str(tmp_path / "default"))
    monkeypatch.setattr(preparation, "TFDS_DIR", str(tmp_path / "tfds"))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def everything(source):
    return source.take(np.arange(source.size))


def digest(arrays):
    sha = hashlib.sha256()
    for name in sorted(arrays):
        sha.update(np.ascontiguousarray(arrays[name]).tobytes())
    return sha.hexdigest()


def python(code, **env):
    """Run code in a fresh interpreter and return what it prints."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"} | env
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120, check=True
    )


# ---- the embedded sets -----------------------------------------------------------------------------------------------


def test_digits_are_all_of_scikit_learns_once(root):
    from sklearn.datasets import load_digits

    parts = [everything(data.load("digits", split, data_dir=root)) for split in SPLITS]
    assert [len(part["label"]) for part in parts] == [1297, 200, 300]
    images = np.concatenate([part["image"] for part in parts])
    labels = np.concatenate([part["label"] for part in parts])
    assert images.dtype == np.uint8 and labels.dtype == np.int32
    expected_images, expected_labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(1797)
    np.testing.assert_array_equal(images.reshape(1797, 64), expected_images[order])
    np.testing.assert_array_equal(labels, expected_labels[order])


def test_digits_content_is_pinned(root):
    """Measured numbers refer to these bytes. If this fails, raise the builder's version and measure again."""
    assert {split: digest(everything(data.load("digits", split, data_dir=root)))[:16] for split in SPLITS} == {
        "train": "91bba7c8046a8a78",
        "validation": "6029efc7344dbe8c",
        "test": "fbef7dd4e337e794",
    }


@pytest.mark.parametrize("name", ["digits", "pydoc"])
def test_two_preparations_are_byte_equal(name, tmp_path):
    folders = [data.prepare(name, tmp_path / run) for run in ("a", "b")]
    contents = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders]
    assert contents[0] == contents[1]
    assert any("array_record" in file for file in contents[0])


def test_every_font_draws_every_character(root):
    for name in glyphs.FONTS:
        font = glyphs.open_font(name)
        images = [np.asarray(glyphs.draw(font, character)) for character in glyphs.CHARACTERS]
        assert all(image.max() == 255 and (image > 127).mean() > 0.005 for image in images), name
        assert len({image.tobytes() for image in images}) >= 60, name


def test_glyph_splits_hold_out_combinations_but_no_font_and_no_character():
    pairs = {split: set() for split in SPLITS}
    for f, c in itertools.product(range(21), range(62)):
        pairs[glyphs.split_of(f, c)].add((f, c))
    assert len(glyphs.FONTS) == 21 and len(glyphs.CHARACTERS) == 62
    assert sum(map(len, pairs.values())) == 21 * 62
    for split in SPLITS:
        assert {f for f, _ in pairs[split]} == set(range(21))
        assert {c for _, c in pairs[split]} == set(range(62))


@pytest.mark.slow
def test_glyphs_on_disk_are_the_rule_drawn_again(root):
    """Order, labels and pixels of every split, on each seventh pair; no ink is cut off at the border."""
    for split, size in zip(SPLITS, (14_880, 2_976, 2_976), strict=True):
        source = data.load("glyphs", split, data_dir=root, reads={"image": images(32, 32, 1), "label": labels(62)})
        assert (source.size, source.classes) == (size, 62)
        stored = everything(source)
        assert (stored["image"].max((1, 2, 3)) > 100).all()
        border = stored["image"].copy()
        border[:, 1:-1, 1:-1] = 0
        assert border.max() < 32
        pairs = [(f, c) for f in range(21) for c in range(62) if glyphs.split_of(f, c) == split]
        np.testing.assert_array_equal(stored["label"], np.repeat([c for _, c in pairs], 16))
        for i in range(0, len(pairs), 7):
            f, c = pairs[i]
            glyph = glyphs.draw(glyphs.open_font(glyphs.FONTS[f]), glyphs.CHARACTERS[c])
            drawn = [glyphs.distort(glyph, np.random.default_rng([f, c, variant])) for variant in range(16)]
            np.testing.assert_array_equal(stored["image"][16 * i : 16 * i + 16], drawn)
            assert len({image.tobytes() for image in drawn}) == 16


def test_pydoc_splits_share_no_paragraph_and_lose_none(root):
    from pydoc_data.topics import topics

    texts = {}
    for split in SPLITS:
        source = data.load("pydoc", split, data_dir=root, length=1)
        texts[split] = everything(source)["tokens"].astype(np.uint8).tobytes().decode()
    sizes = np.array([len(text.encode()) for text in texts.values()]) / sum(len(t.encode()) for t in texts.values())
    assert abs(sizes - [0.8, 0.1, 0.1]).max() < 0.05
    paragraphs = {split: {p.strip() for p in text.split("\n\n") if len(p) > 60} for split, text in texts.items()}
    assert not paragraphs[TRAIN] & (paragraphs[VALIDATION] | paragraphs[TEST])
    assert not paragraphs[VALIDATION] & paragraphs[TEST]
    all_of_it = {p.strip() for text in topics.values() for p in text.strip().split("\n\n") if len(p) > 60}
    assert set.union(*paragraphs.values()) == all_of_it
    prepared = next((root / "pydoc").glob("*/*/metadata.json"))
    assert json.loads(prepared.read_text()) == {"python": platform.python_version()}
    assert platform.python_version() in str(prepared)


def test_pydoc_keeps_topics_whole_and_in_sorted_order():
    topics = {f"{i:02d}": f"topic {i:02d}\n\n{'x' * 70}{i:02d}\n\nshort\n" for i in reversed(range(20))}
    parts = pydoc.split_topics(topics)
    assert [part.count("topic") for part in parts.values()] == [16, 2, 2]
    text = "".join(parts.values())
    assert [line for line in text.split("\n") if "topic" in line] == [f"topic {i:02d}" for i in range(20)]
    repeats = pydoc.split_topics(topics | {"99": topics["03"]})
    assert sum(part.count("x" * 70) for part in repeats.values()) == 20  # once each
    assert sum(part.count("short") for part in repeats.values()) == 21  # too short to matter


# ---- reading ---------------------------------------------------------------------------------------------------------


def test_text_windows(root):
    whole = everything(data.load("pydoc", TRAIN, data_dir=root, length=1))["tokens"][:, 0]
    train = data.load("pydoc", TRAIN, data_dir=root, length=50)
    assert train.size == len(whole) - 50 + 1 and train.shape == (50,) and train.levels == 256
    tokens = train.take(np.array([0, 7, train.size - 1]))["tokens"]
    assert tokens.dtype == np.int32
    np.testing.assert_array_equal(tokens, [whole[:50], whole[7:57], whole[-50:]])
    whole = everything(data.load("pydoc", TEST, data_dir=root, length=1))["tokens"][:, 0]
    test = data.load("pydoc", TEST, data_dir=root, length=50)
    np.testing.assert_array_equal(everything(test)["tokens"].ravel(), whole[: len(whole) // 50 * 50])


def test_toy_sources_are_fixed_and_their_splits_differ():
    parts = {split: everything(data.load("toy/moons", split, reads={"x": vectors(2)}))["x"] for split in SPLITS}
    assert {split: part.shape for split, part in parts.items()} == {
        "train": (50_000, 2),
        "validation": (10_000, 2),
        "test": (10_000, 2),
    }
    assert all(part.dtype == np.float32 for part in parts.values())
    assert not np.isin(parts[TEST], parts[TRAIN]).all(1).any()
    np.testing.assert_array_equal(parts[TRAIN], everything(data.load("toy/moons", TRAIN))["x"])


def write_tfds(
    folder, name, examples, features, file_format="array_record", version="3.0.1", config=None, ordered=False
):
    """A dataset as TFDS leaves it in its own folder. `examples`: {split: [...]}, which TFDS shuffles or not."""

    class Prepared(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version(version)
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config)] if config else []

        def _info(self):
            features_dict = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(builder=self, features=features_dict, disable_shuffling=ordered)

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in examples}

        def _generate_examples(self, split):
            yield from enumerate(examples[split])

    Prepared.name = name
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(None):
        builder = Prepared(data_dir=folder, file_format="array_record")
        builder.download_and_prepare()
    if file_format != "array_record":  # which we cannot write without TensorFlow
        path = Path(builder.data_dir, "dataset_info.json")
        path.write_text(path.read_text().replace('"array_record"', f'"{file_format}"'))
    return Path(builder.data_dir)


def png(array):
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "png")
    return stream.getvalue()


IMAGE_FEATURES = {"image": tfds.features.Image(shape=(28, 28, 1)), "label": tfds.features.ClassLabel(num_classes=10)}


def image_examples(n, rng):
    images = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
    return [{"image": png(image), "label": i % 10} for i, image in enumerate(images)], images


def test_a_dataset_that_tfds_prepared_is_found_and_read(root, rng):
    """Image features, TFDS's own folder, no validation split: the last tenth of train is lent."""
    train, pictures = image_examples(40, rng)
    test, _ = image_examples(3, rng)
    write_tfds(Path(preparation.TFDS_DIR), "mnist", {TRAIN: train, TEST: test}, IMAGE_FEATURES)
    parts = {
        split: data.load("mnist", split, reads={"image": images(28, 28, 1)}) for split in (*SPLITS, "train[:100%]")
    }
    assert [source.size for source in parts.values()] == [36, 4, 3, 40]
    assert all(source.classes == 10 for source in parts.values())
    whole = everything(parts["train[:100%]"])["image"]
    assert {image.tobytes() for image in whole} == {image.tobytes() for image in pictures}
    lent = np.concatenate([everything(parts[split])["image"] for split in (TRAIN, VALIDATION)])
    np.testing.assert_array_equal(lent, whole)


def test_levels_that_tfds_does_not_state_are_checked_against_the_pixels(tmp_path):
    dark = [{"image": np.full((4, 4, 1), i, np.uint8)} for i in range(8)]
    features = {"image": tfds.features.Tensor(shape=(4, 4, 1), dtype=np.uint8)}
    write_tfds(tmp_path, "dark", {TRAIN: dark, VALIDATION: dark}, features)
    assert data.load("dark", data_dir=tmp_path, reads={"image": images(4, 4, 1, 8)}).levels == 8
    assert data.load("dark", data_dir=tmp_path).levels == 256
    assert data.load("dark", data_dir=tmp_path).classes is None
    with pytest.raises(ValueError, match="0..255.* 0..6: --model.space.levels 256"):
        data.load("dark", data_dir=tmp_path, reads={"image": images(4, 4, 1, 7)})


def test_palettes_of_image_files_are_read_as_colours(tmp_path):
    from PIL import Image

    grey = np.random.default_rng(0).choice([0, 100, 200], (20, 8, 8)).astype(np.uint8)
    palette = [io.BytesIO() for _ in grey]
    for image, file in zip(grey, palette, strict=True):
        Image.fromarray(image).convert("P", palette=Image.Palette.ADAPTIVE).save(file, "png")
        file.seek(0)
    features = {"image": tfds.features.Image(shape=(8, 8, 1))}
    write_tfds(tmp_path, "palettes", {TEST: [{"image": file} for file in palette]}, features, ordered=True)
    np.testing.assert_array_equal(everything(data.load("palettes", TEST, data_dir=tmp_path))["image"][..., 0], grey)


def test_hidden_labels_are_not_those_of_the_last_class(tmp_path):
    """-1 in a test split, as TFDS has it: images without labels, and an error for a model conditioned on them."""
    features = {"image": tfds.features.Tensor(shape=(2, 2, 1), dtype=np.uint8)}
    features["label"] = tfds.features.ClassLabel(num_classes=3)
    pictures = [np.full((2, 2, 1), i, np.uint8) for i in range(6)]
    parts = {TRAIN: [i % 3 for i in range(6)], VALIDATION: [0, 1, 2, 0, 1, -1], TEST: [-1] * 6}
    examples = {
        split: [{"image": x, "label": y} for x, y in zip(pictures, given, strict=True)]
        for split, given in parts.items()
    }
    write_tfds(tmp_path, "quiz", examples, features, ordered=True)
    space = images(2, 2, 1, 256)
    opened = {split: data.load("quiz", split, data_dir=tmp_path, reads={"image": space}) for split in SPLITS}
    assert [source.classes for source in opened.values()] == [3, None, None]
    assert set(everything(opened[TEST])) == {"image"} and everything(opened[TRAIN])["label"].min() == 0
    both = {"image": space, "label": labels(3)}
    data.load("quiz", TRAIN, data_dir=tmp_path, reads=both)
    for split, words in ((TEST, "6 of 6 labels of 'test' are hidden"), (VALIDATION, "1 of 6 labels of 'validation'")):
        with pytest.raises(ValueError, match=words):
            data.load("quiz", split, data_dir=tmp_path, reads=both)


def test_labels_and_grey_values_outside_what_the_dataset_says_are_named(tmp_path):
    """In the arrays as they are read: a damaged or foreign file."""
    features = {"image": tfds.features.Tensor(shape=(2, 2, 1), dtype=np.uint8)}
    features["label"] = tfds.features.ClassLabel(num_classes=3)
    write_tfds(tmp_path, "odd", {TEST: [{"image": np.full((2, 2, 1), 9, np.uint8), "label": 2}] * 4}, features)
    data.load("odd", TEST, data_dir=tmp_path)
    (folder,) = (tmp_path / "arrays").glob("odd-*/test")
    about = json.loads((folder / "about.json").read_text())
    (folder / "about.json").write_text(json.dumps(about | {"levels": 9}))
    with pytest.raises(ValueError, match="grey values up to 9, but is said to have 9"):
        data.load("odd", TEST, data_dir=tmp_path)
    (folder / "about.json").write_text(json.dumps(about | {"classes": 2}))
    with pytest.raises(ValueError, match="labels 2 to 2, but 2 classes"):
        data.load("odd", TEST, data_dir=tmp_path)


def test_image_files_with_transparency_are_of_three_colours(tmp_path):
    """RGBA among RGB, in a dataset of Image features: laid over white, and not an error of shapes."""
    from PIL import Image

    colours = np.random.default_rng(0).integers(0, 256, (4, 4, 4, 3)).astype(np.uint8)
    files = [io.BytesIO(png(x)) for x in colours]
    files[1] = io.BytesIO(png(np.concatenate([colours[1], np.full((4, 4, 1), 255, np.uint8)], -1)))
    clear = np.concatenate([colours[2], np.zeros((4, 4, 1), np.uint8)], -1)
    files[2] = io.BytesIO(png(clear))
    deep = Image.fromarray(np.arange(16, dtype=np.uint16).reshape(4, 4) << 12)  # 16 bits of grey
    deep.save(stream := io.BytesIO(), "png")
    files[3] = io.BytesIO(stream.getvalue())
    features = {"image": tfds.features.Image(shape=(4, 4, 3))}
    write_tfds(tmp_path, "mixed", {TEST: [{"image": file} for file in files]}, features, ordered=True)
    got = everything(data.load("mixed", TEST, data_dir=tmp_path))["image"]
    np.testing.assert_array_equal(got[:2], colours[:2])
    assert (got[2] == 255).all() and (got[3][..., 0] == np.arange(16).reshape(4, 4) << 4).all()


def test_images_of_several_sizes_are_refused_with_two_of_them(tmp_path):
    examples = [{"image": io.BytesIO(png(np.zeros((4, 4 + i // 3, 3), np.uint8)))} for i in range(4)]
    write_tfds(tmp_path, "sizes", {TEST: examples}, {"image": tfds.features.Image()}, ordered=True)
    with pytest.raises(ValueError, match=r"differ in size \(example 0 has \(4, 4, 3\), example 3 has \(4, 5, 3\)\)"):
        data.load("sizes", TEST, data_dir=tmp_path)


def test_a_split_without_text_is_named(tmp_path):
    """Documents that are empty, and a tokenizer that finds nothing in them."""
    some, none = [{"text": "some"}], [{"text": ""}]
    write_tfds(tmp_path, "blank", {TRAIN: some, VALIDATION: some, TEST: none}, {"text": tfds.features.Text()})
    for how in ("bytes", "characters"):
        with pytest.raises(ValueError, match="the test split of blank holds no (bytes|characters)"):
            data.load("blank", TEST, data_dir=tmp_path, length=1, tokenizer=how)


def test_texts_of_several_examples_are_joined_by_newlines(tmp_path):
    lines = [{"text": f"line {i}"} for i in range(2050)]  # more than one chunk
    write_tfds(tmp_path, "lines", {TRAIN: lines, VALIDATION: lines[:2]}, {"text": tfds.features.Text()})
    tokens = everything(data.load("lines", TRAIN, data_dir=tmp_path, length=1))["tokens"]
    assert sorted(tokens.astype(np.uint8).tobytes().decode().split("\n")) == sorted(e["text"] for e in lines)


def test_newest_version_and_only_config(tmp_path, rng):
    for version, n in {"1.9.0": 20, "1.10.0": 30}.items():
        examples, _ = image_examples(n, rng)
        write_tfds(tmp_path, "versions", {TRAIN: examples}, IMAGE_FEATURES, version=version)
    assert data.load("versions", "train[:100%]", data_dir=tmp_path).size == 30
    write_tfds(tmp_path, "configs", {TRAIN: examples[:20]}, IMAGE_FEATURES, config="small")
    assert data.load("configs", "train[:100%]", data_dir=tmp_path).size == 20
    write_tfds(tmp_path, "configs", {TRAIN: examples}, IMAGE_FEATURES, config="large")
    assert data.load("configs/large", "train[:100%]", data_dir=tmp_path).size == 30
    with pytest.raises(ValueError, match="configs/large, configs/small"):
        data.load("configs", data_dir=tmp_path)


def test_other_prepared_data_of_the_same_size_is_read_anew(tmp_path):
    features = {"image": tfds.features.Tensor(shape=(4, 4, 1), dtype=np.uint8)}
    for grey in (3, 5):
        folder = write_tfds(tmp_path, "plain", {TRAIN: [{"image": np.full((4, 4, 1), grey, np.uint8)}] * 20}, features)
        for _ in range(2):
            assert (everything(data.load("plain", "train[:100%]", data_dir=tmp_path))["image"] == grey).all()
        shutil.rmtree(folder)


# ---- batches ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def counted():
    """A source whose examples are their own index."""
    return lambda size: data.Source("counted", TRAIN, size, {"x": vectors(1)}, lambda i: {"x": np.asarray(i)})


@pytest.mark.parametrize(("size", "batch_size"), [(10, 4), (7, 16), (12, 12), (5, 1)])
def test_every_epoch_is_a_permutation_across_batch_boundaries(counted, size, batch_size):
    source = counted(size)
    stream = np.concatenate([data.batch(source, 0, step, batch_size)["x"] for step in range(3 * size)])
    epochs = stream.reshape(-1, size)
    assert (np.sort(epochs, axis=1) == np.arange(size)).all()
    assert len({epoch.tobytes() for epoch in epochs}) > 1


def test_batch_depends_on_seed_and_step_only(counted):
    steps = [5, 0, 3, 0, 99]
    first = [data.batch(counted(50), 1, step, 8)["x"] for step in steps]
    sources._permutation.cache_clear()
    again = [data.batch(counted(50), 1, step, 8)["x"] for step in steps]
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], data.batch(counted(50), 2, 5, 8)["x"])


@pytest.mark.parametrize("size", [10, 2**25])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_slices_of_the_processes_make_the_global_batch(counted, size, processes):
    for step in range(5):
        whole = data.batch(counted(size), 0, step, 8)["x"]
        parts = [data.batch(counted(size), 0, step, 8, p, processes)["x"] for p in range(processes)]
        assert all(len(part) == 8 // processes for part in parts)
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_a_huge_source_is_drawn_without_a_permutation(counted):
    source = counted(10**12)
    x = np.concatenate([data.batch(source, 0, step, 1000)["x"] for step in range(20)])
    assert len(np.unique(x)) == len(x)
    assert abs(x.mean() / 10**12 - 0.5) < 4 / np.sqrt(12 * len(x))


def test_processes_that_cannot_share_the_batch(counted):
    with pytest.raises(ValueError, match="batch_size=10 does not divide over 4"):
        data.batch(counted(50), 0, 0, 10, 0, 4)


@pytest.mark.parametrize(("name", "expect"), [("digits", {}), ("pydoc", {"length": 64})])
def test_a_batch_costs_less_than_a_millisecond(root, name, expect):
    source = data.load(name, data_dir=root, **expect)
    times = []
    for step in range(50):
        began = time.perf_counter()
        data.batch(source, 0, step, 128)
        times.append(time.perf_counter() - began)
    assert np.median(times) < 1e-3


# ---- pairs of domains ------------------------------------------------------------------------------------------------


@pytest.fixture
def domains(tmp_path):
    """Two sets of images of different sizes, whose pixels are their own row."""
    features = {"image": tfds.features.Tensor(shape=(2, 2, 1), dtype=np.uint8)}
    for name, size in (("few", 5), ("many", 14)):
        examples = [{"image": np.full((2, 2, 1), i, np.uint8)} for i in range(size)]
        write_tfds(tmp_path, name, {split: examples for split in SPLITS}, features, ordered=True)
    return lambda name, split=TRAIN: data.load(name, split, data_dir=tmp_path)


@pytest.mark.parametrize("name", ["pair/few,many", "pair/many,few", "pair/few,few"])
def test_domains_are_drawn_independently_and_every_epoch_of_each_is_complete(domains, name):
    source, size = domains(name), {"few": 5, "many": 14}
    steps = [data.batch(source, 0, step, 7) for step in range(10)]  # 70 examples: 14 and 5 epochs
    sizes = dict(zip(("source", "image"), (size[each] for each in name.removeprefix("pair/").split(",")), strict=True))
    streams = {field: np.concatenate([step[field][:, 0, 0, 0] for step in steps]) for field in sizes}
    for field, n in sizes.items():
        assert (np.sort(streams[field].reshape(-1, n), axis=1) == np.arange(n)).all()
    couples = set(zip(*streams.values(), strict=True))
    assert len(couples) > max(sizes.values()), "row i must not always meet row i"
    halves = [data.batch(source, 0, 3, 14, process, 2) for process in range(2)]
    whole = data.batch(source, 0, 3, 14)
    for field in sizes:
        np.testing.assert_array_equal(np.concatenate([half[field] for half in halves]), whole[field])


def test_a_part_has_every_nth_training_example_and_whole_other_splits(domains):
    part, many = domains("part/5,many"), domains("many")
    assert (part.name, part.size) == ("part/5,many", 3)
    np.testing.assert_array_equal(part.take(np.arange(3))["image"], many.take(np.array([0, 5, 10]))["image"])
    test = domains("part/5,many", TEST)
    assert test.size == 14 and test.name == "part/5,many"
    assert loading.whole("part/5,many") == "many" and loading.whole("pair/few,many") == "pair/few,many"


def test_the_target_of_a_pair_comes_as_it_does_alone(domains):
    pair, alone = domains("pair/few,many"), domains("many")
    np.testing.assert_array_equal(data.batch(pair, 3, 5, 8)["image"], data.batch(alone, 3, 5, 8)["image"])


def test_evaluation_of_a_pair_covers_both_domains(domains):
    pair = domains("pair/few,many", TEST)
    assert pair.size == 14 and list(pair.spaces) == ["image", "source"] and pair.field == "image"
    rows = pair.take(np.arange(14))
    np.testing.assert_array_equal(rows["image"][:, 0, 0, 0], np.arange(14))
    assert (np.diff(rows["source"][:, 0, 0, 0].astype(int)) >= 0).all() and set(rows["source"].ravel()) == set(range(5))
    for count in (2, 3, 5):
        shown = pair.take(pair.spaced(count))
        assert all(len(np.unique(shown[field])) == count for field in ("image", "source"))
    equal = domains("pair/few,few").take(np.arange(5))
    np.testing.assert_array_equal(equal["image"], equal["source"])


def test_a_dataset_of_two_domains_is_a_pair_by_its_own_name(tmp_path):
    """Splits trainA to testB as in cycle_gan of TFDS, files of images whose common size is not stated."""
    splits = {"trainA": (0, 20), "trainB": (100, 30), "testA": (50, 3), "testB": (150, 4)}
    files = {
        split: [{"image": io.BytesIO(png(np.full((4, 6, 3), first + i, np.uint8)))} for i in range(n)]
        for split, (first, n) in splits.items()
    }
    write_tfds(tmp_path, "animals", files, {"image": tfds.features.Image()}, config="cats2dogs", ordered=True)
    load = lambda split, **kw: data.load("animals/cats2dogs", split, data_dir=tmp_path, **kw)  # noqa: E731
    both = {"image": images(4, 6, 3), "source": images(4, 6, 3)}
    train, validation, test = (load(split, reads=both) for split in SPLITS)
    assert [[each.size for each in pair.domains] for pair in (train, validation, test)] == [[27, 18], [3, 2], [4, 3]]
    batch = everything(test)
    assert set(batch["source"].ravel()) == {50, 51, 52} and set(batch["image"].ravel()) == {150, 151, 152, 153}
    assert load("testA").size == 3 and list(load("testA").spaces) == ["image"]
    assert load("train[:50%]").size == 15
    with pytest.raises(ValueError, match="'dev'.*trainA"):
        load("dev")


def test_a_rendering_is_the_source_of_what_it_renders_and_its_truth(root):
    """In evaluation row i beside row i; in training each on its own, unless the pairs are asked for."""
    name, both = "rendered/bold,digits", {"image": images(8, 8, 1, 17), "source": images(8, 8, 1, 17)}
    load = lambda name, split=TEST: data.load(name, split, reads=both, data_dir=root)  # noqa: E731
    test, alone = load(name), data.load("digits", TEST, data_dir=root)
    assert test.aligned and test.size == alone.size
    rows = test.take(np.arange(20))
    np.testing.assert_array_equal(rows["image"], alone.take(np.arange(20))["image"])
    np.testing.assert_array_equal(rows["source"], renderings.bold(rows["image"], 17))
    apart = data.batch(load(name, TRAIN), 0, 0, 64)
    assert (apart["source"] != renderings.bold(apart["image"], 17)).any((1, 2, 3)).mean() > 0.9
    pairs = load(f"aligned/{name}", TRAIN)
    together = data.batch(pairs, 0, 0, 64)
    np.testing.assert_array_equal(together["source"], renderings.bold(together["image"], 17))
    assert not pairs.domains and pairs.aligned


def test_either_domain_may_be_the_example(root):
    both = {"source": images(8, 8, 1, 17), "image": images(8, 8, 1, 17)}
    assert data.load("rendered/bold,digits", TEST, reads=both, data_dir=root).field == "source"


def test_fonts_are_the_same_letters_in_both_domains(root):
    """Row i of A and of B are one character in one style, moved alike."""
    parts = {split: data.load("fonts", split, data_dir=root) for split in SPLITS}
    assert {split: part.size for split, part in parts.items()} == {TRAIN: 1424, VALIDATION: 280, TEST: 280}
    assert all(part.aligned and part.shape == (32, 32, 1) for part in parts.values())
    labels_of = {domain: everything(data.load("fonts", f"test{domain}", data_dir=root))["label"] for domain in "AB"}
    np.testing.assert_array_equal(labels_of["A"], labels_of["B"])
    rows = everything(parts[TEST])
    right = np.abs(rows["image"].astype(int) - rows["source"]).mean()
    wrong = np.abs(np.roll(rows["image"], 8, axis=0).astype(int) - rows["source"]).mean()
    assert 0 < right < 0.6 * wrong
    together = data.batch(data.load("aligned/fonts", data_dir=root), 0, 0, 32)
    assert np.abs(together["image"].astype(int) - together["source"]).mean() < 0.6 * wrong


def test_no_exchange_of_colours_leaves_their_law_alone(root):
    """Of the brightest and of the darkest pixel of each image the mean colours differ by 10 or more in every pair."""
    coloured = everything(data.load("colours", data_dir=root))["image"]
    flat = coloured.reshape(len(coloured), -1, 3).astype(float)
    for end in (flat.max(1), flat.min(1)):
        mean = end.mean(0)
        assert min(abs(mean[i] - mean[j]) for i, j in ((0, 1), (1, 2), (2, 0))) > 10


def test_folders_a_and_b_are_two_domains(tmp_path):
    """Sets of different sizes are dealt out each on its own; files of equal names in both are pairs and stay so."""
    for name, sizes in (("apart", {"A": 20, "B": 31}), ("pairs", {"A": 25, "B": 25})):
        for domain, n in sizes.items():
            folder = tmp_path / name / domain
            folder.mkdir(parents=True)
            for i in range(n):
                pixels = np.full((4, 4, 3), 100 * (domain == "B") + i, np.uint8)
                (folder / f"{i:02d}{domain if name == 'apart' else ''}.png").write_bytes(png(pixels))
        data.prepare(name, tmp_path / "data", tmp_path / name)
    load = lambda name, split=TRAIN: data.load(name, split, data_dir=tmp_path / "data")  # noqa: E731
    sets = [[each.size for each in load("apart", split).domains] for split in SPLITS]
    assert sets == [[25, 16], [3, 2], [3, 2]] and not load("apart").aligned
    for split in SPLITS:
        rows = everything(load("aligned/pairs", split))
        np.testing.assert_array_equal(rows["image"], 100 + rows["source"])
    assert (everything(load("apart", TEST))["image"] >= 100).all()
    with pytest.raises(ValueError, match="aligned/apart.*not known"):
        load("aligned/apart")


def test_the_target_of_a_pair_has_a_name():
    names = {"digits": "digits", "pair/a,b": "b", "rendered/bold,digits": "digits", "toy/moons": "toy/moons"}
    names |= {"aligned/rendered/bold,digits": "digits", "aligned/fonts": "fonts", "cycle_gan/maps": "cycle_gan/maps"}
    assert {name: data.target(name) for name in names} == names


# ---- errors ----------------------------------------------------------------------------------------------------------

SHAPE, DIGITS = "--model.space.shape ", images(8, 8, 1, 17)


def reads(name, **spaces):
    return {"name": name, "reads": spaces}


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        ({"name": "mnist"}, FileNotFoundError, ["mnist is not prepared", "tfds", "genmap prepare mnist", "--raw"]),
        ({"name": "lm1b", "length": 8}, FileNotFoundError, ["lm1b is not prepared", "genmap prepare lm1b"]),
        ({"name": "diggits"}, ValueError, ["diggits", "did you mean digits"]),
        ({"name": "cifar1"}, ValueError, ["cifar10"]),
        ({"name": "toy/moon"}, ValueError, ["toy/moons"]),
        ({"name": "../digits"}, ValueError, ["unknown dataset"]),
        ({"name": "digits", "split": "valid"}, ValueError, ["'valid'", "train, validation, test"]),
        ({"name": "digits", "split": "train[:"}, ValueError, ["'train[:'", "train[:50%]"]),
        ({"name": "toy/moons", "split": "dev"}, ValueError, ["'dev'", "train, validation, test"]),
        (reads("digits", image=images(28, 28, 1, 17)), ValueError, ["(8, 8, 1)", "(28, 28, 1)", SHAPE + "8 8 1"]),
        (reads("toy/moons", x=vectors(3)), ValueError, ["(2,)", "(3,)", SHAPE + "2"]),
        (reads("digits", image=images(8, 8, 1, 256)), ValueError, ["0..16", "0..255", "--model.space.levels 17"]),
        (reads("digits", image=images(8, 8, 1, 2)), ValueError, ["0..16", "0..1:", "--model.space.levels 17"]),
        (reads("digits", tokens=tokens(8, 256)), ValueError, ["images of shape (8, 8, 1)", "text in windows of 8"]),
        (reads("digits", x=vectors(2)), ValueError, ["images of shape (8, 8, 1)", "vectors of shape (2,)"]),
        (reads("pydoc", image=images(8, 8, 1)), ValueError, ["pydoc is text", "images of shape (8, 8, 1)"]),
        (reads("pydoc", tokens=tokens(8, 100)), ValueError, ["0..255", "0..99", "--model.vocab to at least 256"]),
        (reads("digits", image=DIGITS, label=labels(62)), ValueError, ["10 classes", "62", "--model.classes 10"]),
        (reads("toy/moons", x=vectors(2), label=labels(2)), ValueError, ["no labels", "2 classes", "model.classes"]),
        (reads("digits", image=DIGITS, source=DIGITS), ValueError, ["'source'", "--data pair/SOURCE,digits"]),
        (reads("pair/digits,digits", image=DIGITS, source=images(9, 9, 1)), ValueError, ["'source'", "(9, 9, 1)"]),
        ({"name": "pair/digits"}, ValueError, ["pair/SOURCE,TARGET"]),
        ({"name": "part/0,digits"}, ValueError, ["part/N,SET"]),
        ({"name": "part/digits"}, ValueError, ["part/N,SET"]),
        ({"name": "part/2,pair/digits,digits"}, ValueError, ["is a pair"]),
        ({"name": "rendered/digits"}, ValueError, ["rendered/RENDERING,NAME", "bold"]),
        ({"name": "rendered/nope,digits"}, ValueError, ["rendered/RENDERING,NAME", "bold"]),
        ({"name": "rendered/bold,pydoc"}, ValueError, ["pydoc is text"]),
        ({"name": "aligned/pair/digits,digits"}, ValueError, ["pair/digits,digits", "not known"]),
        ({"name": "pair/digits,pydoc"}, ValueError, ["pydoc holds text"]),
        ({"name": "pair/digits,toy/moons"}, ValueError, ["toy/moons holds vectors"]),
        ({"name": "pair/digits,diggits"}, ValueError, ["'diggits'", "did you mean digits"]),
        ({"name": "digits", "length": 8}, ValueError, ["not text", "(8, 8, 1)"]),
        ({"name": "toy/moons", "length": 2}, ValueError, ["not text"]),
        ({"name": "pydoc"}, ValueError, ["text", "length"]),
        (reads("pydoc", tokens=tokens(10**7, 256)), ValueError, ["--model.length 10000000", "bytes"]),
    ],
)
def test_errors_say_what_to_do_within_a_second(root, call, error, words):
    for name in ("digits", "pydoc"):
        data.prepare(name, root)
    with contextlib.suppress(error):
        data.load(**call, data_dir=root)  # imports, and the first look at digits
    began = time.perf_counter()
    with pytest.raises(error) as caught:
        data.load(**call, data_dir=root)
    assert time.perf_counter() - began < 1
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_other_file_formats_are_named(tmp_path, rng):
    write_tfds(tmp_path, "mnist", {TRAIN: image_examples(2, rng)[0]}, IMAGE_FEATURES, file_format="tfrecord")
    with pytest.raises(FileNotFoundError, match="array_record"):
        data.load("mnist", data_dir=tmp_path)


@pytest.mark.skipif(preparation.importlib.util.find_spec("tensorflow") is not None, reason="TensorFlow is installed")
def test_preparing_a_tfds_name_without_tensorflow_says_so(tmp_path):
    with pytest.raises(ImportError, match=r"genmap_jax\[tf\].*--raw"):
        data.prepare("mnist", tmp_path)


def test_command_line(tmp_path, capsys):
    cli.main(["prepare", "digits", "--data-dir", str(tmp_path)])
    assert capsys.readouterr().out.strip() == str(tmp_path / "digits" / "1.0.0")
    for argv in (
        ["prepare", "nosuchset"],
        ["prepare", "mnist", "--raw", str(tmp_path / "none")],
        ["prepare", "toy/moons"],
    ):
        with pytest.raises(SystemExit) as stop:
            cli.main([*argv, "--data-dir", str(tmp_path)])
        assert stop.value.code == 2
        error = capsys.readouterr().err.strip()
        assert error.startswith("genmap: error: ") and "\n" not in error


# ---- raw files -------------------------------------------------------------------------------------------------------


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_idx(folder, rng, packed=True, train=30, test=10):
    folder.mkdir()
    splits = {}
    for split, prefix, n in ((TRAIN, "train", train), (TEST, "t10k", test)):
        images, labels = rng.integers(0, 256, (n, 28, 28), np.uint8), rng.integers(0, 10, n, np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            name, body = f"{prefix}-{kind}-ubyte", idx(array)
            (folder / (name + ".gz" * packed)).write_bytes(gzip.compress(body) if packed else body)
        splits[split] = (images, labels)
    return splits


def write_cifar(folder, rng, archive=None, classes=10):
    """Files of the binary version, in a folder of their own or packed. Returns {split: (images, labels)}."""
    folder.mkdir()
    layout = raw.BUILDERS[f"cifar{classes}"]
    inner = folder / layout.archive.removesuffix(".tar.gz")
    inner.mkdir()
    splits = {}
    for split, names in layout.files.items():
        images = rng.integers(0, 256, (4 * len(names), 32, 32, 3), np.uint8)
        labels = rng.integers(0, classes, (len(images), 1), np.uint8)
        coarse = rng.integers(0, 20, (len(images), layout.label_bytes - 1), np.uint8)
        planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        rows = np.concatenate([coarse, labels, planes], axis=1)
        for name, part in zip(names, np.split(rows, len(names)), strict=True):
            (inner / name).write_bytes(part.tobytes())
        splits[split] = (images, labels[:, 0])
    if archive:
        with tarfile.open(folder / layout.archive, "w:gz") as tar:
            tar.add(inner, inner.name)
        shutil.rmtree(inner)
    return splits


def same_set(source, images, labels):
    """Equal as sets of (image, label): TFDS shuffles."""
    got = everything(source)
    pack = lambda images, labels: sorted((x.tobytes(), int(y)) for x, y in zip(images, labels, strict=True))  # noqa: E731
    return pack(got["image"], got["label"]) == pack(images, labels)


@pytest.mark.parametrize("packed", [True, False])
def test_idx_files_round_trip(tmp_path, rng, packed):
    splits = write_idx(tmp_path / "raw", rng, packed)
    folder = data.prepare("fashion_mnist", tmp_path, tmp_path / "raw")
    for split, tfds_split in ((TRAIN, "train[:100%]"), (TEST, TEST)):
        source = data.load("fashion_mnist", tfds_split, data_dir=tmp_path, reads={"image": images(28, 28, 1)})
        assert same_set(source, *splits[split])
    assert data.prepare("fashion_mnist", tmp_path, tmp_path / "raw") == folder
    assert data.prepare("fashion_mnist", tmp_path) == folder
    write_idx(tmp_path / "other", rng)
    with pytest.raises(ValueError, match="prepared from other files"):
        data.prepare("fashion_mnist", tmp_path, tmp_path / "other")


def test_binary_mnist_is_drawn_once_with_the_probabilities_of_the_grey_values(tmp_path, rng):
    """Pixels 0 and 1; grey 0 and 255 are certain, and the mean of all others is that of the grey values."""
    splits = write_idx(tmp_path / "raw", rng, train=200)
    data.prepare("binary_mnist", tmp_path, tmp_path / "raw")
    source = data.load("binary_mnist", "train[:100%]", data_dir=tmp_path, reads={"image": images(28, 28, 1, 2)})
    grey, labels = splits[TRAIN]
    (again, _), (test, _) = (raw.BUILDERS["binary_mnist"].read(tmp_path / "raw")[split] for split in (TRAIN, TEST))
    assert same_set(source, again, labels)
    grey = grey[..., None]
    assert (again[grey == 0] == 0).all() and (again[grey == 255] == 1).all()
    for low in range(0, 250, 50):
        where = (grey >= low) & (grey < low + 50)
        error = (again[where] - grey[where] / 255.0).mean()
        assert abs(error) < 4 * 0.5 / np.sqrt(where.sum())
    assert (again[: len(test)] != test).any()


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize("classes", [10, 100])
def test_cifar_files_round_trip(tmp_path, rng, archive, classes):
    splits = write_cifar(tmp_path / "raw", rng, archive, classes)
    data.prepare(f"cifar{classes}", tmp_path, tmp_path / "raw")
    for split, tfds_split in ((TRAIN, "train[:100%]"), (TEST, TEST)):
        source = data.load(f"cifar{classes}", tfds_split, data_dir=tmp_path, reads={"image": images(32, 32, 3)})
        assert source.classes == classes
        assert same_set(source, *splits[split])


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        (IMAGES, lambda b: b[:-1], "fewer bytes"),
        (IMAGES, lambda b: b + b"\0", "more bytes"),
        (IMAGES, lambda b: b[:10], "dimensions"),
        (IMAGES, lambda b: b"", "magic"),
        (IMAGES, lambda b: b"\x00\x00\x0d" + b[3:], "magic"),
        (IMAGES, lambda b: b[:4] + struct.pack(">I", 2**32 - 1) + b[8:], "claims"),
        (IMAGES, lambda b: b[:4] + struct.pack(">3I", 0, 28, 28), "dimensions"),
        (IMAGES, lambda b: b[:8] + struct.pack(">2I", 56, 14) + b[16:], "dimensions"),
        (LABELS, lambda b: b[:-1] + b"\x0a", "label 10"),
        (LABELS, lambda b: b[:4] + struct.pack(">I", 29) + b[8:-1], "29 labels"),
    ],
)
def test_damaged_idx_files_are_named(tmp_path, rng, name, damage, words):
    write_idx(tmp_path / "raw", rng, packed=False)
    path = tmp_path / "raw" / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=words) as caught:
        data.prepare("mnist", tmp_path, tmp_path / "raw")
    assert ("raw" if "29 labels" in words else name) in str(caught.value)
    assert not (tmp_path / "mnist").exists() and not list(tmp_path.glob(".building-*"))


def test_damaged_archives_are_named(tmp_path, rng):
    write_idx(tmp_path / "raw", rng)
    path = tmp_path / "raw" / f"{IMAGES}.gz"
    good = path.read_bytes()
    for bad in (good[: len(good) // 2], b"nonsense", good[:-20] + b"\0" * 20):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=f"{IMAGES}.gz: damaged"):
            data.prepare("mnist", tmp_path, tmp_path / "raw")
    write_cifar(tmp_path / "cifar", rng, archive=True)
    path = tmp_path / "cifar" / "cifar-10-binary.tar.gz"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match="cifar-10-binary.tar.gz: damaged"):
        data.prepare("cifar10", tmp_path, tmp_path / "cifar")


def test_damaged_cifar_files_are_named(tmp_path, rng):
    write_cifar(tmp_path / "raw", rng)
    path = tmp_path / "raw" / "cifar-10-binary" / "data_batch_3.bin"
    good = path.read_bytes()
    for bad, words in ((good[:-1], "whole number of records"), (b"", "whole number"), (b"\x0a" + good[1:], "label 10")):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=f"data_batch_3.bin: .*{words}"):
            data.prepare("cifar10", tmp_path, tmp_path / "raw")
    path.unlink()
    with pytest.raises(FileNotFoundError, match="neither cifar-10-binary.tar.gz nor data_batch_3.bin"):
        data.prepare("cifar10", tmp_path, tmp_path / "raw")


def test_a_raw_layout_needs_its_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="train-images-idx3-ubyte"):
        data.prepare("mnist", tmp_path, tmp_path)


# ---- processes -------------------------------------------------------------------------------------------------------


def test_imports_are_light_and_tensorflow_is_never_one(tmp_path):
    heavy = python(
        "import sys, genmap_jax.data, genmap_jax.commands.cli\n"
        "print([m for m in ('jax', 'tensorflow_datasets', 'sklearn', 'matplotlib', 'PIL') if m in sys.modules])"
    )
    assert heavy.stdout.strip() == "[]"
    used = python(
        "import sys\n"
        "from genmap_jax import data\n"
        f"data.batch(data.load('digits', data_dir={str(tmp_path)!r}), 0, 0, 8)\n"
        f"data.batch(data.load('pydoc', data_dir={str(tmp_path)!r}, length=8), 0, 0, 8)\n"
        "print('tensorflow_datasets' in sys.modules, 'tensorflow' in sys.modules)"
    )
    assert used.stdout.strip() == "True False"


@pytest.mark.slow
def test_several_processes_may_prepare_at_once(tmp_path):
    code = (
        "import hashlib, numpy as np\n"
        "from genmap_jax import data\n"
        f"source = data.load('digits', data_dir={str(tmp_path)!r})\n"
        "print(hashlib.sha256(source.take(np.arange(source.size))['image'].tobytes()).hexdigest())"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    runs = [subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE) for _ in range(4)]
    outputs = {run.communicate(timeout=120)[0] for run in runs}
    assert all(run.returncode == 0 for run in runs) and len(outputs) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "arrays", "digits"]
    assert len(list((tmp_path / "arrays").iterdir())) == 1
