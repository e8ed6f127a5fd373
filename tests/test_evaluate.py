"""Units, kinds and errors of the shared evaluation helpers, against closed forms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import norm

from genmap_jax.algorithm import LogProb
from genmap_jax.evaluate import distance
from genmap_jax.evaluate.distance import energy_distance, null_floor
from genmap_jax.evaluate.likelihood import bits_per_dim, log_probs, summary

# ---- likelihood ------------------------------------------------------------------------------------------------------


def test_a_uniform_byte_costs_eight_bits():
    dims = 32 * 32 * 3
    assert bits_per_dim(-dims * math.log(256.0), dims) == pytest.approx(8.0, abs=1e-12)
    assert bits_per_dim(np.array([-math.log(2.0), 0.0]), 1) == pytest.approx([1.0, 0.0])


def averaged(log_prob, state, batches, dims):
    """The mean over all batches, as a result has it."""
    nats, kind, _ = log_probs(log_prob, state, batches, jax.random.key(0))
    return summary(nats, kind, dims)


def gaussian_log_prob(state, batch, key):
    return LogProb(-0.5 * jnp.square(batch["x"] - state[None, :]).sum(-1) - 0.5 * 3 * math.log(2 * math.pi), "exact")


def test_mean_and_error_do_not_depend_on_the_batching():
    x = np.random.default_rng(0).normal(size=(1000, 3)).astype(np.float32)
    results = []
    for size in (1000, 125, 300):  # the last leaves a smaller batch
        batches = [{"x": jnp.asarray(x[i : i + size])} for i in range(0, len(x), size)]
        results.append(averaged(gaussian_log_prob, jnp.zeros(3), batches, 3))
    truth = norm.logpdf(x.astype(np.float64)).sum(-1)
    for result in results:
        assert result.n == 1000 and result.kind == "exact"
        assert result.nats == pytest.approx(truth.mean(), abs=1e-5)
        assert result.stderr == pytest.approx(truth.std(ddof=1) / math.sqrt(1000), rel=1e-4)
        assert result.bits_per_dim == pytest.approx(-truth.mean() / (3 * math.log(2)), abs=1e-5)
        assert result.bits_per_dim_stderr == pytest.approx(result.stderr / (3 * math.log(2)))
    # The entropy of N(0, I) lies within 4 standard errors: the error is one over examples, not over batches.
    assert abs(results[0].nats + 1.5 * math.log(2 * math.pi * math.e)) < 4 * results[0].stderr


def test_every_batch_has_its_own_noise():
    noise = lambda state, batch, key: LogProb(jax.random.normal(key, batch["x"].shape[:1]), "estimate")  # noqa: E731
    batches = [{"x": jnp.zeros((2, 1))}] * 200
    result = averaged(noise, None, batches, 1)
    assert abs(result.nats) < 4 / math.sqrt(400)
    assert result.stderr == pytest.approx(1 / math.sqrt(400), rel=0.2)


def test_upper_bounds_are_kept_beside_the_log_probabilities():
    bounded = lambda state, batch, key: LogProb(batch["x"], "estimate", upper=batch["x"] + 1)  # noqa: E731
    batches = [{"x": jnp.arange(3.0)}, {"x": jnp.arange(2.0)}]
    nats, kind, upper = log_probs(bounded, None, batches, jax.random.key(0))
    np.testing.assert_array_equal(nats, [0, 1, 2, 0, 1])
    np.testing.assert_array_equal(upper, nats + 1)
    unbounded = lambda state, batch, key: LogProb(batch["x"], kind)  # noqa: E731
    assert log_probs(unbounded, None, batches, jax.random.key(0))[2] is None


def test_kinds_are_never_mixed_and_nothing_is_averaged_over_nothing():
    kinds = iter(["exact", "lower_bound"])
    mixed = lambda state, batch, key: LogProb(jnp.zeros(4), next(kinds))  # noqa: E731
    with pytest.raises(ValueError, match="exact.*lower_bound"):
        averaged(mixed, None, [{}, {}], 1)
    with pytest.raises(ValueError, match="at least 2"):
        averaged(mixed, None, [], 1)


# ---- energy distance -------------------------------------------------------------------------------------------------


def mean_distance(delta, tau):
    """E|N(delta, tau^2)|, the folded normal."""
    density = math.sqrt(2 / math.pi) * math.exp(-(delta**2) / (2 * tau**2))
    return tau * density + delta * (1 - 2 * norm.cdf(-delta / tau))


@pytest.mark.parametrize(("shift", "sigma"), [(1.0, 1.0), (0.0, 2.0), (0.5, 0.3)])
def test_closed_form_between_gaussians(shift, sigma):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=3000), shift + sigma * rng.normal(size=2000)
    truth = 2 * mean_distance(shift, math.hypot(1, sigma)) - (2 + 2 * sigma) / math.sqrt(math.pi)
    result = energy_distance(real=x, generated=y)
    assert abs(result.value - truth) < 3 * result.stderr
    assert result.stderr < 0.1 * truth


def v_statistic(x, y):
    """The biased form, which counts the zero distance of each example to itself."""
    return 2 * cdist(x, y).mean() - cdist(x, x).mean() - cdist(y, y).mean()


def test_unbiased_at_equal_distributions_where_the_v_statistic_is_not():
    rng = np.random.default_rng(0)
    pairs = [(rng.normal(size=(40, 8)), rng.normal(size=(60, 8))) for _ in range(200)]
    within = lambda values: abs(np.mean(values)) < 3 * np.std(values) / math.sqrt(len(values))  # noqa: E731
    assert within([energy_distance(real=x, generated=y).value for x, y in pairs])
    assert not within([v_statistic(x, y) for x, y in pairs])


@pytest.mark.parametrize(("shift", "low", "high"), [(1.0, 0.9, 1.15), (0.0, 1.0, 2.0)])
def test_jackknife_error_is_the_spread_over_replicates(shift, low, high):
    rng = np.random.default_rng(1)
    runs = [
        energy_distance(real=rng.normal(size=(80, 2)), generated=shift + rng.normal(size=(50, 2))) for _ in range(300)
    ]
    ratio = np.sqrt(np.mean([r.stderr**2 for r in runs])) / np.std([r.value for r in runs])
    assert low < ratio < high


def test_blocks_symmetry_and_invariance(monkeypatch):
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(50, 4, 3)), rng.normal(size=(37, 4, 3)) + 0.3
    whole = energy_distance(real=x, generated=y)
    moved = energy_distance(real=-x + 5.0, generated=-y + 5.0)
    swapped = energy_distance(real=y, generated=x)
    monkeypatch.setattr(distance, "ENTRIES", 100)  # blocks of two or three rows
    blocked = energy_distance(real=x, generated=y)
    for other in (moved, swapped, blocked):
        assert (other.value, other.stderr) == pytest.approx((whole.value, whole.stderr), rel=1e-9)


def test_null_floor_is_near_zero_and_uses_disjoint_halves():
    x = np.random.default_rng(3).normal(size=(1001, 5)).astype(np.float32)
    floor = null_floor(real=x)
    assert abs(floor.value) < 3 * floor.stderr
    # Sorted data must not split into low and high.
    floor = null_floor(real=np.sort(x[:, 0]))
    assert abs(floor.value) < 3 * floor.stderr


def test_refusals_say_what_is_wrong():
    x = np.zeros((10, 4, 4, 1))
    with pytest.raises(ValueError, match=r"feature shapes differ.*\(4, 4, 1\).*\(16,\)"):
        energy_distance(real=x, generated=x.reshape(10, 16))
    bad = x.copy()
    bad[3, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="generated holds NaN.* 1 of 10"):
        energy_distance(real=x, generated=bad)
    with pytest.raises(ValueError, match="at least 3"):
        energy_distance(real=x[:2], generated=x)
    with pytest.raises(TypeError):
        energy_distance(x, x)  # roles are named, never positional
