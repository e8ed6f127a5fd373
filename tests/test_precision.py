"""bfloat16 activations and products with float32 parameters and likelihoods; updates made in parts."""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import BATCH, FAMILIES, SGD
from networks import FEATURES, NETWORKS, RNG, perturbed
from variants import chosen

from genmap_jax import data
from genmap_jax.algorithm import Algorithm, in_parts
from genmap_jax.optim import Optim
from genmap_jax.run import config as configs
from genmap_jax.run import loop
from genmap_jax.tractable.flow import coupling, tarflow
from genmap_jax.tractable.flow.bijection import chain, repeat
from genmap_jax.tractable.flow.linear import rotation


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_in_halves_is_near_the_same_in_float32(name):
    """Its outputs, float32, differ by at most 2 % of their size, and by something; parameters are float32."""
    (params, whole), (half_params, half) = (NETWORKS[name][0](dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert {leaf.dtype for leaf in jax.tree.leaves(half_params)} == {jnp.dtype("float32")}
    wanted, found = (jax.jit(output)(params) for output in (whole, half))
    assert found.dtype == jnp.float32
    assert 0.0 < jnp.sqrt(jnp.square(found - wanted).mean() / jnp.square(wanted).mean()) < 0.02


WIDE_CONVOLUTIONS = {"stylegan_d": 3}
"""Its last one, at 4x4 pixels, is float32 as in the authors' code: forwards, and the gradients of input and kernel."""


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_multiply_halves_and_nothing_else(name):
    """In the gradient every convolution, and every product but the few that are told, has operands in bfloat16 only."""
    network, most = NETWORKS[name]
    params, output = network(dtype="bfloat16")
    lowered = jax.jit(jax.grad(lambda params: jnp.square(output(params)).sum())).lower(params).as_text()
    kinds = re.findall(r"(dot_general|convolution)\b.* : \(tensor<\S+x(\w+)>, tensor<\S+x(\w+)>\)", lowered)
    wide = [kind for kind, *operands in kinds if set(operands) != {"bf16"}]
    assert len(kinds) - len(wide) >= 2
    assert wide.count("convolution") == WIDE_CONVOLUTIONS.get(name, 0) and len(wide) <= most


def build(name: str, **changes) -> Algorithm:
    """A family's smallest form in another type or in parts, trained by SGD without dropout."""
    case, plain = FAMILIES[name], {"optim": SGD, "prior_optim": SGD, "dropout": 0.0}
    if name == "latent_diffusion":  # these are fields of its two models
        changes = {f"{part}.{field}": value for part in ("autoencoder", "prior") for field, value in changes.items()}
    changes |= {field: value for field, value in plain.items() if hasattr(case.config, field)}
    return case.family.algorithm(configs.replace(case.config, changes), batch_size=BATCH)


QUICK = ("gpt_images", "diffusion", "score", "vae", "ebm", "latent_diffusion", "spline_flow", "tarflow")
WITH_DENSITY = (*QUICK, "continuous_flow", "pixelcnn", "glow")


@pytest.mark.parametrize("name", chosen(WITH_DENSITY, (*QUICK, "continuous_flow")))
def test_likelihoods_are_float32_whatever_training_was(name):
    """Bit for bit, of parameters none of which are zero."""
    batch = FAMILIES[name].batch()
    state = jax.jit(build(name).init)(jax.random.key(0), batch)
    params = jax.tree.map(lambda p, change: p + 0.3 * change, state.params, perturbed(state.params))
    state = dataclasses.replace(state, params=params, ema=None)
    nats = [
        jax.jit(build(name, dtype=dtype).log_prob)(state, batch, jax.random.key(1)).nats
        for dtype in ("float32", "bfloat16")
    ]
    assert np.isfinite(nats).all()
    np.testing.assert_array_equal(*nats)


def layers(dtype: str, reversible: bool):
    """Rotations and couplings of vectors [B, 6], whose conditioners are far from their initialisation."""
    network = lambda n: coupling.ResidualNetwork(16, 1, n, dtype)  # noqa: E731
    flow = repeat(chain([rotation(6), coupling.coupling(coupling.affine(), network)]), 4, reversible=reversible)
    return flow, perturbed(jax.eval_shape(lambda: flow.init(jax.random.key(0), FEATURES[:, :6], None)))


def test_a_coupling_of_halves_is_inverted_exactly():
    """To 1e-5: both directions evaluate the same network at the same point, the half that passes unchanged."""
    network = lambda n: coupling.ResidualNetwork(16, 1, n, "bfloat16")  # noqa: E731
    layer, x = coupling.coupling(coupling.affine(), network), FEATURES[:, :6]
    params = perturbed(jax.eval_shape(lambda: layer.init(jax.random.key(0), x, None)))
    y, logdet = layer.forward(params, x, None)
    back, minus = layer.inverse(params, y, None)
    np.testing.assert_allclose(back, x, atol=1e-5)
    np.testing.assert_allclose(minus, -logdet, atol=1e-5)


def test_gradients_through_inverses_of_halves_are_near_those_of_backpropagation():
    """To 2 % of their size: an input that the inverse recomputes may round to the next bfloat16."""

    def gradient(reversible):
        flow, params = layers("bfloat16", reversible)
        return jax.grad(lambda params: sum(jnp.sum(out) for out in flow.forward(params, FEATURES[:, :6], None)))(params)

    near = lambda a, b: jnp.linalg.norm(a - b) <= 0.02 * jnp.linalg.norm(b)  # noqa: E731
    assert jax.tree.all(jax.tree.map(near, gradient(True), gradient(False)))


def test_a_cache_of_halves_decodes_what_the_whole_transformer_decodes():
    """Patches to 2 % of their size, and back to the latents."""
    cfg = dataclasses.replace(FAMILIES["tarflow"].config, dtype="bfloat16")
    z, label = jnp.asarray(RNG.normal(size=(4, 4, 16)), jnp.float32), jnp.eye(4, 10)
    params = perturbed(jax.eval_shape(lambda: tarflow.transformer_flow(cfg).init(jax.random.key(0), z, label)))
    ways = ("cached", "sequential", "jacobi")
    flows = {way: tarflow.transformer_flow(dataclasses.replace(cfg, decoding=way)) for way in ways}
    cached, *others = (jax.jit(flow.inverse)(params, z, label)[0] for flow in flows.values())
    near = lambda a, b: jnp.linalg.norm(a - b) <= 0.02 * jnp.linalg.norm(b)  # noqa: E731
    assert all(near(cached, other) for other in others)
    assert near(flows["cached"].forward(params, cached, label)[0], z)


@pytest.mark.parametrize("parts", [3, 5, 29])
def test_parts_come_back_in_order(parts):
    """Also where they do not divide the examples: an evaluation may be of any number."""
    x, keys = jnp.arange(12.0), jax.random.split(jax.random.key(0), 12)
    found, again = in_parts(lambda both: (both[0] ** 2, jax.random.key_data(both[1])), (x, keys), parts)
    np.testing.assert_array_equal(found, x**2)
    np.testing.assert_array_equal(again, jax.random.key_data(keys))


@pytest.mark.parametrize("name", chosen((*WITH_DENSITY, "cyclegan"), QUICK))
def test_an_update_in_parts_is_that_of_the_batch(name):
    """The state, chains and pools too, to 1e-6 after one SGD step, and the likelihood to 1e-5 of its size."""
    batch, states, nats = FAMILIES[name].batch(), [], []
    for parts in (1, 4):
        algorithm = build(name, accumulate=parts)
        state = jax.jit(algorithm.init)(jax.random.key(0), batch)
        if algorithm.log_prob is not None:
            nats.append(jax.jit(algorithm.log_prob)(state, batch, jax.random.key(2)).nats)
        states.append(jax.jit(algorithm.step)(state, batch, jax.random.key(1))[0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), *states)
    if nats:
        np.testing.assert_allclose(*nats, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in WITH_DENSITY if name != "latent_diffusion"])
def test_a_likelihood_in_parts_holds_a_part(name):
    """The largest array of numbers in its program, with four parts, is at most a third as large.

    In latent diffusion that is so of the prior alone."""
    largest = []
    for parts in (1, 4):
        algorithm, batch = build(name, accumulate=parts), FAMILIES[name].batch(n=1024)
        state = jax.eval_shape(algorithm.init, jax.random.key(0), batch)
        text = jax.jit(algorithm.log_prob).lower(state, batch, jax.random.key(2)).as_text()
        shapes = re.findall(r"tensor<((?:\d+x)+)f32", text)
        largest.append(max(math.prod(int(n) for n in shape.split("x")[:-1]) for shape in set(shapes)))
    assert largest[1] <= largest[0] / 3


@pytest.mark.parametrize("name", [*WITH_DENSITY, "cyclegan"])
def test_parts_must_divide_the_batch(name):
    with pytest.raises(ValueError, match=f"batch_size={BATCH} does not divide into accumulate=3 parts"):
        build(name, accumulate=3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt_images", "diffusion", "score", "vae", "glow", "tarflow"])
def test_training_in_halves_reaches_the_same_loss(name):
    """After 200 updates on digits, by the mean of the last 50: within 1 %, or within 0.01."""
    case, losses = FAMILIES[name], []
    for dtype in ("float32", "bfloat16"):
        size = {"vae": {"hidden": (64, 64)}, "glow": {"width": 8}}.get(name, {"width": 64})
        config = dataclasses.replace(case.config, **size, dtype=dtype, optim=Optim(lr=3e-3))
        algorithm = loop.keyed_by_step(case.family.algorithm(config, batch_size=64))
        source = data.load("digits", "train", reads=algorithm.reads)
        state = jax.jit(algorithm.init)(jax.random.key(0), data.batch(source, 0, 0, 64))
        step, course = jax.jit(algorithm.step), []
        for i in range(200):
            state, metrics = step(state, data.batch(source, 0, i, 64), jax.random.key(1))
            course.append(metrics["loss"])
        losses.append(float(jnp.stack(course[-50:]).mean()))
    assert losses[0] < 0.9 * float(jnp.stack(course[:10]).mean())
    assert losses[1] == pytest.approx(losses[0], rel=0.01, abs=0.01)
