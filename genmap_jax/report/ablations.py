"""Ablation folders, read: the baseline of one experiment and its named variants over the same seeds."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from genmap_jax.files import read_json
from genmap_jax.report.numbers import plus_minus


@dataclasses.dataclass(frozen=True)
class Ablation:
    """What `ablation.json` of a folder says."""

    experiment: str
    command: str
    baseline: str  # the variant with which the others are compared
    seeds: list[int]  # the same for every variant
    changes: dict[str, dict[str, Any]]  # variant -> what it changes in the configuration of the baseline
    measures: list[dict[str, Any]]  # columns: key, title, better, and the kind of a likelihood or None
    table: dict[str, dict[str, list[float]]]  # variant -> key -> one number per seed, NaN where there is none
    real: dict[str, float]  # key -> what real data scores, where that makes sense

    @property
    def rows(self) -> list[tuple[str, str, list[str]]]:
        """(variant, its changes, cells): mean ± standard error and difference to the baseline for each measure."""
        names = [self.baseline, *(name for name in self.table if name != self.baseline)]
        changes = {name: ", ".join(f"{k}={v}" for k, v in self.changes[name].items()) for name in names}
        rows = [(name, changes[name], self._cells(name)) for name in names]
        if self.real:
            scores = [f"{self.real[m['key']]:.4f}" if m["key"] in self.real else "" for m in self.measures]
            rows.append(("real data", "", [text for score in scores for text in (score, "")]))
        return rows

    def _cells(self, variant: str) -> list[str]:
        cells = []
        for key in (measure["key"] for measure in self.measures):
            values, change = np.array(self.table[variant][key]), ""
            missing = int((~np.isfinite(values)).sum())
            if missing:
                cells += ["none" if missing == len(values) else f"none for {missing} of {len(values)} seeds", ""]
                continue
            reference = np.array(self.table[self.baseline][key])
            if variant != self.baseline and np.isfinite(reference).all():
                change = plus_minus(values - reference, sign="+")
            cells += [plus_minus(values), change]
        return cells


def read_ablation(folder: Path) -> Ablation:
    """Read the folder of an ablation. Raises ValueError that names the file if it is damaged."""
    said = read_json(folder / "ablation.json")
    kept = ("experiment", "command", "baseline", "seeds", "measures", "table", "real")
    changes = {name: variant["changes"] for name, variant in said["variants"].items()}
    return Ablation(changes=changes, **{key: said[key] for key in kept})
