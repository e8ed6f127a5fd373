"""The record every family fills in, and the two helpers from which train steps are written.

A family is trained, sampled and evaluated through five pure functions, as in optax. What the families share is not
one loss (a GAN has two, an EBM samples inside its step) but *one update of the whole state*: that is the interface.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax

from genmap_jax import parallel

Array = jax.Array
Key = jax.Array
Params = Any
# What `genmap_jax.data` yields: "image" uint8 [B,H,W,C], "label" int32 [B], "tokens" int32 [B,L], "x" float32 [B,D].
Batch = dict[str, Array]
Metrics = dict[str, Array]  # scalars


@flax.struct.dataclass
class LogProb:
    """Log-probability of a batch, with the one word that says what it may be compared with.

    nats: [B], natural log, summed over all dimensions of an example, of the data *as the batch holds them*: for
        uint8 images the probability of the integers (a density of continuous values adds its dequantisation constant).
    kind: "exact", "lower_bound", "upper_bound" or "estimate" of the log-probability.
    stderr: [B] Monte-Carlo standard error, or None where there is none.
    upper: [B], nats: what in expectation is at least the log-probability, beside an estimate or a lower bound that may
        err on either side; None where there is none.
    """

    nats: Array
    kind: str = flax.struct.field(pytree_node=False)
    stderr: Array | None = None
    upper: Array | None = None


@flax.struct.dataclass
class State:
    """State of a family trained by `minimise`. Families that can lose more on a resume declare their own."""

    step: Array  # int32, updates done
    params: Params
    opt_state: optax.OptState
    ema: Params | None  # None: no averaging

    @property
    def averaged(self) -> Params:
        """The parameters to sample and to evaluate with."""
        return self.params if self.ema is None else self.ema


class Algorithm(NamedTuple):
    """One family, bound to its network and optimizer.

    init: key -> state. Called under `jax.eval_shape` for shapes and under `jax.jit` for values.
    step: (state, batch, key) -> (state, metrics). One update of everything; metrics are a flat dict of scalars.
    sample: (state, key, n, cond) -> what `n` examples of a batch look like: same dtype, shape and range. `n` is static;
        `cond` is None or an int32 [n] array of labels; with None, a conditional family draws its labels itself.
    log_prob: (state, batch, key) -> LogProb. None: the family has no density.
    spec: state -> pytree of `PartitionSpec`, prefix allowed. Only the axis name "data" exists.
    evaluations: of the network, in a row, for one sample. None: an adaptive sampler decides.
    trace: (state, key, n, frames) -> [frames, n, ...]: `sample` at work. The last frame is what `sample` returns, all
        look like a batch; `frames` is static. None: `sample` has nothing to watch.
    walk: (state, key, t) -> float32 [n, ...]: example i at position t[i] in [0, 1] on its path between two latents, the
        family's own interpolation; without sampling noise or rounding, in units of grey levels for images. None: no
        latent space.
    """

    init: Callable[[Key], Any]
    step: Callable[[Any, Batch, Key], tuple[Any, Metrics]]
    sample: Callable[..., Array] | None = None
    log_prob: Callable[[Any, Batch, Key], LogProb] | None = None
    spec: Callable[[Any], Any] = parallel.replicated
    evaluations: int | None = None
    trace: Callable[[Any, Key, int, int], Array] | None = None
    walk: Callable[[Any, Key, Array], Array] | None = None


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
    first = jax.tree.map(lambda x: x[0], parts)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(gradient, params, *first))
    unroll = accumulate if jax.default_backend() == "cpu" else 1  # XLA:CPU: convolutions in a loop are 30 times slower
    total, _ = jax.lax.scan(add, zeros, parts, unroll=unroll)
    return jax.tree.map(lambda x: x / accumulate, total)


def split_batch(tree: Any, parts: int) -> Any:
    """[B, ...] -> [parts, B / parts, ...]. Example i goes to part i mod `parts`: the same on any number of devices.

    Raises ValueError if B does not divide.
    """
    size = batch_size(tree)
    if size % parts:
        raise ValueError(f"batch_size: {size} examples on a device do not divide into {parts} parts; use a multiple")
    return jax.tree.map(lambda x: x.reshape(size // parts, parts, *x.shape[1:]).swapaxes(0, 1), tree)


def minimise(
    loss: Callable[[Params, Key, Batch], dict[str, Array]],
    tx: optax.GradientTransformation,
    *,
    ema_halflife: float | None = None,
    axis_name: str | None = None,
    accumulate: int = 1,
) -> Callable[[State, Batch, Key], tuple[State, Metrics]]:
    """The train step of a family with one loss.

    loss: (params, keys, batch) -> dict of per-example terms [B], of which "loss" is minimised and all are reported;
        `keys` [B] are one PRNG key per example.
    ema_halflife: in examples; see `ema_update`.
    accumulate: micro-batches, see `mean_gradient`.
    """

    def step(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
        size = batch_size(batch)
        keys = parallel.example_keys(key, size, axis_name)

        def mean_loss(params, keys, batch):
            means = {name: term.mean() for name, term in loss(params, keys, batch).items()}
            return means.pop("loss"), means

        params, opt_state, value, metrics = player(
            mean_loss, state.params, state.opt_state, tx, axis_name, (keys, batch), accumulate
        )
        ema = ema_update(state.ema, params, state.step, parallel.total(size, axis_name), ema_halflife)
        state = state.replace(step=state.step + 1, params=params, opt_state=opt_state, ema=ema)
        return state, {"loss": value, **metrics}

    return step


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
