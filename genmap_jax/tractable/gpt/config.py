"""The options of a GPT, the choices of published models, and what must hold among them."""

import dataclasses
import math
from typing import Annotated, Any, Literal

from genmap_jax.algorithm import reads_of
from genmap_jax.nn import rope
from genmap_jax.optim import Optim
from genmap_jax.options import Count, Natural, Positive, Range, check_options
from genmap_jax.samplers.decoding import Law
from genmap_jax.spaces import Space, images
from genmap_jax.spaces import tokens as strings


@dataclasses.dataclass(frozen=True)
class Config:
    """The defaults are GPT-2's architecture at a size for a laptop."""

    vocab: Count = 256
    """Tokens are the numbers 0..vocab-1: 256 for bytes, the number of grey values for images (GPT-2: 50,257)."""
    length: Count = 64
    """An example has this many tokens, all of which are predicted (GPT-2: 1,024)."""
    shape: tuple[Count, Count, Count] | None = None
    """Images have this shape (H, W, C) and are read row by row, a token for every channel of a pixel, so that length is
    H W C. None means that examples are text."""
    classes: Count | None = None
    """The model is conditional, p(x | label), with labels 0..classes-1. None makes it unconditional."""
    layers: Count = 4
    """The network has this many transformer blocks (GPT-2 small: 12)."""
    heads: Count = 4
    """Every attention layer has this many heads of queries (GPT-2 small: 12)."""
    kv_heads: Count | None = None
    """Every attention layer has this many heads of keys and values, each shared by a group of query heads
    (grouped-query attention, Ainslie et al. 2023, arXiv:2305.13245). None gives every query head its own."""
    width: Count = 128
    """The residual stream has this many channels (GPT-2 small: 768)."""
    head_dim: Count | None = None
    """Every head has this many channels. None divides the width among the heads of queries, as in GPT-2."""
    hidden: Count | None = None
    """The hidden layer of a block's MLP has this many channels. None makes it four times the width, as in GPT-2."""

    norm: Literal["layer", "rms"] = "layer"
    """The normalisation before every attention layer, every MLP and the output head is LayerNorm (GPT-2) or RMSNorm
    (Llama, Qwen2)."""
    norm_eps: Positive = 1e-5
    """This number is added to the variance before a normalisation divides by its root (GPT-2: 1e-5)."""
    positions: Literal["learned", "rope"] = "learned"
    """Positions enter as learned vectors added to the embeddings (GPT-2) or as rotations of queries and keys (RoPE)."""
    mlp: Literal["gelu", "swiglu", "relu2"] = "gelu"
    """The MLP's activation is a GELU in its tanh approximation (GPT-2), a gated SiLU (SwiGLU, Shazeer 2020,
    arXiv:2002.05202) or a squared ReLU (So et al. 2021, arXiv:2109.08668)."""
    bias: Literal["all", "qkv", "none"] = "all"
    """The dense layers that have biases are all (GPT-2), those of queries, keys and values (Qwen2) or none (Llama)."""
    tied: bool = True
    """The output head shares its weights with the embedding (GPT-2); otherwise it has its own (Llama)."""
    init: Literal["gpt2", "zero"] = "gpt2"
    """Weights begin as in GPT-2, normal with standard deviation 0.02. With "zero", the output head and what is added to
    the residual stream begin at (almost) zero, other matrices uniform with variance 1 / fan-in, and embeddings as
    N(0, 1) (nanochat)."""
    qk_norm: bool = False
    """Every query and key is RMS-normalised, with a learned scale per coordinate (Henry et al. 2020,
    arXiv:2010.04245)."""
    softcap: Positive | None = None
    """Logits are squashed to softcap * tanh(logits / softcap) (Gemma Team 2024, arXiv:2408.00118). None leaves them."""
    residual_scales: bool = False
    """The input of a block is a x + b x_0 with learned scalars a and b, where x_0 are the embeddings
    (modded-nanogpt)."""
    dropout: Annotated[float, Range(0, below=1)] = 0.0
    """In training, this share of the embeddings and of all that blocks add to the residual stream is set to zero, anew
    for every example (Srivastava et al. 2014; nanoGPT's recipes for small texts: 0.2, there in the attention's weights
    too)."""
    window: Count | None = None
    """Attention reaches back over this many tokens, the current one included. None lets it reach back to all."""
    global_every: Count | None = None
    """With a window, attention still reaches back to all tokens in every so many layers, and in the last."""

    theta: Annotated[float, Range(above=1)] = 10_000.0
    """The base of the rotary frequencies (Su et al. 2021: 10,000; Qwen2: 1,000,000)."""
    scaling: rope.Scaling = rope.Scaling()
    """Rotary frequencies are scaled in this way, to evaluate at more than the trained length."""
    chunk: Count | None = None
    """Dual chunk attention cuts the text into chunks of this many tokens, to evaluate a model beyond the `trained`
    positions. None is plain attention."""
    trained: Count | None = None
    """With `chunk`, the model was trained at this many positions."""

    temperature: Positive = 1.0
    """Samples are drawn from p^(1 / temperature), normalised for every token. The likelihood is always that of p."""
    top_k: Count | None = None
    """Samples are drawn from the `top_k` most likely tokens only (Fan et al. 2018, arXiv:1805.04833)."""
    top_p: Annotated[float, Range(above=0, most=1)] | None = None
    """Samples are drawn from the fewest tokens that together have at least this probability (Holtzman et al. 2020,
    arXiv:1904.09751)."""
    min_p: Annotated[float, Range(above=0, most=1)] | None = None
    """Samples are drawn from the tokens that are at least this many times as likely as the most likely one (Nguyen et
    al. 2024, arXiv:2407.01082)."""
    stop: Natural | tuple[Natural, ...] | None = None
    """A sampled string ends with this token, or with any of several: nothing more is drawn, and the rest is filled with
    it, or with the first of them. None lets every string run to its full length."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Matrix products and activations have this type. Parameters, normalisations, softmax and loss are always
    float32."""
    scan: bool = False
    """One block is compiled and looped over, instead of all of them: much faster to compile for deep models."""
    remat: Literal["none", "dots", "full"] = "none"
    """The backward pass recomputes what a block computed, to save memory: "dots" keeps matrix products, "full" keeps
    the input of a block only."""
    accumulate: Count = 1
    """An update computes its gradient over this many micro-batches, one after another, to save memory."""
    optim: Optim = Optim()
    """The optimizer, its learning rate and schedule."""
    ema_halflife: Positive | None = None
    """The parameters are averaged for evaluation with this half-life, in examples. None evaluates the last ones."""

    @property
    def space(self) -> Space:
        """The space of an example: images, or strings of tokens."""
        return strings(self.length, self.vocab) if self.shape is None else images(*self.shape, levels=self.vocab)

    @property
    def reads(self) -> dict[str, Space]:
        """What of a batch the model uses; see `Algorithm.reads`."""
        return reads_of(self.space, self.classes)

    @property
    def law(self) -> Law:
        """What samples are drawn from, as a function of logits."""
        return Law(self.temperature, self.top_k, self.top_p, self.min_p)

    @property
    def groups(self) -> int:
        """The number of key and value heads."""
        return self.kv_heads or self.heads

    @property
    def head_size(self) -> int:
        """The number of channels of a head."""
        return self.head_dim or self.width // self.heads

    @property
    def stops(self) -> tuple[int, ...] | None:
        """The tokens that end a sampled string."""
        return self.stop if self.stop is None or isinstance(self.stop, tuple) else (self.stop,)

    def of_layer(self, i: int) -> "Config":
        """This configuration as layer i sees it: with a window or without."""
        is_global = self.global_every and ((i + 1) % self.global_every == 0 or i == self.layers - 1)
        return dataclasses.replace(self, window=None) if self.window and is_global else self


SAMPLING = ("temperature", "top_k", "top_p", "min_p", "stop")
"""The options that only sampling reads: they may be changed after training."""
LLAMA: dict[str, Any] = {"norm": "rms", "positions": "rope", "mlp": "swiglu", "bias": "none", "tied": False}
"""Touvron et al. 2023, https://arxiv.org/abs/2302.13971."""
QWEN2 = LLAMA | {"bias": "qkv", "norm_eps": 1e-6, "theta": 1e6}
"""Qwen Team 2024, https://arxiv.org/abs/2407.10671."""


def check(cfg: Config) -> None:
    """Raise one ValueError that names the field and the fix."""
    check_options(cfg)
    if cfg.shape is not None and (len(cfg.shape) != 3 or cfg.length != math.prod(cfg.shape)):
        raise ValueError(f"length={cfg.length}: images have shape (H, W, C) and H W C tokens, not shape={cfg.shape}")
    if cfg.shape is not None and cfg.vocab > 256:
        raise ValueError(f"vocab={cfg.vocab}: uint8 images have at most 256 grey values")
    if cfg.head_dim is None and cfg.width % cfg.heads:
        raise ValueError(
            f"width={cfg.width} does not divide over heads={cfg.heads}: make it a multiple, or set head_dim"
        )
    if cfg.heads % cfg.groups:
        raise ValueError(f"heads={cfg.heads} do not divide over kv_heads={cfg.kv_heads}: make them a multiple")
    if cfg.positions == "rope" and cfg.head_size % 2:
        raise ValueError(
            f"heads={cfg.heads} of an odd size {cfg.head_size} cannot be rotated: change width or head_dim"
        )
    if cfg.init == "zero" and cfg.tied:
        raise ValueError("init='zero' starts the output head at zero, which is no embedding: set tied=False")
    if cfg.global_every is not None and cfg.window is None:
        raise ValueError(f"global_every={cfg.global_every} lifts the window of some layers: set window too")
    if cfg.global_every is not None and cfg.scan:
        raise ValueError("scan compiles one block for all layers: with global_every, which differ, set scan=False")
    if cfg.positions == "learned" and (cfg.scaling.kind != "none" or cfg.chunk is not None):
        raise ValueError("scaling and chunk stretch rotary positions: they need positions='rope'")
    rope.check(cfg.scaling)
    if cfg.chunk is not None and not (cfg.trained and cfg.chunk < cfg.trained):
        raise ValueError(f"chunk={cfg.chunk} must be less than trained={cfg.trained}, the length of the training")
    cfg.law.check(cfg.vocab)
    check_stops(cfg.stops, cfg.vocab)


def check_stops(stops: tuple[int, ...] | None, vocab: int) -> None:
    """Raise ValueError unless these are one or more tokens, or None."""
    if stops is not None and not (stops and all(0 <= token < vocab for token in stops)):
        raise ValueError(f"stop={', '.join(map(str, stops)) or '()'}: give tokens, 0..{vocab - 1}")
