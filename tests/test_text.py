"""Text as tokens: nothing is lost, bits per byte mean the same with every tokenizer, documents are kept apart."""

import dataclasses
import json
import math

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from test_data import write_tfds

from genmap_jax import data
from genmap_jax.commands.experiment import run as command
from genmap_jax.data import text as texts
from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment, Text
from genmap_jax.run.launch import Launch
from genmap_jax.spaces import tokens as tokens_of
from genmap_jax.tractable import gpt

TEXT = "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind to suffer é ✓ 日本\n"
DOCUMENTS = [TEXT, "", "</s> is four characters\n", "x" * 50]
SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A dataset of text, `plays`: two documents in validation and test, four in train."""
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("text")
    examples = {"train": DOCUMENTS, "validation": DOCUMENTS[2:], "test": [TEXT, "ß"]}
    examples = {split: [{"text": document} for document in part] for split, part in examples.items()}
    write_tfds(folder, "plays", examples, {"text": tfds.features.Text()}, ordered=True)
    return folder


@pytest.fixture(scope="module")
def bpe(tmp_path_factory):
    """A byte-level BPE tokenizer of 300 tokens, with a token between documents."""
    tokenizers = pytest.importorskip("tokenizers", reason="the package tokenizers is not installed (extra `text`)")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=300, special_tokens=["</s>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator([TEXT] * 3, trainer)
    tokenizer.enable_padding(length=99)  # must not reach the tokens
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def whole(root, split, how, **options):
    """(source of one-token examples, all tokens, batch)."""
    source = data.load("plays", split, data_dir=root, length=1, tokenizer=how, **options)
    batch = source.take(np.arange(source.size))
    return source, batch["tokens"][:, 0], batch


@pytest.mark.parametrize("how", ["bytes", "characters", "bpe"])
@pytest.mark.parametrize("split", SPLITS)
def test_tokens_spell_the_text(root, how, split, request):
    """Decoded, the tokens of a split are its documents with `between` between them; smaller than the vocabulary."""
    how = str(request.getfixturevalue("bpe")) if how == "bpe" else how
    source, tokens, _ = whole(root, split, how)
    between = "</s>" if source.tokenizer.unit == "tokens" else "\n"
    wanted = {"train": DOCUMENTS, "validation": DOCUMENTS[2:], "test": [TEXT, "ß"]}[split]
    assert source.tokenizer.decode(tokens) == between.join(wanted)
    assert tokens.min() >= 0 and tokens.max() < source.levels == source.tokenizer.vocab
    assert source.tokenizer.decode(np.arange(source.levels))  # any token can be shown


@pytest.mark.parametrize("how", ["bytes", "characters", "bpe"])
def test_bits_per_byte_do_not_depend_on_the_unit_of_the_tokens(root, how, request):
    """Nats of all windows / (windows x dims x ln 2) = nats / bytes of the text / ln 2, for uniform tokens: 1e-12."""
    how = str(request.getfixturevalue("bpe")) if how == "bpe" else how
    source, tokens, _ = whole(root, "test", how)
    size = len("\n".join([TEXT, "ß"]).encode())
    nats = len(tokens) * math.log(source.levels)
    assert nats / (source.size * source.dims) == pytest.approx(nats / size, rel=1e-12)
    assert (source.dims == 1.0) == (how == "bytes")


def test_a_token_means_the_same_in_every_split(root):
    alphabets = {whole(root, split, "characters")[0].tokenizer.name for split in SPLITS}
    assert len(alphabets) == 1
    source, tokens, _ = whole(root, "test", "characters")
    assert source.levels == len(set("\n".join(DOCUMENTS)) | {"ß"})
    with pytest.raises(ValueError, match="'q'"):
        texts.characters("abc").encode(["abcq"])


def test_a_special_token_written_in_a_text_is_text(root, bpe):
    source, tokens, _ = whole(root, "validation", str(bpe))
    (special,) = source.tokenizer.between
    assert source.tokenizer.decode(tokens).count("</s>") == 2 and (tokens == special).sum() == 1


def test_what_log_probabilities_of_tokens_are_of_the_text(root, bpe):
    """Exact, of tokens that spell a text in one way only; else a lower bound."""
    kinds = {how: whole(root, "test", how)[0].kind("exact") for how in ("bytes", "characters", str(bpe))}
    assert list(kinds.values()) == ["exact", "exact", "lower_bound"]


@pytest.mark.parametrize("how", ["bytes", "characters", "bpe"])
def test_packed_windows_number_their_documents(root, how, request):
    """A new number at each document's first token and nowhere else; what stands between belongs to the one before."""
    how = str(request.getfixturevalue("bpe")) if how == "bpe" else how
    source = data.load("plays", "train", data_dir=root, length=40, tokenizer=how, packed=True)
    batch = source.take(np.arange(source.size))
    tokens, segments = batch["tokens"], batch["segments"]
    assert segments.dtype == np.int32 and (segments[:, 0] == 0).all()
    _, stream, single = whole(root, "train", how, packed=True)
    assert (single["segments"] == 0).all()
    pieces = [source.tokenizer.encode([document])[0] for document in DOCUMENTS]
    number = np.repeat(np.arange(4), [len(p) + len(source.tokenizer.between) * (i < 3) for i, p in enumerate(pieces)])
    assert len(number) == len(stream)
    for row, (window, numbers) in enumerate(zip(tokens, segments, strict=True)):
        np.testing.assert_array_equal(window, stream[row : row + 40])
        np.testing.assert_array_equal(numbers, number[row : row + 40] - number[row])


def test_tokens_are_made_once_and_by_the_file_at_hand(root, bpe, tmp_path, capsys):
    whole(root, "test", str(bpe))
    capsys.readouterr()
    whole(root, "test", str(bpe))
    assert "once" not in capsys.readouterr().err
    other = json.loads(bpe.read_text())
    other["model"]["merges"] = other["model"]["merges"][:5]
    (tmp_path / "tokenizer.json").write_text(json.dumps(other))
    _, tokens, _ = whole(root, "test", str(tmp_path / "tokenizer.json"))
    assert "once" in capsys.readouterr().err and len(tokens) > len(whole(root, "test", str(bpe))[1])


@pytest.mark.slow
def test_a_gpt_is_trained_on_packed_characters(root, tmp_path):
    """Through the runner: bits per byte of a model of uniform characters, and samples as text."""
    vocab = whole(root, "test", "characters")[0].levels
    model = gpt.Config(vocab=vocab, length=16, layers=1, heads=1, width=8, optim=Optim(lr=1e-9))
    cfg = Experiment("plays", "plays", model, steps=2, batch_size=4, samples=3, text=Text("characters", packed=True))
    cfg = dataclasses.replace(cfg, log_every=1)
    assert command(cfg, gpt.FAMILY, {}, Launch(tmp_path, devices=1, data_dir=root, tensorboard=False)) == 0
    measured = json.loads((tmp_path / "result.json").read_text())["likelihood"]
    expected = math.log2(vocab) / whole(root, "test", "characters")[0].bytes_per_token
    assert measured["kind"] == "exact" and measured["value"] == pytest.approx(expected, rel=0.02)
    text = (tmp_path / "samples" / "00000002.txt").read_text()
    assert len(text) >= 3 * 16 and set(text) <= set("".join(DOCUMENTS) + "ß\ufffd")


def test_wrong_tokenizers_are_named(root, bpe, tmp_path):
    with pytest.raises(FileNotFoundError, match="charcters: there is no such file"):
        whole(root, "test", "charcters")
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(ValueError, match="t.json is not a tokenizer.json"):
        whole(root, "test", str(tmp_path / "t.json"))
    with pytest.raises(ValueError, match="--model.vocab to at least 300"):
        data.load("plays", "test", data_dir=root, reads={"tokens": tokens_of(4, 256)}, tokenizer=str(bpe))
    with pytest.raises(ValueError, match="digits is not text"):
        data.load("digits", "test", data_dir=root, tokenizer="characters")


def test_a_tokenizer_that_loses_text_gives_estimates_only(root, tmp_path, capsys):
    """Unknown words: neither the exact likelihood of the tokens nor a bound is one of the text."""
    tokenizers = pytest.importorskip("tokenizers", reason="the package tokenizers is not installed (extra `text`)")
    lossy = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "be": 1}, unk_token="[UNK]"))
    lossy.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    lossy.save(str(tmp_path / "tokenizer.json"))
    source, _, _ = whole(root, "train", str(tmp_path / "tokenizer.json"))
    assert "loses text of 4 of 4 documents" in capsys.readouterr().err
    assert [source.kind(kind) for kind in ("exact", "lower_bound")] == ["estimate", "estimate"]


def test_a_tokenizer_without_a_newline_loses_what_parts_documents(tmp_path, capsys):
    """Every document is spelled exactly, but nothing is between them: of two documents the text is not theirs."""
    tokenizers = pytest.importorskip("tokenizers", reason="the package tokenizers is not installed (extra `text`)")
    letters = tokenizers.Tokenizer(tokenizers.models.BPE({c: i for i, c in enumerate("abc")}, []))
    letters.decoder = tokenizers.decoders.Fuse()
    letters.save(str(tmp_path / "letters.json"))
    for name, documents in (("one", ["abcabcabcabc"]), ("two", ["abc"] * 2 + ["cab"] * 2 + ["bca"] * 2)):
        (tmp_path / name).mkdir()
        for i, document in enumerate(documents):
            (tmp_path / name / f"{i}.txt").write_text(document)
        data.prepare(name, tmp_path, tmp_path / name)
    kinds = {}
    for name in ("one", "two"):
        how = {"data_dir": tmp_path, "length": 1, "tokenizer": str(tmp_path / "letters.json")}
        kinds[name] = [data.load(name, split, **how).kind("exact") for split in SPLITS]
    assert set(kinds["one"]) == {"lower_bound"} and "estimate" in kinds["two"]


# ---- texts from their original files ---------------------------------------------------------------------------------


def test_tiny_shakespeare_is_split_as_tfds_does(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    text = "".join(chr(97 + i % 26) for i in range(1007))
    (raw / "input.txt").write_text(text)
    data.prepare("tiny_shakespeare", tmp_path, raw)
    parts = {}
    for split in SPLITS:
        source = data.load("tiny_shakespeare", split, data_dir=tmp_path, length=1, tokenizer="characters")
        parts[split] = source.tokenizer.decode(source.take(np.arange(source.size))["tokens"][:, 0])
    assert [len(part) for part in parts.values()] == [906, 50, 51] and "".join(parts.values()) == text
    data.prepare("tiny_shakespeare", tmp_path, raw)  # the same files: nothing to do
    (raw / "input.txt").write_text(text + "!")
    with pytest.raises(ValueError, match="other files"):
        data.prepare("tiny_shakespeare", tmp_path, raw)
    (raw / "input.txt").unlink()
    with pytest.raises(FileNotFoundError, match="input.txt"):
        data.prepare("tiny_shakespeare", tmp_path / "new", raw)


def test_line_ends_are_bytes_like_others(tmp_path):
    """A text with CR LF keeps every byte; one that is not UTF-8 is named."""
    raw = tmp_path / "raw"
    raw.mkdir()
    text = "".join(f"line {i}\r\n" for i in range(50)) + "\rend\n\n"
    (raw / "input.txt").write_bytes(text.encode())
    data.prepare("tiny_shakespeare", tmp_path, raw)
    sources = [data.load("tiny_shakespeare", split, data_dir=tmp_path, length=1) for split in SPLITS]
    tokens = [source.take(np.arange(source.size))["tokens"][:, 0].astype(np.uint8) for source in sources]
    assert b"".join(part.tobytes() for part in tokens) == text.encode()
    (raw / "input.txt").write_bytes(b"short")
    with pytest.raises(ValueError, match="input.txt: 5 characters are too few"):
        data.prepare("tiny_shakespeare", tmp_path / "short", raw)
    (raw / "input.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match="input.txt is not UTF-8"):
        data.prepare("tiny_shakespeare", tmp_path / "new", raw)


def test_openwebtext_goes_to_its_splits_by_number(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    pages = [f"page {i}" for i in range(2500)]
    for name, part in (("b", pages[1500:]), ("a", pages[:1500])):
        pyarrow.parquet.write_table(pyarrow.table({"id": range(len(part)), "text": part}), raw / f"{name}.parquet")
    data.prepare("openwebtext", tmp_path, raw)
    parts = {}
    for split in SPLITS:
        source = data.load("openwebtext", split, data_dir=tmp_path, length=1)
        parts[split] = source.tokenizer.decode(source.take(np.arange(source.size))["tokens"][:, 0]).split("\n")
    assert parts["validation"] == ["page 0", "page 2000"] and parts["test"] == ["page 1000"]
    assert parts["train"] == [page for i, page in enumerate(pages) if i % 1000]
    (raw / "b.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ValueError, match="b.parquet is not a Parquet file"):
        data.prepare("openwebtext", tmp_path / "new", raw)
    pyarrow.parquet.write_table(pyarrow.table({"text": ["x", None]}), raw / "b.parquet")
    with pytest.raises(ValueError, match="b.parquet: document 1501 is None, not a text"):
        data.prepare("openwebtext", tmp_path / "new", raw)
    pyarrow.parquet.write_table(pyarrow.table({"body": ["x"]}), raw / "b.parquet")
    with pytest.raises(ValueError, match="b.parquet is not a Parquet file"):
        data.prepare("openwebtext", tmp_path / "new", raw)
