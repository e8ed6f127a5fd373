"""Builders for datasets whose original files are already on disk: the MNIST family (IDX), CIFAR (binary version), and
the texts Tiny Shakespeare and OpenWebText.

TFDS's own builders of these names need TensorFlow even when the files are at hand, or do not exist; these do not.
Nothing is unpickled and nothing is extracted to disk. Every length, dimension and label is checked against what the
format promises; a file that breaks it raises ValueError with its name. IDX: http://yann.lecun.com/exdb/mnist; CIFAR:
https://www.cs.toronto.edu/~kriz/cifar.html, "binary version".
"""

# mypy: disable-error-code="call-arg"

import gzip
import hashlib
import math
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import tensorflow_datasets as tfds

Arrays = tuple[np.ndarray, np.ndarray]  # images uint8 [N, H, W, C], labels [N]

LARGEST = 2**30  # bytes of one file: six times CIFAR's largest
UNREADABLE = (OSError, EOFError, zlib.error, tarfile.TarError)  # what a damaged .gz or .tar.gz raises


class Raw(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """{"image": uint8 `shape`, "label": 0..classes-1} from the files in TFDS's `manual_dir`; splits train and test."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Pass the folder that holds the original files."
    shape: tuple[int, int, int]
    classes: int
    levels: int = 256  # of grey

    @classmethod
    def read(cls, folder: Path) -> dict[str, Arrays]:
        """Parse and check the files of both splits. Raises ValueError naming the file, FileNotFoundError."""
        raise NotImplementedError

    @classmethod
    def content(cls, folder: Path) -> str:
        """Tells other files from these."""
        return content(cls.read(folder))

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(shape=self.shape, dtype=np.uint8),
                    "label": tfds.features.ClassLabel(num_classes=self.classes),
                }
            ),
            metadata=tfds.core.MetadataDict(levels=self.levels),
        )

    def _split_generators(self, dl_manager):
        splits = self.read(Path(dl_manager.manual_dir))
        self.info.metadata["content"] = content(splits)
        return {split: self._generate_examples(*arrays) for split, arrays in splits.items()}

    def _generate_examples(self, images, labels):
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield i, {"image": image, "label": int(label)}


def content(splits: dict[str, Arrays]) -> str:
    """A hash of what the files hold, however they are packed."""
    sha = hashlib.sha256()
    for split in sorted(splits):
        for array in splits[split]:
            sha.update(f"{split} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


# ---- IDX: mnist, binary_mnist, fashion_mnist, kmnist -----------------------------------------------------------------


class Idx(Raw, skip_registration=True):
    shape, classes = (28, 28, 1), 10

    @classmethod
    def read(cls, folder):
        splits = {}
        for split, prefix in {"train": "train", "test": "t10k"}.items():
            images = read_idx(folder / f"{prefix}-images-idx3-ubyte", cls.shape[:2])
            labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte", ())
            if len(images) != len(labels):
                raise ValueError(f"{folder}: {prefix} has {len(images)} images but {len(labels)} labels")
            _check_labels(labels, cls.classes, folder / f"{prefix}-labels-idx1-ubyte")
            splits[split] = (images[..., None], labels)
        return splits


class Mnist(Idx, skip_registration=True):
    name = "mnist"


class BinaryMnist(Idx, skip_registration=True):
    """MNIST with pixels 0 and 1: each is 1 with probability grey value / 255, drawn once, so that the data are fixed.

    Salakhutdinov & Murray 2008. Larochelle's files, on which likelihoods are published, were drawn in the same way with
    other random numbers.
    """

    name, levels = "binary_mnist", 2

    @classmethod
    def read(cls, folder):
        def drawn(images, seed):
            return (np.random.default_rng(seed).integers(0, 255, images.shape, np.uint8) < images).astype(np.uint8)

        splits = super().read(folder)
        return {split: (drawn(x, seed), y) for seed, (split, (x, y)) in enumerate(splits.items())}


class FashionMnist(Idx, skip_registration=True):
    name = "fashion_mnist"


class Kmnist(Idx, skip_registration=True):
    name = "kmnist"


def read_idx(path: Path, item: tuple[int, ...]) -> np.ndarray:
    """Bytes of an IDX file, or of the same name with .gz, as uint8 [N, *item]."""
    packed = path.with_name(path.name + ".gz")
    path = path if path.exists() else packed
    if not path.exists():
        raise FileNotFoundError(f"neither {packed.stem} nor {packed.name} is in {path.parent}")
    try:
        with gzip.open(path) if path == packed else path.open("rb") as f:
            head = f.read(8 + 4 * len(item))
            magic, *dims = np.frombuffer(head[: len(head) // 4 * 4], ">u4").tolist() or [0]
            if magic != 0x0800 + 1 + len(item):
                raise ValueError(
                    f"{path}: magic {magic:#010x} is not that of IDX bytes in {1 + len(item)} dimension(s)"
                )
            if len(dims) != 1 + len(item) or tuple(dims[1:]) != item or dims[0] == 0:
                raise ValueError(f"{path}: dimensions {dims}, expected {['N > 0', *item]}")
            size = math.prod(dims)
            if size > LARGEST:
                raise ValueError(f"{path}: claims {size} bytes")
            body = f.read(size + 1)  # one more than promised, to notice a longer file without reading all of it
    except UNREADABLE as error:
        raise ValueError(f"{path}: damaged: {error}") from error
    if len(body) != size:
        raise ValueError(f"{path}: {'more' if len(body) > size else 'fewer'} bytes than the {size} its header promises")
    return np.frombuffer(body, np.uint8).reshape(dims)


# ---- CIFAR: one or two label bytes, then 3072 of red, green, blue planes ---------------------------------------------


class Cifar(Raw, skip_registration=True):
    shape = (32, 32, 3)
    archive: str
    label_bytes: int  # the last of them is the label
    files: dict[str, list[str]]

    @classmethod
    def read(cls, folder):
        found = find_files(folder, cls.archive, [name for names in cls.files.values() for name in names])
        splits = {}
        for split, names in cls.files.items():
            parts = [parse_cifar(*found[name], cls.label_bytes, cls.classes) for name in names]
            images, labels = zip(*parts, strict=True)
            splits[split] = (np.concatenate(images), np.concatenate(labels))
        return splits


class Cifar10(Cifar, skip_registration=True):
    name, classes, label_bytes, archive = "cifar10", 10, 1, "cifar-10-binary.tar.gz"
    files = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}


class Cifar100(Cifar, skip_registration=True):
    """The label is the fine one."""

    name, classes, label_bytes, archive = "cifar100", 100, 2, "cifar-100-binary.tar.gz"
    files = {"train": ["train.bin"], "test": ["test.bin"]}


def find_files(folder: Path, archive: str, names: list[str]) -> dict[str, tuple[str, bytes]]:
    """{name: (where it was, its bytes)}, from the folder, a folder inside it, or the archive as it was downloaded."""
    found = {path.name: path for path in [*folder.glob("*/*.bin"), *folder.glob("*.bin")]}
    if all(name in found for name in names):
        return {name: (str(found[name]), found[name].read_bytes()) for name in names}
    packed = folder / archive
    missing = ", ".join(name for name in names if name not in found)
    if not packed.exists():
        raise FileNotFoundError(f"{folder} holds neither {archive} nor {missing}")
    contents = {}
    try:
        with tarfile.open(packed) as tar:
            for member in tar:
                name = PurePosixPath(member.name).name
                if name in names and member.isfile():
                    if member.size > LARGEST:
                        raise ValueError(f"{packed}: {member.name} claims {member.size} bytes")
                    reader = tar.extractfile(member)
                    assert reader is not None  # only for members that are no files
                    contents[name] = (f"{packed}: {member.name}", reader.read())
    except UNREADABLE as error:
        raise ValueError(f"{packed}: damaged: {error}") from error
    if missing := ", ".join(name for name in names if name not in contents):
        raise ValueError(f"{packed}: has no {missing}")
    return contents


def parse_cifar(where: str, body: bytes, label_bytes: int, classes: int) -> Arrays:
    record = label_bytes + 3072
    if not body or len(body) % record:
        raise ValueError(f"{where}: {len(body)} bytes is not a whole number of records of {record}")
    rows = np.frombuffer(body, np.uint8).reshape(-1, record)
    labels = rows[:, label_bytes - 1]
    _check_labels(labels, classes, where)
    return rows[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels


def _check_labels(labels, classes, where):
    if labels.max() >= classes:
        raise ValueError(f"{where}: label {labels.max()} at example {labels.argmax()}, expected 0..{classes - 1}")


# ---- texts -----------------------------------------------------------------------------------------------------------


class RawText(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """{"text": a document} from the files in TFDS's `manual_dir`; splits train, validation and test."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Pass the folder that holds the original files."

    @classmethod
    def files(cls, folder: Path) -> list[Path]:
        """The files of the dataset. Raises FileNotFoundError."""
        raise NotImplementedError

    @classmethod
    def documents(cls, folder: Path, split: str) -> Iterator[str]:
        raise NotImplementedError

    @classmethod
    def content(cls, folder: Path) -> str:
        """Tells other files from these, by their names and sizes: reading tens of gigabytes takes minutes."""
        return ", ".join(f"{path.name} {path.stat().st_size}" for path in cls.files(folder))

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict({"text": tfds.features.Text()}),
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        folder = Path(dl_manager.manual_dir)
        self.info.metadata["content"] = self.content(folder)
        return {split: self._generate_examples(folder, split) for split in ("train", "validation", "test")}

    def _generate_examples(self, folder, split):
        yield from enumerate({"text": document} for document in self.documents(folder, split))


class TinyShakespeare(RawText, skip_registration=True):
    """`input.txt` of Karpathy 2015 (https://github.com/karpathy/char-rnn), 1,115,394 characters.

    Splits as in TFDS: the first 90 per cent, the next 5, the last 5. nanoGPT's validation text is the last two.
    """

    name = "tiny_shakespeare"

    @classmethod
    def files(cls, folder):
        if not (folder / "input.txt").is_file():
            raise FileNotFoundError(f"{folder} holds no input.txt")
        return [folder / "input.txt"]

    @classmethod
    def documents(cls, folder, split):
        path = cls.files(folder)[0]
        try:
            text = path.read_bytes().decode()  # byte by byte: reading as text would lose "\r"
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8: {error}") from error
        first = int(len(text) * 0.9)
        second = first + (len(text) - first) // 2
        parts = {"train": text[:first], "validation": text[first:second], "test": text[second:]}
        if not all(parts.values()):
            raise ValueError(f"{path}: {len(text)} characters are too few for three splits")
        yield parts[split]


class OpenWebText(RawText, skip_registration=True):
    """Parquet files with a column "text", as at https://huggingface.co/datasets/Skylion007/openwebtext.

    Of every 2,000 documents one is validation and one is test.
    """

    name = "openwebtext"

    @classmethod
    def files(cls, folder):
        found = sorted(folder.glob("*.parquet"))
        if not found:
            raise FileNotFoundError(f"{folder} holds no .parquet file")
        return found

    @classmethod
    def documents(cls, folder, split):
        import pyarrow.parquet

        number = 0
        for path in cls.files(folder):
            try:
                for rows in pyarrow.parquet.ParquetFile(path).iter_batches(columns=["text"]):
                    for document in rows.column(0).to_pylist():
                        if not isinstance(document, str):
                            raise ValueError(f"{path}: document {number} is {document!r}, not a text")
                        if {0: "validation", 1000: "test"}.get(number % 2000, "train") == split:
                            yield document
                        number += 1
            except (pyarrow.ArrowException, IndexError) as error:  # IndexError: there is no such column
                raise ValueError(f'{path} is not a Parquet file with a column "text": {error}') from error


BUILDERS: dict[str, type[Raw] | type[RawText]] = {
    builder.name: builder
    for builder in (Mnist, BinaryMnist, FashionMnist, Kmnist, Cifar10, Cifar100, TinyShakespeare, OpenWebText)
}
