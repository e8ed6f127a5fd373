"""The optimizer of an experiment, with progress counted in examples."""

import dataclasses
import math
from typing import Annotated, Literal

import jax
import optax

from genmap_jax.options import Natural, NotNegative, Positive, Range, Share

DECAYED = ("kernel", "embedding", "positions", "label", "head", "basis")
"""The names of the parameters that weight decay is of. A shape would not do: a gain for each class is a matrix too."""


@dataclasses.dataclass(frozen=True)
class Optim:
    """How parameters are updated. Lengths are in examples, so a batch-size change does not move them."""

    name: Literal["adam", "muon", "sgd"] = "adam"
    """adam: with decoupled weight decay. muon: orthogonalised momentum for kernels of dense layers and convolutions (a
    matrix from the inputs of a window to its output), adam for the rest (Jordan et al. 2024,
    https://kellerjordan.github.io/posts/muon)."""
    lr: NotNegative = 1e-3
    """Learning rate of adam and sgd; muon's is `muon_lr`. At 0 parameters stay as they are."""
    muon_lr: NotNegative = 0.02
    """Learning rate of muon."""
    b1: Annotated[float, Range(0, below=1)] = 0.9
    """Share of adam's average of gradients that an update keeps; 0 takes the last gradient alone."""
    b2: Annotated[float, Range(0, below=1)] = 0.999
    """Share of adam's average of squared gradients that an update keeps; 0 takes the last one alone."""
    eps: Positive = 1e-8
    """This number is added to the root of that average before adam divides by it."""
    weight_decay: NotNegative = 0.0
    """Of weights and tables of vectors, which are told by their names (`DECAYED`), never of biases, gains or scales."""
    clip: NotNegative = 1.0
    """Global gradient norm; 0 turns clipping off."""
    warmup: Natural = 0
    """Examples of linear warm-up from 0."""
    decay: Natural = 0
    """Examples at which the decay ends, at `final` times the learning rate; 0 keeps it constant."""
    decay_from: Natural = 0
    """Examples at which the decay begins, the warm-up if that is longer (CycleGAN: half of `decay`)."""
    shape: Literal["cosine", "linear"] = "cosine"
    """The curve of the decay: half a cosine or a straight line."""
    final: Share = 0.0
    """Learning rate after `decay` as a share of `lr`."""


def stretched(cfg: Optim, factor: float) -> Optim:
    """The schedule for a run `factor` times as long."""
    lengths = ("warmup", "decay", "decay_from")
    return dataclasses.replace(cfg, **{name: math.ceil(factor * getattr(cfg, name)) for name in lengths})


def schedule(cfg: Optim, batch_size: int) -> optax.Schedule:
    """Learning rate as a function of the number of updates."""
    warmup, begin, end = (-(-examples // batch_size) for examples in (cfg.warmup, cfg.decay_from, cfg.decay))
    begin = max(warmup, begin)
    pieces: list[tuple[int, optax.Schedule]] = []  # each from its first update on
    if warmup:
        pieces.append((0, optax.linear_schedule(0.0, cfg.lr, warmup)))
    if not cfg.decay or begin > warmup:
        pieces.append((warmup, optax.constant_schedule(cfg.lr)))
    if cfg.decay and cfg.shape == "cosine":
        pieces.append((begin, optax.cosine_decay_schedule(cfg.lr, max(1, end - begin), cfg.final)))
    elif cfg.decay:
        pieces.append((begin, optax.linear_schedule(cfg.lr, cfg.final * cfg.lr, max(1, end - begin))))
    starts, schedules = zip(*pieces, strict=True)
    return optax.join_schedules(schedules, list(starts[1:]))


def optimizer(cfg: Optim, batch_size: int) -> optax.GradientTransformation:
    """`batch_size`: global number of examples per update."""
    for name in ("warmup", "decay_from"):
        begins = getattr(cfg, name)
        if cfg.decay and cfg.decay <= begins:
            raise ValueError(
                f"optim.decay={cfg.decay} must exceed optim.{name}={begins} (both in examples); 0 means no decay"
            )
    if not cfg.decay and (cfg.decay_from or cfg.shape != "cosine"):
        raise ValueError(
            f"optim.decay_from={cfg.decay_from}, optim.shape={cfg.shape!r} are of a decay: give optim.decay"
        )
    rate = schedule(cfg, batch_size)
    decayed = lambda params: jax.tree.map_with_path(lambda path, _: _name(path) in DECAYED, params)  # noqa: E731
    if cfg.name == "sgd":
        core = optax.sgd(rate)
    elif cfg.name == "muon":
        adam = optax.adamw(rate, cfg.b1, cfg.b2, cfg.eps, weight_decay=cfg.weight_decay, mask=decayed)
        muon = optax.contrib.muon(
            schedule(dataclasses.replace(cfg, lr=cfg.muon_lr), batch_size),
            weight_decay=cfg.weight_decay,
            muon_weight_dimension_numbers=_as_matrices,
        )
        core = optax.partition({"adam": adam, "muon": muon}, _kernels_apart)
    else:
        core = optax.adamw(rate, cfg.b1, cfg.b2, cfg.eps, weight_decay=cfg.weight_decay, mask=decayed)
    return optax.chain(optax.clip_by_global_norm(cfg.clip), core) if cfg.clip else core


def _name(path) -> str:
    """The last part of a parameter's path."""
    return jax.tree_util.keystr(path, simple=True, separator="/").rsplit("/", 1)[-1]


def _kernels_apart(params):
    """Kernels of dense layers and of 2-D convolutions go to muon; embeddings are matrices too, but not maps between
    features."""
    return jax.tree.map_with_path(
        lambda path, p: "muon" if _name(path) == "kernel" and p.ndim in (2, 4) else "adam", params
    )


def _as_matrices(params):
    """Of every kernel: all axes but the last are inputs."""
    return jax.tree.map(lambda p: optax.contrib.MuonDimensionNumbers(tuple(range(p.ndim - 1)), p.ndim - 1), params)
