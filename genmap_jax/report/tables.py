"""Every number of a report as one long table: CSV for people, Parquet for programs."""

from pathlib import Path
from typing import Any

from genmap_jax.report.rows import Report

COLUMNS = {
    "experiment": str,
    "system": str,
    "seed": int,
    "quantity": str,
    "value": float,
    "low": float,
    "high": float,
    "null": float,
    "null_sd": float,
    "n_real": int,
    "n_generated": int,
    "kind": str,
    "extractor": str,
    "extractor_hash": str,
    "data": str,
    "unit": str,
}
"""Column -> type. A number that does not exist is null (an empty field in CSV)."""

COSTS = {
    "parameters": "",
    "steps": "",
    "train_seconds": "s",
    "samples_per_second": "1/s",
    "evaluations": "per sample",
}


def long_rows(report: Report) -> list[dict[str, Any]]:
    """One row per (run, quantity), as the card has it: nothing is averaged. Ablations: one row per variant and seed."""
    rows = []
    for group in report.groups:
        for card in group.cards:
            extractor = card.get("extractor") or {}
            base = {key: card[key] for key in ("experiment", "system", "seed", "data")}
            likelihood = card.get("likelihood")
            if likelihood:
                rows.append(base | _entry("likelihood", likelihood))
                rows.append(
                    base
                    | {"quantity": "log-probability", "value": likelihood.get("nats"), "unit": "nats"}
                    | {"kind": likelihood["kind"], "n_real": likelihood.get("n")}
                )
                if likelihood.get("upper"):
                    rows.append(base | _entry("likelihood, other bound", likelihood["upper"]))
            learned = {"extractor": extractor.get("name"), "extractor_hash": extractor.get("hash")}
            for name, entry in card["metrics"].items():
                uses = learned if extractor and name.endswith("-" + extractor["name"]) else {}
                rows.append(base | _entry(name, entry) | uses)
            for name, unit in COSTS.items():
                rows.append(base | {"quantity": name, "value": card.get(name), "unit": unit})
    for ablation in report.ablations:
        for variant, quantities in ablation.variants.items():
            for name, values in quantities.items():
                kind = ablation.kinds.get(variant) if name == "bits_per_dim" else None
                base = {"experiment": f"{ablation.name}:{variant}", "quantity": name, "kind": kind}
                rows += [base | {"seed": s, "value": v} for s, v in zip(ablation.seeds, values, strict=True)]
    return [row for row in rows if row["value"] is not None]


def _entry(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    count = entry.get("n")
    real, generated = count if isinstance(count, list) and len(count) == 2 else (count, None)
    kept = {key: entry.get(key) for key in ("value", "low", "high", "null", "null_sd", "kind", "unit")}
    return kept | {"quantity": name, "n_real": real, "n_generated": generated}


def write_tables(report: Report, stem: Path) -> tuple[Path, Path]:
    """Write `stem`.csv and `stem`.parquet, the same rows; returns both paths."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    types = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    schema = pa.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
    table = pa.Table.from_pylist([dict.fromkeys(COLUMNS) | row for row in long_rows(report)], schema=schema)
    comma, parquet = stem.with_suffix(".csv"), stem.with_suffix(".parquet")
    pyarrow.csv.write_csv(table, comma)
    pyarrow.parquet.write_table(table, parquet)
    return comma, parquet
