"""Own data by one command: pixels, numbers and bytes arrive as promised, splits do not leak, nothing is skipped."""

import hashlib
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genmap_jax import data
from genmap_jax.data import image_files, preparation
from genmap_jax.data.own.files import deal

SPLITS = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def nothing_outside(monkeypatch, tmp_path):
    """No test reads or writes the user's own data folders."""
    monkeypatch.setenv("GENMAP_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(preparation, "TFDS_DIR", str(tmp_path / "tfds"))


@pytest.fixture
def raw(tmp_path):
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def save(path, array, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(path, **how)


def everything(name, splits=SPLITS):
    sources = {split: data.load(name, split) for split in splits}
    return {split: source.take(np.arange(source.size)) for split, source in sources.items()}


def text_of(name, split):
    source = data.load(name, split, length=1)
    return source.take(np.arange(source.size))["tokens"][:, 0].astype(np.uint8).tobytes()


def rows(array):
    return [np.ascontiguousarray(row).tobytes() for row in array]


def refused(name, raw, **options):
    """The one line of the error."""
    with pytest.raises(ValueError) as caught:
        data.prepare(name, None, raw, **options)
    assert "\n" not in str(caught.value)
    assert not (Path(os.environ["GENMAP_DATA"]) / name).exists()
    return str(caught.value)


# ---- images ----------------------------------------------------------------------------------------------------------


def test_a_folder_of_images_with_labels(raw, rng, capsys):
    """Every image arrives once, with the label of its folder; a tenth is test, a tenth validation."""
    pictures = rng.integers(0, 256, (60, 6, 5, 3), np.uint8)
    for i, picture in enumerate(pictures):
        save(raw / ("cats", "dogs", "eels")[i % 3] / f"{i}.{('png', 'PNG', 'webp')[i % 3]}", picture, lossless=True)
    (raw / "README.md").write_text("mine")
    (raw / ".hidden").write_text("not looked at")
    data.prepare("pets", None, raw)
    assert "left out, as they are not images: README.md\n" in capsys.readouterr().err
    parts = everything("pets")
    assert [len(part["image"]) for part in parts.values()] == [48, 6, 6]
    found = {
        body: label for part in parts.values() for body, label in zip(rows(part["image"]), part["label"], strict=True)
    }
    assert found == {body: i % 3 for i, body in enumerate(rows(pictures))}
    source = data.load("pets")
    assert (source.shape, source.levels, source.classes) == ((6, 5, 3), 256, 3)


def test_splits_follow_the_content_and_equal_images_stay_together(raw, tmp_path, rng):
    """Renaming changes nothing; of each image there are two files, and no copy crosses into another split."""
    pictures = rng.integers(0, 256, (40, 4, 4), np.uint8)
    for i, picture in enumerate(pictures):
        save(raw / f"{i}.png", picture)
        save(raw / f"copy {i}.png", picture, compress_level=0)
        save(tmp_path / "other" / f"{1000 - i}.png", picture)
    data.prepare("twice", None, raw)
    data.prepare("renamed", None, tmp_path / "other")
    twice, renamed = everything("twice"), everything("renamed")
    sets = [set(rows(part["image"])) for part in twice.values()]
    assert sum(map(len, sets)) == 40 and all(len(part["image"]) % 2 == 0 for part in twice.values())
    assert [set(rows(part["image"])) for part in renamed.values()] == sets
    assert data.load("twice").classes is None and data.load("twice").shape == (4, 4, 1)


def test_the_dealing_of_examples():
    digests = np.array([9, 1, 1, 1, 5, 7, 3, 2, 8, 6, 4], np.uint64)
    group, taken = deal({"": digests})["test"]
    assert group == "" and sorted(digests[taken]) == [1, 1, 1]
    parts = deal({"": digests})
    assert [digests[parts[split][1]].tolist() for split in SPLITS] == [[3, 4, 5, 6, 7, 8, 9], [2], [1, 1, 1]]
    lent = deal({"train": digests, "test": digests[:2]})
    assert {split: (group, len(r)) for split, (group, r) in lent.items()} == {
        "train": ("train", 8),
        "validation": ("train", 3),
        "test": ("test", 2),
    }
    with pytest.raises(ValueError, match="2 examples are too few: give at least 3"):
        deal({"": digests[:2]})
    with pytest.raises(ValueError, match="the splits train, validation are not enough"):
        deal({"train": digests, "validation": digests})


@pytest.mark.parametrize("names", [("train", "val", "test"), ("train", "test"), ("train",)])
def test_folders_of_splits(raw, rng, names):
    pictures = rng.integers(0, 256, (3, 20, 4, 4), np.uint8)
    for split, part in zip(names, pictures, strict=False):
        for i, picture in enumerate(part):
            save(raw / "inner" / split / f"class {i % 2}" / f"{i}.png", picture)
    data.prepare("mine", None, raw)
    parts = everything("mine")
    if names == ("train",):
        assert [len(part["image"]) for part in parts.values()] == [16, 2, 2]
        return
    assert set(rows(parts["test"]["image"])) == set(rows(pictures[names.index("test")]))
    if "val" in names:
        assert set(rows(parts["validation"]["image"])) == set(rows(pictures[1]))
    assert sum(len(parts[split]["image"]) for split in ("train", "validation")) == 20 * (len(names) - 1)
    assert data.load("mine").classes == 2


def test_folders_of_two_domains(raw, rng):
    for split in ("trainA", "trainB", "testA", "testB"):
        for i in range(10):
            save(raw / split / f"{i}.png", np.full((4, 4, 3), 100 * ("B" in split) + i, np.uint8))
    data.prepare("horses", None, raw)
    pair = data.load("horses", "test")
    batch = pair.take(np.arange(10))
    assert batch["source"].max() < 100 <= batch["image"].min()
    assert [part.size for part in data.load("horses", "validation").domains] == [1, 1]


def encoded(image, form="png", **how):
    stream = io.BytesIO()
    image.save(stream, form, **how)
    return stream.getvalue()


def test_rules_of_conversion(rng):
    """Each kind of pixel against numbers computed without the code at hand."""
    grey = rng.integers(0, 256, (6, 7), np.uint8)
    colours = rng.integers(0, 256, (6, 7, 3), np.uint8)
    alpha = rng.integers(0, 256, (6, 7), np.uint8)
    decode = image_files.decode
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(grey)), 1)[..., 0], grey)
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(grey)), 3), np.repeat(grey[..., None], 3, -1))
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(colours)), 3), colours)
    few = Image.fromarray(grey // 64 * 64).convert("P", palette=Image.Palette.ADAPTIVE)
    np.testing.assert_array_equal(decode(encoded(few), 1)[..., 0], grey // 64 * 64)
    deep = rng.integers(0, 2**16, (6, 7), np.uint16)
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(deep)), 1)[..., 0], deep >> 8)
    bits = Image.fromarray(grey > 127)
    np.testing.assert_array_equal(decode(encoded(bits), 1)[..., 0], np.where(grey > 127, 255, 0))
    clear = Image.fromarray(np.concatenate([colours, alpha[..., None]], -1))
    over_white = 255 + (colours.astype(float) - 255) * alpha[..., None] / 255
    for form, how in (("png", {}), ("webp", {"lossless": True, "exact": True})):
        assert np.abs(decode(encoded(clear, form, **how), 3) - over_white).max() <= 1
    np.testing.assert_array_equal(decode(encoded(clear), 4), np.asarray(clear))
    faint = Image.merge("LA", (Image.fromarray(grey), Image.fromarray(alpha)))
    assert np.abs(decode(encoded(faint), 1)[..., 0] - (255 + (grey.astype(float) - 255) * alpha / 255)).max() <= 1
    luma = colours @ np.array([0.299, 0.587, 0.114])
    assert np.abs(decode(encoded(Image.fromarray(colours)), 1)[..., 0] - luma).max() <= 1
    key = few.copy()
    key.info["transparency"] = 0
    hidden = np.where(np.asarray(few) == 0, 255, grey // 64 * 64)
    np.testing.assert_array_equal(decode(encoded(key, transparency=0), 1)[..., 0], hidden)


def test_photographs_are_upright_and_cmyk_is_colour(raw, rng):
    """EXIF orientation 6 is a quarter turn, so height and width change places, in the header as in the pixels."""
    smooth = np.linspace(0, 255, 8 * 16 * 3).reshape(8, 16, 3).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    body = encoded(Image.fromarray(smooth), "jpeg", exif=exif, quality=95)
    (raw / "a.jpg").write_bytes(body)
    assert image_files.header(raw / "a.jpg") == (16, 8, False)
    assert np.abs(image_files.decode(body, 3) - np.rot90(smooth, -1).astype(float)).mean() < 8
    ink = Image.fromarray(np.full((8, 8, 4), [0, 255, 255, 0], np.uint8), mode="CMYK")
    red = image_files.decode(encoded(ink, "jpeg"), 3)[4, 4]
    assert red[0] > 240 and red[1] < 15 and red[2] < 15


def test_a_set_is_grey_if_all_of_its_images_are(raw, rng):
    grey = rng.integers(0, 256, (9, 4, 4), np.uint8)
    for i, picture in enumerate(grey):
        image = Image.fromarray(picture)
        save(raw / f"{i}.png", (image, image.convert("P"), image.convert("LA"))[i % 3])
    data.prepare("greys", None, raw)
    assert data.load("greys").shape == (4, 4, 1)
    save(raw / "9.png", np.zeros((4, 4, 3), np.uint8))
    data.prepare("coloured", None, raw)
    assert data.load("coloured").shape == (4, 4, 3)


def test_sizes_and_crops(raw, rng):
    """Without options the odd ones are named with the fix; the crop keeps the centre, the resizing is antialiased."""
    for i in range(12):
        save(raw / f"{i:02d}.png", rng.integers(0, 256, (8, 8), np.uint8))
    stripes = np.zeros((8, 32), np.uint8)
    stripes[:, 6:26] = 200  # the centre, and what the filter sees beside it
    save(raw / "wide.png", stripes)
    told = refused("mine", raw)
    assert "most are 8x8" in told and "wide.png 8x32" in told and "--size 8x8 --crop" in told
    told = refused("mine", raw, size=4)
    assert "--size 4x4" in told and "wide.png 8x32" in told and "add --crop" in told and "00.png" not in told
    assert "--size" in refused("mine", raw, crop=True)
    for wrong in ("0", "4x", "axb", "1x2x3", -4):
        assert f"--size {wrong}: give" in refused("mine", raw, size=wrong)
    data.prepare("small", None, raw, size="4", crop=True)
    images = np.concatenate([part["image"] for part in everything("small").values()])
    assert images.shape == (13, 4, 4, 1) and (images == 200).all((1, 2, 3)).sum() == 1
    data.prepare("flat", None, raw, size=(4, 8), crop=True)
    assert data.load("flat").shape == (4, 8, 1)
    checks = np.indices((8, 8)).sum(0) % 2 * 255  # a checkerboard of pixels is grey when it is made smaller
    body = encoded(Image.fromarray(checks.astype(np.uint8)))
    assert np.abs(image_files.decode(body, 1, (4, 4))[1:-1, 1:-1].astype(float) - 127.5).max() < 30


def test_broken_images_are_all_named_and_none_is_skipped(raw, rng):
    for i in range(20):
        save(raw / f"{i:02d}.png", rng.integers(0, 256, (32, 32), np.uint8))
    whole = (raw / "07.png").read_bytes()
    (raw / "07.png").write_bytes(whole[: len(whole) // 2])
    told = refused("mine", raw)
    assert "1 could not be read: 07.png (image file is truncated)" in told and "none is skipped" in told
    for name, body in {"03.png": b"", "05.png": b"GIF89a", "11.jpg": whole[:40]}.items():
        (raw / name).write_bytes(body)
    told = refused("mine", raw)
    assert "3 could not be read: 03.png (not a PNG, JPEG or WebP file), 05.png" in told and "11.jpg" in told
    for i in range(20):
        (raw / f"{i:02d}.png").write_bytes(b"no")
    told = refused("mine", raw)
    assert "21 could not be read" in told and "09.png" in told and "10.png" not in told and "and 11 more" in told


def test_animations_and_images_beside_labelled_folders_are_refused(raw):
    frames = [Image.fromarray(np.full((4, 4), 100 * i, np.uint8)) for i in range(3)]
    frames[0].save(raw / "moving.webp", save_all=True, append_images=frames[1:])
    assert "moving.webp (3 frames)" in refused("mine", raw)
    (raw / "moving.webp").unlink()
    for name in ("a/1.png", "b/2.png", "3.png"):
        save(raw / name, np.zeros((4, 4), np.uint8))
    told = refused("mine", raw)
    assert "the folders a, b are labels" in told and "in none: 3.png" in told
    (raw / "a").rename(raw / "train")
    assert "the splits train, but these belong to none: 3.png, b/2.png" in refused("mine", raw)


# ---- arrays ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_vectors_load_as_any_other_set(raw, rng, dtype):
    x, y = rng.normal(size=(50, 3)).astype(dtype), rng.integers(0, 4, 50)
    np.savez(raw / "points.npz", x=x, y=y)
    data.prepare("points", None, raw)
    parts = everything("points")
    assert [part["x"].shape for part in parts.values()] == [(40, 3), (5, 3), (5, 3)]
    assert all(part["x"].dtype == np.float32 and part["label"].dtype == np.int32 for part in parts.values())
    found = {row: label for part in parts.values() for row, label in zip(rows(part["x"]), part["label"], strict=True)}
    assert found == dict(zip(rows(x.astype(np.float32)), y, strict=True))
    source = data.load("points")
    assert (source.field, source.shape, source.levels, source.classes) == ("x", (3,), None, 4)
    assert data.batch(source, 0, 0, 8)["x"].shape == (8, 3)


def test_arrays_of_images_in_one_file_or_in_files_of_splits(raw, tmp_path, rng):
    x = rng.integers(0, 17, (30, 5, 4), np.uint8)
    np.save(tmp_path / "images.npy", x)
    data.prepare("one", None, tmp_path / "images.npy")
    assert sum(len(part["image"]) for part in everything("one").values()) == 30
    assert data.load("one").shape == (5, 4, 1)
    from genmap_jax.spaces import images

    assert data.load("one", reads={"image": images(5, 4, 1, 17)}).levels == 17  # all values fit
    for split, part in zip(("train", "val", "test"), np.split(x, [10, 25]), strict=True):
        np.save(raw / f"{split}_images.npy", part)
        np.save(raw / f"{split}_labels.npy", np.arange(len(part))[:, None] % 10)
    data.prepare("several", None, raw)
    parts = everything("several")
    assert [len(part["image"]) for part in parts.values()] == [10, 15, 5] and data.load("several").classes == 10
    assert set(rows(parts["validation"]["image"][..., 0])) == set(rows(x[10:25]))
    order = {row: i % 10 for i, row in enumerate(rows(x[10:25]))}
    assert [order[row] for row in rows(parts["validation"]["image"][..., 0])] == parts["validation"]["label"].tolist()
    keras = tmp_path / "keras.npz"
    np.savez_compressed(keras, x_train=x[:20], y_train=np.arange(20), x_test=x[20:], y_test=np.arange(10))
    data.prepare("keras", None, keras)
    assert [len(part["image"]) for part in everything("keras").values()] == [18, 2, 10]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": np.zeros((9, 4, 4, 3), np.float32)}, ["float32 [9, 4, 4, 3]", "uint8 [N, H, W, C]"]),
        ({"x": np.zeros((9, 4), np.uint8)}, ["uint8 [9, 4]", "vectors floating-point"]),
        ({"x": np.zeros((9, 3, 32, 32), np.uint8)}, ["32 channels", "colours last"]),
        ({"x": np.array([[0.0], [np.nan], [np.inf]])}, ["NaN or infinite values in 2 rows, the first of them [1, 2]"]),
        ({"x": np.zeros((0, 4))}, ["is empty"]),
        ({"a": np.zeros((9, 4)), "b": np.zeros((9, 4))}, ["one array of examples", "a is float64", "b is float64"]),
        ({"x": np.zeros((9, 4)), "y": np.arange(8)}, ["one for each of 9 examples", "y is int64 [8]"]),
        ({"x": np.zeros((9, 4)), "y": np.arange(9) - 1}, ["integers from 0 on"]),
        ({"x": np.zeros((9, 4)), "y": np.zeros(9)}, ["integers from 0 on", "float64"]),
        ({"x_train": np.zeros((9, 4)), "x_test": np.zeros((9, 5))}, ["differ in type, shape"]),
        ({"x_train": np.zeros((9, 4)), "x": np.zeros((9, 4))}, ["the splits train", "belong to none: data.npz: x"]),
        ({"x": np.array([{"a": 1}], object)}, ["data.npz", "allow_pickle"]),
    ],
)
def test_arrays_that_do_not_fit_are_named_with_the_fix(raw, arrays, words):
    np.savez(raw / "data.npz", **arrays)
    told = refused("mine", raw)
    for word in words:
        assert word in told


def test_nothing_is_unpickled_and_damaged_arrays_are_named(raw, tmp_path):
    class Harm:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "harm",))

    np.save(raw / "a.npy", np.array([Harm()], object), allow_pickle=True)
    np.savez(raw / "d.npz", x=np.array([Harm()], object))
    np.savez(raw / "b.npz", np.zeros((3, 3)))
    (raw / "b.npz").write_bytes((raw / "b.npz").read_bytes()[:60])
    (raw / "c.npy").write_bytes(b"\x93NUMPY")
    told = refused("mine", raw)
    assert "4 could not be read: a.npy" in told and all(name in told for name in ("b.npz", "c.npy", "d.npz"))
    assert not (tmp_path / "harm").exists()
    assert "--size and --crop are of files of images" in refused("mine", raw, size=4)


# ---- text ------------------------------------------------------------------------------------------------------------

ODD = 'a\r\nb\u2028c "quoted" \\ é ✓ 日本\r'


def test_one_text_is_cut_and_keeps_every_byte(raw):
    text = ODD * 50
    (raw / "book.txt").write_bytes(text.encode())
    data.prepare("book", None, raw)
    parts = [text_of("book", split) for split in SPLITS]
    assert b"".join(parts) == text.encode()
    assert [len(part.decode()) for part in parts] == [len(text) * 8 // 10, len(text) // 10, len(text) // 10]
    (raw / "book.txt").rename(raw / "train.txt")
    (raw / "test.txt").write_text("held out")
    data.prepare("held", None, raw)
    parts = [text_of("held", split) for split in SPLITS]
    assert b"".join(parts[:2]) == text.encode() and len(parts[0].decode()) == len(text) * 9 // 10
    assert parts[2] == b"held out"


def test_a_text_too_short_for_three_splits_is_named(raw):
    (raw / "note.txt").write_text("short")
    assert "a text of 5 characters is too short to be cut into train, validation, test" in refused("note", raw)
    (raw / "note.txt").write_text("longer")
    data.prepare("note", None, raw)
    assert b"".join(text_of("note", split) for split in SPLITS) == b"longer"


def test_documents_of_json_lines(raw):
    """One document a line, whatever it holds; in their order within a split, each in one split only."""
    documents = [f"<{i}> {ODD}" for i in range(40)]
    lines = [json.dumps({"text": document, "id": 1}, ensure_ascii=i % 2 == 0) for i, document in enumerate(documents)]
    (raw / "a.jsonl").write_text("\n".join(lines[:15]) + "\n\n")
    (raw / "b.jsonl").write_text("\r\n".join(lines[15:]), newline="")
    data.prepare("pages", None, raw)
    assert sorted(sum((text_of("pages", split).decode().split("\n") for split in SPLITS), [])) == sorted(
        "\n".join(documents).split("\n")
    )
    sizes = {}
    for split in SPLITS:
        packed = data.load("pages", split, length=1, packed=True)
        text = text_of("pages", split).decode()
        there = [document for document in documents if document in text]
        assert "\n".join(there) == text and packed.size == len(text.encode())
        sizes[split] = len(there)
    assert sizes == {"train": 32, "validation": 4, "test": 4}


def test_several_texts_are_documents_and_their_folders_splits(raw):
    for i in range(30):
        (raw / f"{i:02d}.txt").write_text(f"document {i}")
    data.prepare("notes", None, raw)
    parts = [text_of("notes", split).decode().split("\n") for split in SPLITS]
    assert [len(part) for part in parts] == [24, 3, 3]
    assert sorted(sum(parts, [])) == sorted(f"document {i}" for i in range(30))
    for split in SPLITS:
        (raw / split).mkdir()
    for i in range(30):
        (raw / f"{i:02d}.txt").rename(raw / SPLITS[i % 3] / f"{i:02d}.txt")
    data.prepare("sorted", None, raw)
    assert text_of("sorted", "test").decode().split("\n") == [f"document {i}" for i in range(2, 30, 3)]


def test_broken_texts_are_named(raw):
    lines = ['{"text": "fine"}', '{"body": "x"}', "no", '{"text": 3}', "[1]", '{"text": "\\ud800"}', "null"]
    (raw / "a.jsonl").write_text("\n".join([*lines, '{"text": null}', ""]))
    told = refused("mine", raw)
    assert '7 could not be read: a.jsonl, line 2 (not {"text": ...}), a.jsonl, line 3' in told and "line 8" in told
    (raw / "a.jsonl").unlink()
    (raw / "b.txt").write_bytes(b"caf\xe9")
    assert "b.txt (not UTF-8" in refused("mine", raw)


# ---- names, and preparing again --------------------------------------------------------------------------------------


def test_preparing_again(raw, tmp_path, rng, capsys):
    """The same files: nothing to do. Other pixels, other labels or other options: refused."""
    for i in range(12):
        save(raw / "ab"[i % 2] / f"{i}.png", rng.integers(0, 256, (4, 4), np.uint8))
    folder = data.prepare("mine", None, raw)
    assert folder == tmp_path / "data" / "mine" / "1.0.0"
    before = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    capsys.readouterr()
    assert data.prepare("mine", None, raw) == data.prepare("mine") == folder
    assert "preparing" not in capsys.readouterr().err
    for change in ({"size": 2}, {}):
        if not change:
            (raw / "a" / "0.png").rename(raw / "b" / "0.png")
        with pytest.raises(ValueError, match="prepared from other files"):
            data.prepare("mine", None, raw, **change)
    assert before == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [".lock", "mine"]


def test_names_and_folders_that_will_not_do(raw, tmp_path):
    save(raw / "1.png", np.zeros((4, 4), np.uint8))
    for name in ("my-images", "a/b", "1st", "digits", "toy", "arrays"):
        assert "the name of own data" in refused(name, raw)
    assert "too few" in refused("mine", raw)
    (raw / "1.png").rename(raw / "1.tiff")
    assert "holds no data" in refused("mine", raw) and ".jsonl" in refused("mine", raw)
    with pytest.raises(FileNotFoundError, match="neither a folder nor a file"):
        data.prepare("mine", None, tmp_path / "none")
    with pytest.raises(ValueError, match="--size and --crop are of own images"):
        data.prepare("digits", size=8)
    with pytest.raises(ValueError, match="own data: genmap prepare NAME --raw FOLDER"):
        data.load("mine")
