"""Drawing images pixel by pixel, in three ways that give the same integers, with pixels that are given if so wished.

The law of a channel is inverted at a uniform number, one for each channel of each pixel, so the noise of an image is as
large as the image: v is the first value whose cumulated probability exceeds u. Rounding differs among the three ways,
so a value differs where u happens to lie within a rounding error of such a sum.

    naive         the whole network for every pixel
    fixed_point   all pixels at once from a guess, again until nothing changes. After n sweeps at least the first n
                  pixels are final, so it ends after at most as many sweeps as there are pixels: on images that are easy
                  to guess, after far fewer. Song et al. 2021 (arXiv:2002.03629)
    cached        every layer at every pixel once: a row of the stream of rows, then pixel after pixel, on the rows that
                  each layer keeps. Ramachandran et al. 2017 (arXiv:1704.06001)

A pixel that is given (`known`) is seen by the pixels after it and by none before it. So the rest of an image whose
first rows are given is drawn from the model's own conditional law; the pixels of a hole are drawn given what is before
them, not given what comes after (see `model.complete`).
"""

from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp

from genmap_jax.algorithm import Array, Params
from genmap_jax.nn.reparametrise import weight_norm
from genmap_jax.samplers import fixed_point
from genmap_jax.samplers.decoding import temperature
from genmap_jax.spaces import to_grid
from genmap_jax.tractable.pixelcnn import head
from genmap_jax.tractable.pixelcnn.config import Config
from genmap_jax.tractable.pixelcnn.network import At, PixelCNN, Rows, with_ones


class Task(NamedTuple):
    """What is drawn: n images."""

    weights: Params  # normalised
    label: Array | None  # [n], or [2 n] with guidance: the labels, then "none"
    noise: Array  # [n, H, W, C], uniform in [0, 1)
    known: Array  # int32 [n, H, W, C], -1 where a channel is free


def generate(
    cfg: Config,
    params: Params,
    noise: Array,
    label: Array | None = None,
    known: Array | None = None,
) -> tuple[Array, Array]:
    """Images, and how often the network was run one after another.

    noise: [n, H, W, C], uniform in [0, 1). label: int32 [n], of a conditional model. known: integers [n, H, W, C],
    negative where a channel is to be drawn.
    Returns float32 [n, H, W, C], whole grey values, NaN where the law of a channel was NaN; and an int32.
    """
    known = jnp.full(noise.shape, -1, jnp.int32) if known is None else known.astype(jnp.int32)
    if label is not None and cfg.guidance != 1.0:
        label = jnp.concatenate([label, jnp.full_like(label, cfg.kinds - 1)])
    task = Task(weight_norm(params), label, noise, known)
    return {"naive": _naive, "fixed_point": _fixed_point, "cached": _cached}[cfg.sampler](cfg, task)


def draw(cfg: Config, params: Params, out: Array, u: Array, known: Array) -> Array:
    """Channels from the outputs for their pixels, one after another. out [n or 2 n, ..., D], u and known [n, ..., C]"""
    parts = jnp.split(out, len(out) // len(u))
    v, image = jnp.zeros(u.shape, jnp.int32), []
    for c in range(u.shape[-1]):
        logits = [head.log_pmf(cfg, params, part, v, c) for part in parts]
        mixed = logits[0] if len(parts) == 1 else logits[1] + cfg.guidance * (logits[0] - logits[1])
        mixed = temperature(mixed, cfg.temperature)
        cdf = jnp.cumsum(jax.nn.softmax(mixed, axis=-1), axis=-1)
        drawn = (cdf <= u[..., c, None] * cdf[..., -1:]).sum(-1, dtype=jnp.int32)
        drawn = jnp.minimum(drawn, cfg.space.grey_levels - 1)
        given = known[..., c] >= 0
        v = v.at[..., c].set(jnp.where(given, known[..., c], drawn))
        fine = given | jnp.isfinite(mixed.max(-1))  # NaN has no law, and must not pass for black
        image.append(jnp.where(fine, v[..., c].astype(jnp.float32), jnp.nan))
    return jnp.stack(image, axis=-1)


def _naive(cfg: Config, task: Task) -> tuple[Array, Array]:
    height, width, _ = cfg.space.shape

    def one(t, image):
        row, col = t // width, t % width
        out = _network(cfg, task, image)[:, row, col]
        return image.at[:, row, col].set(draw(cfg, task.weights, out, task.noise[:, row, col], task.known[:, row, col]))

    image = jax.lax.fori_loop(0, height * width, one, jnp.zeros(task.noise.shape))
    return image, jnp.asarray(height * width)


def _fixed_point(cfg: Config, task: Task) -> tuple[Array, Array]:
    by_row = lambda x: jnp.moveaxis(x, 1, 0)  # noqa: E731
    noise, known = by_row(task.noise), by_row(task.known)

    def sweep(image):
        rows = by_row(_network(cfg, task, image)), noise, known
        return by_row(jax.lax.map(lambda row: draw(cfg, task.weights, *row), rows))  # one by one, to save memory

    return fixed_point.iterate(sweep, jnp.zeros(task.noise.shape), cfg.space.shape[0] * cfg.space.shape[1])


def _cached(cfg: Config, task: Task) -> tuple[Array, Array]:
    height, width, _ = cfg.space.shape
    net, copies = PixelCNN(cfg), 1 if task.label is None else len(task.label) // len(task.noise)

    def seen(pixels: Array, there: Array) -> Array:
        """What the network sees of some pixels, or zeros where there are none."""
        x = with_ones(to_grid(pixels, cfg.space.grey_levels)).astype(cfg.dtype)
        return jnp.tile(jnp.where(there, x, 0), (copies, 1, 1, 1))

    def scales(*place: Array) -> Array:
        """How many scales beside the finest have a pixel here."""
        return jnp.stack([jnp.all(jnp.stack(place) % 2**k == 0) for k in range(1, cfg.scales)]).sum(dtype=jnp.int32)

    def each_depth(run: Callable, *place: Array):
        """`run` with the number of scales that it is to run, which is compiled, at a place, which is not."""
        if cfg.scales == 1:
            return lambda *args: run(1, *args)
        branches = [lambda *args, k=k: run(k, *args) for k in range(1, cfg.scales + 1)]
        return lambda *args: jax.lax.switch(scales(*place), branches, *args)

    def apply(cache, method, *args):
        out, changed = net.apply({"params": task.weights, "cache": cache}, *args, method=method, mutable="cache")
        return out, changed["cache"]

    def one_row(carry, r):
        image, cache, rows = carry
        above = seen(jax.lax.dynamic_slice_in_dim(image, jnp.maximum(r - 1, 0), 1, axis=1), r > 0)

        def rows_with(depth, cache, old):
            new, cache = apply(cache, "rows", above, task.label, At(r, None, width, depth))
            # Scales that do not run at this row run at none of its pixels: theirs are kept for their shapes alone.
            return Rows(new.above, new.stream and old.stream | new.stream), cache

        def one_pixel(carry, c):
            image, cache = carry
            corner = (0, r, jnp.maximum(c - 1, 0), 0)
            left = seen(jax.lax.dynamic_slice(image, corner, (len(image), 1, 1, image.shape[-1])), c > 0)

            def pixel_with(depth, cache):
                return apply(cache, "pixels", left, rows.at(c), task.label, At(r, c, width, depth))

            out, cache = each_depth(pixel_with, r, c)(cache)
            pixel = draw(cfg, task.weights, out[:, 0, 0], task.noise[:, r, c], task.known[:, r, c])
            return (image.at[:, r, c].set(pixel), cache), None

        rows, cache = each_depth(rows_with, r)(cache, rows)
        (image, cache), _ = jax.lax.scan(one_pixel, (image, cache), jnp.arange(width))
        return (image, cache, rows), None

    start = jnp.zeros(task.noise.shape), *_empty(cfg, copies * len(task.noise))
    (image, _, _), _ = jax.lax.scan(one_row, start, jnp.arange(height))
    return image, jnp.asarray(height * width)


def _network(cfg: Config, task: Task, image: Array) -> Array:
    """The outputs for all pixels of images [n, H, W, C], without and with "none" for a label."""
    copies = 1 if task.label is None else len(task.label) // len(image)
    x = jnp.tile(to_grid(image, cfg.space.grey_levels), (copies, 1, 1, 1))
    return cast(Array, PixelCNN(cfg).apply({"params": task.weights}, x, task.label))


def _empty(cfg: Config, n: int):
    """Caches and rows of zeros for n images."""
    _, width, channels = cfg.space.shape
    place = lambda col: At(jnp.asarray(0), col, width, cfg.scales)  # noqa: E731

    def all_once(net, row, label):
        rows = net.rows(row, label, place(None))
        net.pixels(row[:, :, :1], rows.at(jnp.asarray(0)), label, place(jnp.asarray(0)))
        return rows

    def shapes():
        row = jnp.zeros((n, 1, width, channels + 1), cfg.dtype)
        label = None if cfg.classes is None else jnp.zeros(n, jnp.int32)
        rows, variables = PixelCNN(cfg).init_with_output(jax.random.key(0), row, label, method=all_once)
        return variables["cache"], rows

    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(shapes))
