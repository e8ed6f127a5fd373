"""The alias-free generator of StyleGAN3, configuration T: feature maps are samples of smooth signals.

It starts from waves, sin(2 pi (f.u + phase)) at points u of the plane, instead of learnt pixels, and every layer keeps
its signals within a band: a leaky ReLU, which makes new frequencies, is applied at twice the resolution between two
low-pass filters. Feature maps have a margin of ten pixels. So an image whose waves are moved is the moved image,
`translation_equivariance` measures how nearly.

Karras et al. 2021 (https://arxiv.org/abs/2106.12423), section 3. Differs from the paper: no running mean of the
magnitude of the inputs of a layer, only demodulation; the frequencies of the waves, which are not trained, are the same
in every run; no clamp of activations.
"""

import math
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from genmap_jax.implicit.stylegan.config import Config
from genmap_jax.implicit.stylegan.networks import Dense, act, modulated_conv, scaled_kernel
from genmap_jax.nn import fir
from genmap_jax.nn.blocks import block

Array = jax.Array

FIRST_CUTOFF, FIRST_STOPBAND = 2.0, 2.0**2.1  # of the waves, in cycles over the image
LAST_STOPBAND = 2.0**0.3  # over the last cutoff, which is half of the resolution
CRITICAL = 2  # layers at the end whose cutoff is half of the resolution
MARGIN = 10  # pixels around the image
TAPS = 6  # of a low-pass filter, times the factor of resampling
COLOUR_SCALE = 0.25


class Band(NamedTuple):
    """The signals before or after a layer: frequencies in cycles over the image, `rate` samples over it."""

    cutoff: float
    half_width: float  # of the transition from what passes to what is stopped
    rate: int
    size: int  # of the feature map, with its margin
    channels: int


def bands(cfg: Config) -> list[Band]:
    """Of the signals after each layer, of which the first keeps that of the waves. Cutoffs and stopbands grow in
    proportion up to the last layers."""
    n, last = cfg.alias_free_layers, cfg.resolution / 2
    found = []
    for i in range(n):
        exponent = min(i / (n - CRITICAL), 1.0)
        cutoff = FIRST_CUTOFF * (last / FIRST_CUTOFF) ** exponent
        stopband = FIRST_STOPBAND * (last * LAST_STOPBAND / FIRST_STOPBAND) ** exponent
        rate = 2 ** math.ceil(math.log2(min(2.0 * stopband, cfg.resolution)))
        size = cfg.resolution if i >= n - 1 else rate + 2 * MARGIN
        channels = max(1, round(min(cfg.capacity / 2 / cutoff, cfg.channels)))
        found.append(Band(cutoff, max(stopband, rate / 2) - cutoff, rate, size, channels))
    return found


def low_pass(taps: int, band: Band, rate: int) -> np.ndarray:
    """A filter of signals of a band that are sampled `rate` times over the image (Kaiser window)."""
    import scipy.signal

    return scipy.signal.firwin(taps, band.cutoff, width=2.0 * band.half_width, fs=rate)


class Waves(nn.Module):
    """w [B, latent] -> [B, size, size, channels]: waves that w turns and moves, mixed by a learnt matrix.

    shift: [B, 2], by how much to move them down and to the right, in sides of the image; None for not at all.
    """

    band: Band

    @nn.compact
    def __call__(self, w: Array, shift: Array | None) -> Array:
        band, C = self.band, self.band.channels
        rng = np.random.default_rng(0)
        frequencies, phases = rng.normal(size=(C, 2)), rng.uniform(-0.5, 0.5, C).astype(np.float32)
        radii = np.linalg.norm(frequencies, axis=1, keepdims=True)  # from here on, uniform on a disc
        frequencies = (frequencies / (radii * np.exp(radii**2) ** 0.25) * band.cutoff).astype(np.float32)
        beyond = (np.linalg.norm(frequencies, axis=1) - band.cutoff) / (band.rate / 2 - band.cutoff)
        amplitudes = np.clip(1.0 - beyond, 0.0, 1.0).astype(np.float32)

        move = Dense(4, start=(1.0, 0.0, 0.0, 0.0), spread=0.0, name="move")(w)
        move = move / jnp.linalg.norm(move[:, :2], axis=1, keepdims=True)
        (c, s), away = move[:, :2].T, move[:, 2:] if shift is None else move[:, 2:] + shift
        # f.(R (u - away)) = (R^T f).(u - away), with R the turn by the angle whose cosine and sine are c and s
        f_row, f_column = (f[None] for f in frequencies.T)
        row = c[:, None] * f_row + s[:, None] * f_column  # [B, C]
        column = c[:, None] * f_column - s[:, None] * f_row
        start = phases[None] - row * away[:, :1] - column * away[:, 1:]
        at = (jnp.arange(band.size) + 0.5 - band.size / 2) / band.rate
        angle = at[None, :, None, None] * row[:, None, None] + at[None, None, :, None] * column[:, None, None]
        angle = 2.0 * math.pi * (angle + start[:, None, None])
        return fir.conv(jnp.sin(angle) * amplitudes[None, None, None], scaled_kernel(self, 1, C, C))


class FilteredLayer(nn.Module):
    """Modulated convolution, then a leaky ReLU between two low-pass filters. x, w -> [B, size', size', channels']"""

    before: Band
    after: Band

    @nn.compact
    def __call__(self, x: Array, w: Array) -> Array:
        before, after = self.before, self.after
        style = Dense(x.shape[-1], start=1.0, name="affine")(w)
        kernel = scaled_kernel(self, 3, x.shape[-1], after.channels)
        x = modulated_conv(x, style, kernel, conv=conv_full)
        x = x + self.param("bias", nn.initializers.zeros, (after.channels,))[None, None, None].astype(x.dtype)
        rate = 2 * max(before.rate, after.rate)
        up, down = rate // before.rate, rate // after.rate
        # Centred: what the filters and the steps leave over is cut off on both sides alike.
        total = (after.size - 1) * down + 1 - x.shape[1] * up + TAPS * (up + down) - 2
        low = (total + up) // 2
        x = fir.both(x, up * low_pass(TAPS * up, before, rate), up=up, pad=(low, total - low))
        return fir.both(act(x), low_pass(TAPS * down, after, rate), down=down)


def conv_full(x: Array, kernel: Array) -> Array:
    """Convolution with all outputs that see a pixel. [B, H, W, C] -> [B, H + k - 1, W + k - 1, D]"""
    return fir.correlate(x, kernel, pad=kernel.shape[0] - 1)


class AliasFreeSynthesis(nn.Module):
    """ws [B, layers, latent] -> images [B, H, W, C]. noise must be None. shift: as `Waves` takes it."""

    cfg: Config

    @nn.compact
    def __call__(self, ws: Array, noise: None = None, shift: Array | None = None) -> Array:
        cfg, known = self.cfg, bands(self.cfg)
        x = Waves(known[0])(ws[:, 0], shift).astype(cfg.dtype)
        for i, (before, after) in enumerate(zip([known[0], *known[:-1]], known, strict=True)):
            layer = partial(FilteredLayer, before, after)
            x = block(self, cfg.remat, lambda x, w, layer=layer: layer()(x, w), x, ws[:, i + 1])
        style = Dense(x.shape[-1], start=1.0, name="affine")(ws[:, -1])
        out = cfg.space.shape[2]
        x = modulated_conv(x, style, scaled_kernel(self, 1, x.shape[-1], out), demodulate=False).astype(jnp.float32)
        return COLOUR_SCALE * (x + self.param("bias", nn.initializers.zeros, (out,))[None, None, None])


def translation_equivariance(moved: Array, still: Array, rows: int, columns: int) -> Array:
    """EQ-T in decibels: how near images of moved waves are to the moved images, a peak signal-to-noise ratio. [B]

    moved, still: images [B, H, W, C] in [-1, 1], of waves moved by whole pixels and not. Over all pixels that come from
    inside of the image. Karras et al. 2021, section 2.2 and appendix E.
    """
    H, W = still.shape[1:3]
    inside = (slice(None), slice(max(rows, 0), H + min(rows, 0)), slice(max(columns, 0), W + min(columns, 0)))
    wanted = jnp.roll(still, (rows, columns), axis=(1, 2))
    error = jnp.square(moved[inside] - wanted[inside]).mean((1, 2, 3))
    return 10.0 * jnp.log10(4.0 / error)
