"""The adversarial game of image translation: its state, one step of all players, and translations.

A discriminator for each direction tells images of the target domain from translations. With objective="cycle" both
generators take one step together, then both discriminators, as Zhu et al. 2017 do; with "contrastive" and "paired" the
discriminator takes the first, as Park et al. 2020 and Isola et al. 2017 do. In one step all see the same translations,
those of the generators at its beginning.

Differs from the papers: a pool for each place of the batch (`objectives.pool`), which with the papers' batch size of 1
is theirs; the learning rate falls with every update, not every epoch; CUT's networks are CycleGAN's.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import optax

from genmap_jax import keys as per_example
from genmap_jax import parallel
from genmap_jax.algorithm import (
    Algorithm,
    Array,
    Batch,
    Cond,
    Family,
    Key,
    Metrics,
    Params,
    check_cond,
    check_parts,
    ema_update,
    in_parts,
    mean_terms,
    player,
)
from genmap_jax.implicit.cyclegan.config import Config, check
from genmap_jax.implicit.cyclegan.networks import Heads, PatchGAN, generator
from genmap_jax.implicit.cyclegan.players import (
    BACK,
    DOMAINS,
    discriminator_terms,
    features,
    generator_terms,
    shown,
    translate,
    translations,
)
from genmap_jax.keys import example_keys
from genmap_jax.objectives.pool import Pool, empty, exchange
from genmap_jax.objectives.pool import spec as pool_spec
from genmap_jax.optim import optimizer
from genmap_jax.spaces import images


@flax.struct.dataclass
class State:
    """All players by direction, the average of the generators, and the pools."""

    step: Array  # int32, updates done
    params_g: Params  # {"ab": ..., "ba": ..., "heads": ...}: those that the objective has
    params_d: Params  # {"ab": ..., "ba": ...}: that of "ab" judges images of B
    opt_g: optax.OptState
    opt_d: optax.OptState
    ema_g: Params | None
    pools: dict[str, Pool]  # by direction; empty without


def averaged(state: State) -> Params:
    """The generators to translate with: the average where there is one."""
    return state.params_g if state.ema_g is None else state.ema_g


# ---- algorithm -------------------------------------------------------------------------------------------------------


def algorithm(cfg: Config, *, batch_size: int, axis_name: str | None = None) -> Algorithm:
    """The translator as the runner sees it. Raises ValueError that names the field and the fix."""
    check(cfg)
    check_parts(batch_size, cfg.accumulate)
    tx, space = optimizer(cfg.optim, batch_size), cfg.space
    given, example = DOMAINS[cfg.direction]
    reads = {example: space, given: space}

    def init(key: Key, batch: Batch) -> State:
        x = jnp.zeros((1, *space.shape))
        seen = shown(cfg, x, x)
        params_g, params_d, pools = {}, {}, {}
        for i, way in enumerate(cfg.directions):
            key_g, key_d, noise = jax.random.split(jax.random.fold_in(key, i), 3)
            params_g[way] = generator(cfg).init(key_g, x, noise[None])["params"]
            params_d[way] = PatchGAN(cfg).init(key_d, seen)["params"]
            if cfg.pool:
                pools[way] = empty(batch_size, cfg.pool, images(*seen.shape[1:]))
        if cfg.objective == "contrastive":
            layers = [h.reshape(1, -1, h.shape[-1]) for h in features(cfg, params_g["ab"], x, noise[None])]
            params_g["heads"] = Heads(cfg).init(jax.random.fold_in(key, 2), layers)["params"]
        return State(
            step=jnp.zeros((), jnp.int32),
            params_g=params_g,
            params_d=params_d,
            opt_g=tx.init(params_g),
            opt_d=tx.init(params_d),
            ema_g=None if cfg.ema_halflife is None else jax.tree.map(jnp.copy, params_g),  # the step donates both
            pools=pools,
        )

    def step(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
        real = {name: space.to_grid(batch[name]) for name in DOMAINS["ab"]}
        size = len(real["image"])
        noise, keys_g, keys_d, keys_pool = per_example.split(example_keys(key, size, axis_name), 4)

        def update_g(state: State) -> tuple[State, Metrics]:
            loss = lambda params_g, *part: mean_terms(generator_terms(cfg, params_g, state.params_d, *part))  # noqa: E731
            params_g, opt_g, value, metrics = player(
                loss, state.params_g, state.opt_g, tx, axis_name, (real, noise, keys_g), cfg.accumulate
            )
            return dataclasses.replace(state, params_g=params_g, opt_g=opt_g), {"loss_g": value, **metrics}

        def update_d(state: State) -> tuple[State, Metrics]:
            loss = lambda params_d, *part: mean_terms(discriminator_terms(cfg, params_d, *part))  # noqa: E731
            params_d, opt_d, value, metrics = player(
                loss, state.params_d, state.opt_d, tx, axis_name, (real, seen, keys_d), cfg.accumulate
            )
            return dataclasses.replace(state, params_d=params_d, opt_d=opt_d), {"loss_d": value, **metrics}

        # The same translations again, on purpose: of a whole batch, the compiler makes them once for both players.
        made = lambda part: translations(cfg, state.params_g, *part)[0]  # noqa: E731
        fakes = in_parts(made, (real, jax.random.clone(noise)), cfg.accumulate)
        seen = {way: shown(cfg, real["source"], fake) for way, fake in fakes.items()}
        pools = {}
        for i, (way, pool) in enumerate(state.pools.items()):
            pools[way], seen[way] = exchange(pool, seen[way], per_example.fold(keys_pool, i))

        metrics: Metrics = {}
        for update in (update_g, update_d) if cfg.objective == "cycle" else (update_d, update_g):
            state, more = update(state)
            metrics |= more
        seen_in_all = parallel.total(size, axis_name)
        ema_g = ema_update(state.ema_g, state.params_g, state.step, seen_in_all, cfg.ema_halflife)
        return dataclasses.replace(state, step=state.step + 1, ema_g=ema_g, pools=pools), metrics

    def between(state: State, way: str, x: Array, keys: Array) -> tuple[Array, Array]:
        """Images as a batch holds them on the grid, and their translations."""
        start = space.to_grid(x)
        return start, translate(cfg, averaged(state)[way], start, keys)

    def sample(state: State, key: Key, n: int, cond: Cond | None = None) -> Array:
        return trajectory(state, key, n, cond, 1)[0]

    def trajectory(state: State, key: Key, n: int, cond: Cond | None, frames: int) -> Array:
        """Images that fade into their translations."""
        check_cond(reads, n, cond)
        start, end = between(state, cfg.direction, (cond or {})[given], example_keys(key, n))
        share = jnp.linspace(0.0, 1.0, frames + 1)[1:].reshape(-1, 1, 1, 1, 1)
        return space.from_grid((1.0 - share) * start[None] + share * end[None])

    def back(state: State, key: Key, examples: Array) -> Array:
        _, end = between(state, BACK[cfg.direction], examples, example_keys(key, len(examples)))
        return space.from_grid(end)

    return Algorithm(
        reads=reads,
        init=init,
        step=step,
        sample=sample,
        spec=lambda state: dataclasses.replace(
            parallel.replicated(state), pools={way: pool_spec() for way in state.pools}
        ),
        params=lambda state: (state.params_g, state.params_d),
        evaluations=1,
        trajectory=trajectory,
        back=back if cfg.objective == "cycle" else None,
        paired=cfg.objective == "paired",
    )


FAMILY = Family(
    name="CycleGAN",
    continent="implicit",
    objective="adversarial, cycle",
    citation="Zhu et al. 2017, https://arxiv.org/abs/1703.10593",
    algorithm=algorithm,
    sampling=("direction",),
)
CUT_FAMILY = Family(
    name="CUT",
    continent="implicit",
    objective="adversarial, patch contrast",
    citation="Park et al. 2020, https://arxiv.org/abs/2007.15651",
    algorithm=algorithm,
)
PIX2PIX_FAMILY = Family(
    name="pix2pix",
    continent="implicit",
    objective="adversarial, L1 of known pairs",
    citation="Isola et al. 2017, https://arxiv.org/abs/1611.07004",
    algorithm=algorithm,
)
