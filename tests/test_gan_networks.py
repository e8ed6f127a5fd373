"""The networks of the GAN: their fast forms against the plain ones, and where a label enters."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genmap_jax.implicit import gan
from genmap_jax.implicit.gan import networks
from genmap_jax.nn.batch_norm import BatchNorm
from genmap_jax.objectives import discriminator
from genmap_jax.spaces import images

KEY = jax.random.key(0)
DIMS = ("NHWC", "HWIO", "NHWC")
X = jax.random.normal(KEY, (2, 6, 4, 3))


# ---- convolutions ----------------------------------------------------------------------------------------------------


def test_down_is_the_convolution_of_stride_two():
    """4x4, stride 2, padding 1, with the tap (2 i + p) at K[i, ..., p]: 1e-5."""
    kernel = jax.random.normal(jax.random.key(1), (2, 2, 2, 2, 3, 5))  # i, j, p, q, in, out
    ours = networks.Down(5).apply({"params": {"Dense_0": {"kernel": kernel.reshape(48, 5), "bias": jnp.zeros(5)}}}, X)
    taps = kernel.transpose(0, 2, 1, 3, 4, 5).reshape(4, 4, 3, 5)
    plain = jax.lax.conv_general_dilated(X, taps, (2, 2), [(1, 1), (1, 1)], dimension_numbers=DIMS)
    np.testing.assert_allclose(ours, plain, atol=1e-5)


def test_up_is_the_transposed_convolution_of_stride_two():
    """4x4, stride 2, padding 1, with the tap 2 (1 - t) + p at K[t, ..., p]: 1e-5."""
    kernel = jax.random.normal(jax.random.key(1), (2, 2, 3, 2, 2, 5))  # t, s, in, p, q, out
    ours = networks.Up(5).apply({"params": {"Dense_0": {"kernel": kernel.reshape(12, 20)}}}, X)
    taps = kernel[::-1, ::-1].transpose(0, 3, 1, 4, 2, 5).reshape(4, 4, 3, 5)
    plain = jax.lax.conv_general_dilated(
        X, taps[::-1, ::-1], (1, 1), [(2, 2), (2, 2)], lhs_dilation=(2, 2), dimension_numbers=DIMS
    )
    np.testing.assert_allclose(ours, plain, atol=1e-5)


def test_grouped_convolution_is_xlas():
    x, kernel = jax.random.normal(KEY, (2, 4, 5, 6)), jax.random.normal(jax.random.key(1), (3, 3, 2, 12))
    plain = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=DIMS, feature_group_count=3)
    np.testing.assert_allclose(networks.grouped_conv(x, kernel), plain, atol=1e-5)


def test_smooth_resampling_has_the_binomial_filter():
    """A pixel becomes [1, 2, 1] / 2 along each axis; halving weighs by [1, 2, 1] / 4; constants stay."""
    pixel = jnp.zeros((1, 4, 4, 1)).at[0, 1, 2, 0].set(1.0)
    up = networks.smooth_up(pixel)[0, :, :, 0]
    np.testing.assert_array_equal(up, np.outer([0, 0.5, 1, 0.5, 0, 0, 0, 0], [0, 0, 0, 0.5, 1, 0.5, 0, 0]))
    grid = jnp.arange(36.0).reshape(1, 6, 6, 1) ** 2
    padded = np.pad(np.asarray(grid)[0, :, :, 0], ((1, 0), (1, 0)), mode="edge")
    at = lambda i, j: (padded[2 * i : 2 * i + 3, 2 * j : 2 * j + 3] * np.outer([1, 2, 1], [1, 2, 1]) / 16).sum()  # noqa: E731
    expected = [[at(i, j) for j in range(3)] for i in range(3)]
    np.testing.assert_allclose(networks.smooth_down(grid)[0, :, :, 0], expected, rtol=1e-6)


def test_r3gan_has_the_papers_parameters():
    """Conditional CIFAR-10: 20.78 million in G, 21.28 million in D."""
    cfg = gan.Config(space=images(32, 32, 3), classes=10, network="r3gan", width=768, depth=3, latent=64)
    state = jax.eval_shape(gan.algorithm(cfg, batch_size=8).init, KEY, {})
    millions = lambda tree: sum(np.prod(p.shape) for p in jax.tree.leaves(tree)) / 1e6  # noqa: E731
    assert abs(millions(state.params_g) - 20.78) < 0.005 and abs(millions(state.params_d) - 21.28) < 0.005


# ---- labels ----------------------------------------------------------------------------------------------------------

CONDITIONAL = gan.Config(space=images(4, 4, 1, 17), classes=3, width=8, depth=1, latent=4)
IMAGES, LABELS = jax.random.normal(KEY, (5, 4, 4, 1)), jnp.array([0, 1, 0, 1, 1])


def network(**changes):
    cfg = dataclasses.replace(CONDITIONAL, **changes)
    params = jax.jit(gan.Discriminator(cfg).init)(jax.random.key(1), IMAGES, LABELS)
    return gan.Discriminator(cfg), params


def test_projection_adds_the_inner_product_of_features_and_label():
    """D(x, y) = w h + b + <e_y, h>: exchanged labels change it by <e_a - e_b, h>, 1e-6."""
    h, net = jax.random.normal(KEY, (5, 8)), networks.Head(CONDITIONAL)
    params = net.init(jax.random.key(1), h, LABELS)
    dense, e = params["params"]["Dense_0"], params["params"]["Embed_0"]["embedding"]
    for labels in (LABELS, (LABELS + 1) % 3):
        expected = (h @ dense["kernel"])[:, 0] + dense["bias"] + (e[labels] * h).sum(1)
        np.testing.assert_allclose(net.apply(params, h, labels)[0], expected, atol=1e-6)


def test_a_label_beside_the_image_shows_and_an_auxiliary_classifier_sees_none():
    other = (LABELS + 1) % 3
    net, params = network(condition_d="concat")
    logits, guess = net.apply(params, IMAGES, LABELS)
    assert guess is None and (logits != net.apply(params, IMAGES, other)[0]).all()
    code = networks.append_code(IMAGES, jax.nn.one_hot(LABELS, 3))
    assert code.shape == (5, 4, 4, 4) and (code[..., 1:].argmax(-1) == LABELS[:, None, None]).all()
    net, params = network(condition_d="auxiliary")
    logits, guess = net.apply(params, IMAGES, LABELS)
    assert guess.shape == (5, 3)
    np.testing.assert_array_equal(logits, net.apply(params, IMAGES, other)[0])


def test_auxiliary_classifier_is_taught_by_both_players():
    """D and G both minimise the cross-entropy of the label: AC-GAN, on real and on generated images."""
    cfg = dataclasses.replace(CONDITIONAL, condition_d="auxiliary", auxiliary=0.5, loss="nonsaturating", r1=0.0, r2=0.0)
    entropy = -jnp.log(jnp.where(LABELS == 0, 0.7, 0.2))
    taught = lambda x, keys: (x.sum((1, 2, 3)), cfg.auxiliary * entropy)  # noqa: E731
    keys = jax.random.split(KEY, 5)
    terms = discriminator.d_terms(cfg.loss, taught, IMAGES, -IMAGES, keys, cfg.penalties)
    np.testing.assert_allclose(terms["loss"] - terms["loss_d"], 0.5 * 2.0 * entropy, rtol=1e-5)
    alone = lambda x, keys: (x.sum((1, 2, 3)), None)  # noqa: E731
    loss, without = (discriminator.g_terms(cfg.loss, judge, IMAGES, -IMAGES, keys)["loss"] for judge in (taught, alone))
    np.testing.assert_allclose(loss - without, 0.5 * entropy, rtol=1e-5)


def test_batch_norm_of_one_class_is_batch_norm():
    """Zero mean, unit variance, running statistics of decay 0.9; only labels in the batch get gradients."""
    x, plain = 3.0 + 2.0 * IMAGES, BatchNorm(None)
    variables = plain.init(KEY, x, None, False)
    y, after = plain.apply(variables, x, None, True, mutable=["batch_stats"])
    np.testing.assert_allclose(y.mean(), 0.0, atol=1e-5)
    np.testing.assert_allclose(y.var(), 1.0, atol=1e-4)
    np.testing.assert_allclose(after["batch_stats"]["mean"], 0.1 * x.mean(), rtol=1e-5)
    np.testing.assert_allclose(after["batch_stats"]["var"], 0.9 + 0.1 * x.var(), rtol=1e-5)
    still = plain.apply({**variables, **after}, x, None, False)
    np.testing.assert_allclose(still, (x - 0.1 * x.mean()) / jnp.sqrt(0.9 + 0.1 * x.var() + 1e-5), rtol=1e-4, atol=1e-5)

    one, three = BatchNorm(1), BatchNorm(3)
    z = one.apply(one.init(KEY, x, LABELS * 0, False), x, LABELS * 0, True, mutable=["batch_stats"])[0]
    np.testing.assert_allclose(z, y, atol=1e-6)
    variables = three.init(KEY, x, LABELS, False)
    loss = lambda p: (three.apply({**variables, "params": p}, x, LABELS, True) ** 3).sum()  # noqa: E731
    for gradient in jax.tree.leaves(jax.grad(loss)(variables["params"])):  # label 2 is not in the batch
        assert (gradient[:2] != 0.0).all() and (gradient[2] == 0.0).all()


@pytest.mark.parametrize(("kind", "network"), [("concat", "mlp"), ("batch_norm", "dcgan")])
def test_generated_examples_follow_their_labels(kind, network):
    """One z and two labels give two images; each example of a batch follows its own label."""
    cfg = dataclasses.replace(CONDITIONAL, network=network, condition_g=kind)
    algorithm = gan.algorithm(cfg, batch_size=4)
    state = jax.jit(algorithm.init)(KEY, {})
    blank = lambda p: jax.random.normal(jax.random.key(2), p.shape)  # noqa: E731
    state = state.replace(ema_g={**state.ema_g, "params": jax.tree.map(blank, state.ema_g["params"])})
    sample = jax.jit(algorithm.sample, static_argnums=2)
    each = [np.asarray(sample(state, jax.random.key(3), 6, {"label": jnp.full(6, y)})) for y in range(3)]
    assert (each[0] != each[1]).any((1, 2, 3)).all()
    mixed = np.asarray(sample(state, jax.random.key(3), 6, {"label": jnp.arange(6) % 3}))
    np.testing.assert_array_equal(mixed, [each[i % 3][i] for i in range(6)])
