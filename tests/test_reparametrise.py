"""Spectral norm against the singular value decomposition, and the equalised learning rate."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from genmap_jax.nn import reparametrise

KEY = jax.random.key(0)


def largest(params):
    return jax.tree.map(lambda w: float(np.linalg.svd(np.asarray(w).reshape(-1, w.shape[-1]))[1][0]), params)


def test_power_iteration_finds_the_largest_singular_value():
    """|W u| of a normal 576 x 64 matrix over its largest singular value: < 0.9 after one iteration, > 0.94 after ten, 1
    to 1e-9 after 200, in float64; and that is what a kernel is divided by."""
    with jax.enable_x64(True):
        params = {"kernel": jax.random.normal(KEY, (3, 3, 64, 64), jnp.float64)}
        vectors, ratio, step = (
            reparametrise.start_vectors(params, jax.random.key(1)),
            {},
            jax.jit(reparametrise.power_step),
        )
        sigma = largest(params)["kernel"]
        for k in range(1, 201):
            vectors = step(params, vectors)
            ratio[k] = jnp.linalg.norm(params["kernel"].reshape(576, 64) @ vectors["kernel"]) / sigma
        assert ratio[1] < 0.9 and 0.94 < ratio[10] <= 1.0 and abs(ratio[200] - 1.0) <= 1e-9
        normal = reparametrise.normalise(params, vectors)["kernel"]
        np.testing.assert_allclose(normal, params["kernel"] / sigma, rtol=1e-6)


def test_everything_but_matrices_passes_and_the_gradient_is_that_of_the_quotient():
    """d/dW of f(W / s(W)) with s = |W u|: the part along W vanishes, for W / s does not change when W grows."""
    params = {"a": {"kernel": jax.random.normal(KEY, (5, 3)), "bias": jnp.arange(3.0)}, "gain": jnp.ones(2)}
    vectors = reparametrise.power_step(params, reparametrise.start_vectors(params, jax.random.key(1)))
    normal = reparametrise.normalise(params, vectors)
    np.testing.assert_array_equal(normal["a"]["bias"], params["a"]["bias"])
    np.testing.assert_array_equal(normal["gain"], params["gain"])
    loss = lambda p: (jnp.tanh(reparametrise.normalise(p, vectors)["a"]["kernel"]) * jnp.arange(3.0)[None]).sum()  # noqa: E731
    gradient = jax.grad(loss)(params)["a"]["kernel"]
    assert jnp.abs(gradient).max() > 0.01
    assert abs((gradient * params["a"]["kernel"]).sum()) <= 1e-5
    through = jax.grad(lambda p: sum(u.sum() for u in jax.tree.leaves(reparametrise.power_step(p, vectors))))(params)
    assert all((g == 0.0).all() for g in jax.tree.leaves(through)), "the vectors are constants"


def test_a_kernels_norm_bounds_its_convolution():
    """Circular 3x3 convolution on 16x16: its norm, the largest over frequencies, is within 3 times the kernel's."""
    kernel = np.asarray(jax.random.normal(KEY, (3, 3, 4, 5)))
    spectrum = np.fft.fft2(kernel, (16, 16), axes=(0, 1)).reshape(-1, 4, 5)
    true = np.linalg.svd(spectrum, compute_uv=False).max()
    sigma = largest({"kernel": kernel})["kernel"]
    assert sigma / 3.0 <= true <= 3.0 * sigma and abs(true / sigma - 1.0) > 0.1


def test_equalised_steps_are_the_same_share_of_every_layer():
    """One Adam step moves W by lr / sqrt(fan-in): relative to the size of W, the same for fan-in 4 and 1024, to 1 %."""
    shares = []
    for fan_in in (4, 1024):
        fresh = nn.Dense(8, use_bias=False).init(KEY, jnp.ones((1, fan_in)))["params"]
        held = reparametrise.unequalise(fresh)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), reparametrise.equalise(held), fresh)
        tx = optax.adam(0.01)
        gradient = jax.grad(lambda p: (reparametrise.equalise(p)["kernel"] * 1.7).sum())(held)
        updates, _ = tx.update(gradient, tx.init(held))
        after = reparametrise.equalise(optax.apply_updates(held, updates))["kernel"]
        moved = jnp.sqrt(((after - fresh["kernel"]) ** 2).mean())
        shares.append(float(moved * jnp.sqrt(fan_in)))  # LeCun's initialisation has standard deviation 1 / sqrt(fan-in)
    assert abs(shares[0] / shares[1] - 1.0) <= 0.01 and abs(shares[0] - 0.01) <= 1e-4
