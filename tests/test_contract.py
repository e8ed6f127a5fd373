"""What every family promises to whoever runs it."""

import inspect
import re

import chex
import families
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genmap_jax.algorithm import LogProb, like_batch
from genmap_jax.optim import Optim, optimizer

CONTINENTS = {"tractable", "approximate", "implicit"}
KINDS = {"exact", "lower_bound", "upper_bound", "estimate"}
KEY = jax.random.key(0)


def sampler(algorithm, name: str = "sample"):
    """`algorithm.sample` or `algorithm.trajectory`, compiled; n and frames are static."""
    return jax.jit(getattr(algorithm, name), static_argnums=(2, 4) if name == "trajectory" else 2)


@pytest.fixture(scope="module", params=families.named())
def trained(request):
    """A family after three steps: (case, algorithm, state, metrics of each step)."""
    case = families.FAMILIES[request.param]
    algorithm = case.build()
    chex.clear_trace_counter()
    step = jax.jit(chex.assert_max_traces(algorithm.step, n=1), donate_argnums=0)
    state = jax.jit(algorithm.init)(KEY, case.batch())
    metrics = []
    for i in range(3):
        state, now = step(state, case.batch(i), jax.random.key(i))
        metrics.append(jax.device_get(now))
    return case, algorithm, state, metrics


def diverged(state):
    """The state with NaN in every parameter."""
    return jax.tree.map(lambda x: x * jnp.nan if jnp.issubdtype(x.dtype, jnp.floating) else x, state)


# ---- what it says of itself ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", families.named())
def test_a_family_is_named_and_lies_where_it_says(family):
    """Name, objective and citation are given; the continent is the folder that holds the code."""
    declared = families.FAMILIES[family].family
    assert declared.name and declared.objective and re.search(r"\d{4}.*https://", declared.citation)
    folders = inspect.getsourcefile(inspect.unwrap(declared.algorithm)).replace("\\", "/").split("/")
    assert CONTINENTS & set(folders) == {declared.continent}


@pytest.mark.parametrize("family", families.named())
def test_training_does_not_read_the_fields_of_sampling(family):
    """With another value in every field of `sampling`, `init` and `step` are the same programs, constants included."""
    case = families.FAMILIES[family]
    otherwise = case.sampled_otherwise()
    assert (otherwise != case.config) == bool(case.family.sampling)

    def programs(config):
        algorithm = case.family.algorithm(config, batch_size=families.BATCH)
        batch = like_batch(algorithm.reads, families.BATCH)
        state = jax.eval_shape(algorithm.init, KEY, batch)
        return [jax.make_jaxpr(algorithm.init)(KEY, batch), jax.make_jaxpr(algorithm.step)(state, batch, KEY)]

    for before, after in zip(programs(case.config), programs(otherwise), strict=True):
        # Functions inside a program are printed with their address.
        assert re.sub("0x[0-9a-f]+", "", str(before)) == re.sub("0x[0-9a-f]+", "", str(after))
        assert len(before.consts) == len(after.consts)
        for a, b in zip(before.consts, after.consts, strict=True):
            np.testing.assert_array_equal(a, b)


# ---- training --------------------------------------------------------------------------------------------------------


def test_init_has_a_shape_before_it_has_values(trained):
    """From the shapes of a batch alone."""
    _, algorithm, state, _ = trained
    shapes = jax.eval_shape(algorithm.init, KEY, like_batch(algorithm.reads, families.BATCH))
    chex.assert_trees_all_equal_shapes_and_dtypes(shapes, state)
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(shapes))


def test_three_steps_are_finite_and_traced_once(trained):
    """The trace count is asserted inside the fixture."""
    _, _, state, metrics = trained
    chex.assert_tree_all_finite(state)
    assert int(state.step) == 3
    for row in metrics:
        assert row, "a step must report something"
        for name, value in row.items():
            assert np.shape(value) == () and np.isfinite(value), name


def test_steps_change_the_parameters(trained):
    case, algorithm, state, _ = trained
    start = jax.jit(algorithm.init)(KEY, case.batch())
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), start.__dict__, state.__dict__)
    assert all(jax.tree.leaves(v) and any(jax.tree.leaves(v)) for k, v in moved.items() if k.startswith("params"))


# By what a parameter is, never by its shape: a gain for each class is a matrix too.
DECAYS = dict.fromkeys(("kernel", "embedding", "label", "positions", "head", "basis"), True)
DECAYS |= dict.fromkeys(("bias", "gain", "scale", "log_scale", "start", "slope", "centres", "steep", "heights"), False)
DECAYS |= dict.fromkeys(("shift", "log_std", "lower", "upper", "log_diagonal", "strength"), False)


@pytest.mark.parametrize("family", families.named())
def test_weight_decay_is_of_weights_and_tables_only(family):
    """Every parameter of every family has its place in the table above, and the optimizer does as it says."""
    case = families.FAMILIES[family]
    algorithm = case.build()
    shapes = jax.eval_shape(algorithm.init, KEY, like_batch(algorithm.reads, families.BATCH))
    params = jax.tree.map(lambda x: jnp.ones(x.shape), algorithm.params(shapes))
    tx = optimizer(Optim(lr=0.5, weight_decay=0.5, clip=0.0), 1)
    updates, _ = jax.jit(lambda p: tx.update(jax.tree.map(jnp.zeros_like, p), tx.init(p), p))(params)
    for path, update in jax.tree.leaves_with_path(updates):
        assert bool((update != 0).any()) == DECAYS[path[-1].key], jax.tree_util.keystr(path)


@pytest.mark.parametrize("family", families.named())
def test_seeds_vmap(family):
    """Init, step, likelihood and samples of several seeds trace as one program, as ablations run them."""
    case = families.FAMILIES[family]
    algorithm = case.build()
    keys = jax.eval_shape(lambda: jax.random.split(KEY, 2))
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((2, *x.shape), x.dtype), case.batch())
    state = jax.eval_shape(jax.vmap(algorithm.init), keys, batch)
    after, metrics = jax.eval_shape(jax.vmap(algorithm.step), state, batch, keys)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, after)
    assert all(value.shape == (2,) for value in metrics.values())
    cond = case.cond(3)
    samples = jax.eval_shape(jax.vmap(lambda s, k: algorithm.sample(s, k, 3, cond)), state, keys)
    assert samples.shape[:2] == (2, 3)
    if algorithm.log_prob is not None:
        assert jax.eval_shape(jax.vmap(algorithm.log_prob), state, batch, keys).nats.shape == (2, families.BATCH)


# ---- samples ---------------------------------------------------------------------------------------------------------


def test_samples_look_like_a_batch(trained):
    case, algorithm, state, _ = trained
    space, draw = next(iter(algorithm.reads.values())), sampler(algorithm)
    drawn = draw(state, KEY, 5, case.cond(5))
    samples = space.as_batch(drawn)
    assert (samples.shape, samples.dtype) == (space.like(5).shape, space.like(5).dtype)
    np.testing.assert_array_equal(samples, drawn)  # whole grey values already
    chex.assert_tree_all_finite(samples)
    if space.levels is not None:
        assert int(samples.min()) >= 0 and int(samples.max()) < space.levels
    assert len(np.unique(np.asarray(samples), axis=0)) == 5, "examples must have noise of their own"
    with pytest.raises(ValueError, match="5 of 5 samples"):  # and no black images
        space.as_batch(draw(diverged(state), KEY, 5, case.cond(5)))


@pytest.mark.parametrize("family", families.named())
def test_samples_take_the_conditions_that_the_family_reads_and_no_others(family):
    """One ValueError for a condition that is missing, one too many, of the wrong length or of no class."""
    case = families.FAMILIES[family]
    algorithm, cond = case.build(), case.cond(5)
    state = jax.eval_shape(algorithm.init, KEY, like_batch(algorithm.reads, families.BATCH))
    wrong = [{"other": np.zeros(5)}, {**(cond or {}), "other": np.zeros(5)}]
    if cond is not None:
        wrong += [None, {}, case.cond(4), {name: np.asarray(x)[..., None] for name, x in cond.items()}]
        discrete = {name: x for name, x in cond.items() if algorithm.reads[name].levels is not None}
        wrong += [{**cond, name: x + algorithm.reads[name].levels} for name, x in discrete.items()]
    calls = {
        "sample": lambda s, k, c: algorithm.sample(s, k, 5, c),
        "trajectory": lambda s, k, c: algorithm.trajectory(s, k, 5, c, 2),
        "walk": lambda s, k, c: algorithm.walk(s, k, jnp.zeros(5), c),
    }
    for name, call in calls.items():
        if getattr(algorithm, name) is not None:
            jax.eval_shape(lambda s, k: call(s, k, cond), state, KEY)  # noqa: B023
            for bad in wrong:
                with pytest.raises(ValueError, match="cond"):
                    jax.eval_shape(lambda s, k: call(s, k, bad), state, KEY)  # noqa: B023


def test_the_trajectory_of_a_sampler_ends_in_its_samples(trained):
    case, algorithm, state, _ = trained
    if algorithm.trajectory is None:
        return
    frames = sampler(algorithm, "trajectory")(state, KEY, 5, case.cond(5), 3)
    samples = sampler(algorithm)(state, KEY, 5, case.cond(5))
    assert frames.shape == (3, *samples.shape) and frames.dtype == samples.dtype
    np.testing.assert_array_equal(frames[-1], samples)
    assert (frames[0] != frames[-1]).any()


def test_walks_are_smooth_and_end_where_they_should(trained):
    """A path per example: t = 0 and 1 differ, a small step is a small change, and all of it is in units of the data."""
    case, algorithm, state, _ = trained
    assert algorithm.trajectory is not None or algorithm.walk is not None, "every sampler can be watched"
    if algorithm.walk is None:
        return
    walk, cond = jax.jit(algorithm.walk), case.cond(6)
    at = lambda t: np.asarray(walk(state, KEY, jnp.full(6, t), cond))  # noqa: E731
    space = next(iter(algorithm.reads.values()))
    assert at(0.0).shape == (6, *space.shape) and at(0.0).dtype == np.float32
    whole, small = np.abs(at(1.0) - at(0.0)), np.abs(at(0.501) - at(0.5))
    assert whole.max() > 0 and small.max() < 0.05 * whole.max()
    with pytest.raises(ValueError, match="6 of 6 samples"):
        space.as_batch(walk(diverged(state), KEY, jnp.linspace(0.0, 1.0, 6), cond))
    mixed = np.asarray(walk(state, KEY, jnp.linspace(0.0, 1.0, 6), cond))
    np.testing.assert_allclose(mixed[0], at(0.0)[0], atol=1e-4)
    np.testing.assert_allclose(mixed[-1], at(1.0)[-1], atol=1e-4)


# ---- likelihood ------------------------------------------------------------------------------------------------------


def test_log_prob_says_what_it_is(trained):
    case, algorithm, state, _ = trained
    if case.kind is None:
        assert algorithm.log_prob is None
        return
    value = jax.jit(algorithm.log_prob)(state, case.batch(), KEY)
    assert isinstance(value, LogProb) and value.kind == case.kind and value.kind in KINDS
    chex.assert_shape(value.nats, (families.BATCH,))
    chex.assert_tree_all_finite(value.nats)
    if value.stderr is not None:
        chex.assert_shape(value.stderr, (families.BATCH,))


def test_log_prob_is_per_example(trained):
    """Reordering the rest of the batch must not change an example's value (to rounding, beyond its own noise)."""
    case, algorithm, state, _ = trained
    if case.kind is None or case.kind == "estimate":
        return  # AIS and ODE noise is tied to the place in the batch; their own tests cover them
    batch = case.batch()
    flipped = {k: np.concatenate([v[:1], v[:0:-1]]) for k, v in batch.items()}
    log_prob = jax.jit(algorithm.log_prob)
    a, b = (log_prob(state, x, KEY).nats[0] for x in (batch, flipped))
    np.testing.assert_allclose(a, b, rtol=1e-6)
