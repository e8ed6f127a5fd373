"""Documents of different lengths packed into strings of one length, without cutting what fits."""

from collections.abc import Iterable, Sequence

import numpy as np


def pack(documents: Iterable[Sequence[int]], length: int) -> dict[str, np.ndarray]:
    """Pack documents in their order, each into the string at hand if it fits, else into a new one.

    Returns "tokens" and "segments", int32 [N, length], a batch for a GPT: segments number the documents within a
    string, and are -1 where there is none. A document longer than `length` is cut into documents of at most `length`;
    empty ones are dropped. Raises ValueError if nothing is left.
    """
    rows: list[list[Sequence[int]]] = []
    room = 0
    for document in documents:
        for start in range(0, len(document), length):
            piece = document[start : start + length]
            if len(piece) > room:
                rows.append([])
                room = length
            rows[-1].append(piece)
            room -= len(piece)
    if not rows:
        raise ValueError("there is no document to pack, or all are empty")
    tokens = np.zeros((len(rows), length), np.int32)
    segments = np.full((len(rows), length), -1, np.int32)
    for row, pieces in enumerate(rows):
        end = 0
        for number, piece in enumerate(pieces):
            tokens[row, end : end + len(piece)] = piece
            segments[row, end : end + len(piece)] = number
            end += len(piece)
    return {"tokens": tokens, "segments": segments}
