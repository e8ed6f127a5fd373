"""Persistent contrastive divergence: maximum likelihood for p(x) = exp(-E(x)) / Z without knowing Z.

The gradient of -log p is  E_data[grad E] - E_p[grad E]  (Hinton 2002, https://doi.org/10.1162/089976602760128018).
The second mean is taken over chains that go on from update to update (Tieleman 2008,
https://doi.org/10.1145/1390156.1390290), kept in a replay buffer and restarted now and then (Du & Mordatch 2019,
https://arxiv.org/abs/1903.08689).

Differs from the paper: the buffer is [B, chains, ...]; place i of the batch continues one of its own `chains`, not one
of a common pool. A chain's law is the same, and the buffer splits over devices with the batch, without communication.
"""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec as P

from genmap_jax import keys as per_example
from genmap_jax import parallel
from genmap_jax.algorithm import (
    Array,
    Batch,
    Key,
    Metrics,
    Params,
    batch_size,
    ema_update,
    in_parts,
    mean_terms,
    player,
)
from genmap_jax.keys import example_keys


@flax.struct.dataclass
class State:
    """What persistent contrastive divergence can lose on a resume. Not `algorithm.State`: it owns chains."""

    step: Array  # int32, updates done
    params: Params
    opt_state: optax.OptState
    ema: Params | None
    buffer: Array  # [B, chains, ...]: where the persistent chains of each place in the batch are


def init_state(params: Params, tx: optax.GradientTransformation, buffer: Array, ema_halflife: float | None) -> State:
    """The state that `persistent` starts from. buffer: [B, chains, ...], draws from the law the chains restart from."""
    ema = None if ema_halflife is None else jax.tree.map(jnp.copy, params)  # own buffers: the step donates both
    return State(jnp.zeros((), jnp.int32), params, tx.init(params), ema, buffer)


def spec(state: State) -> State:
    """Each device keeps the chains of its part of the batch."""
    whole: Any = P()  # specs stand where the state has arrays
    sharded: Any = P(parallel.AXIS)
    return State(step=whole, params=whole, opt_state=whole, ema=whole, buffer=sharded)


def terms(e_data: Array, e_model: Array, alpha: float = 0.0) -> dict[str, Array]:
    """Per-example terms [B] whose gradient, samples held fixed, is that of -log p; nats.

    alpha: weight of the squared energies (Du & Mordatch 2019), which pins the constant that E leaves free and bounds
        its growth, at the price of a bias.
    """
    gap = e_data - e_model
    loss = gap + alpha * (e_data**2 + e_model**2)
    return {"loss": loss, "energy_data": e_data, "energy_model": e_model, "energy_gap": gap}


def start(buffer: Array, fresh: Array, keys: Array, reinit: float) -> tuple[Array, Array]:
    """Where the chains of this update start: (x [B, ...], which of the chains of its place each one is [B]).

    Each place continues one of its own chains, uniformly chosen, or with probability `reinit` replaces it by its draw
    from `fresh` [B, ...].
    """

    def one(key, own, new):
        which, restart = jax.random.split(key)
        chain = jax.random.randint(which, (), 0, own.shape[0])
        return jnp.where(jax.random.bernoulli(restart, reinit), new, own[chain]), chain

    return jax.vmap(one)(keys, buffer, fresh)


def put_back(buffer: Array, x: Array, chains: Array) -> Array:
    """The buffer with the ends x [B, ...] of the chains that `start` chose, chains [B]."""
    return jax.vmap(lambda own, x, chain: own.at[chain].set(x))(buffer, x, chains)


def persistent(
    energy: Callable[[Params, Array], Array],
    observe: Callable[[Batch, Array], Array],
    restart: Callable[[Array], Array],
    chain: Callable[[Callable[[Array], Array], Array, Array], Array],
    tx: optax.GradientTransformation,
    *,
    reinit: float,
    alpha: float = 0.0,
    ema_halflife: float | None = None,
    axis_name: str | None = None,
    accumulate: int = 1,
) -> Callable[[State, Batch, Key], tuple[State, Metrics]]:
    """The train step of an energy-based model.

    energy: (params, x [B, ...]) -> [B].
    observe: (batch, keys [B]) -> x [B, ...], the data as real numbers.
    restart: keys [B] -> x [B, ...], where fresh chains start.
    chain: (x -> energies, x, keys [B]) -> x, the Markov chain of one update.
    reinit: see `start`. alpha: see `terms`.
    ema_halflife: in examples; see `algorithm.ema_update`.
    accumulate: micro-batches of chains and of the gradient, see `algorithm.mean_gradient`. A place in the batch owns
        its chains, so that parts of it do not see each other.
    """

    def step(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
        size = batch_size(batch)
        keys_data, keys_start, keys_fresh, keys_chain = per_example.split(example_keys(key, size, axis_name), 4)

        # 1. Positive examples.
        x_data = observe(batch, keys_data)

        # 2. Negative examples: continue persistent chains under the present energy.
        x, chains = start(state.buffer, restart(keys_fresh), keys_start, reinit)
        run = lambda part: chain(lambda x: energy(state.params, x), *part)  # noqa: E731
        x_model = in_parts(run, (x, keys_chain), accumulate)

        # 3. One step down the difference of mean energies; the samples are constants in it.
        def loss(params, x_data, x_model):
            return mean_terms(terms(energy(params, x_data), energy(params, x_model), alpha))

        params, opt_state, value, metrics = player(
            loss, state.params, state.opt_state, tx, axis_name, (x_data, x_model), accumulate
        )
        ema = ema_update(state.ema, params, state.step, parallel.total(size, axis_name), ema_halflife)

        # 4. The chains go back to where they came from.
        buffer = put_back(state.buffer, x_model, chains)
        return State(state.step + 1, params, opt_state, ema, buffer), {"loss": value, **metrics}

    return step
