"""Own images: a folder of PNG, JPEG and WebP files; see `own` and, for the rules of conversion, `image_files`."""

from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from genmap_jax.data import image_files
from genmap_jax.data.own.files import ALL, DOMAINS, Files, Part, deal, digest, listed, refuse


def read(files: Files, temporary: Path) -> Part:
    """Every file is read, its pixels kept in arrays in the folder `temporary`. Raises ValueError that names files."""
    groups = files.groups()
    shape = _shape(files)
    arrays, broken = {}, []
    for group, paths in groups.items():
        array = np.lib.format.open_memmap(temporary / f"{group or 'all'}.npy", "w+", np.uint8, (len(paths), *shape))
        for i, path in enumerate(paths):
            try:
                array[i] = image_files.decode(path.read_bytes(), shape[2], shape[:2], files.crop)
            except (ValueError, OSError) as error:
                broken.append((files.name(path), str(error)))
        arrays[group] = array
    refuse(broken, files.base)
    labels, classes = _labels(files, groups)
    features = {"image": tfds.features.Tensor(shape=shape, dtype=np.uint8)}
    if classes:
        features["label"] = tfds.features.ClassLabel(names=classes)

    def examples(group, rows):
        for row in rows:
            yield {"image": arrays[group][row]} | ({"label": classes.index(labels[group][row])} if classes else {})

    digests = {group: np.array([digest(x.tobytes()) for x in array], np.uint64) for group, array in arrays.items()}
    aligned = _aligned(files, groups)
    for group in aligned:  # images of one name are dealt out together, by what that of A holds
        digests[f"{group}B"] = digests[f"{group}A"]
    domains = sum(group.endswith(DOMAINS) for group in groups)
    splits = {split: partial(examples, *part) for split, part in deal(digests).items()}
    return Part(features, splits, levels=256, aligned=0 < domains == 2 * len(aligned))


def _aligned(files: Files, groups: dict[str, list[Path]]) -> list[str]:
    """What A and B follow in the names of groups whose two folders hold images of the same names: they are pairs."""
    both = [group[:-1] for group in groups if group.endswith("A") and f"{group[:-1]}B" in groups]
    stems = {
        group: [path.relative_to(files.base).with_suffix("").parts[1:] for path in groups[group]] for group in groups
    }
    return [group for group in both if stems[f"{group}A"] == stems[f"{group}B"]]


def _shape(files: Files) -> tuple[int, int, int]:
    """What all images are brought to, from their headers. Raises ValueError for sizes that do not go together."""
    heads, broken = {}, []
    for path in files.paths:
        try:
            heads[files.name(path)] = image_files.header(path)
        except (ValueError, OSError) as error:
            broken.append((files.name(path), str(error)))
    refuse(broken, files.base)
    channels = 1 if all(head.grey for head in heads.values()) else 3
    if files.size is None:
        (height, width), _ = Counter((head.height, head.width) for head in heads.values()).most_common(1)[0]
        if others := [n for n, head in heads.items() if (head.height, head.width) != (height, width)]:
            raise ValueError(
                f"the images differ in size: most are {height}x{width}, but there are {_sizes(others, heads)}; "
                f"bring them to one size with --size {height}x{width} --crop"
            )
        return height, width, channels
    height, width = files.size
    others = [n for n, head in heads.items() if not _same_aspect(head.height, head.width, height, width)]
    if others and not files.crop:
        raise ValueError(
            f"these images have not the aspect of --size {height}x{width}: {_sizes(others, heads)}; "
            "add --crop to cut out their centres"
        )
    return height, width, channels


def _same_aspect(height: int, width: int, to_height: int, to_width: int) -> bool:
    """Whether resizing changes the aspect by less than a pixel."""
    return abs(height * to_width - width * to_height) < max(height, width)


def _sizes(names: list[str], heads: dict[str, image_files.Header]) -> str:
    return listed([f"{name} {heads[name].height}x{heads[name].width}" for name in names])


def _labels(files: Files, groups: dict[str, list[Path]]) -> tuple[dict[str, list[str]], list[str]]:
    """The label of every file of each group, the name of its folder, and all labels; none for less than two.

    Raises ValueError where some images lie in such folders and some beside them.
    """
    labels: dict[str, list[str]] = {}
    for group, paths in groups.items():
        inside = [path.relative_to(files.base).parts[group != ALL : -1] for path in paths]
        labels[group] = [parts[0] if parts else "" for parts in inside]
    classes = sorted({label for group in labels.values() for label in group})
    if "" in classes and len(classes) > 1:
        beside = [files.name(p) for g, paths in groups.items() for p, x in zip(paths, labels[g], strict=True) if not x]
        folders = listed(classes[1:])
        raise ValueError(
            f"{files.base}: the folders {folders} are labels, but these images are in none: {listed(beside)}"
        )
    return labels, classes if len(classes) > 1 else []
