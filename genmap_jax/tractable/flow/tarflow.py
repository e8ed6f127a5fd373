"""TarFlow: a normalizing flow of images made of causal transformers over patches.

Zhai et al. 2024, "Normalizing Flows are Capable Generative Models" (arXiv:2412.06329): a masked autoregressive flow
whose layers are whole transformers, with the order of the patches reversed from one to the next.

    z_i = (x_i - m_i) exp(-s_i),    (m_i, s_i) = transformer(x_1 ... x_{i-1}),    (m_1, s_1) = 0                  eq. 3

The density takes one pass. Sampling has to find the patches from the first to the last, in one of three ways with the
same result: `sequential` runs the whole transformer for every patch; `cached` keeps keys and values in a cache of
static size and runs it on one patch at a time; `jacobi` guesses a group of patches at once and corrects the guess until
it does not move any more, group after group, on the same cache (Gauss-Seidel-Jacobi; Song et al. 2021,
arXiv:2002.03629).

For samples the paper trains on images with Gaussian noise (`noise_std`) and takes the noise away with the score of the
model, x + noise_std^2 grad log p(x) (Tweedie; eq. 8), and guides classes by w f(label) + (1 - w) f(none), where w grows
from 1 along the patches (w - 1 is the paper's w). For likelihoods it trains on uniformly dequantised images,
noise_std=0. `log_prob` always measures the bound on the integers, which is loose for a model of noisy images.

Differs from the paper: scales are bounded by a tanh; positions and classes enter the first layer only; the order of
patches is that of rows; pixels may be modelled as logits.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from genmap_jax.algorithm import Algorithm, Array, Family, Params
from genmap_jax.nn.attention import attend, causal_mask, scaled_scores
from genmap_jax.nn.blocks import block, through_equal
from genmap_jax.nn.dit import normalised
from genmap_jax.nn.products import in_type, widened
from genmap_jax.optim import Optim
from genmap_jax.options import Count, NotNegative, Positive, Range, check_options
from genmap_jax.samplers import fixed_point
from genmap_jax.samplers.guidance import check_guidance
from genmap_jax.spaces import Space
from genmap_jax.tractable.flow import coupling, images, linear
from genmap_jax.tractable.flow.bijection import Bijection, chain
from genmap_jax.tractable.flow.density import flow_algorithm, with_exact_likelihood

Cache = list[tuple[Array, Array]]
"""Keys and values of all patches in each layer, [B heads, N, d]; patches not decoded yet are masked."""
AFFINE = coupling.affine(limit=4.0)


@dataclasses.dataclass(frozen=True)
class Config:
    """What a TarFlow is made of."""

    space: Space
    """Space of one example: images whose sides divide by `patch`."""
    patch: Count = 2
    """Side of a patch in pixels; a patch is one token."""
    flows: Count = 4
    """The number of transformers after one another; 8 in the paper."""
    layers: Count = 2
    """Attention layers of each transformer; 8 in the paper."""
    width: Count = 128
    """Width of a token; 768 in the paper."""
    heads: Count = 2
    """Attention heads of a layer."""
    classes: Count | None = None
    """The number of classes of a conditional flow, which reads the label of a batch; None is unconditional."""
    label_drop: Annotated[float, Range(0, below=1)] = 0.1
    """The share of training examples whose label is hidden, so that sampling can be guided."""
    logit: Annotated[float, Range(0, below=0.5)] = 0.0
    """Grey values are squeezed into [logit, 1 - logit] and the flow is one of their normalised logits, which helps
    where many pixels are black or white; 0 is a flow of the grey values themselves, as it is with `noise_std`."""
    noise_std: NotNegative = 0.0
    """Standard deviation of Gaussian noise on training images, in units of [-1, 1]; 0 dequantises uniformly."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Activations and products of the transformers have this type in training and sampling. Parameters, normalisations,
    softmax, the bijections themselves, the loss and the likelihood are always float32."""
    remat: bool = False
    """The backward pass recomputes the inside of every layer, to save memory."""
    scan: bool = False
    """One layer of a transformer is compiled and looped over in training and likelihood, in the place of all of them:
    the same results, compiled in a fraction of the time."""
    accumulate: Count = 1
    """An update computes its gradient over this many micro-batches, one after another, to save memory."""
    optim: Optim = Optim()
    """How parameters are updated."""
    ema_halflife: Positive | None = None
    """Half-life of the average of the parameters in examples; None is no average."""
    draws: Count = 16
    """Draws of the dequantisation noise for one likelihood in evaluation; more give a tighter bound."""
    temperature: NotNegative = 1.0
    """Standard deviation of the latents that are sampled; 1 samples the model itself."""
    decoding: Literal["cached", "sequential", "jacobi"] = "cached"
    """How samples are found from latents; all give the same samples."""
    group: Count = 16
    """With jacobi decoding, so many patches are guessed at once."""
    tolerance: Positive = 1e-4
    """With jacobi decoding, a group is done when no value moves by more than this, in units of the data."""
    guidance: NotNegative = 1.0
    """Weight of the label in sampling at the last patch, growing from 1 at the first; 1 samples the model itself."""
    denoise: bool = False
    """Samples of a model of noisy images are cleaned with its score."""


# ---- the network -----------------------------------------------------------------------------------------------------


class Layer(nn.Module):
    """A pre-norm transformer layer whose attention is causal, in the type of its input."""

    heads: int
    """Attention heads."""

    @nn.compact
    def __call__(self, x, kept, start):
        """T patches from number `start` on, [B, T, W]; `kept` are keys and values of all N patches. -> (x, kept)"""
        batch, count, width = x.shape
        dense = partial(nn.Dense, dtype=x.dtype)
        qkv = dense(3 * width, name="qkv")(normalised(x)).reshape(batch, count, 3, self.heads, -1)
        q, k, v = jnp.moveaxis(qkv, (2, 3), (0, 2)).reshape(3, batch * self.heads, count, -1)
        kept = tuple(
            jax.lax.dynamic_update_slice_in_dim(old, new, start, axis=1) for old, new in zip(kept, (k, v), strict=True)
        )
        mask = causal_mask(start + jnp.arange(count), jnp.arange(kept[0].shape[1]))[None]
        y = attend(scaled_scores(q[:, None], kept[0]), kept[1], mask)[:, 0]
        y = y.reshape(batch, self.heads, count, -1).swapaxes(1, 2).reshape(x.shape)
        x = x + dense(width, kernel_init=nn.initializers.zeros, name="out")(y)
        h = nn.gelu(dense(4 * width, name="up")(normalised(x)))
        return x + dense(width, kernel_init=nn.initializers.zeros, name="down")(h), kept


class Transformer(nn.Module):
    """Patches -> for each, what is said of the next one: two numbers for every value of a patch."""

    width: int
    """Width of a token."""
    layers: int
    """Attention layers."""
    heads: int
    """Attention heads."""
    tokens: int
    """The number of patches N."""
    dtype: str = "float32"
    """Type of activations, products and cache; parameters, input and output are float32."""
    remat: bool = False
    """Whether the backward pass recomputes the inside of every layer, to save memory."""
    scan: bool = False
    """Whether one layer is compiled and looped over, where no cache is given. Parameters and results are the same."""

    @nn.compact
    def __call__(self, x, cond, cache: Any = None, start: Any = 0):
        """T patches from number `start` on. [B, T, d], cond [B, C] or None -> [B, T, d, 2] and the cache"""
        batch, count, values = x.shape
        (x,) = in_type(self.dtype, x)
        dense = partial(nn.Dense, dtype=x.dtype)
        scan = self.scan and cache is None and not self.is_initializing()
        if cache is None:
            cache = self.empty(batch, x.dtype)
        positions = self.param("positions", nn.initializers.normal(0.01), (self.tokens, self.width))
        here = jax.lax.dynamic_slice_in_dim(positions, start, count)[None]
        h = dense(self.width, name="embed")(x) + here.astype(x.dtype)
        if cond is not None:
            h = h + dense(self.width, use_bias=False, name="cond")(cond)[:, None]
        if scan:

            def run(own, h):
                params, kept = own
                return Layer(self.heads, parent=None).apply({"params": params}, h, kept, start)

            params = self.variables["params"]
            each = [(params[f"layer_{i}"], kept) for i, kept in enumerate(cache)]
            h, stacked = through_equal(run, each, h, self.remat)
            new = [jax.tree.map(lambda kept, i=i: kept[i], stacked) for i in range(self.layers)]
        else:
            new = []
            for i, kept in enumerate(cache):
                layer = lambda h, kept, start, i=i: Layer(self.heads, name=f"layer_{i}")(h, kept, start)  # noqa: E731
                h, kept = block(self, self.remat, layer, h, kept, start)
                new.append(kept)
        out = dense(values * AFFINE.parameters, kernel_init=nn.initializers.zeros, name="last")(normalised(h))
        return widened(out).reshape(batch, count, values, AFFINE.parameters), new

    def empty(self, batch: int, dtype) -> Cache:
        """A cache that holds nothing yet."""
        zeros = jnp.zeros((batch * self.heads, self.tokens, self.width // self.heads), dtype)
        return [(zeros, zeros)] * self.layers


# ---- the bijections --------------------------------------------------------------------------------------------------


def patches(shape: tuple[int, ...], patch: int) -> Bijection:
    """Images [B, H, W, C] -> their patches [B, N, patch * patch * C], row by row."""
    height, width, channels = shape
    rows, columns = height // patch, width // patch

    def forward(params, x, cond):
        x = x.reshape(-1, rows, patch, columns, patch, channels).swapaxes(2, 3)
        return x.reshape(len(x), rows * columns, -1), jnp.zeros(len(x), x.dtype)

    def inverse(params, y, cond):
        y = y.reshape(-1, rows, columns, patch, patch, channels).swapaxes(2, 3)
        return y.reshape(-1, *shape), jnp.zeros(len(y), y.dtype)

    return Bijection(lambda key, x, cond: {}, forward, inverse)


def reverse() -> Bijection:
    """Patches in the opposite order."""
    turn = lambda params, x, cond: (x[:, ::-1], jnp.zeros(len(x), x.dtype))  # noqa: E731
    return Bijection(lambda key, x, cond: {}, turn, turn)


def said_of_each(out: Array) -> Array:
    """What is said of the next patch -> what is said of each patch itself; zeros of the first. [B, N, d, 2]"""
    return jnp.pad(out[:, :-1], ((0, 0), (1, 0), (0, 0), (0, 0)))


def transformer_flow(cfg: Config) -> Bijection:
    """One autoregressive map of patches [B, N, d], eq. 3; its inverse decodes as the configuration says."""
    net = network(cfg)

    def init(key, x, cond):
        return net.init(key, x, cond)["params"]

    def forward(params, x, cond):
        out, _ = net.apply({"params": params}, x, cond)
        y, log_slope = AFFINE.forward(said_of_each(out), x)
        return y, log_slope.reshape(len(x), -1).sum(-1)

    def inverse(params, y, cond):
        x, log_slope, _ = decode(cfg, evaluator(cfg, params, cond), y)
        return x, log_slope.reshape(len(y), -1).sum(-1)

    return Bijection(init, forward, inverse)


def network(cfg: Config) -> Transformer:
    """The transformer of one flow."""
    height, width, _ = cfg.space.shape
    return Transformer(
        cfg.width, cfg.layers, cfg.heads, (height // cfg.patch) * (width // cfg.patch), cfg.dtype, cfg.remat, cfg.scan
    )


# ---- decoding --------------------------------------------------------------------------------------------------------


Evaluate = Callable[[Array, Any, Any], tuple[Array, Any]]
"""(patches [B, T, d], cache or None, number of the first) -> (what is said of the patches after them, cache)"""


def evaluator(cfg: Config, params: Params, cond: Array | None) -> Evaluate:
    """The transformer of one flow, guided if the configuration says so: twice the batch, without the label."""
    net = network(cfg)
    if cfg.guidance == 1.0 or cond is None:
        return lambda x, cache, start: net.apply({"params": params}, x, cond, cache, start)
    both = jnp.concatenate([cond, jnp.zeros_like(cond)])

    def guided(x, cache, start):
        out, cache = net.apply({"params": params}, jnp.concatenate([x, x]), both, cache, start)
        label, none = jnp.split(out, 2)
        said_of = start + 1 + jnp.arange(x.shape[1])  # the number of the patch of which it is said
        weight = (1.0 + (cfg.guidance - 1.0) * said_of / max(1, net.tokens - 1))[None, :, None, None]
        return weight * label + (1.0 - weight) * none, cache

    return guided


def decode(cfg: Config, evaluate: Evaluate, z: Array) -> tuple[Array, Array, Array]:
    """Latents z [B, N, d] of one flow -> x [B, N, d], its log-slopes [B, N, d], and how often the network was run."""
    return _sequential(evaluate, z) if cfg.decoding == "sequential" else _grouped(cfg, evaluate, z)


def _sequential(evaluate: Evaluate, z: Array) -> tuple[Array, Array, Array]:
    """All patches through the network for each patch, without a cache."""

    def fill(i, carry):  # patches before i are right, so is patch i after this
        x, log_slope = carry
        out, _ = evaluate(x, None, 0)
        new, slope = AFFINE.inverse(said_of_each(out), z)
        return x.at[:, i].set(new[:, i]), log_slope.at[:, i].set(slope[:, i])

    x, log_slope = jax.lax.fori_loop(0, z.shape[1], fill, (jnp.zeros_like(z), jnp.zeros_like(z)))
    return x, log_slope, jnp.asarray(z.shape[1])


def _grouped(cfg: Config, evaluate: Evaluate, latents: Array) -> tuple[Array, Array, Array]:
    """Group after group on one cache; `cached` decoding has groups of one patch, which need no guess."""
    batch, count, values = latents.shape
    size = min(cfg.group, count) if cfg.decoding == "jacobi" else 1
    like = jax.eval_shape(lambda z: evaluate(z, None, 0), latents)[1]
    empty = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), like)

    def one_group(carry, g):
        cache, said = carry  # what the patches so far say of the first one of this group, [B, 1, d, 2]
        z = jax.lax.dynamic_slice_in_dim(latents, g * size, size, axis=1)

        def from_guess(x):
            out, new = evaluate(x, cache, g * size)
            x, log_slope = AFFINE.inverse(jnp.concatenate([said, out[:, :-1]], axis=1), z)
            return x, log_slope, new, out[:, -1:]

        first, _ = AFFINE.inverse(jnp.broadcast_to(said, (batch, size, values, 2)), z)
        most = size if size > 1 else 0  # the guess of one patch is right
        x, rounds = fixed_point.iterate(lambda x: from_guess(x)[0], first, most, cfg.tolerance)
        x, log_slope, cache, said = from_guess(x)  # keeps the keys and values of the group
        return (cache, said), (x, log_slope, rounds + 1)

    start = empty, jnp.zeros((batch, 1, values, 2), latents.dtype)
    _, (x, log_slope, rounds) = jax.lax.scan(one_group, start, jnp.arange(count // size))
    whole = lambda a: jnp.moveaxis(a, 0, 1).reshape(batch, count, values)  # noqa: E731
    return whole(x), whole(log_slope), rounds.sum()


# ---- the algorithm ---------------------------------------------------------------------------------------------------


def check(cfg: Config) -> None:
    """Raise one ValueError that names the field and the fix."""
    cfg.space.check()
    check_options(cfg)
    if not cfg.space.image:
        raise ValueError(f"space.shape={cfg.space.shape}: TarFlow is of images; for vectors take the spline flow")
    if any(side % cfg.patch for side in cfg.space.shape[:2]):
        raise ValueError(f"patch={cfg.patch} does not divide the sides of {cfg.space.shape}: use one that does")
    tokens = (cfg.space.shape[0] // cfg.patch) * (cfg.space.shape[1] // cfg.patch)
    if cfg.decoding == "jacobi" and tokens % min(cfg.group, tokens):
        raise ValueError(f"group={cfg.group} does not divide the {tokens} patches of an image: use a divisor")
    if cfg.width % cfg.heads:
        raise ValueError(f"heads={cfg.heads} does not divide width={cfg.width}: use a divisor")
    check_guidance(cfg.guidance, cfg.classes, cfg.label_drop)
    if cfg.logit and cfg.noise_std:
        raise ValueError(f"logit={cfg.logit}: noisy images have no logits; set noise_std=0, or logit=0")
    if cfg.denoise and not cfg.noise_std:
        raise ValueError("denoise=True needs a model of noisy images: set noise_std, or denoise=False")


def flow(cfg: Config) -> Bijection:
    """The bijection of a configuration, from images [B, H, W, C] to latents [B, N, d]."""
    maps = [images.logit(cfg.logit), linear.actnorm()] if cfg.logit else []
    maps.append(patches(cfg.space.shape, cfg.patch))
    for i in range(cfg.flows):
        maps += [transformer_flow(cfg)] + [reverse()] * (i < cfg.flows - 1)
    return chain(maps)


def algorithm(cfg: Config, *, batch_size: int, axis_name: str | None = None) -> Algorithm:
    """Bind a TarFlow to its optimizer. Raises ValueError on a configuration that cannot work."""
    check(cfg)

    def bind(cfg: Config) -> Algorithm:
        return flow_algorithm(
            cfg.space,
            flow(cfg),
            optim=cfg.optim,
            batch_size=batch_size,
            axis_name=axis_name,
            classes=cfg.classes,
            label_drop=cfg.label_drop,
            noise_std=cfg.noise_std,
            draws=cfg.draws,
            temperature=cfg.temperature,
            denoise=cfg.denoise,
            ema_halflife=cfg.ema_halflife,
            accumulate=cfg.accumulate,
        )

    return with_exact_likelihood(bind, cfg)


FAMILY = Family(
    name="TarFlow",
    continent="tractable",
    objective="exact likelihood",
    citation="Zhai et al. 2024, https://arxiv.org/abs/2412.06329",
    algorithm=algorithm,
    sampling=("draws", "temperature", "decoding", "group", "tolerance", "guidance", "denoise"),
)
