"""GPT: a causal transformer over tokens, with the exact log-probability of every string.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners" (GPT-2), after Radford et al. 2018 (GPT) and
Vaswani et al. 2017 (arXiv:1706.03762).

    log p(x_1..x_L) = sum_t log p(x_t | x_1..x_{t-1})

The defaults are GPT-2: LayerNorm before each block, learned positions, tanh-approximated GELU, output head tied to the
embedding, N(0, 0.02) initialisation with residual projections scaled by 1 / sqrt(2 layers). `LLAMA` and `QWEN2` are the
choices of those models as changes to a configuration: dataclasses.replace(cfg, **gpt.LLAMA).

Differs from the papers: the first token is predicted too, from a learned start vector, so that p is a density over
strings of length L and sums to one over all V^L of them; a label, where data have one, is a vector added to every
input; no dropout.

To continue prompts: completion.py. Weights of others, and for others: huggingface.py.
"""

import dataclasses
import math
from typing import Any, ClassVar, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from genmap_jax import parallel
from genmap_jax.algorithm import Algorithm, Array, LogProb, Params, init_state, minimise
from genmap_jax.nn import rope
from genmap_jax.nn.attention import attend, attend_in_blocks, products
from genmap_jax.objectives import exact_likelihood
from genmap_jax.optim import Optim, optimizer
from genmap_jax.samplers import decoding

Cache = Any
"""Per layer, the keys and the values of the past, each [B H, S, d]: S is cfg.length, or the window, a ring. Heads come
before time, so that a head reads its past contiguously; and in one axis with the batch, because XLA copies a
[1, H, S, d] cache for every token."""


@dataclasses.dataclass(frozen=True)
class Config:
    system: ClassVar[str] = "GPT"
    objective: ClassVar[str] = "exact likelihood"

    vocab: int = 256
    """Tokens are 0..vocab-1; 256 for bytes, the number of grey values for images."""
    length: int = 64
    """Tokens of an example, all of them predicted."""
    shape: tuple[int, int, int] | None = None
    """(H, W, C) of images, read row by row, a token for every channel of a pixel: length = H W C. None: text."""
    classes: int | None = None
    """Of labelled data: the model is p(x | label)."""
    layers: int = 4
    heads: int = 4
    kv_heads: int | None = None
    """Grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245): so many key and value heads. None: `heads`."""
    width: int = 128
    """Of the residual stream."""
    hidden: int | None = None
    """Of a block's MLP. None: four times the width."""

    norm: Literal["layer", "rms"] = "layer"
    norm_eps: float = 1e-5
    positions: Literal["learned", "rope"] = "learned"
    mlp: Literal["gelu", "swiglu", "relu2"] = "gelu"
    """swiglu: Shazeer 2020 (arXiv:2002.05202). relu2: So et al. 2021 (arXiv:2109.08668)."""
    bias: Literal["all", "qkv", "none"] = "all"
    """Of which matrix products."""
    tied: bool = True
    """The output head is the embedding."""
    init: Literal["gpt2", "zero"] = "gpt2"
    """zero: the output head and what is added to the residual stream begin at (almost) zero, other matrices uniform
    with variance 1 / fan-in, embeddings N(0, 1) (nanochat)."""
    qk_norm: bool = False
    """RMS-normalise every query and key (Henry et al. 2020, arXiv:2010.04245), with a learned scale per coordinate."""
    softcap: float | None = None
    """Logits are softcap * tanh(logits / softcap) (Gemma Team 2024, arXiv:2408.00118)."""
    residual_scales: bool = False
    """The input of a block is a x + b x_0 with learned a, b, x_0 the embeddings (modded-nanogpt)."""
    window: int | None = None
    """Attention reaches back to the last `window` tokens. None: to all."""
    global_every: int | None = None
    """With a window: in every so many layers, and in the last, attention reaches back to all."""

    theta: float = 10_000.0
    """Base of the rotary frequencies."""
    scaling: rope.Scaling = rope.Scaling()
    """Of rotary positions, to evaluate at more than the trained length."""
    chunk: int | None = None
    """Dual chunk attention with chunks of so many tokens, for a model trained at `trained` positions."""
    trained: int | None = None

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of matrix products and activations. Parameters, normalisations, softmax and loss are always float32."""
    scan: bool = False
    """Compile one block and loop over it, instead of all of them: much faster to compile for deep models."""
    remat: Literal["none", "dots", "full"] = "none"
    """Recompute on the way back what a block computed: dots keeps matrix products, full keeps a block's input only."""
    accumulate: int = 1
    """Micro-batches of an update, one after another, to save memory."""
    optim: Optim = Optim()
    ema_halflife: float | None = None
    """In examples; None evaluates the last parameters."""

    @property
    def levels(self) -> int | None:
        """Grey values, of images."""
        return self.vocab if self.shape else None

    @property
    def groups(self) -> int:
        """Key and value heads."""
        return self.kv_heads or self.heads

    def of_layer(self, i: int) -> "Config":
        """This configuration as layer i sees it: with a window or without."""
        is_global = self.global_every and ((i + 1) % self.global_every == 0 or i == self.layers - 1)
        return dataclasses.replace(self, window=None) if self.window and is_global else self


LLAMA = {"norm": "rms", "positions": "rope", "mlp": "swiglu", "bias": "none", "tied": False}
"""Touvron et al. 2023, https://arxiv.org/abs/2302.13971."""
QWEN2 = LLAMA | {"bias": "qkv", "norm_eps": 1e-6, "theta": 1e6}
"""Qwen Team 2024, https://arxiv.org/abs/2407.10671."""


# ---- the network -----------------------------------------------------------------------------------------------------


def _dense(cfg: Config, features: int, name: str) -> nn.Dense:
    bias = cfg.bias == "all" or (cfg.bias == "qkv" and name == "qkv")
    residual = name in ("out", "down")  # its output is added to the residual stream
    if cfg.init == "zero":
        uniform = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
        kernel = nn.initializers.zeros if residual else uniform
    else:
        kernel = nn.initializers.normal(0.02 / (2 * cfg.layers) ** 0.5 if residual else 0.02)
    return nn.Dense(features, use_bias=bias, dtype=cfg.dtype, kernel_init=kernel, name=name)


def _norm(cfg: Config, name: str) -> nn.Module:
    return (nn.LayerNorm if cfg.norm == "layer" else nn.RMSNorm)(epsilon=cfg.norm_eps, dtype=cfg.dtype, name=name)


class At(NamedTuple):
    """Where the T tokens of a call stand."""

    positions: Array
    """int32 [T]; [B, T] in packed strings, where they start anew with every document."""
    segments: Array | None = None
    """int32 [B, T], packed strings: the document of each token, which sees no other."""
    count: Array | None = None
    """Of a prefill: so many of the T tokens are real, the rest is padding."""


class Attention(nn.Module):
    """Causal self-attention of T tokens over themselves or, with a cache, of one token over all before it.

    A cache and T > 1 is a prefill: the cache was empty, and the last tokens that fit are written to it.
    """

    cfg: Config

    @nn.compact
    def __call__(self, x: Array, cache: tuple[Array, Array] | None, at: At):  # [B, T, D]
        cfg = self.cfg
        batch, tokens, groups, d = *x.shape[:2], cfg.groups, cfg.width // cfg.heads
        qkv = _dense(cfg, (cfg.heads + 2 * groups) * d, "qkv")(x)
        qkv = jnp.transpose(qkv.reshape(batch, tokens, -1, d), (0, 2, 1, 3))  # [B, H + 2 G, T, d]
        q, k, v = jnp.split(qkv, [cfg.heads, cfg.heads + groups], axis=1)
        if cfg.qk_norm:
            q = nn.RMSNorm(epsilon=cfg.norm_eps, dtype=cfg.dtype, name="q_norm")(q)
            k = nn.RMSNorm(epsilon=cfg.norm_eps, dtype=cfg.dtype, name="k_norm")(k)
        queries, k = _turned(cfg, q, k, at.positions)
        queries = [q.reshape(batch * groups, -1, tokens, d) for q in queries]  # N = B G, and the heads of a group
        k, v = k.reshape(batch * groups, tokens, d), v.reshape(batch * groups, tokens, d)

        here = seen = jnp.arange(tokens)  # places in the string, of queries and of keys
        there = at.positions  # of the keys
        if cache is not None and tokens == 1:
            room = cache[0].shape[1]
            here = at.positions
            seen = there = here - (here - jnp.arange(room)) % room  # of the ring's slots; negative: nothing there yet
            write = lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, here[0] % room, axis=1)  # noqa: E731
            k, v = cache = write(cache[0], k), write(cache[1], v)
        elif cache is not None:
            room, last = cache[0].shape[1], at.count - 1
            kept = jnp.clip(last - (last - jnp.arange(room)) % room, 0, tokens - 1)
            cache = k[:, kept], v[:, kept]

        segments = None if at.segments is None else jnp.repeat(at.segments, groups, axis=0)  # [N, T]
        if cfg.window is not None and cfg.chunk is None and tokens >= 2 * cfg.window:
            y = attend_in_blocks(queries[0], k, v, cfg.window, segments)
        else:
            past = (seen[None, :] <= here[:, None]) & (seen[None, :] >= 0)  # [T, S]
            if cfg.window is not None:
                past &= here[:, None] - seen[None, :] < cfg.window
            past = past[None]
            if segments is not None:
                past &= segments[:, :, None] == segments[:, None, :]
            if cfg.chunk is None:
                scores = products(queries[0], k)
            else:
                apart = rope.chunks_apart(at.positions[..., :, None], there[..., None, :], cfg.chunk)
                apart = jnp.repeat(apart, groups, axis=0)[:, None] if apart.ndim == 3 else apart[None, None]
                own, before, earlier = (products(q, k) for q in queries)
                scores = jnp.where(apart == 0, own, jnp.where(apart == 1, before, earlier))
            y = attend(scores, v, past)
        y = jnp.transpose(y.reshape(batch, cfg.heads, tokens, d), (0, 2, 1, 3)).reshape(x.shape)
        return _dense(cfg, cfg.width, "out")(y), cache


def _turned(cfg: Config, q: Array, k: Array, positions: Array) -> tuple[list[Array], Array]:
    """Rotary positions: the queries, three times for dual chunk attention, and the keys [B, heads, T, d]."""
    if cfg.positions == "learned":
        return [q], k
    positions = positions[:, None] if positions.ndim == 2 else positions  # the same for all heads
    turn = lambda x, to: rope.rotate(x, to, cfg.theta, cfg.scaling)  # noqa: E731
    if cfg.chunk is None:
        return [turn(q, positions)], turn(k, positions)
    keys, *queries = rope.chunk_positions(positions, cfg.chunk, cfg.trained)
    return [turn(q, to) for to in queries], turn(k, keys)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)). [B, T, D] -> [B, T, D] and the cache."""

    cfg: Config

    @nn.compact
    def __call__(self, x: Array, cache: tuple[Array, Array] | None, at: At):
        cfg = self.cfg
        hidden = cfg.hidden or 4 * cfg.width
        y, cache = Attention(cfg, name="attention")(_norm(cfg, "attention_norm")(x), cache, at)
        x = x + y
        y = _norm(cfg, "mlp_norm")(x)
        up = _dense(cfg, hidden, "up")(y)
        if cfg.mlp == "swiglu":
            up = nn.silu(_dense(cfg, hidden, "gate")(y)) * up
        else:
            up = nn.gelu(up, approximate=True) if cfg.mlp == "gelu" else nn.relu(up) ** 2
        return x + _dense(cfg, cfg.width, "down")(up), cache


class GPT(nn.Module):
    """Tokens -> logits: whole strings (`__call__`), one position (`step`), or a prompt into a cache (`prefill`)."""

    cfg: Config

    def setup(self):
        cfg, normal = self.cfg, nn.initializers.normal
        init = normal(1.0 if cfg.init == "zero" else 0.02)
        self.start = self.param("start", init, (cfg.width,))
        self.embedding = self.param("embedding", init, (cfg.vocab, cfg.width))
        if cfg.classes is not None:
            self.label = self.param("label", init, (cfg.classes, cfg.width))
        if cfg.positions == "learned":
            self.positions = self.param("positions", normal(0.02), (cfg.length, cfg.width))
        self.blocks = [Block(cfg.of_layer(i), name=f"block_{i}") for i in range(cfg.layers)]
        self.final_norm = _norm(cfg, "final_norm")
        if not cfg.tied:
            self.head = self.param("head", normal(0.001 if cfg.init == "zero" else 0.02), (cfg.vocab, cfg.width))
        if cfg.residual_scales:
            self.residual = self.param("residual", nn.initializers.ones, (cfg.layers,))
            self.skip = self.param("skip", nn.initializers.zeros, (cfg.layers,))

    def __call__(self, tokens: Array, label: Array | None = None, segments: Array | None = None) -> Array:
        """[B, L] -> [B, L, V]"""
        at = None
        if segments is not None:
            first = _first(segments)
            began = jax.lax.cummax(jnp.where(first, jnp.arange(tokens.shape[1])[None], 0), axis=1)
            at = At(jnp.arange(tokens.shape[1])[None] - began, segments)
        return self.trunk(self.embed(tokens, label, segments), at)[0]

    def embed(self, tokens: Array, label: Array | None = None, segments: Array | None = None) -> Array:
        """What the blocks see: the start vector, then the embeddings of all tokens but the last. [B, L] -> [B, L, D]

        In packed strings every document begins with the start vector.
        """
        x = self.embedding[jnp.roll(tokens, 1, axis=1)]
        first = (jnp.arange(tokens.shape[1]) == 0)[None] if segments is None else _first(segments)
        return jnp.where(first[..., None], self.start[None, None], x) + self.condition(label)

    def condition(self, label: Array | None) -> Array:
        """What every input of a string gets by its label [B]. [B, 1, D], or [1, 1, 1] of zeros without labels."""
        if label is not None and self.cfg.classes is None:
            raise ValueError("this GPT is unconditional: give no labels, or set classes")
        if label is None and self.cfg.classes is not None:
            raise ValueError(f"this GPT is conditional, classes={self.cfg.classes}: give a label for each string")
        return jnp.zeros((1, 1, 1)) if label is None else self.label[label][:, None]

    def step(self, cache: Cache, token: Array, t: Array, label: Array | None = None) -> tuple[Array, Cache]:
        """Token [B] at position t - 1 -> logits [B, V] at position t; the contract of `samplers.decoding`."""
        x = jnp.where(t == 0, self.start[None], self.embedding[token])[:, None] + self.condition(label)
        logits, cache = self.trunk(x, At(jnp.asarray(t)[None]), cache)
        return logits[:, 0], cache

    def prefill(self, cache: Cache, prompt: Array, count: Array, label: Array | None = None) -> Cache:
        """Take up the positions of the first `count` tokens of prompt [B, P], all at once, into an empty cache."""
        at = At(jnp.arange(prompt.shape[1]), count=count)
        return self.trunk(self.embed(prompt, label), at, cache)[1]

    def trunk(self, x: Array, at: At | None = None, cache: Cache | None = None) -> tuple[Array, Cache]:
        """Input vectors [B, T, D] -> logits [B, T, V] float32, and the cache with them in."""
        cfg = self.cfg
        at = At(jnp.arange(x.shape[1])) if at is None else at
        if cfg.positions == "learned":
            there = self.positions[at.positions]
            x = x + (there if there.ndim == 3 else there[None])
        x = x.astype(cfg.dtype)
        if self.is_initializing():
            for block in self.blocks:
                x, _ = block(x, None, at)
        else:
            x, cache = _through_blocks(cfg, self.variables["params"], x, cache, at)
        head = (self.embedding if cfg.tied else self.head).astype(cfg.dtype)
        logits = jnp.einsum("btd,vd->btv", self.final_norm(x), head, preferred_element_type=jnp.float32)
        return (logits if cfg.softcap is None else cfg.softcap * jnp.tanh(logits / cfg.softcap)), cache


def _through_blocks(cfg: Config, params: Params, x: Array, cache: Cache | None, at: At) -> tuple[Array, Cache | None]:
    """All blocks, as a pure function of the parameters: a loop in Python, or one compiled block scanned over."""
    embedded = x
    policies = {"dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable, "full": None}

    def layer(i):
        def run(x, block, scales, cache=None):
            if scales is not None:
                x = (scales[0] * x + scales[1] * embedded).astype(x.dtype)
            return Block(cfg.of_layer(i), parent=None).apply({"params": block}, x, cache, at)

        return jax.checkpoint(run, policy=policies[cfg.remat]) if cfg.remat != "none" and cache is None else run

    blocks = [params[f"block_{i}"] for i in range(cfg.layers)]
    scales = jnp.stack([params["residual"], params["skip"]], axis=1) if cfg.residual_scales else None
    if cfg.scan and cache is None:
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)
        return jax.lax.scan(lambda x, each: layer(0)(x, *each), x, (stacked, scales))[0], None
    new = []
    for i, block in enumerate(blocks):
        x, kept = layer(i)(x, block, None if scales is None else scales[i], None if cache is None else cache[i])
        new.append(kept)
    return x, None if cache is None else new


def _first(segments: Array) -> Array:
    """Which tokens [B, L] begin a document."""
    changed = segments[:, 1:] != segments[:, :-1]
    return jnp.concatenate([jnp.ones_like(changed[:, :1]), changed], axis=1)


# ---- pure functions --------------------------------------------------------------------------------------------------


def logits(
    cfg: Config, params: Params, tokens: Array, label: Array | None = None, segments: Array | None = None
) -> Array:
    """Logits of every token given those before it. int32 [B, L] -> float32 [B, L, V].

    label: int32 [B], of a conditional model.
    segments: int32 [B, L], of packed strings: the document of each token, whose neighbours it does not see.
    """
    return GPT(cfg).apply({"params": params}, tokens, label, segments)


def token_log_prob(
    cfg: Config, params: Params, tokens: Array, label: Array | None = None, segments: Array | None = None
) -> Array:
    """log p(x_t | x_1..x_{t-1}) of every token, in nats. int32 [B, L] -> float32 [B, L]. Arguments as of `logits`."""
    return -optax.softmax_cross_entropy_with_integer_labels(logits(cfg, params, tokens, label, segments), tokens)


def log_prob(
    cfg: Config, params: Params, tokens: Array, label: Array | None = None, segments: Array | None = None
) -> Array:
    """Exact log p(x_1..x_L), or log p(x_1..x_L | label), in nats. int32 [B, L] -> float32 [B].

    Of packed strings: the sum over their documents. Tokens of negative segments are padding and count nothing.
    """
    nats = token_log_prob(cfg, params, tokens, label, segments)
    return (nats if segments is None else jnp.where(segments < 0, 0.0, nats)).sum(-1)


def empty_cache(cfg: Config, n: int, length: int | None = None) -> Cache:
    """Room for the keys and values of n strings of `length` tokens (None: cfg.length), or of the window."""
    rooms = [min(length or cfg.length, cfg.of_layer(i).window or cfg.length) for i in range(cfg.layers)]
    zeros = lambda room: jnp.zeros((n * cfg.groups, room, cfg.width // cfg.heads), cfg.dtype)  # noqa: E731
    return [(zeros(room), zeros(room)) for room in rooms]


def decoding_step(cfg: Config, params: Params, label: Array | None = None) -> decoding.Step:
    """The model as `samplers.decoding` wants it, for a cache from `empty_cache`."""
    return lambda cache, token, t: GPT(cfg).apply({"params": params}, cache, token, t, label, method="step")


def prefill(
    cfg: Config, params: Params, cache: Cache, prompt: Array, count: Array | int, label: Array | None = None
) -> Cache:
    """Fill an empty cache with the first `count` >= 1 tokens of prompt [B, P] at once; `decode` goes on at `count`.

    P is compiled, `count` is not: pad prompts to a few lengths P and each compiles once.
    """
    return GPT(cfg).apply({"params": params}, cache, prompt, jnp.asarray(count), label, method="prefill")


# ---- the algorithm ---------------------------------------------------------------------------------------------------


def check_tokens(cfg: Config, tokens: np.ndarray) -> None:
    """Raise ValueError for tokens outside the vocabulary, which an embedding lookup would take for others."""
    tokens = np.asarray(tokens)
    if tokens.size and (tokens.min() < 0 or tokens.max() >= cfg.vocab):
        raise ValueError(f"tokens {tokens.min()} to {tokens.max()} do not fit vocab={cfg.vocab}: they are 0..vocab-1")


def check(cfg: Config) -> None:
    """Raise one ValueError that names the field and the fix."""
    if cfg.shape is not None and cfg.length != math.prod(cfg.shape):
        raise ValueError(f"length={cfg.length}: images of shape={cfg.shape} have {math.prod(cfg.shape)} tokens")
    counts = ("vocab", "length", "layers", "heads", "kv_heads", "width", "hidden", "window", "global_every", "chunk")
    for name in (*counts, "classes", "accumulate"):
        value = getattr(cfg, name)
        if value is not None and value < 1:
            raise ValueError(f"{name}={value}: must be at least 1")
    if cfg.width % cfg.heads:
        raise ValueError(f"width={cfg.width} does not divide over heads={cfg.heads}: make it a multiple")
    if cfg.heads % cfg.groups:
        raise ValueError(f"heads={cfg.heads} do not divide over kv_heads={cfg.kv_heads}: make them a multiple")
    choices = {
        "dtype": ("float32", "bfloat16"),
        "norm": ("layer", "rms"),
        "positions": ("learned", "rope"),
        "mlp": ("gelu", "swiglu", "relu2"),
        "bias": ("all", "qkv", "none"),
        "remat": ("none", "dots", "full"),
        "init": ("gpt2", "zero"),
    }
    for name, allowed in choices.items():
        if getattr(cfg, name) not in allowed:
            raise ValueError(f"{name}={getattr(cfg, name)!r}: choose {' or '.join(map(repr, allowed))}")
    if cfg.positions == "rope" and (cfg.width // cfg.heads) % 2:
        raise ValueError(f"heads={cfg.heads} of an odd size {cfg.width // cfg.heads} cannot be rotated: change width")
    if cfg.init == "zero" and cfg.tied:
        raise ValueError("init='zero' starts the output head at zero, which is no embedding: set tied=False")
    if cfg.global_every is not None and cfg.window is None:
        raise ValueError(f"global_every={cfg.global_every} lifts the window of some layers: set window too")
    if cfg.global_every is not None and cfg.scan:
        raise ValueError("scan compiles one block for all layers: with global_every, which differ, set scan=False")
    stretched = cfg.scaling.kind != "none" or cfg.chunk is not None
    if cfg.positions == "learned" and stretched:
        raise ValueError("scaling and chunk stretch rotary positions: they need positions='rope'")
    if cfg.scaling.kind not in ("none", "linear", "ntk", "yarn") or cfg.scaling.factor < 1:
        raise ValueError(f"scaling={cfg.scaling}: kind is none, linear, ntk or yarn, and factor at least 1")
    if cfg.scaling.kind == "yarn" and cfg.scaling.original < 1:
        raise ValueError(f"scaling.original={cfg.scaling.original}: yarn needs the length of the training")
    if cfg.chunk is not None and not (cfg.trained and cfg.chunk < cfg.trained):
        raise ValueError(f"chunk={cfg.chunk} must be less than trained={cfg.trained}, the length of the training")


def algorithm(cfg: Config, *, batch_size: int, axis_name: str | None = None) -> Algorithm:
    """Bind a GPT to its optimizer. Raises ValueError on a configuration that cannot work."""
    check(cfg)
    tx = optimizer(cfg.optim, batch_size)

    def init(key):
        label = None if cfg.classes is None else jnp.zeros(1, jnp.int32)
        params = GPT(cfg).init(key, jnp.zeros((1, cfg.length), jnp.int32), label)["params"]
        return init_state(params, tx, cfg.ema_halflife)

    def observed(batch):
        """The arguments of `log_prob`."""
        tokens = batch["tokens"] if cfg.shape is None else batch["image"].reshape(-1, cfg.length).astype(jnp.int32)
        return tokens, batch["label"] if cfg.classes else None, batch.get("segments")

    nats = lambda params, keys, batch: log_prob(cfg, params, *observed(batch))  # noqa: E731
    loss = exact_likelihood.negative_log_likelihood(nats, cfg.length)
    step = minimise(loss, tx, ema_halflife=cfg.ema_halflife, axis_name=axis_name, accumulate=cfg.accumulate)

    def sample(state, key, n, cond=None):
        if cfg.classes is not None and cond is None:
            cond = jax.random.randint(jax.random.fold_in(key, n), (n,), 0, cfg.classes)
        model = decoding_step(cfg, state.averaged, cond)
        drawn = decoding.decode(model, empty_cache(cfg, n), cfg.length, keys=parallel.example_keys(key, n))
        return drawn if cfg.shape is None else drawn.reshape(n, *cfg.shape).astype(jnp.uint8)

    def trace(state, key, n, frames):
        drawn = sample(state, key, n)
        stops = jnp.linspace(0, cfg.length, frames + 1)[1:].round()
        seen = jnp.arange(cfg.length)[None, :] < stops[:, None]  # [frames, L]
        return jnp.where(seen.reshape(frames, 1, *drawn.shape[1:]), drawn[None], 0)

    def evaluate(state, batch, key) -> LogProb:
        return LogProb(log_prob(cfg, state.averaged, *observed(batch)), "exact")

    return Algorithm(init, step, sample, evaluate, evaluations=cfg.length, trace=trace)
