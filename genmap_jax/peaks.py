"""What accelerators can do at best, to say how much of one a program uses and what it can be expected to need."""

from typing import NamedTuple

PEAKS = {  # the kind, as JAX calls it -> TFLOP/s of one device
    "NVIDIA H200": 989.4,
    "NVIDIA H100 80GB HBM3": 989.4,
    "NVIDIA A100-SXM4-80GB": 312.0,
    "NVIDIA A100-SXM4-40GB": 312.0,
    "NVIDIA L4": 121.0,
    "TPU v4": 275.0,
    "TPU v5 lite": 197.0,
    "TPU v5e": 197.0,
    "TPU v5": 459.0,
    "TPU v5p": 459.0,
    "TPU v6 lite": 918.0,
    "TPU v6e": 918.0,
}
"""Dense products in bfloat16. Sources: the data sheets of NVIDIA, whose larger numbers for H100 (1,979), H200 and L4
(242) are those of sparse products; https://cloud.google.com/tpu/docs/v4, .../v5e, .../v5p and .../v6e."""


class Chip(NamedTuple):
    """A TPU chip: what `PEAKS` calls it, and its memory and links."""

    kind: str
    memory: float
    """Bytes that programs may fill, as the TPU's compiler says: a little less than the chip has."""
    bandwidth: float
    """Bytes a second between chip and memory."""
    links: float
    """Bytes a second to other chips of the slice, one way and over all links."""


TPUS = {  # as in the name of a slice, v5e:2x4
    "v5e": Chip("TPU v5e", 15.75 * 2**30, 819e9, 200e9),
    "v5p": Chip("TPU v5p", 95.74 * 2**30, 2765e9, 600e9),
    "v6e": Chip("TPU v6e", 31.25 * 2**30, 1640e9, 400e9),
}
"""Sources of both speeds: https://cloud.google.com/tpu/docs/v5e, .../v5p and .../v6e, which give links in both
directions together."""


def peak_flops(device_kind: str) -> float | None:
    """Operations per second of dense products in bfloat16 at the peak, or None for an unknown kind of device."""
    peak = PEAKS.get(device_kind)
    return None if peak is None else 1e12 * peak
