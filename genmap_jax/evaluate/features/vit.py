"""Vision transformers whose features agree with people: DINOv2, and the image tower of CLIP.

Dosovitskiy et al. 2021 (arXiv:2010.11929) give the network. DINOv2: Oquab et al. 2024 (arXiv:2304.07193), used for
Fréchet distances by Stein et al. 2023 (arXiv:2306.04675). CLIP: Radford et al. 2021 (arXiv:2103.00020), used for the
CMMD by Jayasumana et al. 2024 (arXiv:2401.09603). Weights: dinov2_vitl14_pretrain.pth with its official names, or the
model.safetensors that Hugging Face names; of CLIP the latter, usually ViT-L/14 at 336 pixels.

Width, depth and patch size are read off the tensors; heads have 64 dimensions in every released model of the two.
What is constant in inference is done once, on loading: layer scales go into the linear map before them, the class
token into its position, and positions are interpolated to the grid in use.
"""

import functools
import math
import os
import re
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from genmap_jax.evaluate.features.record import Extractor, batched, check_images, fingerprint, photographs
from genmap_jax.interop import weights as files

HEAD = 64
"""Dimensions of an attention head."""
BATCH = 16
DINOV2_SIZE = 224
"""Pixels; the weights were trained up to 518, the published distances use 224."""

NAMES = (  # Hugging Face's -> those of the official DINOv2 file; `norm_pre` and `head` are of CLIP only
    (r"^(dinov2|vision_model)\.", ""),
    (r"^embeddings\.", ""),
    (r"^class_embedding$", "cls_token"),
    (r"^position_embeddings?(\.weight)?$", "pos_embed"),
    (r"^(patch_embeddings\.projection|patch_embedding)\.", "patch_embed.proj."),
    (r"^pre_layrnorm\.", "norm_pre."),
    (r"^(layernorm|post_layernorm)\.", "norm."),
    (r"^visual_projection\.", "head."),
    (r"^encoder\.layers?\.", "blocks."),
    (r"\.layer_norm(\d)\.", r".norm\1."),
    (r"\.(attention\.output\.dense|self_attn\.out_proj)\.", ".attn.proj."),
    (r"\.(attention\.attention\.|self_attn\.)(q|k|v)(uery|ey|alue|_proj)\.", r".attn.\2."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
)
UNUSED = re.compile(r"(^|\.)(mask_token|position_ids)$|^(text_model|text_projection|logit_scale)")
"""What the files hold for training, or for text."""


# ---- network ---------------------------------------------------------------------------------------------------------


class Positions(nn.Module):
    """Put the class token first, and add to each patch its position. [B,N,D] -> [B,1+N,D]."""

    @nn.compact
    def __call__(self, x):
        b, n, width = x.shape
        cls = self.param("cls", nn.initializers.zeros, (1, width))  # its own position included
        grid = self.param("grid", nn.initializers.zeros, (n, width))
        return jnp.concatenate([jnp.broadcast_to(cls[None], (b, 1, width)), x + grid[None]], 1)


class ViT(nn.Module):
    """All layers lie side by side under the names of the official DINOv2 file."""

    width: int
    depth: int
    patch: int
    hidden: int
    eps: float
    gelu: Callable
    pre_norm: bool = False
    bias: bool = True
    """Whether the embedding of patches has a bias."""
    out: int | None = None
    """Number of outputs of a linear map at the end; None leaves it out."""

    @nn.compact
    def __call__(self, x):  # float [B,H,W,3] -> [B, out or width]
        def norm(x, name):
            return nn.LayerNorm(self.eps, use_fast_variance=False, name=name)(x)

        patch = (self.patch, self.patch)
        x = nn.Conv(self.width, patch, patch, "VALID", use_bias=self.bias, name="patch_embed.proj")(x)
        x = Positions(name="positions")(x.reshape(len(x), -1, self.width))
        if self.pre_norm:
            x = norm(x, "norm_pre")
        for i in range(self.depth):
            block = f"blocks.{i}"
            qkv = nn.Dense(3 * self.width, name=f"{block}.attn.qkv")(norm(x, f"{block}.norm1"))
            q, k, v = jnp.split(qkv.reshape(*x.shape[:2], -1, HEAD), 3, 2)  # [B,1+N,heads,64]
            attended = jax.nn.dot_product_attention(q, k, v).reshape(x.shape)
            x = x + nn.Dense(self.width, name=f"{block}.attn.proj")(attended)
            h = self.gelu(nn.Dense(self.hidden, name=f"{block}.mlp.fc1")(norm(x, f"{block}.norm2")))
            x = x + nn.Dense(self.width, name=f"{block}.mlp.fc2")(h)
        x = norm(x[:, 0], "norm")
        return x if self.out is None else nn.Dense(self.out, use_bias=False, name="head")(x)


def quick_gelu(x):
    """The approximation of the GELU that CLIP was trained with."""
    return x * jax.nn.sigmoid(1.702 * x)


# ---- weights ---------------------------------------------------------------------------------------------------------


def load(
    path: str | os.PathLike, eps: float, gelu: Callable, size: int | None = None, offset: float = 0.0
) -> tuple[ViT, files.Layers, int]:
    """Network, parameters and image size in pixels from a weight file.

    size: to use the network at; None is what its positions were trained at. offset: see `interpolate`.
    Raises as `weights.read` does, or ValueError for a network that is not a `ViT`.
    """
    tensors = official(files.read(path))
    width, _, _, patch = tensors.look("patch_embed.proj.weight", 4).shape
    cls, positions = tensors.take("cls_token"), tensors.take("pos_embed")
    if cls.size != width or positions.size % width:
        raise ValueError(f"weights={path}: cls_token or pos_embed do not have the width {width} of patch_embed.proj")
    cls, positions = cls.reshape(1, width), positions.reshape(-1, width)
    native = math.isqrt(len(positions) - 1)
    size = size or native * patch
    if width % HEAD:
        raise ValueError(f"weights={path}: width {width} is no multiple of {HEAD}, the dimensions of a head")
    if native < 1 or native**2 != len(positions) - 1 or size % patch:
        raise ValueError(f"weights={path}: no square grid of {patch}-pixel patches for {size} pixels and its positions")
    names = {name.rpartition(".")[0] for name in tensors}
    if "" in names:
        raise ValueError(f"weights={path}: holds register tokens or other parts that are not of the plain network")
    hidden = len(tensors.look("blocks.0.mlp.fc1.weight", 2))
    out = len(tensors.look("head.weight", 2)) if "head" in names else None
    layers = {name: files.layer(tensors, name) for name in names}
    tensors.expect_none()
    grid = interpolate(positions[1:].reshape(native, native, width), size // patch, offset)
    layers["positions"] = {"cls": cls + positions[:1], "grid": grid.reshape(-1, width)}
    net = ViT(
        width=width,
        depth=len({name.split(".")[1] for name in names if name.startswith("blocks.")}),
        patch=patch,
        hidden=hidden,
        eps=eps,
        gelu=gelu,
        pre_norm="norm_pre" in names,
        bias="bias" in layers["patch_embed.proj"],
        out=out,
    )
    return net, files.fit_to(net, layers, (1, size, size, 3), path), size


def official(tensors: files.Tensors) -> files.Tensors:
    """Under the names of the official DINOv2 file, query, key and value in one, layer scales in the map before them."""
    renamed = files.Tensors({}, tensors.path)
    for name, tensor in tensors.items():
        for pattern, replacement in NAMES:
            name = re.sub(pattern, replacement, name)
        if name in renamed:
            raise ValueError(f"weights={tensors.path}: holds {name} twice, under two names; take another file")
        if not UNUSED.search(name):
            renamed[name] = tensor
    for name in [name for name in renamed if ".attn.q." in name]:
        parts = [renamed.take(name.replace(".q.", part)) for part in (".q.", ".k.", ".v.")]
        if len({part.shape for part in parts}) > 1 or parts[0].ndim == 0:
            raise ValueError(f"weights={tensors.path}: the queries, keys and values of {name} differ in their shapes")
        renamed[name.replace(".q.", ".qkv.")] = np.concatenate(parts)
    for scale, linear in (("ls1.gamma", "attn.proj"), ("ls2.gamma", "mlp.fc2")):
        for name in [name for name in renamed if name.endswith(scale)]:
            gamma = renamed.take(name)
            for field in ("weight", "bias"):
                scaled = name.replace(scale, f"{linear}.{field}")
                if renamed.look(scaled).shape[:1] != gamma.shape:
                    raise ValueError(f"weights={tensors.path}: {name} does not fit {scaled}: it has another length")
                renamed[scaled] = (gamma * renamed[scaled].T).T
    return renamed


def interpolate(grid: np.ndarray, side: int, offset: float = 0.0) -> np.ndarray:
    """Bicubic interpolation of positions [n,n,D] to [side,side,D], as DINOv2 was published with.

    Keys' kernel with a = -0.75, edges repeated, no antialiasing. offset: DINOv2's own code adds 0.1 to the new number
    of patches in the scale, against rounding errors; Hugging Face's does not.
    """
    n = len(grid)
    if n == side:
        return grid
    at = (np.arange(side) + 0.5) * (n / (side + offset)) - 0.5
    first = np.floor(at).astype(int)
    matrix, a = np.zeros((side, n)), -0.75
    for tap in range(-1, 3):
        t = np.abs(at - (first + tap))
        near, far = ((a + 2) * t - (a + 3)) * t**2 + 1, a * (((t - 5) * t + 8) * t - 4)
        np.add.at(matrix, (np.arange(side), np.clip(first + tap, 0, n - 1)), np.where(t <= 1, near, far))
    return np.einsum("ij,jkd,lk->ild", matrix, grid.astype(np.float64), matrix)


# ---- extractors ------------------------------------------------------------------------------------------------------


def dinov2(path: str | os.PathLike, levels: int) -> Extractor:
    """The normalised class token of DINOv2 at 224 pixels: [N,1024] of ViT-L/14."""
    net, params, size = load(path, 1e-6, functools.partial(nn.gelu, approximate=False), DINOV2_SIZE, 0.1)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
    return _extractor("dinov2", "LVD-142M, without labels", net, params, size, mean, std, levels)


def clip(path: str | os.PathLike, levels: int) -> Extractor:
    """CLIP's embedding of an image, at unit length: [N,768] of ViT-L/14."""
    net, params, size = load(path, 1e-5, quick_gelu)
    if net.out is None:
        raise ValueError(f"weights={path}: has no visual_projection; save CLIPModel or CLIPVisionModelWithProjection")
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of its training images
    extract = _extractor("clip", "400 million images and their captions", net, params, size, mean, std, levels)

    def features(images, rounded=True):
        x = extract.features(images, rounded)
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    return extract._replace(features=features)


def _extractor(name, trained_on, net, layers, size, mean, std, levels) -> Extractor:
    params = jax.device_put(layers)
    apply = jax.jit(lambda params, x: net.apply({"params": params}, x))
    see = functools.partial(photographs, levels=levels, size=size, mean=mean, std=std)
    features = batched(lambda x: apply(params, see(x)), BATCH)
    return Extractor(
        name=name,
        hash=fingerprint(files.flat(layers)),
        fit=f"{trained_on}; width {net.width}, depth {net.depth}, {size} pixels; nothing of this data",
        features=lambda x, rounded=True: features(check_images(x, levels, rounded=rounded)),
        probabilities=None,
        accuracy=None,
    )
