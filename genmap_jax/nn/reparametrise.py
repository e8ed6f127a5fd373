"""Weight reparametrisations: spectral norm, weight normalisation, equalised learning rate; orthogonal regularisation.

All but the last are pure functions from a tree of parameters to one of the same shapes, applied outside of the network:
`network.apply(normalise(params, vectors), x)`. They change the leaves named "kernel" (last axis: outputs), and
spectral norm also those named "embedding" (last axis: features), and leave all others as they are.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array
Params = Any

# ---- spectral norm ---------------------------------------------------------------------------------------------------


def start_vectors(params: Params, key: Array) -> Params:
    """A random unit vector u for every matrix: the state of the power iteration. None where there is no matrix."""

    def start(i: int, path: tuple, w: Array) -> Array | None:
        if not _is_matrix(path):
            return None
        u = jax.random.normal(jax.random.fold_in(key, i), w.shape[-1:])
        return u / jnp.linalg.norm(u)

    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    return jax.tree.unflatten(structure, [start(i, path, w) for i, (path, w) in enumerate(leaves)])


def power_step(params: Params, vectors: Params) -> Params:
    """One iteration u <- W^T W u / |W^T W u|, towards the right singular vector of the largest singular value.

    Miyato et al. 2018 (arXiv:1802.05957), algorithm 1. u counts as a constant: no gradient passes.
    """

    def iterate(u: Array | None, w: Array) -> Array | None:
        if u is None:
            return None
        w = w.reshape(-1, w.shape[-1])
        u = w.T @ _unit(w @ u)
        return jax.lax.stop_gradient(_unit(u))

    return _with_vectors(iterate, vectors, params)


def normalise(params: Params, vectors: Params) -> Params:
    """W / |W u| for every matrix: its largest singular value becomes 1, up to the error of u.

    The gradient passes through |W u|, not through u. A convolution's kernel counts as the matrix [h w in, out], whose
    norm is at most that of the convolution, and at least 1 / sqrt(h w) of it.
    """

    def divide(u: Array | None, w: Array) -> Array:
        return w if u is None else w / (jnp.linalg.norm(w.reshape(-1, w.shape[-1]) @ u) + 1e-6)

    return _with_vectors(divide, vectors, params)


def orthogonality(params: Params) -> Array:
    """Sum over all kernels of |W^T W (1 - I)|^2, the squared inner products of different columns, its filters.

    Zero for orthogonal filters of any norm. Brock et al. 2019 (arXiv:1809.11096), eq. 3.
    """

    def of(w: Array) -> Array:
        w = w.reshape(-1, w.shape[-1])
        if w.shape[0] < w.shape[1]:  # |W^T W| = |W W^T|, and the second is the smaller matrix
            return jnp.square(w @ w.T).sum() - jnp.square(jnp.square(w).sum(0)).sum()
        gram = w.T @ w
        return jnp.square(gram - jnp.diag(jnp.diagonal(gram))).sum()

    leaves = jax.tree.leaves_with_path(params)
    return sum((of(w) for path, w in leaves if path[-1].key == "kernel"), jnp.zeros(()))


def _with_vectors(fn, vectors: Params, params: Params) -> Params:
    return jax.tree.map(fn, vectors, params, is_leaf=lambda u: u is None)


def _unit(x: Array) -> Array:
    return x / (jnp.linalg.norm(x) + 1e-12)


# ---- weight normalisation --------------------------------------------------------------------------------------------


def weight_norm(params: Params) -> Params:
    """W / |W| for every output of every kernel, over all of its inputs: the direction of weight normalisation.

    Salimans & Kingma 2016 (arXiv:1602.07868), eq. 2. The length, g there, is a parameter of the layer that multiplies
    its output ("gain"). The last axis counts outputs in transposed convolutions too.
    """
    return jax.tree_util.tree_map_with_path(lambda path, w: direction(w) if path[-1].key == "kernel" else w, params)


def direction(w: Array) -> Array:
    """A kernel [..., outputs] with unit norm for each output."""
    return w * jax.lax.rsqrt(jnp.square(w).sum(tuple(range(w.ndim - 1)), keepdims=True) + 1e-12)


# ---- equalised learning rate -----------------------------------------------------------------------------------------


def unequalise(params: Params) -> Params:
    """Fresh parameters -> what the optimizer updates: matrices of about unit variance, whatever their fan-in."""
    return jax.tree_util.tree_map_with_path(lambda path, w: w / _scale(path, w), params)


def equalise(params: Params) -> Params:
    """The inverse of `unequalise`: matrices times 1 / sqrt(fan-in), inside the network.

    Adam's steps have the size of the learning rate, so the weights of every layer move by the same share of their size.
    Karras et al. 2018 (arXiv:1710.10196), section 4.1.
    """
    return jax.tree_util.tree_map_with_path(lambda path, w: w * _scale(path, w), params)


def _scale(path: tuple, w: Array) -> float:
    return 1.0 / math.sqrt(math.prod(w.shape[:-1])) if path[-1].key == "kernel" else 1.0


def _is_matrix(path: tuple) -> bool:
    return path[-1].key in ("kernel", "embedding")
