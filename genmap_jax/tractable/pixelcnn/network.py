"""The network: for every pixel D numbers, functions of the pixels before it in raster order and of no others.

Every convolution looks up and to the left only, because its window is shifted; what is above and what is to the left
meet in two streams (Salimans et al. 2017, section 2.3; van den Oord et al. 2016, arXiv:1606.05328):

    down         from windows of rows: at row r it knows all rows before r
    down right   from windows that end at the pixel: it also knows the pixels before it in its row, and is told by the
                 other stream about the rows before

Each stream is a U-net of gated residual blocks (section 2.4). With `masked` there is one stream only, whose windows are
of rows with the last taps masked: it knows less (the blind spot).

The same modules run in three ways: on whole images; on one row (`At.col` None), for what depends on rows before only;
and on one pixel. In the last two every convolution keeps the rows of its input that its window can still reach, in the
collection "cache". A coarser scale runs only at rows and columns that it has, so `At.scales` says how many run here.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from genmap_jax.algorithm import Array
from genmap_jax.nn.attention import attend, causal_mask, scaled_scores
from genmap_jax.nn.conv import correlate, correlate_plainly, transposed
from genmap_jax.nn.reparametrise import direction
from genmap_jax.tractable.pixelcnn import head
from genmap_jax.tractable.pixelcnn.config import Config

Streams = dict[int, list[Array]]
"""What the blocks of a stream put out: scale -> one array for each block, in the order in which they run."""


class At(NamedTuple):
    """Where a network runs that does not see whole images, in units of its scale."""

    row: Array
    col: Array | None  # None: the whole row at once
    width: int  # of the image
    scales: int  # so many scales run at this place, the finest first

    def coarser(self) -> "At":
        """The same place at half the resolution."""
        return At(self.row // 2, None if self.col is None else self.col // 2, self.width // 2, self.scales)

    @property
    def first(self) -> Array | int:
        """The first column that is seen."""
        return 0 if self.col is None else self.col


class Window(NamedTuple):
    """What a convolution sees: size (h, w) ending in the row of its pixel, `left` columns to the left of it.

    Of the last row the last `masked` taps are zero.
    """

    size: tuple[int, int] = (1, 1)
    left: int = 0
    masked: int = 0


DOWN = Window((2, 3), 1)
RIGHT = Window((2, 2), 1)
MASKED = Window((2, 3), 1, masked=1)
FIRST = {"two_stream": (Window((1, 3), 1), Window((2, 1))), "masked": (Window((3, 7), 3), Window((1, 3), 2))}
"""The windows of the first layer of the last stream: on the image shifted down, and on the image shifted right."""


# ---- layers ----------------------------------------------------------------------------------------------------------


def concat_elu(x: Array) -> Array:
    """elu of x and of -x, twice as many channels: where one has no gradient the other one has. Shang et al. 2016
    (arXiv:1603.05201), with the elu of Clevert et al. 2016."""
    return nn.elu(jnp.concatenate([x, -x], axis=-1))


def shifted(x: Array, axis: int) -> Array:
    """The image moved by one pixel along an axis, zeros first: what is seen of the pixels before."""
    return jnp.pad(jax.lax.slice_in_dim(x, 0, -1, axis=axis), [(int(i == axis), 0) for i in range(x.ndim)])


def within(x: Array, axis: int, at: At | None) -> Array:
    """Zeros at the first row (axis 1) or column (axis 2) of the image, where there is nothing before."""
    start = 0 if at is None else (at.row, at.first)[axis - 1]
    position = start + jnp.arange(x.shape[axis])
    return jnp.where(position.reshape([-1 if i == axis else 1 for i in range(x.ndim)]) > 0, x, 0)


class WeightNorm(nn.Module):
    """What the layers share: a kernel of unit norm for each output, then a gain and a bias.

    Outside of initialisation the kernel comes normalised by `reparametrise.weight_norm`. Salimans & Kingma 2016
    (arXiv:1602.07868), with the data-dependent initialisation of its section 3: on the first batch every output has
    mean 0 and standard deviation `scale`.
    """

    cfg: Config
    features: int
    window: Window = Window()
    scale: float = 1.0

    def unit_kernel(self, inputs: int) -> Array:
        """[h, w, inputs, features] with the masked taps at zero."""
        (h, w), masked = self.window.size, self.window.masked
        taps = jnp.arange(h * w).reshape(h, w, 1, 1) < h * w - masked

        def start(key, shape):
            return jnp.where(taps, 0.05 * jax.random.normal(key, shape), 0.0)

        kernel = self.param("kernel", start, (h, w, inputs, self.features))
        if self.is_initializing():
            kernel = direction(kernel)
        return jnp.where(taps, kernel, 0.0).astype(self.cfg.dtype)

    def affine(self, y: Array) -> Array:
        """gain y + bias."""
        gain, bias = jnp.full(self.features, self.scale), jnp.zeros(self.features)
        if self.is_initializing() and self.cfg.data_init:
            exact = y.astype(jnp.float32)
            gain = self.scale * jax.lax.rsqrt(exact.var((0, 1, 2)) + 1e-10)
            bias = -exact.mean((0, 1, 2)) * gain
        gain, bias = self.param("gain", lambda key: gain), self.param("bias", lambda key: bias)
        return y * gain.astype(y.dtype)[None, None, None] + bias.astype(y.dtype)[None, None, None]


class Conv(WeightNorm):
    """A convolution whose window ends at, or before, the pixel itself. [B, H, W, C] -> [B, H / s, W / s, features]"""

    stride: int = 1

    @nn.compact
    def __call__(self, x: Array, at: At | None = None) -> Array:
        (h, w), left, s = self.window.size, self.window.left, self.stride
        kernel = self.unit_kernel(x.shape[-1])
        if at is None or h == w == 1:
            conv = correlate_plainly if s == 1 else correlate
            return self.affine(conv(x, kernel, s, ((h - 1, 0), (left, w - 1 - left))))
        batch, _, count, channels = x.shape
        rows = self.variable("cache", "rows", jnp.zeros, (batch, h, at.width + w - 1, channels), x.dtype)
        newest = at.row % h  # row r lies in slot r mod h
        rows.value = jax.lax.dynamic_update_slice(rows.value, x, (0, newest, at.first + left, 0))
        seen = jax.lax.dynamic_slice(rows.value, (0, 0, at.first, 0), (batch, h, count + w - 1, channels))
        seen = jnp.roll(seen, -1 - newest, axis=1)
        taps = [seen[:, i : i + 1, j : j + count : s] for i in range(h) for j in range(w)]
        return self.affine(jnp.concatenate(taps, axis=-1) @ kernel.reshape(-1, self.features))


class Up(WeightNorm):
    """A transposed convolution of stride 2: a pixel writes to the 2 x 2 pixels that it stands for, and, with a window
    of three columns, to a column beside them. [B, H, W, C] -> [B, 2 H, 2 W, features]

    On a row or a pixel, x is None where the coarser scale does not run; what it wrote last is kept.
    """

    @nn.compact
    def __call__(self, x: Array | None, at: At | None = None) -> Array:
        if at is None:
            assert x is not None  # on whole images every scale runs
            return self.grown(x)
        if x is not None:
            new = self.grown(x)  # [B, 2, 2 n, F]
            shape = (len(new), 2, at.width, self.features)
            kept = self.variable("cache", "rows", jnp.zeros, shape, new.dtype)
            kept.value = jax.lax.dynamic_update_slice(kept.value, new, (0, 0, at.first // 2 * 2, 0))
        rows: Array = self.get_variable("cache", "rows")
        size = (len(rows), 1, at.width if at.col is None else 1, self.features)
        return jax.lax.dynamic_slice(rows, (0, at.row % 2, at.first, 0), size)

    def grown(self, x: Array) -> Array:
        (h, w), left = self.window.size, self.window.left
        crop = left if w == 3 else 0  # centred on the pixel, or ending at it
        return self.affine(transposed(x, self.unit_kernel(x.shape[-1]), ((h - 1, 1), (w - 1 - crop, 1 + crop))))


class Block(nn.Module):
    """Gated residual block, told of `also`, by a 1x1 convolution, and of the label, by a bias.

    Salimans et al. 2017, section 2.4 to 2.5; the gate is that of van den Oord et al. 2016 without its tanh.
    """

    cfg: Config
    window: Window
    train: bool

    @nn.compact
    def __call__(self, x: Array, also: Array | None, label: Array | None, at: At | None = None) -> Array:
        cfg = self.cfg
        y = Conv(cfg, cfg.filters, self.window, name="first")(concat_elu(x), at)
        if also is not None:
            y = y + Conv(cfg, cfg.filters, name="also")(concat_elu(also))
        y = nn.Dropout(cfg.dropout, deterministic=not self.train)(concat_elu(y))
        y = Conv(cfg, 2 * cfg.filters, self.window, scale=0.1, name="second")(y, at)
        if label is not None:
            table = self.param("label", nn.initializers.normal(0.05), (cfg.kinds, 2 * cfg.filters))
            y = y + table[label].astype(y.dtype)[:, None, None]
        value, gate = jnp.split(y, 2, axis=-1)
        return x + value * nn.sigmoid(gate)


class Attention(nn.Module):
    """Attention of every pixel to those up to itself in raster order, and a block that is told of the result.

    Chen et al. 2018 (PixelSNAIL, arXiv:1712.09763), section 2.2. Features of a pixel know the pixels before it only, so
    those of the pixel itself may be attended to.
    """

    cfg: Config
    window: Window
    train: bool
    pixels: int
    """The number of pixels at this scale."""

    @nn.compact
    def __call__(self, x: Array, label: Array | None, at: At | None = None) -> Array:
        batch, height, width, channels = x.shape
        positions = self.param("positions", nn.initializers.normal(0.05), (self.pixels, channels))
        index = jnp.arange(self.pixels) if at is None else (at.row * at.width + at.first)[None]
        here = x + positions[index].astype(x.dtype).reshape(1, height, width, channels)
        q, k, v = (
            Conv(self.cfg, channels, name=name)(concat_elu(here)).reshape(batch, height * width, channels)
            for name in ("query", "key", "value")
        )
        if at is not None:
            zeros = (jnp.zeros, (batch, self.pixels, channels), x.dtype)
            keys, values = self.variable("cache", "keys", *zeros), self.variable("cache", "values", *zeros)
            write = partial(jax.lax.dynamic_update_slice_in_dim, start_index=index[0], axis=1)
            k = keys.value = write(keys.value, k)
            v = values.value = write(values.value, v)
        mask = causal_mask(index, jnp.arange(self.pixels))[None]
        seen = attend(scaled_scores(q[:, None], k), v, mask)[:, 0].reshape(x.shape)
        return Block(self.cfg, self.window, self.train, name="block")(x, seen, label, at)


# ---- streams ---------------------------------------------------------------------------------------------------------


class Stream(nn.Module):
    """A U-net of blocks: at every scale so many on the way down, then the coarser scales, then as many on the way up,
    the last of which are told what the first have put out (long skip connections).

    others: what the blocks of the other stream have put out; each block is told of its counterpart.
    """

    cfg: Config
    window: Window
    train: bool
    attends: bool
    """Whether this stream has the attention blocks."""

    @nn.compact
    def __call__(self, x: Array, others: Streams | None, label: Array | None, at: At | None = None) -> Streams:
        cfg, out = self.cfg, Streams()
        Residual = nn.remat(Block) if cfg.remat and at is None else Block

        def block(scale: int, x: Array, skip: Array | None, at: At | None) -> Array:
            i = len(out[scale])
            told = [part for part in (None if others is None else others[scale][i], skip) if part is not None]
            also = jnp.concatenate(told, axis=-1) if told else None
            place = () if at is None else (at,)
            x = Residual(cfg, self.window, self.train, name=f"block_{scale}_{i}")(x, also, label, *place)
            out[scale].append(x)
            return x

        def run(scale: int, x: Array, at: At | None) -> Array:
            out[scale], skips = [], [x]
            for _ in range(cfg.blocks):
                x = block(scale, x, None, at)
                skips.append(x)
            if self.attends and scale in cfg.attention:
                pixels = cfg.space.shape[0] * cfg.space.shape[1] // 4**scale
                x = Attention(cfg, self.window, self.train, pixels, name=f"attention_{scale}")(x, label, at)
            if scale == cfg.scales - 1:
                skips.pop()
            else:
                coarse: Array | None = None
                below = Conv(cfg, cfg.filters, self.window, stride=2, name=f"down_{scale}")(x, at)
                if at is None or at.scales > scale + 1:
                    coarse = run(scale + 1, below, None if at is None else at.coarser())
                onto = RIGHT if self.window.masked else self.window  # what ends at a pixel must not write before it
                x = Up(cfg, cfg.filters, onto, name=f"up_{scale}")(coarse, at)
            for skip in reversed(skips):
                x = block(scale, x, skip if cfg.skips else None, at)
            return x

        run(0, x, at)
        return out


class Rows(NamedTuple):
    """What is known of the rows before: the first layer of the last stream, and the other stream, if there are two."""

    above: Array
    stream: Streams | None

    def at(self, col: Array) -> "Rows":
        """One column of it, of one row: [B, 1, W, F] -> [B, 1, 1, F]"""
        pick = lambda scale, x: jax.lax.dynamic_slice_in_dim(x, col // 2**scale, 1, axis=2)  # noqa: E731
        stream = self.stream and {scale: [pick(scale, x) for x in parts] for scale, parts in self.stream.items()}
        return Rows(pick(0, self.above), stream)


class PixelCNN(nn.Module):
    """Images on the grid from -1 to 1 -> outputs for every pixel, from the pixels before it. [B, H, W, C] -> float32
    [B, H, W, D]"""

    cfg: Config
    train: bool = False

    def setup(self):
        cfg, (above, left) = self.cfg, FIRST[self.cfg.network]
        self.first_above, self.first_left = Conv(cfg, cfg.filters, above), Conv(cfg, cfg.filters, left)
        if cfg.network == "two_stream":
            self.first_down = Conv(cfg, cfg.filters, DOWN)
            self.down = Stream(cfg, DOWN, self.train, attends=False)
            self.right = Stream(cfg, RIGHT, self.train, attends=True)
        else:
            self.masked = Stream(cfg, MASKED, self.train, attends=True)
        self.last = Conv(cfg, head.outputs(cfg))
        if cfg.head != "logistic" and head.pairs(cfg):
            self.coupling = Coupling(cfg)

    def __call__(self, x: Array, label: Array | None = None) -> Array:
        """See the class."""
        if self.is_initializing() and self.cfg.head != "logistic" and head.pairs(self.cfg):
            self.coupling()
        x = with_ones(x).astype(self.cfg.dtype)
        return self.pixels(shifted(x, 2), self.rows(shifted(x, 1), label), label)

    def rows(self, above: Array, label: Array | None, at: At | None = None) -> Rows:
        """All that depends on the rows before only. above: the image one row down, with its ones, or one row of it."""
        first = within(self.first_above(above, at), 1, at)
        if self.cfg.network == "masked":
            return Rows(first, None)
        return Rows(first, self.down(within(self.first_down(above, at), 1, at), None, label, at))

    def pixels(self, left: Array, rows: Rows, label: Array | None, at: At | None = None) -> Array:
        """The outputs. left: the image one column to the right, with its ones, or one pixel of it."""
        x = rows.above + within(self.first_left(left, at), 2, at)
        stream: Any = self.masked if self.cfg.network == "masked" else self.right
        x = stream(x, rows.stream, label, at)[0][-1]
        return self.last(nn.elu(x)).astype(jnp.float32)


class Coupling(nn.Module):
    """The table of the categorical head: logits of a channel by the value of one before, for each pair of channels."""

    cfg: Config

    @nn.compact
    def __call__(self) -> Array:
        levels = self.cfg.space.grey_levels
        return self.param("embedding", nn.initializers.zeros, (head.pairs(self.cfg), levels, levels))


def with_ones(x: Array) -> Array:
    """A channel of ones tells an image from the zeros around it. [B, H, W, C] -> [B, H, W, C + 1]"""
    return jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1)
