"""Own data as a dataset: a folder of images, arrays, JSON lines or text, with one command.

    genmap prepare my_images --raw FOLDER [--size 64 --crop]

Of these kinds the first that the folder holds is taken; other files are listed and left out (hidden ones, whose names
begin with a dot, are not looked at):

* images        PNG, JPEG, WebP, converted by the rules of `image_files`: {"image"}, with one channel if all are grey
                and three else. Two or more subfolders are the labels, in the order of their names.
* arrays        .npy and .npz: uint8 [N, H, W, C] or [N, H, W] are images, floating-point [N, D] are vectors
                {"x": float32}. Integers [N] under a name with the word label, labels or y are the labels. Nothing is
                unpickled.
* JSON lines    .jsonl: each line that is not blank is a document, {"text": ...}
* text          .txt in UTF-8: each file is a document, byte by byte

Splits: folders, files or arrays called train, validation (or val, valid) and test are the splits; trainA, trainB, testA
and testB are those of two domains. Without them all is dealt out: sorted by a hash of their content, the first tenth of
the examples is test, the next tenth validation, the rest train. Where there are train and test alone, the first tenth
of train is validation. So names and order of the files do not matter, and equal examples are in the same split. A text
of one document is cut instead: the first eight tenths of its characters are train, the next tenth validation, the last
tenth test (with a test split of its own: nine tenths and one).

Images in two folders A and B are two domains, each dealt out on its own. Where both hold files of the same names, files
of one name are pairs and stay together.

What cannot be read is named in one error; nothing is skipped. TFDS's own folder builders do not serve here: they need
TensorFlow, and read the files anew at every use.
"""

# mypy: disable-error-code="call-arg"

from pathlib import Path

import tensorflow_datasets as tfds

from genmap_jax.data.own import arrays, images, text
from genmap_jax.data.own.files import Files, Part, find_files

__all__ = ["Own", "builder", "find_files", "read"]
READERS = {"images": images.read, "arrays": arrays.read, "lines": text.read, "text": text.read}


def read(files: Files, temporary: Path) -> tuple[Part, str]:
    """The data and the hash that tells them from others; `temporary` is a folder for what is decoded meanwhile.

    Raises ValueError that names what cannot be read.
    """
    return READERS[files.kind](files, temporary), files.content()


class Own(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Data that a `Part` holds."""

    VERSION = tfds.core.Version("1.0.0")
    part: Part
    content: str

    def _info(self):
        metadata = {"content": self.content} | ({} if self.part.levels is None else {"levels": self.part.levels})
        metadata |= {"aligned": True} if self.part.aligned else {}
        return tfds.core.DatasetInfo(
            builder=self,
            description="Own data, prepared from files.",
            features=tfds.features.FeaturesDict(self.part.features),
            metadata=tfds.core.MetadataDict(metadata),
            disable_shuffling=True,  # images and vectors are in the order of a hash, documents in that of their files
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in self.part.splits}

    def _generate_examples(self, split):
        yield from enumerate(self.part.splits[split]())


def builder(dataset: str, part: Part, content: str) -> type[Own]:
    """The builder of a dataset of that name."""

    class Named(Own, skip_registration=True):
        name = dataset

    Named.part, Named.content = part, content
    return Named
