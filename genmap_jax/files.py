"""The JSON files of runs: written whole or not at all; read by one function that checks them and names them."""

import json
import logging
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

NUMBER = {"value": int | float | None}
LIKELIHOOD = {"kind": str, "unit": str, "value": int | float, "nats": int | float}
MEASURED = {
    **{"name": str, "experiment": str, "system": str, "continent": str, "objective": str, "citation": str},
    **{"data": str, "seed": int, "steps": int, "metrics": {...: NUMBER}, "likelihood": (None, LIKELIHOOD)},
    **{"parameters": int | None, "train_seconds": int | float, "evaluations": int | None, "command": str},
}
FIELDS: dict[str, dict[Any, Any]] = {
    "config.json": {"name": str, "data": str, "model": dict, "steps": int, "seed": int},
    "environment.json": {"experiment": str, "family": str, "command": [str], "devices": [str], "versions": dict},
    "result.json": MEASURED,
    "card.json": MEASURED | {"extractor": (None, {"hash": str}), "memorises_why": str},
    "ablation.json": {
        **{"experiment": str, "command": str, "baseline": str, "seeds": [int], "real": dict},
        **{"variants": {...: {"changes": dict}}, "measures": [{"key": str, "title": str}], "table": {...: dict}},
    },
    "wandb.json": {"id": str},
    "time.json": {"sessions": [{"first": int, "last": int, "seconds": {...: int | float}}]},
}
"""File -> what a reader of it relies on. `...` stands for every key, a list for each of its items, of which there must
be one, and a tuple for either."""
AGAIN = {
    "config.json": "restore it, for it says what the run is",
    "card.json": "measure the run again with genmap evaluate {run}",
    "wandb.json": "restore or remove it",
}
"""How to get the file back; the others are written again by the command that made the run."""


def write_text(path: Path, text: str) -> None:
    """Write a file; a reader, and whoever comes after a kill, sees the old one or the new one, never a part."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON, as `write_text` does."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, with all that `FIELDS` says of a file of its name.

    Raises FileNotFoundError, or ValueError that names the file, what is wrong with it, and how to get it back.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path.parent} is not a run folder: it has no {path.name}")
    run = path.parent.parent if path.parent.name == "evaluation" else path.parent
    again = AGAIN.get(path.name, "remove it and run the command that made {run} again").format(run=run)
    if not path.is_file():
        raise ValueError(f"{path} is not a file; {again}")
    try:
        value = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged, it is not JSON ({error}); {again}") from error
    wrong = _wrong(value, FIELDS.get(path.name, {}), "")
    if wrong:
        raise ValueError(f"{path} has {wrong}; {again}")
    return value


def read_sound(path: Path) -> dict[str, Any] | None:
    """`read_json` of a file that can be made again: None if there is none, and with a warning if it is damaged."""
    try:
        return read_json(path) if path.exists() else None
    except ValueError as error:
        log.warning("%s", error)
        return None


def _wrong(value: Any, like: Any, name: str) -> str:
    """What is wrong with a JSON value at a dotted name, in words; nothing if it is as `like` says."""
    if isinstance(like, tuple):
        return "" if value is None else _wrong(value, like[1], name)
    kind = dict if isinstance(like, dict) else list if isinstance(like, list) else like
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        wanted = {dict: "an object", list: "a list", str: "a text"}.get(kind, "a number")
        return f"{json.dumps(value)[:40]} for {name or 'its content'}, where {wanted} belongs"
    if isinstance(like, list):
        return next((wrong for item in value if (wrong := _wrong(item, like[0], name))), "" if value else f"no {name}")
    if not isinstance(like, dict):
        return ""
    each = {key: like[...] for key in value} if ... in like else like
    for key, part in each.items():
        path = f"{name}.{key}" if name else key
        if key not in value:
            return f"no {path}"
        if wrong := _wrong(value[key], part, path):
            return wrong
    return ""


# ---- rows of metrics -------------------------------------------------------------------------------------------------


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; [] if there is none. A damaged line is named in a warning, and left out.

    A last line without an end was cut short by a kill, and is left out without a word.
    """
    rows = _rows(path)
    for number, row in enumerate(rows, 1):
        if row is None:
            log.warning("line %d of %s is damaged, no row of metrics: it is left out", number, path)
    return [row for row in rows if row is not None]


def has_damaged_lines(path: Path) -> bool:
    """Whether `read_metrics` leaves a damaged line out."""
    return None in _rows(path)


def _rows(path: Path) -> list[dict[str, Any] | None]:
    """The rows of a metrics.jsonl, None for a damaged line."""
    if not path.exists():
        return []
    *lines, cut = path.read_text(errors="replace").split("\n")
    return [_row(line) for line in lines] + ([row] if (row := _row(cut)) else [])


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if not _wrong(row, {"step": int, "seconds": int | float}, "") else None
