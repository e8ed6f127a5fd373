"""Weights from files, without ever running code that a file holds; and their layout in linen."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict

HALF = ("float16", "bfloat16")
BUFFERS = "num_batches_tracked$"
"""What PyTorch saves of a batch norm beside its weights, and inference does not read."""


class Tensors(dict[str, np.ndarray]):
    """The tensors of a weight file by name. Each is taken out where it is used, so that what is left can be named."""

    def __init__(self, tensors: Mapping[str, np.ndarray], path: str | os.PathLike):
        super().__init__(tensors)
        self.path = path

    def look(self, name: str, axes: int | None = None) -> np.ndarray:
        """One tensor. Raises ValueError if it is missing or holds anything but finite floating-point numbers.

        axes: so many it must have; None for any number.
        """
        if name not in self:
            raise ValueError(
                f"weights={self.path}: has no {name!r}; it begins with {list(self)[:3]}: is it another network's?"
            )
        tensor = self[name]
        if tensor.dtype not in (np.float32, np.float64):
            raise ValueError(
                f"weights={self.path}: {name} holds {tensor.dtype.name}, not floating-point numbers; if these weights "
                "are quantised, save them dequantised"
            )
        if not tensor.size or axes not in (None, tensor.ndim):
            wanted = "is empty" if axes is None else f"has not {axes} axes, or is empty"
            raise ValueError(f"weights={self.path}: {name}, of shape {tensor.shape}, {wanted}; take another file")
        if not (np.abs(tensor) <= np.finfo(np.float32).max).all():
            raise ValueError(f"weights={self.path}: {name} holds NaN or infinite values; take an undamaged file")
        return tensor

    def take(self, name: str) -> np.ndarray:
        """As `look`, and the tensor counts as used."""
        tensor = self.look(name)
        del self[name]
        return tensor

    def drop(self, pattern: str) -> None:
        """Leave out the tensors whose names match: they are known to be without effect."""
        for name in [name for name in self if re.search(pattern, name)]:
            del self[name]

    def expect_none(self) -> None:
        """Raise ValueError that names a tensor which nothing used."""
        if self:
            raise ValueError(
                f"weights={self.path}: {min(self)} is not part of the network, {len(self)} such tensor(s); it may "
                "belong to another network, or to another format"
            )


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
    floats = {name: t.astype(np.float32) if t.dtype.name in HALF else t for name, t in tensors.items()}
    return Tensors(floats, path)


def _safetensors(path: Path) -> dict[str, np.ndarray]:
    import ml_dtypes  # noqa: F401, to have bfloat16 among NumPy's types
    import safetensors.numpy

    try:
        return safetensors.numpy.load_file(path)
    except Exception as error:  # damaged files and types that NumPy does not have raise almost anything
        raise ValueError(
            f"weights={path}: not a safetensors file, or a damaged one, or of quantised weights: save them dequantised "
            f"({str(error)[:100]})"
        ) from error


def _state_dict(path: Path) -> dict[str, np.ndarray]:
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
    flat = isinstance(tensors, Mapping) and all(
        isinstance(name, str) and isinstance(t, torch.Tensor) for name, t in tensors.items()
    )
    if not flat:
        raise ValueError(f"weights={path}: not a flat mapping of names to tensors; save model.state_dict() itself")
    plain = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.int32, torch.bool)
    for name, t in tensors.items():
        if t.dtype not in plain or t.layout != torch.strided:
            raise ValueError(
                f"weights={path}: {name} is {t.dtype}, {t.layout}: save it as dense floating-point numbers"
            )
    return {name: (t.float() if t.is_floating_point() else t).detach().numpy() for name, t in tensors.items()}


# ---- PyTorch's layout to linen's -------------------------------------------------------------------------------------


def layer(tensors: Tensors, name: str) -> dict[str, np.ndarray]:
    """A convolution, linear map or norm: weight [O,I,h,w], [O,I] or [C] -> kernel [h,w,I,O], [I,O] or scale [C]."""
    weight = tensors.take(f"{name}.weight")
    if weight.ndim == 1:
        params = {"scale": weight}
    else:
        params = {"kernel": weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T}
    if f"{name}.bias" in tensors:
        params["bias"] = tensors.take(f"{name}.bias")
    return params


def folded(tensors: Tensors, conv: str, norm: str, eps: float) -> dict[str, np.ndarray]:
    """A convolution and the batch norm after it as one convolution: in inference both are linear."""
    scale, bias, mean, var = fields = [
        tensors.take(f"{norm}.{field}").astype(np.float64)
        for field in ("weight", "bias", "running_mean", "running_var")
    ]
    channels = tensors.look(f"{conv}.weight", 4).shape[:1]
    if any(x.shape != channels for x in fields) or (var < 0).any():
        raise ValueError(
            f"weights={tensors.path}: {norm} is not the normalisation of {channels[0]} channels, or has negative "
            "variances; take an undamaged file"
        )
    gain = scale / np.sqrt(var + eps)
    kernel = layer(tensors, conv)["kernel"] * gain
    return {"kernel": kernel.astype(np.float32), "bias": (bias - mean * gain).astype(np.float32)}


def fit_to(net: nn.Module, layers: Layers, shape: tuple[int, ...], path: str | os.PathLike) -> Layers:
    """The layers as float32, if they are exactly those of the network; else ValueError that names one that is not.

    shape: of an input to the network, [B,H,W,C].
    """
    wanted = jax.eval_shape(net.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, np.float32))["params"]
    must_match(layers, wanted, f"weights={path}")
    return {
        name: {f: np.ascontiguousarray(a, np.float32) for f, a in fields.items()} for name, fields in layers.items()
    }


def must_match(params: Any, wanted: Any, where: str) -> None:
    """Raise ValueError that names the first parameter of a tree that is missing, too much or of another shape."""
    has, needs = ({name: array.shape for name, array in flat(tree).items()} for tree in (params, wanted))
    for name in sorted(has.keys() | needs.keys()):
        if has.get(name) != needs.get(name):
            raise ValueError(f"{where}: {name} has shape {has.get(name)}, but {needs.get(name)} is needed")


def flat(params: Any) -> dict[str, np.ndarray]:
    """A tree of parameters by path: {"dense": {"kernel": a}} -> {"dense/kernel": a}."""
    return flatten_dict(params, sep="/")
