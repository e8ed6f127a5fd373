"""Every bijection: log-determinants against autodiff Jacobians, inverses both ways, composition, reversible memory.

Numbers 1, 2, 10 and 11 of the proofs of normalizing flows.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from variants import chosen

from genmap_jax.samplers import fixed_point
from genmap_jax.tractable.flow import bijection as flows
from genmap_jax.tractable.flow import coupling, images, linear

AFFINE, SPLINE = coupling.affine(), coupling.spline(bins=5, box=3.0)


def residual(outputs):
    return coupling.ResidualNetwork(16, 1, outputs)


def conv(outputs):
    return images.ConvNetwork(8, outputs)


def masked(parameters):
    return coupling.MADE(16, 1, parameters)


def glow_step(channels, reversible=False, depth=2):
    step = [linear.actnorm(), linear.rotation(channels), linear.lu(), coupling.coupling(AFFINE, conv)]
    return flows.repeat(flows.chain(step), depth, reversible=reversible)


def glow(channels, reversible=False):
    """Two levels on images of so many channels."""
    last = flows.chain([images.squeeze(), glow_step(8 * channels, reversible), linear.actnorm()])
    split = images.split_off(AFFINE, images.ConvPrior, last)
    return flows.chain([images.squeeze(), glow_step(4 * channels, reversible), split])


VECTOR, IMAGE = (6,), (8, 8, 3)
BIJECTIONS = {
    "actnorm": (linear.actnorm(), VECTOR),
    "lu": (linear.lu(), VECTOR),
    "permutation": (linear.permutation([3, 1, 5, 0, 2, 4]), VECTOR),
    "rotation": (linear.rotation(6), VECTOR),
    "affine coupling": (coupling.coupling(AFFINE, residual), VECTOR),
    "affine coupling of the first half": (coupling.coupling(AFFINE, residual, first=False), VECTOR),
    "spline coupling": (coupling.coupling(SPLINE, residual), VECTOR),
    "MAF": (coupling.autoregressive(AFFINE, masked), VECTOR),
    "spline MAF": (coupling.autoregressive(SPLINE, masked), VECTOR),
    "IAF": (flows.inverted(coupling.autoregressive(AFFINE, masked)), VECTOR),
    "actnorm of images": (linear.actnorm(), IMAGE),
    "1x1 convolution": (linear.lu(), IMAGE),
    "squeeze": (images.squeeze(), IMAGE),
    "image coupling": (coupling.coupling(AFFINE, conv), IMAGE),
    "image spline coupling": (coupling.coupling(SPLINE, conv), IMAGE),
    "Glow": (glow(3), IMAGE),
    "reversible Glow": (glow(3, reversible=True), IMAGE),
}


# One of each kind; the others are slow tests.
QUICK = ["lu", "spline coupling", "spline MAF", "IAF", "actnorm of images", "image coupling", "Glow"]


@functools.cache
def prepared(name):
    """(bijection, parameters far from the identity, two examples, a condition)."""
    bijection, shape = BIJECTIONS[name]
    x = jax.random.normal(jax.random.key(0), (2, *shape))
    cond = jax.random.normal(jax.random.key(1), (2, 4))
    params = jax.jit(bijection.init)(
        jax.random.key(2), jax.random.normal(jax.random.key(3), (16, *shape)), _rows(cond, 16)
    )
    return bijection, perturbed(params), x, cond


def _rows(cond, n):
    return jnp.resize(cond, (n, cond.shape[-1]))


def perturbed(params, scale=0.1, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: p + jnp.asarray(scale * rng.normal(size=p.shape), p.dtype), params)


def jacobian_slogdet(bijection, params, x, cond):
    def one(x, cond):
        apply = lambda x: ravel_pytree(bijection.forward(params, x.reshape(1, *shape), cond[None])[0])[0]  # noqa: E731
        return jnp.linalg.slogdet(jax.jacfwd(apply)(x.ravel()))[1]

    shape = x.shape[1:]
    return jax.jit(jax.vmap(one))(x, cond)


@pytest.mark.parametrize("name", chosen([n for n in BIJECTIONS if n != "reversible Glow"], QUICK[:-1]))
def test_log_determinant_is_that_of_the_jacobian(name):
    """float32 within 1e-4 (of 192 dimensions too), float64 within 1e-9."""
    bijection, params, x, cond = prepared(name)
    forward = jax.jit(bijection.forward)
    np.testing.assert_allclose(forward(params, x, cond)[1], jacobian_slogdet(bijection, params, x, cond), atol=1e-4)
    with jax.enable_x64(True):
        params, x, cond = jax.tree.map(lambda a: jnp.asarray(np.asarray(a, np.float64)), (params, x, cond))
        logdet = jax.jit(bijection.forward)(params, x, cond)[1]
        assert logdet.dtype == jnp.float64
        np.testing.assert_allclose(logdet, jacobian_slogdet(bijection, params, x, cond), atol=1e-9)


@pytest.mark.parametrize("name", chosen(BIJECTIONS, QUICK))
def test_inverse_both_ways(name):
    """Data to latents and back, latents to data and back; the two log-determinants cancel.

    float32 within 1e-5, and float64 within 1e-9. The latents are of no image that this Glow would see: they decode to
    values of 36, which float32 rounds by 2e-6, and with them what is encoded again.
    """

    def both_ways(params, x, cond, atol, rounding):
        forward, inverse = jax.jit(bijection.forward), jax.jit(bijection.inverse)
        z, logdet = forward(params, x, cond)
        back, inverse_logdet = inverse(params, z, cond)
        np.testing.assert_allclose(back, x, atol=atol)
        np.testing.assert_allclose(logdet + inverse_logdet, 0.0, atol=10 * atol)
        z = jax.tree.map(lambda a: jax.random.normal(jax.random.key(9), a.shape, a.dtype), z)
        x, _ = inverse(params, z, cond)
        chex_close(forward(params, x, cond)[0], z, atol + rounding * jnp.abs(x).max())

    bijection, params, x, cond = prepared(name)
    both_ways(params, x, cond, 1e-5, 5e-7)
    with jax.enable_x64(True):
        params, x, cond = jax.tree.map(lambda a: jnp.asarray(np.asarray(a, np.float64)), (params, x, cond))
        both_ways(params, x, cond, 1e-9, 0.0)


def chex_close(a, b, atol):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, atol=atol)


@pytest.mark.parametrize(
    "name", chosen(["spline coupling", "MAF", "image coupling", "Glow"], ["spline coupling", "Glow"])
)
def test_condition_matters_and_examples_do_not_mix(name):
    """Another condition gives another map; an example's result does not depend on its neighbours in the batch."""
    bijection, params, x, cond = prepared(name)
    forward = jax.jit(bijection.forward)
    z, logdet = forward(params, x, cond)
    assert float(abs(forward(params, x, cond + 1.0)[1] - logdet).max()) > 1e-3
    alone = [forward(params, x[i : i + 1], cond[i : i + 1])[1][0] for i in range(2)]
    np.testing.assert_allclose(alone, logdet, atol=2e-5)


def test_the_prior_of_a_split_is_told_the_condition():
    """Latents that are split off depend on the condition, those of the rest, here the identity, do not."""
    split = images.split_off(AFFINE, images.ConvPrior, linear.permutation([0, 1]))
    x, cond = jax.random.normal(jax.random.key(0), (2, 4, 4, 4)), jnp.eye(2)
    params = perturbed(split.init(jax.random.key(1), x, cond))
    (a, rest), _ = split.forward(params, x, cond)
    (b, same), _ = split.forward(params, x, cond[::-1])
    assert float(jnp.abs(a - b).max()) > 1e-2
    np.testing.assert_array_equal(rest, same)


@pytest.mark.parametrize("name", chosen(["MAF", "spline MAF"], ["spline MAF"]))
def test_autoregressive_inverse_by_iteration_is_the_sequential_one(name):
    """The fixed point of x <- inverse(network(x), y) is reached in at most D + 1 rounds from anywhere."""
    bijection, params, x, cond = prepared(name)
    elementwise, net = (AFFINE if name == "MAF" else SPLINE), masked((AFFINE if name == "MAF" else SPLINE).parameters)
    y, _ = bijection.forward(params, x, cond)
    step = lambda x: elementwise.inverse(net.apply({"params": params}, x, cond), y)[0]  # noqa: E731
    found, rounds = fixed_point.iterate(step, 10.0 * jnp.ones_like(y), most=20, tolerance=1e-6)
    np.testing.assert_allclose(found, bijection.inverse(params, y, cond)[0], atol=1e-5)
    assert int(rounds) <= 6 + 2
    broken = y.at[0].set(jnp.nan)  # one example does not end the iteration of the others
    step = lambda x: elementwise.inverse(net.apply({"params": params}, x, cond), broken)[0]  # noqa: E731
    again, _ = fixed_point.iterate(step, 10.0 * jnp.ones_like(y), most=20, tolerance=1e-6)
    np.testing.assert_allclose(again[1:], found[1:], atol=1e-5)


def test_made_sees_only_what_comes_before():
    """The Jacobian of output i by input j is zero for j >= i, and not for j < i."""
    net = masked(2)
    x = jax.random.normal(jax.random.key(0), (6,))
    params = perturbed(net.init(jax.random.key(1), x[None], None)["params"])
    by = jax.jacfwd(lambda x: net.apply({"params": params}, x[None], None)[0])(x)  # [D, parameters, D]
    seen = np.abs(np.asarray(by)).max(1) > 0
    np.testing.assert_array_equal(seen, np.tril(np.ones((6, 6), bool), -1))


@pytest.mark.parametrize("shape", [VECTOR, IMAGE], ids=["vectors", "images"])
def test_actnorm_normalises_the_first_batch_only(shape):
    """Mean 0 and std 1 of each feature within 1e-5 after init; a feature that never varies stays finite; the parameters
    are all that there is, so a restored state cannot be initialised a second time."""
    x = 3.0 + 2.0 * jax.random.normal(jax.random.key(0), (64, *shape))
    x = x.at[..., 0].set(7.0)
    layer = linear.actnorm()
    params = layer.init(jax.random.key(1), x, None)
    y, _ = layer.forward(params, x, None)
    flat = np.asarray(y).reshape(-1, shape[-1])
    np.testing.assert_allclose(flat.mean(0), 0.0, atol=1e-5)
    np.testing.assert_allclose(flat[:, 1:].std(0), 1.0, atol=1e-5)
    assert np.isfinite(flat).all()
    again, _ = layer.forward(params, x + 1.0, None)
    np.testing.assert_allclose((again - y)[..., 1:].mean(), np.exp(-params["log_std"][1:]).mean(), rtol=1e-3)


def test_reversible_gradients_are_the_ordinary_ones():
    """Of a whole Glow, within 1e-4 of the largest gradient, of parameters, data and condition."""
    plain, saving = glow(1), glow(1, True)
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 1))
    cond = jax.random.normal(jax.random.key(1), (4, 3))
    params = perturbed(plain.init(jax.random.key(2), x, cond))

    def loss(params, x, cond, bijection):
        return -flows.log_density(bijection, params, x, cond).mean()

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2)), static_argnums=3)
    a, b = (ravel_pytree(gradient(params, x, cond, how))[0] for how in (plain, saving))
    assert float(jnp.abs(a).max()) > 1e-2
    np.testing.assert_allclose(b, a, atol=1e-4 * float(jnp.abs(a).max()))


@pytest.mark.slow
def test_memory_of_reversible_gradients_is_flat_in_depth():
    """Temporary memory of the compiled gradient, without that of the parameters: at depth 32 at most 1.2 times that at
    depth 8, where ordinary back-propagation needs three times as much."""

    def temporary(depth, reversible):
        step = flows.chain([linear.actnorm(), linear.rotation(16), coupling.coupling(AFFINE, residual)])
        bijection = flows.repeat(step, depth, reversible=reversible)
        x = jnp.zeros((8192, 16))
        params = jax.eval_shape(bijection.init, jax.random.key(0), x, None)
        loss = lambda params, x: -flows.log_density(bijection, params, x).mean()  # noqa: E731
        compiled = jax.jit(jax.grad(loss)).lower(params, x).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    plain, saving = ([temporary(depth, r) for depth in (8, 32)] for r in (False, True))
    assert plain[1] > 3 * plain[0]
    assert saving[1] < 1.2 * saving[0]


def test_logits_of_grey_values():
    """Black, middle and white by hand; values and gradients are finite at both ends; there and back within 1e-6."""
    squash, x = images.logit(0.01), jnp.array([-1.0, 0.0, 0.5, 1.0]).reshape(1, 1, 4, 1)
    y, logdet = squash.forward({}, x, None)
    share = 0.01 + 0.98 * np.array([0.0, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(y.ravel(), np.log(share / (1 - share)), atol=1e-5)
    np.testing.assert_allclose(logdet, np.log(0.49 / (share * (1 - share))).sum(), rtol=1e-6)
    slopes = jax.vmap(jax.grad(lambda x: squash.forward({}, x.reshape(1, 1, 1, 1), None)[0].sum()))(x.ravel())
    np.testing.assert_allclose(logdet, jnp.log(slopes).sum(), rtol=1e-6)
    back, inverse_logdet = squash.inverse({}, y, None)
    np.testing.assert_allclose(back, x, atol=1e-6)
    np.testing.assert_allclose(inverse_logdet, -logdet, rtol=1e-5)
    gradient = jax.grad(lambda x: images.logit(1e-6).forward({}, x, None)[1].sum())(x)
    assert jnp.isfinite(gradient).all()


def test_the_scale_of_an_affine_map_is_bounded():
    """Whatever a network says: log-slopes within the limit, and there and back again within 1e-5."""
    elementwise = coupling.affine(limit=2.0)
    raw = jnp.stack(jnp.meshgrid(jnp.array([-1e4, -3.0, 0.0, 3.0, 1e4]), jnp.array([-1.0, 1.0])), axis=-1)
    x = jax.random.normal(jax.random.key(0), raw.shape[:-1])
    y, log_slope = elementwise.forward(raw, x)
    assert float(jnp.abs(log_slope).max()) <= 2.0 and float(jnp.abs(log_slope).min()) == 0.0
    np.testing.assert_allclose(elementwise.inverse(raw, y)[0], x, atol=1e-5)
