"""The record every family fills in, and the helpers from which train steps are written.

A family is trained, sampled and evaluated through pure functions, as in optax. What the families share is not one loss
(a GAN has two, an EBM samples inside its step) but *one update of the whole state*: that is the interface.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeVar, cast

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from genmap_jax import parallel
from genmap_jax.keys import example_keys
from genmap_jax.shapes import known_within
from genmap_jax.spaces import Space, labels

Array = jax.Array
Key = jax.Array
Params = Any
# What `genmap_jax.data` yields: "image" uint8 [B,H,W,C], "label" int32 [B], "tokens" int32 [B,L], "x" float32 [B,D].
Batch = dict[str, Array]
Cond = dict[str, Array]  # what a batch holds beside the example: a label, an image of another domain, known pixels
Metrics = dict[str, Array]  # scalars
Value = TypeVar("Value")  # of a batch: arrays on a device or on the host, or their shapes


@flax.struct.dataclass
class LogProb:
    """Log-probability of a batch, with the one word that says what it may be compared with.

    nats: [B], natural log, summed over all dimensions of an example, of the data *as the batch holds them*: for
        uint8 images the probability of the integers (a density of continuous values adds its dequantisation constant).
    kind: "exact", "lower_bound", "upper_bound" or "estimate" of the log-probability. Of `upper` also
        "dequantised_upper_bound": of E_u[log p(v + u)] plus the constant, for integers v and the density p of a model
        of dequantised values. That is at most log P(v), so it is no bound of the probability of the integers.
    stderr: [B] Monte-Carlo standard error of each example, independent of the others'; None where there is none.
    common_stderr: [B], one number: standard error of what all examples have in common, such as log Z, and what
        therefore no number of examples averages out; None where there is nothing.
    upper: another statement on the same examples that holds in expectation, an upper bound beside an estimate; None
        where there is none.
    """

    nats: Array
    kind: str = flax.struct.field(pytree_node=False)
    stderr: Array | None = None
    common_stderr: Array | None = None
    upper: "LogProb | None" = None


@flax.struct.dataclass
class State:
    """State of a family trained by `minimise`. Families that can lose more on a resume declare their own."""

    step: Array  # int32, updates done
    params: Params
    opt_state: optax.OptState
    ema: Params | None  # None: no averaging


Trained = TypeVar("Trained", bound=State)  # a state with what a family adds to it


def averaged(state: Any) -> Params:
    """The parameters to sample and to evaluate with: the average where there is one."""
    return state.params if state.ema is None else state.ema


class Algorithm(NamedTuple):
    """One family, bound to its network and optimizer. All functions are pure and can be compiled.

    reads: what of a batch the family uses, by name: the space of the example first, then those of its conditions, such
        as {"image": images(8, 8, 1, 17), "label": labels(10)}. A batch may hold more.
    init: (key, batch) -> state. The first global batch is for data-dependent initialisation; most families look at its
        shapes only. Called under `jax.eval_shape` for shapes and under `jax.jit` for values.
    step: (state, batch, key) -> (state, metrics). One update of everything; metrics are a flat dict of scalars.
    sample: (state, key, n, cond) -> `n` examples, `n` static. They are as a batch holds them, except that grey values,
        though whole numbers, are float32 and NaN where they could not be made, and that a token is -1 there: as uint8
        NaN would be black, and pass for a sample. `Space.as_batch` counts such samples or makes a batch of them.
        cond holds the conditions of `reads`, arrays [n, ...], taken from data or from a person; None without any.
    log_prob: (state, batch, key) -> LogProb. None: the family has no density.
    prepare: (state, key) -> what `log_prob` takes in the place of the state, with everything done that costs once and
        not once per batch, such as a partition function. None: `log_prob` has nothing to prepare.
    spec: state -> pytree of `PartitionSpec`, prefix allowed. Only the axis name "data" exists.
    params: state -> all its trainable parameters, a pytree; for counting them.
    evaluations: network evaluations, one after another, for one sample. None: an adaptive sampler decides.
    trajectory: (state, key, n, cond, frames) -> [frames, n, ...]: the sampler at work. The last frame is what `sample`
        returns, and all look like it; `frames` is static. None: there is nothing to look at.
    walk: (state, key, t, cond) -> float32 [n, ...]: example i at position t[i] in [0, 1] on its path between two
        latents, the family's own interpolation; without sampling noise or rounding, in units of grey levels for images.
        None: no latent space.
    back: (state, key, examples [n, ...] as a batch holds them) -> [n, ...] of the first condition's space, made as
        `sample` makes examples: what each example would have been translated from. None: there is no way back.
    paired: whether an example and its condition must belong together; two sets drawn on their own will not do.
    """

    reads: dict[str, Space]
    init: Callable[[Key, Batch], Any]
    step: Callable[[Any, Batch, Key], tuple[Any, Metrics]]
    sample: Callable[[Any, Key, int, Cond | None], Array] | None = None
    log_prob: Callable[[Any, Batch, Key], LogProb] | None = None
    prepare: Callable[[Any, Key], Any] | None = None
    spec: Callable[[Any], Any] = parallel.replicated
    params: Callable[[Any], Any] = lambda state: state.params
    evaluations: int | None = None
    trajectory: Callable[[Any, Key, int, Cond | None, int], Array] | None = None
    walk: Callable[[Any, Key, Array, Cond | None], Array] | None = None
    back: Callable[[Any, Key, Array], Array] | None = None
    paired: bool = False


class Family(NamedTuple):
    """What a family is called and where it belongs, declared once at the end of its file.

    name: of the system, as the map shows it.
    continent: "tractable" (exact density), "approximate" (a bound or an estimate) or "implicit" (samples only).
    objective: what is minimised, in a few words.
    citation: authors, year and address of the paper.
    algorithm: (config, *, batch_size, axis_name=None) -> Algorithm.
    sampling: fields of the configuration that only `sample` and `log_prob` read (dotted paths), such as the solver or
        the weight of guidance: they may be changed after training. `init` and `step` do not depend on them.
    """

    name: str
    continent: Literal["tractable", "approximate", "implicit"]
    objective: str
    citation: str
    algorithm: Callable[..., Algorithm]
    sampling: tuple[str, ...] = ()


def like_batch(reads: dict[str, Space], n: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and types of a batch of n examples, without data."""
    return {name: space.like(n) for name, space in reads.items()}


def conditions(reads: dict[str, Space], batch: dict[str, Value]) -> dict[str, Value] | None:
    """The conditions in a batch, as the argument `cond` of `Algorithm.sample` wants them; None for a family without."""
    return {name: batch[name] for name in list(reads)[1:]} or None


def reads_of(space: Space, classes: int | None) -> dict[str, Space]:
    """`Algorithm.reads` of a model of examples, and of their labels 0..classes-1 if it is conditional."""
    return {space.field: space} | ({} if classes is None else {"label": labels(classes)})


def check_batch(reads: dict[str, Space], batch: Batch) -> None:
    """Raises ValueError unless `batch` holds examples of everything that is read; see `Space.expect`.

    For code that then works on parts of the batch, in which values are no longer known.
    """
    for name, space in reads.items():
        space.expect(**{name: batch[name]})


def check_cond(reads: dict[str, Space], n: int, cond: Mapping[str, Array | np.ndarray] | None) -> None:
    """Raises ValueError unless `cond` holds exactly the conditions of `reads`, arrays [n, ...] of the right shape.

    Labels whose values are known (outside of compiled code) must lie within their classes.
    """
    wanted = list(reads)[1:]
    if cond is None and wanted:
        example = ", ".join(f"{name!r}: {reads[name].dtype.__name__} {[n, *reads[name].shape]}" for name in wanted)
        raise ValueError(f"cond=None, but this model is conditional: give cond={{{example}}}")
    if cond is not None and not wanted:
        raise ValueError("cond must be None: this model is unconditional")
    if cond is None:
        return
    if set(cond) != set(wanted):
        raise ValueError(f"cond holds {sorted(cond)}, but this model is conditioned on {sorted(wanted)}")
    for name in wanted:
        space, value = reads[name], cond[name]
        if jnp.shape(value) != (n, *space.shape):
            raise ValueError(f"cond[{name!r}] has shape {jnp.shape(value)}, but {(n, *space.shape)} is needed")
        if space.levels is None:
            continue
        if not jnp.issubdtype(jnp.result_type(value), jnp.integer):
            raise ValueError(f"cond[{name!r}] is {jnp.result_type(value)}: give integers, 0..{space.levels - 1}")
        if not known_within(value, space.levels):
            raise ValueError(f"cond[{name!r}] has values outside 0..{space.levels - 1}")


def player(
    loss: Callable,
    params: Params,
    opt_state: Any,
    tx: optax.GradientTransformation,
    axis_name: str | None,
    examples: tuple = (),
    accumulate: int = 1,
):
    """One optimizer step of one player. `loss(params, *examples) -> (scalar, aux)`, both means over the examples.

    examples, accumulate: see `mean_gradient`.
    Returns (params, opt_state, loss, aux). Gradients and metrics are averaged over devices here and nowhere else.
    """
    (value, aux), grads = mean_gradient(loss, params, examples, accumulate)
    grads, value, aux = parallel.mean((grads, value, aux), axis_name)
    updates, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, value, aux


def mean_gradient(loss: Callable, params: Params, examples: tuple, accumulate: int = 1):
    """`jax.value_and_grad(loss, has_aux=True)(params, *examples)`, with the memory of one micro-batch of `accumulate`.

    examples: pytrees of arrays [B, ...]. `loss` and its aux must be means over examples, for then the mean over
        micro-batches is the mean over the batch.
    """
    gradient = jax.value_and_grad(loss, has_aux=True)
    if accumulate == 1:
        return gradient(params, *examples)
    parts = split_batch(examples, accumulate)
    add = lambda total, part: (jax.tree.map(jnp.add, total, gradient(params, *part)), None)  # noqa: E731
    first = lambda params, parts: gradient(params, *jax.tree.map(lambda x: x[0], parts))  # noqa: E731
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(first, params, parts))
    unroll = accumulate if parallel.platform() == "cpu" else 1  # XLA:CPU: convolutions in a loop are 30 times slower
    total, _ = jax.lax.scan(add, zeros, parts, unroll=unroll)
    return jax.tree.map(lambda x: x / accumulate, total)


def check_parts(batch_size: int, accumulate: int) -> None:
    """Raise ValueError unless a batch divides into so many micro-batches."""
    if batch_size % accumulate:
        raise ValueError(f"batch_size={batch_size} does not divide into accumulate={accumulate} parts")


def in_parts(function: Callable[[Any], Any], examples: Any, parts: int) -> Any:
    """`function` of a batch [B, ...], which treats each example alone, with the memory of one of `parts` micro-batches.

    B may be any number: the last of the micro-batches are filled up, and what fills them is dropped again.
    """
    if parts == 1:
        return function(examples)
    size = batch_size(examples)
    if size % parts:
        rows = np.resize(np.arange(size), size + -size % parts)
        examples = jax.tree.map(lambda x: x[rows], examples)
    out = jax.lax.map(function, split_batch(examples, parts))  # example i: number i // parts of part i % parts
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:])[:size], out)


def log_prob_in_parts(
    of_part: Callable[[Key, Batch], LogProb], reads: dict[str, Space], batch: Batch, key: Key, parts: int
) -> LogProb:
    """The likelihood of a batch whose examples have noise of their own, with the memory of one of `parts`; `in_parts`.

    of_part: (keys [b], one per example, b examples) -> their likelihood.
    Raises ValueError as `check_batch`.
    """
    check_batch(reads, batch)
    keys = example_keys(key, batch_size(batch))
    return cast(LogProb, in_parts(lambda part: of_part(*part), (keys, batch), parts))


def split_batch(tree: Any, parts: int) -> Any:
    """[B, ...] -> [parts, B / parts, ...]. Example i goes to part i mod `parts`: the same on any number of devices.

    Raises ValueError if B does not divide.
    """
    size = batch_size(tree)
    if size % parts:
        raise ValueError(f"batch_size: {size} examples on a device do not divide into {parts} parts; use a multiple")
    part = lambda x, i: jax.lax.slice_in_dim(x, i, None, stride=parts)  # noqa: E731
    return jax.tree.map(lambda x: jnp.concatenate([part(x, i)[None] for i in range(parts)]), tree)


def minimise(
    loss: Callable[[Params, Key, Batch], dict[str, Array]],
    tx: optax.GradientTransformation,
    *,
    ema_halflife: float | None = None,
    axis_name: str | None = None,
    accumulate: int = 1,
) -> Callable[[Trained, Batch, Key], tuple[Trained, Metrics]]:
    """The train step of a family with one loss.

    loss: (params, keys, batch) -> dict of per-example terms [B], of which "loss" is minimised and all are reported;
        `keys` [B] are one PRNG key per example.
    ema_halflife: in examples; see `ema_update`.
    accumulate: micro-batches, see `mean_gradient`.
    """

    def step(state: Trained, batch: Batch, key: Key) -> tuple[Trained, Metrics]:
        size = batch_size(batch)
        keys = example_keys(key, size, axis_name)

        def mean_loss(params, keys, batch):
            return mean_terms(loss(params, keys, batch))

        params, opt_state, value, metrics = player(
            mean_loss, state.params, state.opt_state, tx, axis_name, (keys, batch), accumulate
        )
        ema = ema_update(state.ema, params, state.step, parallel.total(size, axis_name), ema_halflife)
        state = dataclasses.replace(state, step=state.step + 1, params=params, opt_state=opt_state, ema=ema)
        return state, {"loss": value, **metrics}

    return step


def mean_terms(terms: dict[str, Array]) -> tuple[Array, Metrics]:
    """Per-example terms -> (mean of "loss", means of the others): what `player` wants of a loss."""
    means = {name: term.mean() for name, term in terms.items()}
    return means.pop("loss"), means


def init_state(params: Params, tx: optax.GradientTransformation, ema_halflife: float | None = None) -> State:
    """The state `minimise` starts from."""
    ema = None if ema_halflife is None else jax.tree.map(jnp.copy, params)  # own buffers: the step donates both
    return State(jnp.zeros((), jnp.int32), params, tx.init(params), ema)


def ema_update(ema: Params | None, params: Params, step: Array, batch: int, halflife: float | None, ramp: float = 0.05):
    """Exponential moving average whose memory is counted in examples, so it does not move with the batch size.

    The half-life ramps up as `ramp` times the examples seen (Karras et al. 2020, StyleGAN2-ADA, appendix): early
    averages forget the random initialisation. `batch`: global batch size. None stays None.
    """
    if ema is None or halflife is None:
        return ema
    effective = jnp.minimum(halflife, ramp * (step + 1.0) * batch)
    decay = 0.5 ** (batch / effective)
    return jax.tree.map(lambda e, p: p + decay.astype(p.dtype) * (e - p), ema, params)


def batch_size(batch: Batch) -> int:
    """Number of examples in this device's part of the batch (all of it under `mesh`)."""
    return jax.tree.leaves(batch)[0].shape[0]
