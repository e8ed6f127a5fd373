"""The helpers from which train steps are written."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genmap_jax.algorithm import mean_gradient, split_batch
from genmap_jax.keys import example_keys, normal


@pytest.mark.parametrize("parts", [2, 3, 6])
def test_gradient_of_micro_batches_is_that_of_the_batch(parts):
    """Value, aux and gradient to 1e-6, with noise per example: keys stay with their examples."""
    x = jax.random.normal(jax.random.key(0), (12, 3))
    keys = example_keys(jax.random.key(1), 12)
    w = {"w": jnp.array([0.3, -1.0, 2.0])}

    def loss(params, x, keys):
        each = jnp.tanh(x @ params["w"]) * x[:, 0] + normal(keys) * params["w"][1]
        return each.mean(), {"square": (each**2).mean()}

    whole = jax.jit(lambda w: mean_gradient(loss, w, (x, keys)))(w)
    accumulated = jax.jit(lambda w: mean_gradient(loss, w, (x, keys), parts))(w)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), accumulated, whole)


def test_parts_of_a_batch_do_not_depend_on_the_split_over_devices():
    """Two devices of six give, part by part, the examples that one device of twelve gives."""
    whole = split_batch(jnp.arange(12), 3)
    halves = [split_batch(jnp.arange(6) + 6 * device, 3) for device in range(2)]
    np.testing.assert_array_equal(whole, jnp.concatenate(halves, axis=1))
    with pytest.raises(ValueError, match="batch_size: 12 .* 5 parts"):
        split_batch(jnp.arange(12), 5)
