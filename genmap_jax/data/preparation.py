"""Put a dataset on disk, once, and find it again: `prepare`, `locate`."""

import contextlib
import difflib
import importlib
import importlib.util
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from genmap_jax.data.folders import publish, root_folder, scratch

TFDS_DIR = "~/tensorflow_datasets"  # where TFDS itself prepares; searched after ours
EMBEDDED = {"digits": "Digits", "glyphs": "Glyphs", "colours": "Colours", "fonts": "Fonts", "pydoc": "Pydoc"}
"""Module of this package: builder in it."""
RAW = (
    "mnist",
    "binary_mnist",
    "fashion_mnist",
    "kmnist",
    "cifar10",
    "cifar100",
    "tiny_shakespeare",
    "openwebtext",
)  # `raw.BUILDERS`, known without importing TFDS
PAIRS = ("pair", "rendered", "aligned")  # kinds of pairs of domains, put together of other data when they are loaded
TAKEN = (*EMBEDDED, "toy", *PAIRS, "arrays", "features")  # names that own data cannot have


def prepare(
    name: str,
    data_dir: str | os.PathLike | None = None,
    raw: str | os.PathLike | None = None,
    size: int | str | tuple[int, int] | None = None,
    crop: bool = False,
) -> Path:
    """Build a dataset on disk, once, and return its folder; a dataset already there is left as it is.

    name: an embedded set (no network); any TFDS name, which TFDS downloads: that takes the extra `tf`; with `raw`
        (no network) a name of `raw.BUILDERS` for its original files, or any name of your own for your own data.
    raw: the folder of the files: those of `raw.BUILDERS` in the layout of their authors; own data are images, arrays,
        JSON lines or text, see `own`.
    size, crop: for a folder of images, the size they are brought to, as 64, "48x64" or (48, 64) (height first), and
        whether their centre is cut out first. Without crop all must have that aspect, without size all the same size.
    Raises ValueError for an unknown name, damaged files, or data prepared before from other files; FileNotFoundError
    for missing ones; ImportError without TensorFlow where it is needed.
    """
    root = root_folder(data_dir)
    if name.startswith("toy/"):
        raise ValueError(f"{name} is drawn when it is loaded: there is nothing to prepare")
    if name.startswith("part/"):
        raise ValueError(f"{name} is taken when it is loaded: prepare the set that it is a part of")
    if name.split("/")[0] in PAIRS:
        raise ValueError(f"{name} is put together when it is loaded: prepare the data that it names")
    if (size is not None or crop) and (raw is None or name in RAW):
        raise ValueError(f"--size and --crop are of own images, with --raw FOLDER; {name} has a size of its own")
    if raw is not None:
        path = Path(raw).expanduser()
        return _from_files(name, root, path) if name in RAW else _from_own(name, root, path, _size(size), crop)
    if name in EMBEDDED:
        module = importlib.import_module(f"genmap_jax.data.{name}")
        return _build(getattr(module, EMBEDDED[name]), root)
    with contextlib.suppress(FileNotFoundError):
        return _find(name, (root,))
    if importlib.util.find_spec("tensorflow") is None:
        instead = ", or give the original files with --raw FOLDER" if name in RAW else ""
        raise ImportError(f'TFDS needs TensorFlow to prepare {name}: pip install "genmap_jax[tf]"{instead}')
    import tensorflow_datasets as tfds

    tfds.builder(name, data_dir=root, file_format="array_record").download_and_prepare()
    return _find(name, (root,))


def _size(size: int | str | tuple[int, int] | None) -> tuple[int, int] | None:
    """(height, width) of 64, "64", "48x64" or (48, 64)."""
    if size is None:
        return None
    sides = str(size).split("x") if not isinstance(size, tuple) else [str(side) for side in size]
    if len(sides) not in (1, 2) or not all(side.isascii() and side.isdigit() and int(side) > 0 for side in sides):
        raise ValueError(f"--size {size}: give one number of pixels, as 64, or height and width, as 48x64")
    return int(sides[0]), int(sides[-1])


def _from_files(name: str, root: Path, folder: Path) -> Path:
    """A dataset of `raw.BUILDERS`."""
    from genmap_jax.data import raw

    layout = raw.BUILDERS[name]
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    if not any(folder.iterdir()):
        layout.content(folder)  # says which files are missing; TFDS would fail an assertion
    return _there(name, root, folder, layout.content) or _build(layout, root, folder)


def _from_own(name: str, root: Path, path: Path, size: tuple[int, int] | None, crop: bool) -> Path:
    """Own data, see `own`."""
    from genmap_jax.data import own

    if not re.fullmatch(r"[A-Za-z]\w*", name) or name in TAKEN:
        taken = f"; {', '.join(TAKEN)} are taken" if name in TAKEN else ""
        raise ValueError(f"{name}: the name of own data is letters, digits and underscores, as my_images{taken}")
    files = own.find_files(path, size, crop)
    if prepared := _there(name, root, path, lambda _: files.content()):
        return prepared
    with scratch(root) as temporary:
        return _build(own.builder(name, *own.read(files, temporary)), root)


def _there(name: str, root: Path, folder: Path, content: Callable[[Path], str]) -> Path | None:
    """Where a dataset was prepared from these files. Raises ValueError if it was from others."""
    try:
        prepared = _find(name, (root,), known=True)
    except FileNotFoundError:
        return None
    about = prepared / "metadata.json"
    before = json.loads(about.read_text()).get("content") if about.exists() else None
    if before != content(folder):
        raise ValueError(f"{prepared} was prepared from other files than those in {folder}: remove it first")
    return prepared


def _build(builder_class: Any, root: Path, raw: Path | None = None) -> Path:
    """Run a TFDS builder in a folder of its own, then move the result into place."""
    import tensorflow_datasets as tfds

    final = Path(builder_class(data_dir=root, file_format="array_record").data_dir)
    if final.is_dir():
        return final
    print(f"preparing {builder_class.name} (once) in {final}", file=sys.stderr)
    tfds.disable_progress_bar()
    with scratch(root) as temporary:
        builder = builder_class(data_dir=temporary, file_format="array_record")
        with contextlib.redirect_stdout(None):
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=raw))
        return publish(Path(builder.data_dir), final)


# ---- finding ---------------------------------------------------------------------------------------------------------


def locate(name: str, root: Path) -> Path:
    """The folder of a dataset; an embedded set is prepared first. Raises FileNotFoundError, ValueError."""
    if name in EMBEDDED:
        return prepare(name, root)
    return _find(name, (root, Path(TFDS_DIR).expanduser()))


def _find(name: str, roots: tuple[Path, ...], known: bool = False) -> Path:
    """The folder of a prepared dataset: the newest version under the first root that has one.

    known: the name may be new. Raises FileNotFoundError; ValueError for an unknown name.
    """
    if not re.fullmatch(r"\w+(/\w[\w.+-]*)?", name):
        raise unknown(name, roots)
    if re.fullmatch(r"\w+/\d+\.\d+\.\d+", name):
        raise ValueError(f"{name}: leave the version out, the newest that is prepared is read")
    other = []
    for root in roots:
        found: dict[Path, list[Path]] = {}  # config -> versions
        for path in (root / name).glob("**/dataset_info.json"):
            if json.loads(path.read_text()).get("fileFormat") != "array_record":
                other.append(path.parent)
            elif re.fullmatch(r"\d+\.\d+\.\d+", path.parent.name):
                found.setdefault(path.parent.parent, []).append(path.parent)
        if len(found) > 1:
            configs = sorted(str(path.relative_to(root)) for path in found)
            raise ValueError(f"{name} is prepared in several configs in {root}; choose one of {', '.join(configs)}")
        for versions in found.values():
            return max(versions, key=lambda path: [int(part) for part in path.name.split(".")])
    if name not in RAW and not known:
        import tensorflow_datasets as tfds

        if name.split("/")[0] not in tfds.list_builders(with_community_datasets=False):
            raise unknown(name, roots)
    text = f"{name} is not prepared: looked in {' and '.join(str(root / name) for root in roots)}"
    if other:
        text += f" ({other[0]} is not in array_record files, the only ones read without TensorFlow)"
    option = " [--raw FOLDER_OF_THE_ORIGINAL_FILES]" if name in RAW else ""
    raise FileNotFoundError(f"{text}. Run: genmap prepare {name}{option}")


def unknown(name: str, roots: tuple[Path, ...] = ()) -> ValueError:
    """The error for a name that neither we nor TFDS know, with the nearest that is known."""
    import tensorflow_datasets as tfds

    from genmap_jax.data import toy

    prepared = [path.parent.parent.name for root in roots for path in root.glob("*/*/dataset_info.json")]
    ours = [*EMBEDDED, *(f"toy/{density}" for density in toy.DENSITIES), *sorted({*prepared} - {*EMBEDDED})]
    near = difflib.get_close_matches(name, [*ours, *tfds.list_builders(with_community_datasets=False)], n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(ours)}, and the names of TFDS"
    return ValueError(f"unknown dataset {name!r}: {hint} (own data: genmap prepare NAME --raw FOLDER)")
