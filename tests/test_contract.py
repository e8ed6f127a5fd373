"""What every family promises to the runner."""

import chex
import families
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genmap_jax.algorithm import LogProb

KINDS = {"exact", "lower_bound", "upper_bound", "estimate"}


@pytest.fixture(scope="module", params=families.FAMILIES)
def trained(request):
    """A family after three steps: (case, algorithm, state, metrics of each step)."""
    case = families.FAMILIES[request.param]
    algorithm = case.build()
    chex.clear_trace_counter()
    step = jax.jit(chex.assert_max_traces(algorithm.step, n=1), donate_argnums=0)
    state = jax.jit(algorithm.init)(jax.random.key(0))
    metrics = []
    for i in range(3):
        state, now = step(state, case.batch(i), jax.random.key(i))
        metrics.append(jax.device_get(now))
    return case, algorithm, state, metrics


def test_init_has_a_shape_before_it_has_values(trained):
    _, algorithm, state, _ = trained
    shapes = jax.eval_shape(algorithm.init, jax.random.key(0))
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
    _, algorithm, state, _ = trained
    start = jax.jit(algorithm.init)(jax.random.key(0))
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), start.__dict__, state.__dict__)
    assert all(jax.tree.leaves(v) and any(jax.tree.leaves(v)) for k, v in moved.items() if k.startswith("params"))


def test_samples_look_like_a_batch(trained):
    case, algorithm, state, _ = trained
    (field, real) = next((k, v) for k, v in case.batch().items() if k in ("image", "tokens", "x"))
    samples = jax.jit(algorithm.sample, static_argnums=(2, 3))(state, jax.random.key(0), 5, None)
    assert samples.shape == (5, *real.shape[1:]) and samples.dtype == real.dtype
    chex.assert_tree_all_finite(samples)
    if field != "x":
        top = case.config.vocab if field == "tokens" else case.config.levels
        assert int(samples.min()) >= 0 and int(samples.max()) < top
    assert len(np.unique(np.asarray(samples), axis=0)) == 5, "examples must have noise of their own"


def test_the_sampler_at_work_ends_in_its_samples(trained):
    _, algorithm, state, _ = trained
    if algorithm.trace is None:
        return
    frames = jax.jit(algorithm.trace, static_argnums=(2, 3))(state, jax.random.key(0), 5, 3)
    samples = jax.jit(algorithm.sample, static_argnums=(2, 3))(state, jax.random.key(0), 5, None)
    assert frames.shape == (3, *samples.shape) and frames.dtype == samples.dtype
    np.testing.assert_array_equal(frames[-1], samples)
    assert (frames[0] != frames[-1]).any()


def test_walks_are_smooth_and_end_where_they_should(trained):
    """A path per example: t = 0 and 1 differ, a small step is a small change, and all of it is in units of the data."""
    case, algorithm, state, _ = trained
    assert algorithm.trace is not None or algorithm.walk is not None, "every sampler can be watched"
    if algorithm.walk is None:
        return
    walk = jax.jit(algorithm.walk)
    at = lambda t: np.asarray(walk(state, jax.random.key(0), jnp.full(6, t)))  # noqa: E731
    real = next(v for k, v in case.batch().items() if k in ("image", "x"))
    assert at(0.0).shape == (6, *real.shape[1:]) and at(0.0).dtype == np.float32
    whole, small = np.abs(at(1.0) - at(0.0)), np.abs(at(0.501) - at(0.5))
    assert whole.max() > 0 and small.max() < 0.05 * whole.max()
    mixed = np.asarray(walk(state, jax.random.key(0), jnp.linspace(0.0, 1.0, 6)))
    np.testing.assert_allclose(mixed[0], at(0.0)[0], atol=1e-4)
    np.testing.assert_allclose(mixed[-1], at(1.0)[-1], atol=1e-4)


def test_families_say_what_they_are(trained):
    case, *_ = trained
    assert case.config.system and case.config.objective


def test_log_prob_says_what_it_is(trained):
    case, algorithm, state, _ = trained
    if case.kind is None:
        assert algorithm.log_prob is None
        return
    value = jax.jit(algorithm.log_prob)(state, case.batch(), jax.random.key(0))
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
    a, b = (log_prob(state, x, jax.random.key(0)).nats[0] for x in (batch, flipped))
    np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("family", families.FAMILIES)
def test_seeds_vmap(family):
    """Init, step, likelihood and samples of several seeds trace as one program, as ablations run them."""
    case = families.FAMILIES[family]
    algorithm = case.build()
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 2))
    state = jax.eval_shape(jax.vmap(algorithm.init), keys)
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((2, *x.shape), x.dtype), case.batch())
    after, metrics = jax.eval_shape(jax.vmap(algorithm.step), state, batch, keys)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, after)
    assert all(value.shape == (2,) for value in metrics.values())
    samples = jax.eval_shape(jax.vmap(lambda s, k: algorithm.sample(s, k, 3, None)), state, keys)
    assert samples.shape[:2] == (2, 3)
    if algorithm.log_prob is not None:
        assert jax.eval_shape(jax.vmap(algorithm.log_prob), state, batch, keys).nats.shape == (2, families.BATCH)


@pytest.mark.parametrize("family", families.FAMILIES)
def test_batch_size_of_the_config_is_what_the_step_takes(family):
    case = families.FAMILIES[family]
    algorithm = case.build()
    state = jax.eval_shape(algorithm.init, jax.random.key(0))
    after, _ = jax.eval_shape(algorithm.step, state, case.batch(), jax.random.key(0))
    chex.assert_trees_all_equal_shapes_and_dtypes(state, after)
