"""Every number of a report as one long table: CSV for people, Parquet for programs."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genmap_jax.report.ablations import Ablation
from genmap_jax.report.rows import Card, Report

COLUMNS = {
    "experiment": str, "system": str, "seed": int, "quantity": str, "value": float, "low": float, "high": float,
    "null": float, "null_sd": float, "n_real": int, "n_generated": int, "kind": str, "extractor": str,
    "extractor_hash": str, "data": str, "unit": str,
}  # fmt: skip
"""Column -> type. A number that does not exist is null (an empty field in CSV)."""

COSTS = {"parameters": "", "steps": "", "train_seconds": "s", "samples_per_second": "1/s", "evaluations": "per sample"}
"""Costs on a card -> their units."""

Row = dict[str, Any]


def long_rows(report: Report) -> list[Row]:
    """One row per (run, quantity), as the card has it: nothing is averaged. Ablations: one row per variant and seed."""
    rows = [row for group in report.groups for card in group.cards for row in _run_rows(card)]
    rows += [row for ablation in report.ablations for row in _ablation_rows(ablation)]
    return [row for row in rows if row["value"] is not None and not math.isnan(row["value"])]


def _run_rows(card: Card) -> Iterator[Row]:
    base = {key: card[key] for key in ("experiment", "system", "seed", "data")}
    likelihood, extractor = card["likelihood"], card["extractor"] or {}
    learned = {"extractor": extractor.get("name"), "extractor_hash": extractor.get("hash")}
    if likelihood:
        yield base | _entry("likelihood", likelihood)
        yield base | _entry("log-probability", {**likelihood, "value": likelihood["nats"], "unit": "nats"}, bare=True)
        if likelihood.get("upper"):
            yield base | _entry("likelihood, other bound", likelihood["upper"])
    for name, entry in card["metrics"].items():
        uses = learned if extractor and name.endswith(f"-{extractor['name']}") else {}
        yield base | _entry(name, entry) | uses
    for name, unit in COSTS.items():
        yield base | {"quantity": name, "value": card[name], "unit": unit}


def _entry(name: str, entry: dict[str, Any], bare: bool = False) -> Row:
    """A row of one entry of a card; `bare`: without its interval, which is in another unit."""
    count = entry.get("n")
    real, generated = count if isinstance(count, list) and len(count) == 2 else (count, None)
    kept = ("value", "kind", "unit") if bare else ("value", "low", "high", "null", "null_sd", "kind", "unit")
    return {key: entry.get(key) for key in kept} | {"quantity": name, "n_real": real, "n_generated": generated}


def _ablation_rows(ablation: Ablation) -> Iterator[Row]:
    for variant, values in ablation.table.items():
        for measure in ablation.measures:
            said = {
                "experiment": f"{ablation.experiment}:{variant}",
                "quantity": measure["key"],
                "kind": measure["kind"],
            }
            yield from (
                said | {"seed": s, "value": v} for s, v in zip(ablation.seeds, values[measure["key"]], strict=True)
            )


def write_tables(report: Report, stem: Path) -> None:
    """Write `stem`.csv and `stem`.parquet, the same rows."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    types = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    schema = pa.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
    table = pa.Table.from_pylist([dict.fromkeys(COLUMNS) | row for row in long_rows(report)], schema=schema)
    pyarrow.csv.write_csv(table, stem.with_suffix(".csv"))
    pyarrow.parquet.write_table(table, stem.with_suffix(".parquet"))
