"""bfloat16 activations and products with float32 parameters and likelihoods; updates made in parts."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import BATCH, FAMILIES, SGD

from genmap_jax import data
from genmap_jax.algorithm import in_parts
from genmap_jax.approximate import diffusion
from genmap_jax.implicit import score
from genmap_jax.optim import Optim
from genmap_jax.run import loop
from genmap_jax.spaces import images

SPACE = images(8, 8, 1, levels=17)
SMALL = {"width": 16, "blocks": 1, "channel_mult": (1, 2), "attention": (4,)}
NETWORKS = {
    "mlp": (diffusion, diffusion.Config(SPACE, width=16, blocks=1)),
    "unet": (diffusion, diffusion.Config(SPACE, network="unet", **SMALL)),
    "adm": (diffusion, diffusion.Config(SPACE, network="adm", **SMALL, head_width=8)),
    "dit": (diffusion, diffusion.Config(SPACE, network="dit", width=16, blocks=1, head_width=8)),
    "score_mlp": (score, score.Config(SPACE, width=16, blocks=1)),
    "score_conv": (score, score.Config(SPACE, network="conv", **SMALL)),
}

DEAR = pytest.param("pixelcnn", marks=pytest.mark.slow)


def perturbed(family, cfg):
    """Parameters none of which are zero, so that every layer counts."""
    init = family.algorithm(cfg, batch_size=1).init
    shapes = jax.eval_shape(init, jax.random.key(0), {"image": jnp.zeros((1, 8, 8, 1))}).params
    rng = np.random.default_rng(0)

    def draw(path, x):
        return (path[-1].key == "scale") + rng.standard_normal(x.shape) / max(1, x.size // x.shape[-1]) ** 0.5

    return jax.tree.map_with_path(lambda path, x: jnp.asarray(draw(path, x), x.dtype), shapes)


def inputs():
    rng = np.random.default_rng(1)
    return jnp.asarray(rng.normal(size=(4, 8, 8, 1)), jnp.float32), jnp.asarray([0.1, 0.5, 1.0, 3.0])


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_in_halves_is_near_the_same_in_float32(name):
    """The denoised images, float32, differ by at most 2 % of their size, and by something; parameters are float32."""
    family, cfg = NETWORKS[name]
    half, params = dataclasses.replace(cfg, dtype="bfloat16"), perturbed(family, cfg)
    assert {leaf.dtype for leaf in jax.tree.leaves(perturbed(family, half))} == {jnp.dtype("float32")}
    whole, found = (jax.jit(family.denoiser(c, params))(*inputs()) for c in (cfg, half))
    assert found.dtype == jnp.float32
    assert 0.0 < jnp.sqrt(jnp.square(found - whole).mean() / jnp.square(whole).mean()) < 0.02


@pytest.mark.parametrize("name", ["mlp", "unet", "adm", "dit"])
def test_layers_multiply_halves_and_nothing_else(name):
    """In the gradient every convolution, and every product but those of attention, has operands in bfloat16 only."""
    family, cfg = NETWORKS[name]
    cfg = dataclasses.replace(cfg, dtype="bfloat16")
    loss = lambda params, y, sigma: jnp.square(family.denoiser(cfg, params)(y, sigma)).sum()  # noqa: E731
    lowered = jax.jit(jax.grad(loss)).lower(perturbed(family, cfg), *inputs()).as_text()
    kinds = re.findall(r"(dot_general|convolution)\b.* : \(tensor<\S+x(\w+)>, tensor<\S+x(\w+)>\)", lowered)
    assert len(kinds) >= 9
    wide = [kind for kind, *operands in kinds if set(operands) != {"bf16"}]
    heads = {"mlp": 0, "unet": 3, "adm": 4, "dit": 1}[name]
    assert "convolution" not in wide and len(wide) <= 2 * heads


@pytest.mark.parametrize("name", ["gpt_images", DEAR, "diffusion", "score"])
def test_likelihoods_are_float32_whatever_training_was(name):
    case = FAMILIES[name]
    batch = case.batch()
    state = jax.jit(case.build().init)(jax.random.key(0), batch)
    nats = [
        jax.jit(case.build(dtype=dtype).log_prob)(state, batch, jax.random.key(1)).nats
        for dtype in ("float32", "bfloat16")
    ]
    np.testing.assert_array_equal(*nats)


def test_parts_come_back_in_order():
    x = jnp.arange(12.0)
    np.testing.assert_array_equal(in_parts(lambda x: x["a"] ** 2, {"a": x}, 3), x**2)


@pytest.mark.parametrize("name", ["diffusion", "score", DEAR, "gpt_images"])
def test_an_update_in_parts_is_that_of_the_batch(name):
    """Parameters to 1e-6 after one SGD step, and the likelihood to 1e-5 of its size."""
    case = FAMILIES[name]
    changes = {"optim": SGD} | ({"dropout": 0.0} if hasattr(case.config, "dropout") else {})
    batch, states, nats = case.batch(), [], []
    for parts in (1, 4):
        algorithm = case.build(accumulate=parts, **changes)
        state = jax.jit(algorithm.init)(jax.random.key(0), batch)
        nats.append(jax.jit(algorithm.log_prob)(state, batch, jax.random.key(2)).nats)
        states.append(jax.jit(algorithm.step)(state, batch, jax.random.key(1))[0].params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), *states)
    np.testing.assert_allclose(*nats, rtol=1e-5)


@pytest.mark.parametrize("name", ["diffusion", "score", "pixelcnn", "gpt_images"])
def test_parts_must_divide_the_batch(name):
    with pytest.raises(ValueError, match=f"batch_size={BATCH} does not divide into accumulate=3 parts"):
        FAMILIES[name].build(accumulate=3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt_images", "diffusion", "score"])
def test_training_in_halves_reaches_the_same_loss(name):
    """After 200 updates on digits, by the mean of the last 50: within 1 %, or within 0.01."""
    case, losses = FAMILIES[name], []
    for dtype in ("float32", "bfloat16"):
        config = dataclasses.replace(case.config, width=64, dtype=dtype, optim=Optim(lr=3e-3))
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
