"""What every comparison of two sets of features asks of them first."""

import numpy as np


def checked(at_least: int = 2, *, equal_size: bool = False, **roles: np.ndarray) -> list[np.ndarray]:
    """The named arrays [N, ...] as float64 [N, D], in the order given, once they can be compared.

    Raises ValueError, naming the argument, on fewer than `at_least` examples, NaN or infinity, or feature dimensions
    that differ; with `equal_size`, also on different numbers of examples.
    """
    arrays = {name: np.asarray(x, np.float64) for name, x in roles.items()}
    for name, x in arrays.items():
        if x.ndim == 0 or len(x) < at_least:
            raise ValueError(f"{name} has shape {x.shape}: give at least {at_least} examples along the first axis")
        bad = (~np.isfinite(x.reshape(len(x), -1))).any(1).sum()
        if bad:
            raise ValueError(f"{name} holds NaN or infinite values in {bad} of {len(x)} examples: leave them out")
    flat = {name: x.reshape(len(x), -1) for name, x in arrays.items()}
    if len({x.shape[1] for x in flat.values()}) > 1:
        shapes = ", ".join(f"{name} {x.shape[1:]}" for name, x in arrays.items())
        raise ValueError(f"feature dimensions differ: {shapes}; use one feature extractor for all")
    if equal_size:
        refuse_unequal({name: len(x) for name, x in flat.items()})
    return list(flat.values())


def refuse_unequal(sizes: dict[str, int]) -> None:
    """Raises ValueError unless all sizes agree: the bias of a metric that depends on N must be the same everywhere."""
    if len(set(sizes.values())) > 1:
        counts = ", ".join(f"{name} {n}" for name, n in sizes.items())
        raise ValueError(f"numbers of examples differ: {counts}; take equal numbers, or say allow_unequal=True")
