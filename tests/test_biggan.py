"""BigGAN: its sizes, where latent and label enter, spectral norms, orthogonality, statistics, and truncation."""

import dataclasses
import functools
import math
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from genmap_jax import parallel
from genmap_jax.implicit import biggan
from genmap_jax.implicit.biggan import networks
from genmap_jax.keys import example_keys, normal, split
from genmap_jax.nn.reparametrise import normalise, orthogonality, power_step
from genmap_jax.optim import Optim
from genmap_jax.run.loop import keyed_by_step
from genmap_jax.spaces import dither, images

KEY = jax.random.key(0)
TINY = biggan.Config(
    images(8, 8, 1, levels=17), classes=3, latent=6, width=4, channels=(2, 2, 1), attention=4, embedding=5
)
PAPER = biggan.Config(images(128, 128, 3), classes=1000)


def millions(tree) -> float:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree)) / 1e6


@functools.cache
def start():
    """The state that training starts from."""
    return jax.jit(biggan.algorithm(TINY, batch_size=8).init)(KEY, {})


@functools.cache
def tiny():
    """(configuration, a state whose generator is far from where it starts)"""
    state, rng = start(), np.random.default_rng(0)
    moved = jax.tree.map(lambda p: p + 0.3 * rng.normal(size=p.shape).astype(np.float32), state.params_g)
    return TINY, state.replace(params_g=moved, ema_g={"params": moved, "batch_stats": state.stats_g})


# ---- sizes -----------------------------------------------------------------------------------------------------------


def test_networks_have_the_papers_parameters():
    """At 128 pixels: 70.4 million in G, 88.0 million in D."""
    state = jax.eval_shape(biggan.algorithm(PAPER, batch_size=8).init, KEY, {})
    assert round(millions(state.params_g), 1) == 70.4 and round(millions(state.params_d), 1) == 88.0


def test_feature_maps_end_at_four_by_four():
    """Both networks double and halve as often; D's last block keeps the resolution."""
    cfg = dataclasses.replace(PAPER, width=1, classes=2)
    D, x = networks.Discriminator(cfg), jnp.zeros((1, 128, 128, 3))
    seen = jax.eval_shape(lambda: D.init_with_output(KEY, x, jnp.zeros(1, int), capture_intermediates=True))[1]
    maps = [seen["intermediates"][f"Down_{i}"]["__call__"][0].shape[1] for i in range(6)]
    assert maps == [64, 32, 16, 8, 4, 4]
    G = networks.Generator(cfg)
    seen = jax.eval_shape(
        lambda: G.init_with_output(KEY, jnp.zeros((1, 120)), jnp.zeros(1, int), capture_intermediates=True)
    )[1]
    assert [seen["intermediates"][f"Up_{i}"]["__call__"][0].shape[1] for i in range(5)] == [8, 16, 32, 64, 128]


def test_every_matrix_starts_orthogonal():
    """W^T W or W W^T is the identity, for every kernel and embedding: 1e-5."""
    state = start()
    for path, w in jax.tree.leaves_with_path((state.params_g, state.params_d)):
        if path[-1].key in ("kernel", "embedding") or (path[-1].key == "label" and w.shape[1] == 5):
            w = w.reshape(-1, w.shape[-1])
            gram = w.T @ w if w.shape[0] >= w.shape[1] else w @ w.T
            np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-5, err_msg=str(path))


# ---- where latent and label enter ------------------------------------------------------------------------------------


@jax.jit
def blocks(params_g, stats_g, z, label):
    """The outputs of the first layer and of each block of G."""
    variables = {"params": params_g, "batch_stats": stats_g}
    _, seen = networks.Generator(TINY).apply(variables, z, label, capture_intermediates=True)
    seen = seen["intermediates"]
    return [seen["Dense_0"]["__call__"][0], *(seen[f"Up_{i}"]["__call__"][0] for i in range(TINY.depth))]


def test_a_part_of_the_latent_reaches_its_block_and_those_after_it():
    """G22: another part j leaves everything before block j as it is, bit for bit, and changes all from there on."""
    _, state = tiny()
    z, label = jax.random.normal(KEY, (2, 6)), jnp.array([0, 2])
    before = blocks(state.params_g, state.stats_g, z, label)
    for j in range(3):
        after = blocks(state.params_g, state.stats_g, z.at[:, 2 * j : 2 * j + 2].add(1.0), label)
        for i, (a, b) in enumerate(zip(before, after, strict=True)):
            assert (a != b).any() == (i >= j)


def test_a_label_reaches_every_block_through_one_embedding():
    """All normalisations share it; only labels in the batch get a gradient; without sharing each block has a table."""
    cfg, state = tiny()
    z = jax.random.normal(KEY, (2, 6))
    a, b = (blocks(state.params_g, state.stats_g, z, jnp.full(2, y)) for y in (0, 1))
    assert (a[0] == b[0]).all() and (a[1] != b[1]).any() and (a[2] != b[2]).any()
    variables = {"params": state.params_g, "batch_stats": state.stats_g}

    @jax.jit
    @jax.grad
    def of_loss(params):
        return (networks.Generator(cfg).apply({**variables, "params": params}, z, jnp.array([0, 2])) ** 2).sum()

    gradient = of_loss(state.params_g)["label"]
    assert (gradient[1] == 0.0).all() and (gradient[0] != 0.0).all() and (gradient[2] != 0.0).all()
    apart = dataclasses.replace(cfg, shared_embedding=False)
    params_g = jax.eval_shape(biggan.algorithm(apart, batch_size=8).init, KEY, {}).params_g
    tables = [p.shape for path, p in jax.tree.leaves_with_path(params_g) if path[-1].key == "label"]
    assert tables == [(3, 2 * 8)] * 3 + [(3, 2 * 4)]
    norm, x = networks.Norm(apart, None, 0.9), jax.random.normal(KEY, (2, 2, 2, 1))
    variables = norm.init(KEY, x, z[:, :0], jnp.array([0, 1]), False)
    variables["params"]["label"] = jnp.array([[0.0, 0.0], [1.0, 0.5], [0.0, 0.0]])
    y = norm.apply(variables, x, z[:, :0], jnp.array([0, 1]), False)
    np.testing.assert_allclose(y[0], jax.nn.relu(x[0]), rtol=1e-4)
    np.testing.assert_allclose(y[1], jax.nn.relu(2.0 * x[1] + 0.5), rtol=1e-4, atol=1e-5)


def test_gains_are_one_plus_a_linear_map_of_the_code():
    """At the code 0 a normalisation is plain: zero mean, unit variance, then a ReLU."""
    norm = networks.Norm(TINY, None, 0.9)
    x, code = 5.0 + jax.random.normal(KEY, (8, 4, 4, 3)), jax.random.normal(jax.random.key(1), (8, 7))
    variables = norm.init(KEY, x, code, None, False)
    run = lambda code: norm.apply(variables, x, code, None, True, mutable=["batch_stats"])[0]  # noqa: E731
    plain = (x - x.mean((0, 1, 2), keepdims=True)) / jnp.sqrt(x.var((0, 1, 2), keepdims=True) + 1e-5)
    np.testing.assert_allclose(run(0.0 * code), jax.nn.relu(plain), atol=1e-5)
    A, B = (variables["params"][name]["kernel"] for name in ("gain", "bias"))
    expected = plain * (1.0 + code @ A)[:, None, None] + (code @ B)[:, None, None]
    np.testing.assert_allclose(run(code), jax.nn.relu(expected), atol=1e-5)


def test_projection_adds_the_inner_product_of_features_and_label():
    """G9: logit(x, a) - logit(x, b) = <e_a - e_b, h(x)>, h the features summed over positions: 1e-5."""
    cfg, state = tiny()
    x, D = jax.random.normal(KEY, (4, 8, 8, 1)), networks.Discriminator(cfg)
    a, b = (biggan.discriminate(cfg, state.params_d, x, jnp.full(4, y)) for y in (0, 1))
    _, seen = D.apply({"params": state.params_d}, x, jnp.zeros(4, int), capture_intermediates=True)
    h = jax.nn.relu(seen["intermediates"]["Down_2"]["__call__"][0]).sum((1, 2))
    e = state.params_d["Embed_0"]["embedding"]
    np.testing.assert_allclose(a - b, h @ (e[0] - e[1]), rtol=1e-4, atol=1e-5)


def test_attention_is_the_identity_at_first_and_sees_all_positions_later():
    x = jax.random.normal(KEY, (1, 4, 4, 16))
    params = networks.Attention().init(KEY, x)
    np.testing.assert_array_equal(networks.Attention().apply(params, x), x)
    params["params"]["gain"] = jnp.float32(1.0)
    corner = lambda x: networks.Attention().apply(params, x)[0, 0, 0].sum()  # noqa: E731
    assert (jnp.abs(jax.grad(corner)(x)).sum(-1) > 0.0).any((0, 1)).all()  # pooling lets one of four pass


# ---- spectral norm, orthogonality ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 3, 2, 5), (1, 1, 2, 5)])  # fewer and more filters than dimensions
def test_orthogonality_is_zero_for_orthogonal_filters_and_the_papers_otherwise(shape):
    """|W^T W (1 - I)|^2 over kernels only, whatever the norm of the filters; its gradient is 4 W (W^T W (1 - I))."""
    w = jax.random.normal(KEY, shape)
    flat = np.asarray(w, np.float64).reshape(-1, 5)
    gram = flat.T @ flat
    gram -= np.diag(np.diag(gram))
    tree = lambda w: {"conv": {"kernel": w, "bias": jnp.ones(5)}, "label": jnp.ones((4, 4))}  # noqa: E731
    np.testing.assert_allclose(orthogonality(tree(w)), (gram**2).sum(), rtol=1e-5)
    gradient = jax.grad(lambda w: orthogonality(tree(w)))(w)
    np.testing.assert_allclose(gradient.reshape(-1, 5), 4.0 * flat @ gram, rtol=1e-4, atol=1e-3)
    columns = jnp.linalg.qr(np.random.default_rng(0).normal(size=(18, 5)))[0] * jnp.arange(1.0, 6.0)[None]
    assert orthogonality({"kernel": columns}) < 1e-8


def test_samples_have_spectral_norms_of_their_own_matrices():
    """Averaged kernels twice as large give the same images, to a grey level: their own norms take the factor out."""
    cfg, state = tiny()
    algorithm = biggan.algorithm(cfg, batch_size=8)
    doubled = jax.tree.map(lambda p: 2.0 * p, state.ema_g["params"])
    kernels = jax.tree.map_with_path(
        lambda path, a, b: b if path[-1].key == "kernel" else a, state.ema_g["params"], doubled
    )
    cond = {"label": jnp.array([0, 1, 2, 0])}
    sample = jax.jit(algorithm.sample, static_argnums=2)
    same = sample(state.replace(ema_g={**state.ema_g, "params": kernels}), KEY, 4, cond)
    np.testing.assert_allclose(same, sample(state, KEY, 4, cond), atol=1.0)  # a norm takes the factor out again


# ---- sampling --------------------------------------------------------------------------------------------------------


def test_truncated_latents_have_the_truncated_normal_law():
    """No entry beyond the threshold; Kolmogorov-Smirnov p > 0.01 against the law cut there."""
    z = np.asarray(biggan.latents(example_keys(KEY, 500), 8, 0.7))
    assert np.abs(z).max() <= 0.7
    assert scipy.stats.kstest(z.ravel(), scipy.stats.truncnorm(-0.7, 0.7).cdf).pvalue > 0.01
    assert scipy.stats.kstest(np.ravel(biggan.latents(example_keys(KEY, 500), 8)), "norm").pvalue > 0.01


def test_standing_statistics_are_the_mean_of_batches():
    """Over three batches written out, 1e-5; they depend on the truncation, and the running ones are left alone."""
    cfg, state = tiny()
    cfg = dataclasses.replace(cfg, standing=3, truncation=0.5)
    variables = {"params": state.params_g, "batch_stats": state.stats_g}
    stats = jax.jit(lambda v: biggan.standing_statistics(cfg, v, None))(variables)
    net = networks.Generator(cfg, None, 0.0)
    run = jax.jit(lambda z, label: net.apply(variables, z, label, True, mutable=["batch_stats"])[1]["batch_stats"])
    seen, wide = [], []
    for i in range(3):
        keys, label = example_keys(jax.random.fold_in(jax.random.key(0), i), 64), (64 * i + jnp.arange(64)) % 3
        seen.append(run(biggan.latents(keys, 6, 0.5), label))
        wide.append(run(biggan.latents(keys, 6), label))
    mean = lambda found: jax.tree.map(lambda *x: sum(x) / 3, *found)  # noqa: E731
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), stats, mean(seen))
    last = lambda found: found["BatchNorm_0"]["var"]  # noqa: E731
    assert jnp.abs(last(mean(wide)) / last(stats) - 1.0).max() > 0.05


# ---- the step --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_step_is_the_papers():
    """Two updates of D on halves of the batch, then one of G against the new D, by SGD written out: 1e-5.

    Each update divides by norms at vectors one power step on. D's rate is four times that of G, and both fall with the
    examples seen, of which an update of D sees half as many; G's loss holds the squared inner products of its filters.
    """
    B, lr = 8, 0.02
    optim = Optim(name="sgd", lr=lr, clip=0.0, decay=2 * B)
    cfg = dataclasses.replace(TINY, orthogonal=0.1, ema_halflife=None, optim=optim)
    cfg = dataclasses.replace(cfg, channels=(2, 1), latent=4, attention=0)  # quick to compile
    algorithm, rng = biggan.algorithm(cfg, batch_size=B), np.random.default_rng(0)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(algorithm.init, KEY, {}))
    drawn = lambda tree: jax.tree.map(lambda p: jnp.asarray(0.5 * rng.normal(size=p.shape), p.dtype), tree)  # noqa: E731
    fields = "params_g", "params_d", "vectors_g", "vectors_d"
    state = zeros.replace(**{name: drawn(getattr(zeros, name)) for name in fields})
    batch = {"image": rng.integers(0, 17, (B, 8, 8, 1)).astype(np.uint8)}
    batch["label"], key = np.arange(B, dtype=np.int32) % 3, jax.random.key(5)

    def draw(params, vectors, keys, label):
        key_z, key_u = split(split(keys)[0])
        variables = {"params": normalise(params, vectors), "batch_stats": state.stats_g}
        x, after = networks.Generator(cfg).apply(variables, normal(key_z, (4,)), label, True, mutable=["batch_stats"])
        return dither(jnp.tanh(x) * (16 / 17), key_u, 17), after["batch_stats"]

    @jax.jit
    def by_hand(params_g, params_d, vectors_g, vectors_d):
        down = lambda p, g, rate: jax.tree.map(lambda p, g: p - rate * g, p, g)  # noqa: E731
        keys_x, keys_d, keys_g = (example_keys(k, B) for k in jax.random.split(key, 3))
        real = cfg.space.dequantise(jnp.asarray(batch["image"]), keys_x)
        for i in range(2):
            label = jnp.asarray(batch["label"])[i::2]
            vectors_d = power_step(params_d, vectors_d)
            D = lambda p, x, label=label, v=vectors_d: biggan.discriminate(cfg, p, x, label, v)  # noqa: E731
            fake = draw(params_g, vectors_g, keys_d[i::2], label)[0]
            loss_d = lambda p, x=real[i::2], fake=fake, D=D: (  # noqa: E731
                jax.nn.relu(1.0 - D(p, x)) + jax.nn.relu(1.0 + D(p, fake))
            )
            rate = 4.0 * lr * 0.5 * (1.0 + math.cos(math.pi * i / 4))
            params_d = down(params_d, jax.grad(lambda p, loss_d=loss_d: loss_d(p).mean())(params_d), rate)
        vectors_g = power_step(params_g, vectors_g)

        def loss_g(p):
            fake, stats = draw(p, vectors_g, keys_g[1::2], label)
            return -D(params_d, fake).mean() + 0.1 * orthogonality(p), stats

        gradient, stats = jax.grad(loss_g, has_aux=True)(params_g)
        return down(params_g, gradient, lr), params_d, vectors_g, vectors_d, stats

    expected = by_hand(state.params_g, state.params_d, state.vectors_g, state.vectors_d)
    new, _ = jax.jit(algorithm.step)(state, batch, key)
    found = new.params_g, new.params_d, new.vectors_g, new.vectors_d, new.stats_g
    chex.assert_trees_all_close(found, expected, atol=1e-5, rtol=1e-4)


# ---- devices ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_statistics_samples_and_updates_do_not_depend_on_devices():
    """Two steps and samples on 1, 2 and 8 devices under pmap: 1e-5 on every leaf."""
    cfg = dataclasses.replace(TINY, optim=Optim(name="sgd", lr=1e-2, clip=0.0))
    rng = np.random.default_rng(0)
    batch = {"image": rng.integers(0, 17, (16, 8, 8, 1)).astype(np.uint8), "label": np.arange(16, dtype=np.int32) % 3}

    def run(devices):
        place = parallel.placement("pmap", devices, 16)
        algorithm = keyed_by_step(biggan.algorithm(cfg, batch_size=16, axis_name=place.axis_name))
        state = place.init(algorithm, KEY, place.put(batch))
        step = place.compile(algorithm, state)
        for _ in range(2):
            state, _ = step(state, place.put(batch), jax.random.key(1))
        samples = biggan.generate(cfg, biggan.averaged(state), jax.random.normal(KEY, (4, 6)), jnp.arange(4) % 3)
        return jax.device_get((state, samples))

    one = run(1)
    for devices in (2, 8):
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), run(devices), one)


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "batch", "said"),
    [
        ({"space": images(10, 8, 1)}, 8, "channels=.2, 2, 1. .*space.shape=.10, 8, 1."),
        ({"latent": 7}, 8, "latent=7 does not divide into the 3 parts"),
        ({"attention": 8}, 8, "attention=8: feature maps have heights .4."),
        ({"channels": (2,)}, 8, "channels=.2,."),
        ({"truncation": 0.0}, 8, "truncation=0.0"),
        ({"truncation": -1.0}, 8, "truncation=-1.0"),
        ({"loss": "wasserstein", "spectral_norm": False}, 8, "loss='wasserstein'"),
        ({}, 7, "batch_size=7 .* critic_steps=2"),
    ],
)
def test_bad_input_names_the_field_and_the_fix(changes, batch, said):
    with pytest.raises(ValueError, match=said):
        biggan.algorithm(dataclasses.replace(TINY, **changes), batch_size=batch)
