"""Units, kinds and errors of the shared evaluation helpers, against closed forms."""

import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evaluated_runs import density, make_run
from scipy.spatial.distance import cdist
from scipy.stats import norm

from genmap_jax.algorithm import LogProb
from genmap_jax.commands.compare import compare
from genmap_jax.commands.evaluate import against_the_density, path_length
from genmap_jax.data import toy
from genmap_jax.evaluate import distance
from genmap_jax.evaluate.distance import energy_distance, null_floor
from genmap_jax.evaluate.features import Extractor
from genmap_jax.evaluate.likelihood import bits_per_dim, log_probs, summary
from genmap_jax.evaluate.resampling import bootstrap

KEY = jax.random.key(0)

# ---- likelihood ------------------------------------------------------------------------------------------------------


def test_a_uniform_byte_costs_eight_bits():
    dims = 32 * 32 * 3
    assert bits_per_dim(-dims * math.log(256.0), dims) == pytest.approx(8.0, abs=1e-12)
    assert bits_per_dim(np.array([-math.log(2.0), 0.0]), 1) == pytest.approx([1.0, 0.0])


def averaged(log_prob, state, batches, dims):
    """The mean over all batches, as a result has it."""
    found = log_probs(log_prob, state, batches, jax.random.key(0))
    return summary(found.nats, found.kind, dims, found.common_stderr)


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
    def bounded(state, batch, key):
        x = batch["x"]
        return LogProb(x, "estimate", upper=LogProb(x + 1, "upper_bound", common_stderr=jnp.full_like(x, 0.5)))

    batches = [{"x": jnp.arange(3.0)}, {"x": jnp.arange(2.0)}]
    found = log_probs(bounded, None, batches, jax.random.key(0))
    np.testing.assert_array_equal(found.nats, [0, 1, 2, 0, 1])
    np.testing.assert_array_equal(found.upper.nats, found.nats + 1)
    assert (found.kind, found.upper.kind) == ("estimate", "upper_bound")
    assert (found.common_stderr, found.upper.common_stderr) == (0.0, 0.5)
    unbounded = lambda state, batch, key: LogProb(batch["x"], "estimate")  # noqa: E731
    assert log_probs(unbounded, None, batches, jax.random.key(0)).upper is None


def test_what_all_examples_have_in_common_does_not_average_out():
    """A thousand equal examples: the whole error is the common one, of a mean and of its interval."""
    common = lambda state, batch, key: LogProb(  # noqa: E731
        jnp.zeros(len(batch["x"])), "estimate", common_stderr=jnp.full(len(batch["x"]), 0.3)
    )
    result = averaged(common, None, [{"x": jnp.zeros((500, 1))}] * 2, 1)
    assert result.n == 1000 and result.stderr == pytest.approx(0.3)
    low, high = bootstrap(np.mean, np.zeros(1000), common_stderr=0.3)
    assert (low, high) == pytest.approx((-1.96 * 0.3, 1.96 * 0.3), rel=1e-3)


def test_the_difference_of_two_runs_holds_the_error_of_both(tmp_path):
    """Paired by example, nats 1 apart in all: what is left is the error of each log Z, in quadrature."""
    folders = []
    for nats, common in ((2.0, 0.3), (3.0, 0.4)):
        likelihood = density("estimate", -nats, unit="nats") | {"nats": nats, "common_stderr": common}
        folders.append(make_run(tmp_path, f"ebm_{nats:g}", likelihood=likelihood))
        np.save(folders[-1] / "evaluation" / "nats.npy", np.full(50, nats))
    assert "-1.0000 ± 0.5000 (estimate, paired)" in compare(*folders)


def test_divergences_from_a_toy_density_hold_the_error_of_log_z():
    """Of a model that is the law itself, but for an unsure log Z: both KL divergences are 0 ± 1.96 times its error."""
    law = toy.DENSITIES["gaussians8"]

    def log_prob(state, batch, key):
        nats = law.log_prob(batch["x"])
        return LogProb(nats, "estimate", common_stderr=jnp.full_like(nats, 0.1))

    run = SimpleNamespace(
        sources={"test": SimpleNamespace(density=law)},
        algorithm=SimpleNamespace(log_prob=log_prob),
        eval_key=jax.random.key(0),
    )
    observer = SimpleNamespace(prepared=lambda run: None)
    samples = np.asarray(law.sample(jax.random.key(1), 300))
    for number in against_the_density(run, observer, samples, 0).values():
        assert number.high - number.value == pytest.approx(0.196, abs=0.01)
        assert number.value - number.low == pytest.approx(0.196, abs=0.01)


def test_the_interval_of_a_path_length_is_about_its_value():
    """Two paths in 1,000 are a thousand times as fast: the trimmed mean leaves them out, and so does its interval."""
    speed = jnp.linspace(0.9, 1.1, 1000).at[7:9].set(1000.0)
    walk = lambda state, key, t, cond: t[:, None] * speed[:, None]  # noqa: E731
    run = SimpleNamespace(algorithm=SimpleNamespace(walk=walk, reads={"x": None}), eval_key=KEY, state=None)
    seen = Extractor("x", "", "", lambda x, rounded=True: np.asarray(x, np.float64), None, None)
    (number,) = path_length(run, seen, 1000, 0).values()
    assert number.low < number.value < number.high < 2


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
