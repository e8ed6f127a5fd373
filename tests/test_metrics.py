"""Sample-quality metrics against closed forms, SciPy and the `prdc` package."""

import dataclasses
import functools
import math
import warnings

import jax
import numpy as np
import pytest
import scipy.linalg

from genmap_jax.evaluate import distance, memorisation, quality
from genmap_jax.evaluate.diversity import inception_score, vendi_score
from genmap_jax.evaluate.frechet import frechet_distance, merge, moments
from genmap_jax.evaluate.kernel import cmmd, kernel_distance
from genmap_jax.evaluate.manifold import expected_coverage, prdc
from genmap_jax.evaluate.memorisation import authenticity, c_t, copied, nearest
from genmap_jax.evaluate.path_length import perceptual_path_length, trimmed_mean
from genmap_jax.evaluate.resampling import bootstrap, halves, jackknife, null_floor, proportion
from genmap_jax.evaluate.resize import clean_resize
from genmap_jax.samplers.interpolation import lerp, slerp

# ---- Fréchet distance ------------------------------------------------------------------------------------------------


def correlated(rng, n, d):
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) / math.sqrt(d) + rng.normal(size=d)


def whitened(rng, n, d):
    """n points with mean exactly 0 and covariance exactly I, to rounding."""
    q, _ = np.linalg.qr(np.concatenate([np.ones((n, 1)), rng.normal(size=(n, d))], axis=1))
    return q[:, 1:] * math.sqrt(n - 1)


def frechet_by(trace_of_root, x, y, dtype=np.float64):
    """The textbook formula on covariances, with the trace of (S1 S2)^(1/2) by the given function of them."""
    x, y = x.astype(dtype), y.astype(dtype)
    a, b = np.cov(x, rowvar=False, dtype=dtype), np.cov(y, rowvar=False, dtype=dtype)
    return np.square(x.mean(0) - y.mean(0)).sum() + np.trace(a) + np.trace(b) - 2 * trace_of_root(a, b)


def by_sqrtm(a, b):
    return np.trace(scipy.linalg.sqrtm(a @ b)).real


def by_eigenvalues(a, b):
    return np.sqrt(np.linalg.eigvals(a @ b).real.clip(0)).sum()


def by_eigh(a, b):
    values, vectors = np.linalg.eigh(a)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    return np.sqrt(np.linalg.eigvalsh(root @ b @ root).clip(0)).sum()


def test_frechet_closed_form_between_diagonal_gaussians():
    rng = np.random.default_rng(0)
    s, t, shift = rng.uniform(0.1, 5, size=16), rng.uniform(0.1, 5, size=16), 3 * rng.normal(size=16)
    x, y = whitened(rng, 300, 16) * np.sqrt(s), whitened(rng, 300, 16) * np.sqrt(t) + shift
    truth = np.square(shift).sum() + np.square(np.sqrt(s) - np.sqrt(t)).sum()
    assert frechet_distance(real=x, generated=y) == pytest.approx(truth, rel=1e-10)


@pytest.mark.parametrize("trace_of_root", [by_sqrtm, by_eigenvalues, by_eigh])
def test_frechet_equals_the_other_forms_at_full_rank(trace_of_root):
    rng = np.random.default_rng(1)
    x, y = correlated(rng, 600, 64), correlated(rng, 600, 64)
    assert frechet_distance(real=x, generated=y) == pytest.approx(frechet_by(trace_of_root, x, y), rel=1e-9)


@pytest.mark.filterwarnings("ignore:200 examples in 512 dimensions")
def test_frechet_of_rank_deficient_features_loses_no_digits():
    rng = np.random.default_rng(2)
    x, y = correlated(rng, 200, 512), correlated(rng, 200, 512)
    value = frechet_distance(real=x, generated=y)
    assert value == pytest.approx(frechet_by(by_eigh, x, y), rel=1e-6)
    # A multiple c x of x: the squared W2 distance is (c - 1)^2 (|m|^2 + tr S).
    truth = 0.25 * (np.square(x.mean(0)).sum() + x.var(0, ddof=1).sum())
    assert frechet_distance(real=x, generated=1.5 * x) == pytest.approx(truth, rel=1e-12)
    # Single precision is where other implementations lose: ours computes in float64 whatever it is given.
    single = [z.astype(np.float32) for z in (x, y)]
    exact = frechet_distance(real=single[0].astype(np.float64), generated=single[1].astype(np.float64))
    assert frechet_distance(real=single[0], generated=single[1]) == exact
    assert abs(frechet_by(by_eigh, *single, dtype=np.float32) / exact - 1) > 1e-5


@pytest.mark.parametrize("n", [100, 300, 1000, 3000])
def test_frechet_null_bias_is_its_leading_order_in_one_over_n(n):
    """Near I the Bures distance is |S1 - S2|^2 / 4, and E |S1 - S2|^2 = 2 d (d + 1) / n; the means add 2 d / n."""
    rng, d = np.random.default_rng(3), 64
    values = [frechet_distance(real=rng.normal(size=(n, d)), generated=rng.normal(size=(n, d))) for _ in range(3)]
    assert np.mean(values) == pytest.approx((d * (d + 1) / 2 + 2 * d) / n, rel=0.04)


def test_moments_of_batches_in_any_order_are_those_of_one_pass():
    rng = np.random.default_rng(4)
    x = 1000.0 + correlated(rng, 500, 20)
    for sizes in ([250, 250], [1, 499], [7, 300, 1, 192], [13] * 38 + [6]):
        batches = np.split(x, np.cumsum(sizes)[:-1])
        order = rng.permutation(len(batches))
        whole = functools.reduce(merge, [moments(batches[i]) for i in order])
        assert whole.n == 500
        np.testing.assert_allclose(whole.mean, x.mean(0), rtol=1e-12)
        np.testing.assert_allclose(whole.covariance, np.cov(x, rowvar=False), rtol=1e-10, atol=1e-10)
        y = x[::-1] * 1.1
        assert frechet_distance(real=whole, generated=y) == pytest.approx(
            frechet_distance(real=x, generated=moments(y)), rel=1e-10
        )


# ---- kernel distances ------------------------------------------------------------------------------------------------


def cubic(x, y):
    return (x @ y.T / x.shape[1] + 1) ** 3


def v_statistic(kernel, x, y):
    """The biased form, which counts the pair of each example with itself."""
    return kernel(x, x).mean() + kernel(y, y).mean() - 2 * kernel(x, y).mean()


def test_kernel_distance_is_unbiased_where_the_v_statistic_is_not():
    rng = np.random.default_rng(0)
    pairs = [(rng.normal(size=(100, 16)), rng.normal(size=(100, 16))) for _ in range(400)]
    within = lambda values: abs(np.mean(values)) < 3 * np.std(values) / math.sqrt(len(values))  # noqa: E731
    assert within([kernel_distance(real=x, generated=y).value for x, y in pairs])
    assert not within([v_statistic(cubic, x, y) for x, y in pairs])


def test_kernel_distance_is_the_mean_over_pairs_of_different_examples():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(7, 3)), rng.normal(size=(5, 3)) + 1
    off = lambda k: (k.sum() - np.trace(k)) / (len(k) * (len(k) - 1))  # noqa: E731
    truth = off(cubic(x, x)) + off(cubic(y, y)) - 2 * cubic(x, y).mean()
    assert kernel_distance(real=x, generated=y).value == pytest.approx(truth, rel=1e-12)


@pytest.mark.parametrize(("metric", "low", "high"), [("kernel", 0.85, 1.2), ("cmmd", 0.85, 1.15)])
def test_jackknife_error_is_the_spread_over_replicates(metric, low, high):
    rng = np.random.default_rng(2)
    statistic = kernel_distance if metric == "kernel" else functools.partial(cmmd, sigma=1.0)
    runs = [statistic(real=rng.normal(size=(80, 2)), generated=1 + rng.normal(size=(80, 2))) for _ in range(300)]
    ratio = np.sqrt(np.mean([r.stderr**2 for r in runs])) / np.std([r.value for r in runs])
    assert low < ratio < high


def gaussian_mmd(d, squared_shift, sigma):
    """MMD^2 between N(0, I) and N(shift, I).

    X - Y is N(shift, 2 I), and E exp(-|Z|^2 / (2 s)) for Z of N(m, v I) is the convolution of two Gaussians at m:
    (s / (s + v))^(d / 2) exp(-|m|^2 / (2 (s + v))). Here s = sigma^2 and v = 2, with m = 0 within a set.
    """
    s = sigma**2
    return 2 * (s / (s + 2)) ** (d / 2) * (1 - math.exp(-squared_shift / (2 * (s + 2))))


def test_cmmd_closed_form_between_gaussians():
    truth = 1000 * gaussian_mmd(8, 8.0, 10.0)
    assert truth == pytest.approx(71.056, abs=1e-3)
    rng, n = np.random.default_rng(0), 1500
    x, y, z = rng.normal(size=(n, 8)), rng.normal(size=(n, 8)) + 1, rng.normal(size=(n, 8))
    far = cmmd(real=x, generated=y)
    assert far.value == pytest.approx(truth, rel=0.03) and abs(far.value - truth) < 3 * far.stderr
    # The V-statistic counts k(x, x) = 1 once in n, in each set, where the mean is (s / (s + 2))^(d / 2).
    bias = 1000 * 2 / n * (1 - (100 / 102) ** 4)
    gap = cmmd(real=x, generated=z).value - cmmd(real=x, generated=z, unbiased=True).value
    assert gap == pytest.approx(bias, rel=0.02)


def test_cmmd_is_unbiased_if_asked():
    rng = np.random.default_rng(4)
    pairs = [(rng.normal(size=(300, 8)), rng.normal(size=(300, 8))) for _ in range(40)]
    within = lambda values: abs(np.mean(values)) < 3 * np.std(values) / math.sqrt(len(values))  # noqa: E731
    assert within([cmmd(real=x, generated=y, unbiased=True).value for x, y in pairs])
    assert not within([cmmd(real=x, generated=y).value for x, y in pairs])


def test_blocks_and_roles_of_kernel_distances(monkeypatch):
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(50, 4, 3)), rng.normal(size=(50, 4, 3)) + 0.3
    for statistic in (kernel_distance, cmmd, functools.partial(cmmd, unbiased=True)):
        whole, swapped = statistic(real=x, generated=y), statistic(real=y, generated=x)
        with monkeypatch.context() as patch:
            patch.setattr(distance, "ENTRIES", 170)  # blocks of three rows, the last of two
            blocked = statistic(real=x, generated=y)
        for other in (swapped, blocked):
            assert (other.value, other.stderr) == pytest.approx((whole.value, whole.stderr), rel=1e-9)


# ---- precision, recall, density, coverage ----------------------------------------------------------------------------


def means(result):
    return {field: value.mean() for field, value in dataclasses.asdict(result).items()}


def two_sets(n=300, m=250):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 6)), rng.normal(size=(m, 6)) * [0.6, 0.6, 0.6, 1, 1, 1] + 0.5


def test_prdc_equals_the_package_and_knows_its_roles(capsys, monkeypatch):
    package = pytest.importorskip("prdc")
    x, y = two_sets()
    ours = prdc(real=x, generated=y, allow_unequal=True)
    assert means(ours) == pytest.approx(package.compute_prdc(x, y, nearest_k=5), abs=1e-12)
    assert [len(v) for v in dataclasses.asdict(ours).values()] == [250, 300, 250, 300]
    assert 0.5 < ours.recall.mean() < ours.precision.mean() - 0.1 < 0.9  # the narrower set lies in the wider one
    swapped = prdc(real=y, generated=x, allow_unequal=True)
    np.testing.assert_array_equal(swapped.precision, ours.recall)
    np.testing.assert_array_equal(swapped.recall, ours.precision)
    monkeypatch.setattr(distance, "ENTRIES", 1000)  # blocks of three or four rows
    assert means(prdc(real=x, generated=y, allow_unequal=True)) == means(ours)


def test_prdc_of_equal_distributions():
    rng = np.random.default_rng(1)
    assert expected_coverage(2000, 5) == pytest.approx(0.96887, abs=1e-5)
    assert expected_coverage(2, 1) == pytest.approx(2 / 3)  # one of three other points is real
    # The means of 12 draws: that of one has a standard deviation of 0.022 (density) and 0.004 (coverage).
    draws = [means(prdc(real=x, generated=y)) for x, y in rng.normal(size=(12, 2, 2000, 8))]
    assert np.mean([draw["density"] for draw in draws]) == pytest.approx(1, abs=0.02)
    assert np.mean([draw["coverage"] for draw in draws]) == pytest.approx(expected_coverage(2000, 5), abs=0.006)


@pytest.mark.parametrize(("closed", "k"), [(False, 5), (True, 3)])
def test_open_and_closed_balls_where_distances_tie(closed, k):
    rng = np.random.default_rng(2)
    x, y = rng.integers(0, 6, size=(60, 2)), rng.integers(0, 6, size=(60, 2))  # squared distances are integers
    squared = lambda a, b: np.square(a[:, None] - b[None]).sum(-1)  # noqa: E731
    radius = lambda a: np.sort(squared(a, a), axis=1)[:, k]  # noqa: E731
    slack = 0.5 if closed else -0.5
    in_real, in_generated = squared(x, y) < radius(x)[:, None] + slack, squared(x, y) < radius(y)[None] + slack
    result = prdc(real=x, generated=y, k=k, closed=closed)
    np.testing.assert_array_equal(result.precision, in_real.any(0))
    np.testing.assert_array_equal(result.recall, in_generated.any(1))
    np.testing.assert_allclose(result.density, in_real.sum(0) / k, rtol=1e-15)
    np.testing.assert_array_equal(result.coverage, in_real.any(1))


def test_copies_of_one_point_lie_in_closed_balls_only():
    x = np.full((10, 3), 0.1)
    assert set(means(prdc(real=x, generated=x)).values()) == {0.0}
    assert means(prdc(real=x, generated=x, closed=True, k=3))["precision"] == 1


# ---- diversity -------------------------------------------------------------------------------------------------------


def test_class_balance_is_the_total_variation_of_likeliest_classes():
    """Samples of the first of four equal classes only: 3/4; all of them: near 0."""
    sharp = np.full((400, 4), 0.1) + 0.6 * np.eye(4)[np.arange(400) % 4]
    (one,) = quality.class_balance(held_out=sharp, generated=sharp[::4], name="x").values()
    assert one.value == pytest.approx(0.75, abs=0.1) and one.null < 0.15 and one.low <= one.value <= one.high
    (own,) = quality.class_balance(held_out=sharp, generated=sharp, name="x").values()
    assert own.value < 0.15


def test_inception_score_at_its_bounds():
    one_hot = np.eye(10)[np.arange(500) % 10]
    assert inception_score(one_hot) == pytest.approx(10, abs=1e-9)
    assert inception_score(one_hot, splits=5) == pytest.approx(10, abs=1e-9)
    assert inception_score(np.tile(np.random.default_rng(0).dirichlet(np.ones(10)), (50, 1))) == pytest.approx(
        1, abs=1e-9
    )
    assert inception_score(np.eye(2).repeat(50, axis=0), splits=2) == pytest.approx(1, abs=1e-9)  # one class in each
    # Two classes told apart with probability p: log 2 minus the entropy of p.
    p = np.tile([[0.9, 0.1], [0.1, 0.9]], (20, 1))
    entropy = -0.9 * math.log(0.9) - 0.1 * math.log(0.1)
    assert inception_score(p) == pytest.approx(2 * math.exp(-entropy), rel=1e-12)


def test_vendi_score_counts_different_directions():
    rng = np.random.default_rng(0)
    direction = rng.normal(size=12)
    assert vendi_score(rng.uniform(0.1, 5, size=(30, 1)) * direction) == pytest.approx(1, abs=1e-9)
    assert vendi_score(3 * np.linalg.qr(rng.normal(size=(12, 12)))[0]) == pytest.approx(12, abs=1e-9)
    for n, d in ((40, 5), (5, 40)):  # the N x N kernel, whichever side is the longer
        x = rng.normal(size=(n, d)) + 0.5
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        values = np.linalg.eigvalsh(unit @ unit.T / n)
        values = values[values > 1e-12]
        assert vendi_score(x) == pytest.approx(math.exp(-(values * np.log(values)).sum()), rel=1e-9)


# ---- memorisation ----------------------------------------------------------------------------------------------------


def test_c_t_and_authenticity_fall_with_the_share_of_copies():
    rng = np.random.default_rng(0)
    train, held_out, fresh = (rng.normal(size=(n, 8)) for n in (2000, 1000, 1000))
    shares, z, authentic = (0, 0.05, 0.1, 0.25, 0.5, 1), [], []
    for share in shares:
        copies = int(share * 1000)
        generated = np.concatenate([train[rng.permutation(2000)[:copies]], fresh[copies:]])
        z.append(c_t(train=train, held_out=held_out, generated=generated))
        authentic.append(100 * authenticity(train=train, generated=generated).mean())
    # A copy lies nearer than every held-out example: z falls from its null value to the lowest in proportion, up to
    # which fresh samples the copies replace. At 10 % that is -3.9 on average, plus 0.9 of a standard normal null.
    shares, z = np.array(shares), np.array(z)
    lowest, one = (
        -(1000**2) / 2 / math.sqrt(1000**2 * 2001 / 12),
        math.sqrt(1000 / 12 * 1000**2 / (1000**2 * 2001 / 12)),
    )
    assert (abs(z - (1 - shares) * z[0] - shares * lowest) <= 3 * one * np.sqrt(shares * (1 - shares)) + 1e-9).all()
    assert abs(z[0]) < 3 and (z[2:] < -3).all()
    assert (np.diff(z) < 0).all() and (np.diff(authentic) < 0).all()
    assert authentic[0] == pytest.approx(60, abs=5) and authentic[-1] == 0


def test_c_t_of_fresh_samples_is_a_z_score():
    rng = np.random.default_rng(1)
    draw = lambda n: rng.normal(size=(n, 3))  # noqa: E731
    scores = [c_t(train=draw(100), held_out=draw(60), generated=draw(80)) for _ in range(150)]
    assert abs(np.mean(scores)) < 3 / math.sqrt(150)
    assert np.std(scores) == pytest.approx(1, abs=3 / math.sqrt(2 * 150))


def test_cells_tell_copying_from_wrong_weights_of_modes():
    """Samples with the right modes in the wrong proportion: nearest-neighbour distances differ, nothing is copied."""
    rng = np.random.default_rng(2)
    narrow = lambda n: 0.1 * rng.normal(size=(n, 4))  # noqa: E731
    wide = lambda n: 20 + rng.normal(size=(n, 4))  # noqa: E731
    draw = lambda n, m: np.concatenate([narrow(n), wide(m)])  # noqa: E731
    train, held_out = draw(500, 500), draw(400, 400)
    assert c_t(train=train, held_out=held_out, generated=draw(700, 100)) < -5
    assert abs(c_t(train=train, held_out=held_out, generated=draw(700, 100), cells=2)) < 3
    copies = np.concatenate([train[:100], wide(700)])
    assert c_t(train=train, held_out=held_out, generated=copies) > 0  # hidden by the weights
    assert c_t(train=train, held_out=held_out, generated=copies, cells=2) < -5
    # A cell without samples is left out: what remains is the other cell alone.
    alone = c_t(train=train[:500], held_out=held_out[:400], generated=train[:100])
    few = np.concatenate([train[:100], wide(memorisation.LEAST - 1)])
    assert c_t(train=train, held_out=held_out, generated=few, cells=2) == pytest.approx(alone, rel=1e-12)


def test_c_t_is_the_mean_over_cells_weighted_by_held_out_examples():
    """Of adjacent cells: the nearest training example counts only if it is in the same cell."""
    from sklearn.cluster import KMeans

    rng = np.random.default_rng(5)
    train, held_out, generated = (rng.normal(size=(n, 2)) for n in (150, 500, 400))
    generated[:, 0] += 0.5  # other weights of cells than held-out data
    partition = KMeans(3, n_init=1, random_state=0).fit(train)
    t, p, q = (partition.predict(x) for x in (train, held_out, generated))
    z = [c_t(train=train[t == c], held_out=held_out[p == c], generated=generated[q == c]) for c in range(3)]
    value = c_t(train=train, held_out=held_out, generated=generated, cells=3)
    assert value == pytest.approx(np.bincount(p) @ z / 500, rel=1e-12)


def test_authenticity_has_no_fixed_null_but_held_out_data_have_the_same():
    rng = np.random.default_rng(3)
    shares = {}
    for d in (8, 32):
        train, held_out, generated = (rng.normal(size=(n, d)) for n in (2000, 1000, 1000))
        a, b = (authenticity(train=train, generated=x) for x in (held_out, generated))
        assert abs(a.mean() - b.mean()) < 3 * math.sqrt(2 * 0.25 / 1000)
        shares[d] = b.mean()
    assert shares[32] - shares[8] > 0.1


def test_authenticity_and_nearest_on_a_line(monkeypatch):
    train = np.array([[3.0], [3.0], [0.0], [1.0]])
    generated = np.array([[-0.9], [-1.1], [0.4], [1.9], [3.0], [3.1]])
    indices, distances = nearest(train=train, generated=generated)
    assert indices[:4].tolist() == [2, 2, 2, 3]
    np.testing.assert_allclose(distances, [0.9, 1.1, 0.4, 0.9, 0.0, 0.1], atol=1e-15)
    # Spacings are 0, 0, 1, 1: a copy of a repeated example is none of its own, a step away from it is.
    expected = [False, True, False, False, False, True]
    assert authenticity(train=train, generated=generated).tolist() == expected
    monkeypatch.setattr(distance, "ENTRIES", 9)  # blocks of two rows: the diagonal moves with them
    assert authenticity(train=train, generated=generated).tolist() == expected


def test_copied_counts_windows_within_rows():
    rng = np.random.default_rng(4)
    train, generated = rng.integers(0, 3, size=(20, 15)), rng.integers(0, 3, size=(30, 12))
    lines = ["".join(map(str, row)) for row in train]
    expected = []
    for row in generated:
        text = "".join(map(str, row))
        expected.append(np.mean([any(text[i : i + 5] in line for line in lines) for i in range(12 - 5 + 1)]))
    result = copied(train=train, generated=generated, window=5)
    np.testing.assert_allclose(result, expected, rtol=1e-15)
    assert 0.1 < result.mean() < 0.9
    # Bytes of any kind; 256 and 1 share a byte pattern only if the tokens are not aligned.
    assert copied(train=train.astype(np.uint8), generated=train[:2].astype(np.int64), window=15).tolist() == [1, 1]
    assert copied(train=np.array([[256, 256, 256]]), generated=np.array([[1, 1]]), window=2).tolist() == [0]


# ---- path length -----------------------------------------------------------------------------------------------------


def test_path_length_of_a_linear_decoder_is_the_squared_chord():
    rng, n = np.random.default_rng(0), 1000
    a, b, decoder = rng.normal(size=(n, 5)), rng.normal(size=(n, 5)), rng.normal(size=(5, 12))
    walk = lambda t: (((1 - t)[:, None] * a + t[:, None] * b) @ decoder).reshape(n, 2, 2, 3)  # noqa: E731
    value, values = perceptual_path_length(walk, lambda images: images.reshape(n, -1), n=n)
    chords = np.square((b - a) @ decoder).sum(1)
    np.testing.assert_allclose(values, chords, rtol=1e-8)
    assert value == trimmed_mean(values)
    # Between the 1st and the 99th percentile, both ends included: places 9 to 990 of 0 to 999.
    assert value == pytest.approx(np.sort(chords)[9:991].mean(), rel=1e-8)
    # In float32 with the lerp of a generator, to the rounding of its step.
    half = [x.astype(np.float32) for x in (a, b, decoder)]
    walk = jax.jit(lambda t: lerp(half[0], half[1], t) @ half[2])
    assert perceptual_path_length(walk, np.asarray, n=n)[0] == pytest.approx(value, rel=1e-3)


def test_path_length_of_a_curve_is_its_squared_speed():
    angle = np.linspace(0.5, 2.5, 200)
    walk = lambda t: np.stack([np.cos(angle * t), np.sin(angle * t)], axis=1)  # noqa: E731
    _, values = perceptual_path_length(walk, lambda x: x, n=200)
    np.testing.assert_allclose(values, angle**2, rtol=1e-6)


def test_slerp_keeps_length_and_turns_evenly():
    a, b = jax.random.normal(jax.random.key(0), (2, 64, 16))
    b = b / np.linalg.norm(b, axis=1, keepdims=True) * np.linalg.norm(a, axis=1, keepdims=True)
    length = np.linalg.norm(a, axis=1)
    t = np.random.default_rng(0).uniform(size=64).astype(np.float32)
    turned = lambda x: np.arccos((np.asarray(x, np.float64) * a).sum(1) / length**2)  # noqa: E731
    x = jax.jit(slerp)(a, b, t)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), length, rtol=1e-5)
    np.testing.assert_allclose(turned(x), t * turned(b), atol=1e-3)
    for path in (slerp, lerp):
        np.testing.assert_allclose(path(a, b, 0.0), a, atol=1e-6)
        np.testing.assert_allclose(path(a, b, 1.0), b, atol=1e-6)
        with jax.debug_nans(True):
            np.testing.assert_allclose(path(a, a, t), a, atol=1e-6)  # no angle, no division by zero
    np.testing.assert_allclose(lerp(a, b, 0.25), 0.75 * a + 0.25 * b, atol=1e-6)
    # Nearly parallel latents: the path is straight to first order, and float32 still tells its points apart.
    near = a + 1e-3 * b
    np.testing.assert_allclose(slerp(a, near, t) - a, t[:, None] * (near - a), atol=5e-6)


# ---- resampling ------------------------------------------------------------------------------------------------------


def test_bootstrap_interval_of_a_mean():
    rng = np.random.default_rng(0)
    x = rng.normal(size=400)
    low, high = bootstrap(np.mean, x, repeats=2000)
    assert (low + high) / 2 == pytest.approx(x.mean(), abs=0.005)
    assert high - low == pytest.approx(2 * 1.96 * x.std() / 20, rel=0.07)
    low, high = bootstrap(np.mean, x, repeats=2000, level=0.5)
    assert high - low == pytest.approx(2 * 0.6745 * x.std() / 20, rel=0.07)
    # Two arrays are resampled independently: variances add up, even if the arrays are the same.
    low, high = bootstrap(lambda a, b: (a - b).mean(), x, x, repeats=2000)
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(2) * x.std() / 20, rel=0.07)
    assert bootstrap(np.mean, x, seed=1) == bootstrap(np.mean, x, seed=1) != bootstrap(np.mean, x, seed=2)
    covered = [low < 0 < high for low, high in (bootstrap(np.mean, rng.normal(size=100)) for _ in range(300))]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.045)


def test_bootstrap_of_a_biased_statistic_holds_its_value():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(200, 16)), rng.normal(size=(200, 16))
    statistic = lambda a, b: frechet_distance(real=a, generated=b)  # noqa: E731
    low, high = bootstrap(statistic, x, y)
    assert low < statistic(x, y) < high
    draw = lambda z: z[rng.integers(200, size=200)]  # noqa: E731
    assert min(statistic(draw(x), draw(y)) for _ in range(50)) > high  # plain resamples lie beside it, all of them
    spread = np.std([statistic(rng.normal(size=(200, 16)), rng.normal(size=(200, 16))) for _ in range(100)])
    assert 0.5 < (high - low) / (4 * spread) < 2


def test_halves_of_a_mean_have_the_spread_of_its_sets():
    """The interval of several numbers at once, against the normal one; nothing is drawn twice."""
    x = np.random.default_rng(0).normal(size=(400, 3))

    def statistic(x):
        assert len(x) in (200, 400) and len(np.unique(x[:, 0])) == len(x)
        return x.mean(0)

    low, high = halves(statistic, x, repeats=1000)
    np.testing.assert_allclose((low + high) / 2, x.mean(0), atol=1e-12)
    np.testing.assert_allclose(high - low, 2 * 1.96 * x.std(0) / 20, rtol=0.1)
    with pytest.raises(ValueError, match="at least 4"):
        halves(statistic, x[:3])


def test_the_interval_of_a_share_has_a_width_at_its_ends():
    """Of 250 true of none: up to 1.5 %, where a bootstrap has no width; of 0.99 it holds in 93 to 99 % of 500 sets."""
    low, high = proportion(np.zeros(250, bool))
    assert low == pytest.approx(0, abs=1e-12) and high == pytest.approx(0.0151, abs=2e-4)
    rng = np.random.default_rng(0)
    held = [low <= 0.99 <= high for low, high in (proportion(rng.random(250) < 0.99) for _ in range(500))]
    assert 0.93 < np.mean(held) < 0.99


def test_intervals_of_shares_that_all_samples_have_are_not_points():
    """Samples in the midst of the data: precision and authenticity say 1 and 0, but 60 examples cannot be so sure."""
    rng = np.random.default_rng(0)
    held_out, generated = rng.normal(size=(120, 4)), 0.05 * rng.normal(size=(60, 4))
    numbers = quality.neighbours(held_out=held_out, generated=generated, name="x")
    precision = numbers["precision-x"]
    assert precision.value == precision.high == 1 and 0.9 < precision.low < 0.95
    copies, _, _ = quality.memorised(train=held_out, held_out=held_out + 0.1, generated=held_out[:60])
    assert copies["AuthPct"].value == 0 and 4 < copies["AuthPct"].high < 8


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_intervals_of_a_distance_cover_without_being_too_wide(shift):
    """Energy distance of equal and of different laws in four dimensions, 100 pairs of 60: 88 % or more are held, and
    the mean width is 0.85 to 1.35 of that of the spread; a bootstrap's is 1.7 between equal laws."""
    rng = np.random.default_rng(0)
    statistic = lambda x, y: distance.energy_distance(real=x, generated=y).value  # noqa: E731
    draw = lambda: (rng.normal(size=(60, 4)), shift + rng.normal(size=(60, 4)))  # noqa: E731
    null_sd = np.std([statistic(x, y[::-1] - shift) for x, y in (draw() for _ in range(100))])
    found = []
    for _ in range(100):
        x, y = draw()
        found.append((statistic(x, y), *jackknife(statistic, x, y, null_sd=null_sd)))
    value, low, high = np.array(found).T
    assert np.mean((low <= value.mean()) & (value.mean() <= high)) >= 0.88
    assert 0.85 < (high - low).mean() / (2 * 1.96 * value.std()) < 1.35
    with pytest.raises(ValueError, match="array 0 60, array 1 59"):
        jackknife(statistic, x, y[:-1], null_sd=null_sd)


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.0, 0.1])
def test_intervals_of_distances_cover(shift):
    """FD and KD of equal and different laws, D = 64, N = 250, 40 repetitions: 95 % intervals hold the mean value in
    0.88 or more, and are at most 1.35 times as wide as the spread asks for; a bootstrap's are 1.7 to 2.3 times."""
    rng, found = np.random.default_rng(0), {"FD-x": [], "KD-x": []}
    for seed in range(40):
        held_out, generated = rng.normal(size=(500, 64)), shift + rng.normal(size=(250, 64))
        for name, number in quality.distances(held_out=held_out, generated=generated, name="x", seed=seed).items():
            found[name].append((number.value, number.low, number.high))
    for name, numbers in found.items():
        value, low, high = np.array(numbers).T
        assert np.mean((low <= value.mean()) & (value.mean() <= high)) >= 0.88, name
        assert 0.85 < (high - low).mean() / (2 * 1.96 * value.std()) < 1.35, name


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.0, 0.2])
def test_intervals_of_neighbours_cover(shift):
    """Equal and different laws, D = 64, N = 250, 80 repetitions: each 95 % interval holds its expectation, which 300
    further pairs give, in 0.88 or more. (The terms of one pair, resampled with the balls held fixed: 0.70 to 0.86.)"""
    rng, fields = np.random.default_rng(0), ("precision", "recall", "density", "coverage")
    draw = lambda: (rng.normal(size=(500, 64)), shift + rng.normal(size=(250, 64)))  # noqa: E731
    pairs = [prdc(real=x[:250], generated=y) for x, y in (draw() for _ in range(300))]
    truth = {field: np.mean([getattr(pair, field).mean() for pair in pairs]) for field in fields}
    held = dict.fromkeys(fields, 0)
    for seed in range(80):
        held_out, generated = draw()
        numbers = quality.neighbours(held_out=held_out, generated=generated, name="x", seed=seed)
        for field in fields:
            number = numbers[f"{field}-x"]
            held[field] += number.low <= truth[field] <= number.high
    assert all(count / 80 >= 0.88 for count in held.values()), held


def test_null_floor_draws_disjoint_parts_of_the_size_asked_for():
    pool = np.arange(1000)
    seen = []

    def statistic(*, real, generated):
        assert len(real) == len(generated) == 300 and len({*real, *generated}) == 600
        seen.append(real)
        return real.mean() - generated.mean()

    mean, sd = null_floor(statistic, pool, n=300, repeats=200)
    # Disjoint parts of a finite pool: Var (mean a - mean b) = 2 S^2 / n, whatever the size of the pool.
    assert sd == pytest.approx(pool.std(ddof=1) * math.sqrt(2 / 300), rel=0.15)
    assert abs(mean) < 3 * sd / math.sqrt(200)
    assert not np.array_equal(seen[0], seen[1])
    both, _ = null_floor(lambda real, generated: np.array([1.0, len(real)]), pool, n=10, repeats=2)
    assert both.tolist() == [1, 10]
    with pytest.raises(ValueError, match="pool has 1000 examples.*need 1002"):
        null_floor(statistic, pool, n=501)


# ---- resize ----------------------------------------------------------------------------------------------------------


def bicubic(size_in, size_out):
    """Keys' cubic with a = -1/2, widened by the reduction (antialias), cut and normalised at the borders. [out, in]"""
    scale = max(size_in / size_out, 1.0)
    centers = (np.arange(size_out) + 0.5) * size_in / size_out
    x = np.abs((np.arange(size_in) + 0.5)[None] - centers[:, None]) / scale
    weights = np.where(x < 1, 1.5 * x**3 - 2.5 * x**2 + 1, np.where(x < 2, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2, 0.0))
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("size", [(11, 7), (32, 20), (64, 45)])
def test_clean_resize_is_antialiased_bicubic_without_rounding(size):
    images = np.random.default_rng(0).uniform(0, 255, size=(2, 32, 20, 3))
    result = clean_resize(images, size)
    truth = np.einsum("yh,nhwc,xw->nyxc", bicubic(32, size[0]), images, bicubic(20, size[1]))
    assert result.shape == (2, *size, 3) and result.dtype == np.float32
    np.testing.assert_allclose(result, truth, atol=1e-4)  # of 255: rounding to bytes misses by 0.5
    np.testing.assert_allclose(clean_resize(images / 255, size), truth / 255, atol=1e-6)  # in any unit


def test_clean_resize_keeps_the_overshoot_at_an_edge():
    edge = np.tile(np.repeat([0.0, 255.0], 8), (16, 1))[None, :, :, None]
    result = clean_resize(edge, (64, 64))
    assert result.min() < -5 and result.max() > 260


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", [frechet_distance, kernel_distance, cmmd, prdc])
def test_two_sample_metrics_refuse_what_cannot_be_compared(metric):
    x = np.random.default_rng(0).normal(size=(20, 4))
    bad = x.copy()
    bad[3, 1] = np.nan
    with pytest.raises(ValueError, match="generated holds NaN.* 1 of 20"):
        metric(real=x, generated=bad)
    bad[3, 1] = np.inf
    with pytest.raises(ValueError, match="real holds NaN or inf.* 1 of 20"):
        metric(real=bad, generated=x)
    with pytest.raises(ValueError, match=r"feature dimensions differ: real \(4,\), generated \(3,\)"):
        metric(real=x, generated=x[:, :3])
    with pytest.raises(ValueError, match="generated has .*give at least"):
        metric(real=x, generated=x[:1])
    with pytest.raises(TypeError):
        metric(x, x)  # roles are named, never positional


def test_unequal_numbers_are_refused_where_the_bias_depends_on_them():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 4)), rng.normal(size=(15, 4))
    for metric in (frechet_distance, prdc):
        with pytest.raises(ValueError, match="real 20, generated 15.*allow_unequal"):
            metric(real=x, generated=y)
        metric(real=x, generated=y, allow_unequal=True)
    with pytest.raises(ValueError, match="real 20, generated 15.*allow_unequal"):
        frechet_distance(real=moments(x), generated=y)
    with pytest.raises(ValueError, match="real 20, generated 15.*unbiased"):
        cmmd(real=x, generated=y)
    cmmd(real=x, generated=y, unbiased=True)
    kernel_distance(real=x, generated=y)


def test_frechet_warns_when_a_covariance_is_singular():
    x = np.random.default_rng(0).normal(size=(16, 16))
    with pytest.warns(UserWarning, match="16 examples in 16 dimensions.*kernel_distance"):
        frechet_distance(real=x, generated=x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frechet_distance(real=x[:, :15], generated=x[:, :15])


def test_other_refusals_say_what_to_do():
    x = np.random.default_rng(0).normal(size=(30, 4))
    with pytest.raises(ValueError, match="real has shape .*at least 6"):
        prdc(real=x[:5], generated=x[:5])
    for rows in (x, np.abs(x), np.array([[1.5, -0.5]])):
        with pytest.raises(ValueError, match="softmax"):
            inception_score(rows)
    with pytest.raises(ValueError, match="features has 1 examples of length zero"):
        vendi_score(x * (np.arange(30) > 0)[:, None])
    with pytest.raises(ValueError, match="no cell.*fewer cells"):
        c_t(train=x, held_out=x[:10], generated=x)
    with pytest.raises(ValueError, match="feature dimensions differ: train"):
        nearest(train=x, generated=x[:, :2])
    with pytest.raises(ValueError, match="train has shape .*integers"):
        copied(train=x, generated=np.zeros((2, 40), int))
    with pytest.raises(ValueError, match="generated has rows of 20 tokens"):
        copied(train=np.zeros((2, 40), int), generated=np.zeros((2, 20), int))
    with pytest.raises(ValueError, match="floats"):
        clean_resize(np.zeros((1, 8, 8, 3), np.uint8), (4, 4))
    with pytest.raises(ValueError, match="here holds NaN"):
        perceptual_path_length(lambda t: t[:, None] * np.nan, lambda x: x, n=10)
    with pytest.raises(ValueError, match="level"):
        bootstrap(np.mean, x, level=95)
