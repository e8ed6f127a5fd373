"""Two evaluated runs, side by side."""

import math
from pathlib import Path

import numpy as np

from genmap_jax.files import read_json


def compare(a: Path, b: Path) -> str:
    """A table of two evaluated runs.

    The likelihoods are subtracted test example by test example, which removes the spread over examples that both share,
    if they are of one kind, unit and test set; else the text says why not. What the examples of one run have in common,
    such as the error of log Z, does not cancel: it is part of the standard error of the difference.
    Raises FileNotFoundError for a run that has not been evaluated.
    """
    cards = [_card(folder) for folder in (a, b)]
    lines = [f"{'':22s} {_short(cards[0]['name']):>22s} {_short(cards[1]['name']):>22s}   difference (B - A)"]
    for key in ("system", "data", "seed", "steps", "parameters"):
        lines.append(f"{key:22s} {_short(str(cards[0][key])):>22s} {_short(str(cards[1][key])):>22s}")
    lines.append(_likelihood(cards, (a, b)))
    for key in [k for k in cards[0]["metrics"] if k in cards[1]["metrics"]]:
        one, two = (card["metrics"][key] for card in cards)
        lines.append(f"{key:22s} {_number(one):>22s} {_number(two):>22s}   {two['value'] - one['value']:+.4g}")
    hashes = {card["extractor"]["hash"] for card in cards if card["extractor"]}
    if len(hashes) > 1:
        lines.append(f"Not comparable: the features of the two runs differ (hashes {' and '.join(sorted(hashes))}).")
    lines.append(f"A: {a.absolute()}\nB: {b.absolute()}")
    return "\n".join(lines)


def _likelihood(cards: list[dict], folders: tuple[Path, Path]) -> str:
    one, two = (card["likelihood"] for card in cards)
    if one is None or two is None:
        return "likelihood             not compared: " + " and ".join(
            f"{card['name']} has no density" for card in cards if card["likelihood"] is None
        )
    shown = [f"{x['value']:.4f} {x['unit']}" for x in (one, two)]
    line = f"{'likelihood':22s} {shown[0]:>22s} {shown[1]:>22s}"
    if one["kind"] != two["kind"] or one["unit"] != two["unit"]:
        return f"{line}   not compared: {one['kind']} against {two['kind']}"
    nats = [_nats(folder) for folder in folders]
    if cards[0]["data"] != cards[1]["data"] or len(nats[0]) != len(nats[1]):
        return f"{line}   not compared: other test data"
    each = (nats[1] - nats[0]) / (one["nats"] / one["value"])  # nats per unit of the table, negative: costs
    common = [x.get("common_stderr", 0.0) for x in (one, two)]
    stderr = math.hypot(each.std(ddof=1) / math.sqrt(len(each)), *common)
    return f"{line}   {each.mean():+.4f} ± {stderr:.4f} ({one['kind']}, paired)"


def _card(folder: Path) -> dict:
    path = folder / "evaluation" / "card.json"
    if not path.exists():
        raise FileNotFoundError(f"{folder} has not been evaluated: genmap evaluate {folder}")
    return read_json(path)


def _nats(folder: Path) -> np.ndarray:
    """The log-probability of every test example. Raises ValueError that names the file."""
    path = folder / "evaluation" / "nats.npy"
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is damaged or missing ({error}); measure again: genmap evaluate {folder}") from error


def _number(number: dict) -> str:
    if number["low"] is None:
        return f"{number['value']:.4g}"
    return f"{number['value']:.4g} [{number['low']:.3g}, {number['high']:.3g}]"


def _short(text: str) -> str:
    return text if len(text) <= 22 else text[:21] + "…"
