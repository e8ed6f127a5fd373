"""The peaks of accelerators, to say how much of a device a program uses: of dense products in bfloat16."""

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
"""Sources: the data sheets of NVIDIA, whose larger numbers for H100 (1,979), H200 and L4 (242) are those of sparse
products; https://cloud.google.com/tpu/docs/v4, .../v5e, .../v5p and .../v6e."""


def peak_flops(device_kind: str) -> float | None:
    """Operations per second of dense products in bfloat16 at the peak, or None for an unknown kind of device."""
    peak = PEAKS.get(device_kind)
    return None if peak is None else 1e12 * peak
