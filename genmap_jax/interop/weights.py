"""Weights from files, without ever running code that a file holds; and their layout in linen."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict

HALF = ("float16", "bfloat16")

Tensors = dict[str, np.ndarray]
Layers = dict[str, dict[str, np.ndarray]]
"""Parameters of a network all of whose layers lie side by side: name of the layer -> its linen parameters."""


def read(path: str | os.PathLike) -> Tensors:
    """Every tensor of a weight file by its name; float16 and bfloat16 become float32.

    .safetensors cannot hold code. .pth, .pt and .bin can, and are read by PyTorch's restricted loader only, which
    refuses it. Raises FileNotFoundError; ValueError for any other or unsafe format; ImportError without PyTorch.
    """
    path = Path(path).expanduser()
    if path.suffix not in (".safetensors", ".pth", ".pt", ".bin"):
        raise ValueError(f"weights={path}: of an unsafe or unknown format; give .safetensors, or a state dict in .pth")
    if not path.is_file():
        raise FileNotFoundError(f"weights={path}: there is no such file")
    tensors = _safetensors(path) if path.suffix == ".safetensors" else _state_dict(path)
    return {name: t.astype(np.float32) if t.dtype.name in HALF else t for name, t in tensors.items()}


def _safetensors(path: Path) -> Tensors:
    import ml_dtypes  # noqa: F401, to have bfloat16 among NumPy's types
    import safetensors.numpy

    try:
        return safetensors.numpy.load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(f"weights={path}: not a safetensors file ({error})") from error


def _state_dict(path: Path) -> Tensors:
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f'weights={path}: reading it takes PyTorch: pip install "genmap_jax[parity]", or convert it to .safetensors'
        ) from error
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise almost anything
        raise ValueError(
            f"weights={path}: not a plain state dict, so it may run code or be TorchScript; it is not opened. "
            "Save model.state_dict() to .safetensors where you trust it"
        ) from error
    if not isinstance(tensors, Mapping) or not all(isinstance(t, torch.Tensor) for t in tensors.values()):
        raise ValueError(f"weights={path}: not a flat mapping of names to tensors; save model.state_dict() itself")
    return {name: (t.float() if t.is_floating_point() else t).numpy() for name, t in tensors.items()}


# ---- PyTorch's layout to linen's -------------------------------------------------------------------------------------


def layer(tensors: Tensors, name: str) -> dict[str, np.ndarray]:
    """A convolution, linear map or norm: weight [O,I,h,w], [O,I] or [C] -> kernel [h,w,I,O], [I,O] or scale [C]."""
    weight = find(tensors, f"{name}.weight")
    if weight.ndim == 1:
        params = {"scale": weight}
    else:
        params = {"kernel": weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T}
    if f"{name}.bias" in tensors:
        params["bias"] = tensors[f"{name}.bias"]
    return params


def folded(tensors: Tensors, conv: str, norm: str, eps: float) -> dict[str, np.ndarray]:
    """A convolution and the batch norm after it as one convolution: in inference both are linear."""
    scale, bias, mean, var = (
        find(tensors, f"{norm}.{field}").astype(np.float64)
        for field in ("weight", "bias", "running_mean", "running_var")
    )
    gain = scale / np.sqrt(var + eps)
    kernel = layer(tensors, conv)["kernel"] * gain
    return {"kernel": kernel.astype(np.float32), "bias": (bias - mean * gain).astype(np.float32)}


def fit_to(net: nn.Module, layers: Layers, shape: tuple[int, ...], path: str | os.PathLike) -> Layers:
    """The layers as float32, if they are exactly those of the network; else ValueError that names one that is not.

    shape: of an input to the network, [B,H,W,C].
    """
    wanted = jax.eval_shape(net.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, np.float32))["params"]
    must_match(layers, wanted, path)
    return {
        name: {f: np.ascontiguousarray(a, np.float32) for f, a in fields.items()} for name, fields in layers.items()
    }


def must_match(params: Any, wanted: Any, path: str | os.PathLike) -> None:
    """Raise ValueError that names the first parameter of a tree that is missing, too much or of another shape."""
    has, needs = ({name: array.shape for name, array in flat(tree).items()} for tree in (params, wanted))
    for name in sorted(has.keys() | needs.keys()):
        if has.get(name) != needs.get(name):
            raise ValueError(f"weights={path}: {name} has shape {has.get(name)}, but {needs.get(name)} is needed")


def flat(params: Any) -> Tensors:
    """A tree of parameters by path: {"dense": {"kernel": a}} -> {"dense/kernel": a}."""
    return flatten_dict(params, sep="/")


def find(tensors: Tensors, name: str) -> np.ndarray:
    if name not in tensors:
        raise ValueError(
            f"weights: the file has no {name!r}; it begins with {list(tensors)[:3]}: is it another network's?"
        )
    return tensors[name]
