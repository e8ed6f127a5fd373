"""What adversarial families share: lazy terms, image pools, batch statistics over devices, patches."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genmap_jax.algorithm import mean_terms
from genmap_jax.keys import example_keys, split
from genmap_jax.nn.batch_norm import BatchNorm, statistics
from genmap_jax.objectives import lazy, pool
from genmap_jax.objectives.discriminator import Penalties, d_terms, gradient_penalties
from genmap_jax.optim import Optim, optimizer
from genmap_jax.parallel import AXIS
from genmap_jax.spaces import vectors

# ---- lazy terms ------------------------------------------------------------------------------------------------------

W = jnp.array([1.0, -2.0, 3.0])
REAL = jax.random.normal(jax.random.key(0), (8, 3))
KEYS = example_keys(jax.random.key(1), 8)


def linear(w):
    """A D whose logit is <w, x>, and whose R1 is |w|^2."""
    return lambda x, keys: (x @ w, None)


def test_own_step_is_a_step_of_its_own_and_only_when_due():
    """SGD on 16 times (gamma / 2) |w|^2 at steps 0 and 16, with the mean over devices; nothing between them."""
    tx, gamma, n = optimizer(Optim(name="sgd", lr=0.01, clip=0.0), 8), 0.5, 16

    def penalise(step, x, keys, axis_name=None):
        loss = lambda w, x, keys: mean_terms(gradient_penalties(linear(w), x, x, keys, Penalties(r1=gamma)))  # noqa: E731
        return lazy.own_step(n, step, loss, W, tx.init(W), tx, axis_name, (x, keys))

    for step, due in ((0, True), (1, False), (15, False), (16, True)):
        w, _, value, metrics = jax.jit(penalise)(step, REAL, KEYS)
        np.testing.assert_allclose(w, W - due * 0.01 * n * gamma * W, rtol=1e-6)
        np.testing.assert_allclose([value, metrics["r1"]], [due * gamma / 2 * 14.0, due * 14.0], rtol=1e-6)
        on_8 = jax.pmap(partial(penalise, axis_name=AXIS), AXIS, in_axes=(None, 0, 0), out_axes=None)
        np.testing.assert_allclose(on_8(step, REAL.reshape(8, 1, 3), KEYS.reshape(8, 1))[0], w, rtol=1e-6)


def test_shared_lazy_terms_are_eager_on_average():
    """The mean of the loss over an interval is that with the penalty at every step, 1e-6."""
    loss = lambda every, step: d_terms(  # noqa: E731
        "hinge", linear(W), REAL, -REAL, KEYS, Penalties(r1=0.3, every=every), step=step
    )["loss"]
    lazily = jnp.mean(jnp.stack([loss(4, step) for step in range(4)]), 0)
    np.testing.assert_allclose(lazily, loss(1, 0), rtol=1e-6)


def test_corrected_adam_is_the_papers():
    """k = 16: lr x 0.94118, b2 0.99 -> 0.990585; k = 4: lr x 0.8, b2 -> 0.991992 (StyleGAN2)."""
    optim = Optim(lr=1.0, b1=0.0, b2=0.99)
    for k, lr, b2 in ((16, 0.94118, 0.990585), (4, 0.8, 0.991992)):
        new = lazy.corrected(optim, k)
        np.testing.assert_allclose([new.lr, new.b1, new.b2], [lr, 0.0, b2], rtol=1e-5)


# ---- the discriminator -----------------------------------------------------------------------------------------------


def test_logits_of_patches_count_as_their_mean():
    """A PatchGAN whose patches all say the same is a plain D: every term, 1e-6; R1 of n patches is n^2 |w|^2."""
    patches = lambda x, keys: (jnp.broadcast_to((x @ W)[:, None, None], (8, 2, 3)), None)  # noqa: E731
    penalties = Penalties(lecam=0.1)
    anchors = jnp.array([0.5, -0.5])
    plain = d_terms("least_squares", linear(W), REAL, -REAL, KEYS, penalties, anchors=anchors)
    many = d_terms("least_squares", patches, REAL, -REAL, KEYS, penalties, anchors=anchors)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), many, plain)


def test_unequal_shapes_are_refused_by_name():
    with pytest.raises(ValueError, match="fake has shape"):
        d_terms("hinge", linear(W), REAL, REAL[:, :2], KEYS)


# ---- pools -----------------------------------------------------------------------------------------------------------


def queries(B, slots, n):
    """n exchanges with images whose value is the number of the query. -> shown [n, B]"""

    def query(state, t):
        keys = example_keys(jax.random.fold_in(jax.random.key(0), t), B)
        return pool.exchange(state, jnp.full((B, 1), t, jnp.float32), keys)

    start = pool.empty(B, slots, vectors(1))
    return np.asarray(jax.jit(lambda: jax.lax.scan(query, start, jnp.arange(n)))()[1])[..., 0]


def test_pool_has_the_law_of_the_papers():
    """The first `slots` images pass; later half of those shown are new, and the others 2 slots old on average."""
    slots, n, B = 50, 1500, 64
    age = np.arange(n)[:, None] - queries(B, slots, n)
    assert (age[:slots] == 0).all()
    settled = age[1000:]
    assert abs((settled == 0).mean() - 0.5) <= 0.01
    assert abs(settled[settled > 0].mean() / (2 * slots) - 1.0) <= 0.03


def test_pool_is_that_of_a_list():
    """A Python list of images for each place, fed the same draws: exact."""
    B, slots, n = 3, 4, 40
    shown = queries(B, slots, n)
    for i in range(B):
        kept = []
        for t in range(n):
            coin, which = split(example_keys(jax.random.fold_in(jax.random.key(0), t), B))
            if len(kept) < slots:
                kept.append(t)
                expected = t
            elif jax.random.bernoulli(coin[i]):
                slot = int(jax.random.randint(which[i], (), 0, slots))
                expected, kept[slot] = kept[slot], t
            else:
                expected = t
            assert shown[t, i] == expected


def test_pool_on_eight_devices_is_that_on_one():
    """Bit for bit, with the slots split by `spec`; images carry no gradient out of the pool."""
    start = dataclasses.replace(pool.empty(16, 2, vectors(3)), filled=jnp.int32(2))
    images = jax.random.normal(jax.random.key(0), (16, 3))

    def exchange(state, images, key, axis_name=None):
        return pool.exchange(state, images, example_keys(key, len(images), axis_name))

    state, shown = jax.jit(exchange)(start, images, jax.random.key(1))
    axes = pool.Pool(images=0, filled=None)
    on_8 = jax.pmap(partial(exchange, axis_name=AXIS), AXIS, in_axes=(axes, 0, None), out_axes=(axes, 0))
    parts = lambda x: x.reshape(8, 2, *x.shape[1:])  # noqa: E731
    state_8, shown_8 = on_8(start.replace(images=parts(start.images)), parts(images), jax.random.key(1))
    np.testing.assert_array_equal(shown_8.reshape(16, 3), shown)
    np.testing.assert_array_equal(state_8.images.reshape(16, 2, 3), state.images)
    assert state_8.filled == state.filled == 2
    assert (jax.grad(lambda x: exchange(start, x, jax.random.key(1))[1].sum())(images) == 0.0).all()
    with pytest.raises(ValueError, match="slots=0"):
        pool.empty(4, 0, vectors(1))


# ---- batch statistics ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_batch_statistics_are_those_of_the_whole_batch(devices):
    """Running statistics, outputs and gradients, to parameters and through the statistics to x, on 1, 2, 8 devices."""
    x = 5.0 + 3.0 * jax.random.normal(jax.random.key(0), (16, 2, 2, 3))
    target = jax.random.normal(jax.random.key(1), x.shape)
    variables = BatchNorm().init(jax.random.key(2), x, None, False)

    def run(params, x, target, axis_name=None):
        def loss(params, x):
            out = BatchNorm(axis_name=axis_name).apply(
                {**variables, "params": params}, x, None, True, mutable=["batch_stats"]
            )
            return ((out[0] - target) ** 2).mean(), out

        (_, (y, stats)), (of_params, of_x) = jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x)
        mean = lambda tree: tree if axis_name is None else jax.lax.pmean(tree, axis_name)  # noqa: E731
        return mean((stats, of_params)), (y, of_x)

    whole, each = jax.jit(run)(variables["params"], x, target)
    parts = lambda x: x.reshape(devices, -1, *x.shape[1:])  # noqa: E731
    split_up = jax.pmap(partial(run, axis_name=AXIS), AXIS, in_axes=(None, 0, 0), out_axes=(None, 0))
    whole_n, (y, of_x) = split_up(variables["params"], parts(x), parts(target))
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, whole_n, whole)
    close(y.reshape(x.shape), each[0])
    close(of_x.reshape(x.shape) / devices, each[1])  # the mean over devices of each device's loss


def test_variance_survives_a_large_mean_and_the_affine_part_is_optional():
    x = 1000.0 + jax.random.normal(jax.random.key(0), (64, 2))
    np.testing.assert_allclose(statistics(x, None)[1], np.asarray(x, np.float64).var(0), rtol=1e-4)
    plain = BatchNorm(affine=False)
    variables = plain.init(jax.random.key(0), x, None, False)
    assert "params" not in variables
    y = plain.apply(variables, x, None, True, mutable=["batch_stats"])[0]
    np.testing.assert_allclose(y.std(0), 1.0, rtol=1e-3)
