"""The flows as models: mass one, known optima, dequantisation against enumeration, decoders that agree."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from variants import chosen

from genmap_jax.data import toy
from genmap_jax.optim import Optim
from genmap_jax.spaces import Space, images, vectors
from genmap_jax.tractable.flow import dequantisation, glow, linear, spline, tarflow
from genmap_jax.tractable.flow.bijection import Bijection, chain, log_density
from genmap_jax.tractable.flow.density import flow_algorithm


def trained(algorithm, draw, steps, batch=256):
    """The state after so many steps on `draw(key) -> batch`."""
    state = jax.jit(algorithm.init)(jax.random.key(0), draw(jax.random.key(1)))
    step, metrics = jax.jit(algorithm.step, donate_argnums=0), {}
    for i in range(steps):
        state, metrics = step(state, draw(jax.random.key(2 + i)), jax.random.key(10**6 + i))
    return state, metrics


@functools.cache
def moons_flow():
    cfg = spline.Config(space=vectors(2), layers=3, width=32, blocks=1, optim=Optim(lr=3e-3))
    algorithm = spline.algorithm(cfg, batch_size=256)
    draw = jax.jit(lambda key: {"x": toy.DENSITIES["moons"].sample(key, 256)})
    return cfg, algorithm, trained(algorithm, draw, 300)[0]


def test_a_trained_flow_integrates_to_one():
    """Sum of exp(log p) over a grid of the plane, 1 within 1e-3, after training: mass is neither lost nor made."""
    cfg, algorithm, state = moons_flow()
    edge = np.arange(-8.0, 8.0, 0.04)
    grid = np.stack(np.meshgrid(edge, edge), -1).reshape(-1, 2).astype(np.float32)
    log_p = jax.jit(lambda x: log_density(spline.flow(cfg), state.params["flow"], x))
    mass = sum(np.exp(np.asarray(log_p(part), np.float64)).sum() for part in np.split(grid, 10)) * 0.04**2
    assert abs(mass - 1.0) <= 1e-3


def test_inverse_after_training():
    """Data to latents and back after 300 noisy steps, within 1e-4."""
    cfg, _, state = moons_flow()
    x = toy.DENSITIES["moons"].sample(jax.random.key(5), 2000)
    flow, params = spline.flow(cfg), state.params["flow"]
    z, there = flow.forward(params, x, None)
    back, logdet = flow.inverse(params, z, None)
    np.testing.assert_allclose(back, x, atol=1e-4)
    np.testing.assert_allclose(there + logdet, 0.0, atol=1e-3)


@pytest.mark.slow
def test_affine_flow_reaches_the_entropy_of_a_gaussian():
    """Known optimum: an affine flow on a full-covariance Gaussian of 4 dimensions, negative log-likelihood within
    1e-3."""
    a = np.random.default_rng(0).normal(size=(4, 4)) / 2 + np.eye(4)
    steps = 1500
    optim = Optim(lr=1e-2, decay=steps * 1024, final=0.0)
    cfg = spline.Config(space=vectors(4), layers=2, transform="affine", width=16, blocks=1, optim=optim)
    algorithm = spline.algorithm(cfg, batch_size=1024)
    draw = jax.jit(lambda key: {"x": jax.random.normal(key, (1024, 4)) @ jnp.asarray(a.T, jnp.float32)})
    state, _ = trained(algorithm, draw, steps)
    x = jax.random.normal(jax.random.key(9), (200_000, 4)) @ jnp.asarray(a.T, jnp.float32)
    truth = scipy.stats.multivariate_normal.logpdf(np.asarray(x, np.float64), cov=a @ a.T)
    kl = float((truth - log_density(spline.flow(cfg), state.params["flow"], x)).mean())
    assert abs(kl) <= 1e-3


def test_linear_layers_recover_a_covariance():
    """Actnorm and an LU matrix on Gaussian vectors end with W^-1 W^-T = the covariance of the data, within 1e-3."""
    flow = chain([linear.actnorm(), linear.lu()])
    a = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)) / 2 + np.eye(4), jnp.float32)
    x = jax.random.normal(jax.random.key(0), (2000, 4)) @ a.T
    tx = optax.adam(optax.cosine_decay_schedule(2e-2, 2000))

    @jax.jit
    def fit(params):
        def step(carry, _):
            params, state = carry
            gradients = jax.grad(lambda p: -log_density(flow, p, x).mean())(params)
            updates, state = tx.update(gradients, state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), None, length=2000)[0][0]

    params = fit(flow.init(jax.random.key(1), x, None))
    back, _ = flow.inverse(params, jnp.concatenate([jnp.zeros((1, 4)), jnp.eye(4)]), None)
    root = np.asarray(back[1:] - back[:1]).T  # data = mean + root @ latent
    np.testing.assert_allclose(root @ root.T, np.cov(np.asarray(x).T, bias=True), atol=1e-3)
    np.testing.assert_allclose(back[0], np.asarray(x).mean(0), atol=1e-3)


@pytest.mark.slow
def test_inverse_of_24_layers_after_training():
    """Data to latents and back within 1e-4 after 1,000 noisy steps, and within 1e-5 at the start."""
    cfg = spline.Config(space=vectors(2), layers=24, width=16, blocks=1, optim=Optim(lr=1e-3))
    algorithm = spline.algorithm(cfg, batch_size=64)
    draw = jax.jit(lambda key: {"x": toy.DENSITIES["gaussians8"].sample(key, 64)})
    flow, x = spline.flow(cfg), toy.DENSITIES["gaussians8"].sample(jax.random.key(5), 2000)
    there, back = (jax.jit(f) for f in (flow.forward, flow.inverse))
    for steps, bar in ((0, 1e-5), (1000, 1e-4)):
        state = trained(algorithm, draw, steps, 64)[0]
        z, _ = there(state.params["flow"], x, None)
        np.testing.assert_allclose(back(state.params["flow"], z, None)[0], x, atol=bar)


# ---- dequantisation --------------------------------------------------------------------------------------------------

TINY = Space((2, 2, 1), 3)


def identity_flow(scale=0.6):
    """z = x / scale: a density that is known in closed form."""
    return Bijection(
        lambda key, x, cond: {},
        lambda params, x, cond: (x / scale, jnp.full(len(x), -x[0].size * math.log(scale))),
        lambda params, z, cond: (z * scale, jnp.full(len(z), z[0].size * math.log(scale))),
    )


def cell_probability(scale=0.6):
    """log P(v) of one pixel of three grey values under N(0, scale^2), float64, exactly."""
    edges = np.array([-1.0, -1 / 3, 1 / 3, 1.0]) / scale
    cdf = np.array([0.5 * (1 + math.erf(e / math.sqrt(2))) for e in edges])
    return np.log(np.diff(cdf))


def all_images():
    return jnp.asarray(np.array(np.meshgrid(*[range(3)] * 4)).reshape(4, -1).T.reshape(-1, 2, 2, 1), jnp.uint8)


def bound(dequantise, draws=4000):
    """Mean over draws of the one-sample bound, for each of the 81 images of four pixels and three grey values."""
    v = all_images()

    def one(key):
        x, log_ratio = dequantise(v, jax.random.split(key, len(v)))
        return log_density(identity_flow(), {}, x) + log_ratio

    return np.asarray(jax.jit(lambda keys: jax.lax.map(one, keys).mean(0))(jax.random.split(jax.random.key(0), draws)))


def test_uniform_dequantisation_is_a_bound_with_the_known_gap():
    """Below log P(v) for every one of 81 images; the gap is that of the closed form within 0.04, four standard errors
    of the mean of draws, and not zero."""
    exact = cell_probability()[np.asarray(all_images()).reshape(81, 4)].sum(1)
    got = bound(functools.partial(dequantisation.uniform, TINY))
    # E_u[log N(x; 0, s)] + log(2 / 3) of a cell from a to b: -(b^3 - a^3) / (3 (b - a)) / (2 s^2) + constants
    a, b, s = np.array([-1.0, -1 / 3, 1 / 3]), np.array([-1 / 3, 1 / 3, 1.0]), 0.6
    cell = -(b**3 - a**3) / (3 * (b - a)) / (2 * s * s) - 0.5 * math.log(2 * math.pi * s * s) + math.log(2 / 3)
    np.testing.assert_allclose(got, cell[np.asarray(all_images()).reshape(81, 4)].sum(1), atol=0.04)
    assert (got < exact).all() and (exact - got).max() > 0.05


def exact_posterior():
    """The bijection whose inverse maps noise to the logit of u ~ p(u | v) under N(0, 0.6^2), by the normal CDF."""

    def inverse(params, eps, grid):
        cell = jnp.round(grid + 1.0).astype(jnp.int32)  # grid -1, 0, 1 -> 0, 1, 2
        low = (2.0 * cell / 3.0 - 1.0) / 0.6
        high = (2.0 * (cell + 1) / 3.0 - 1.0) / 0.6
        cdf = jax.scipy.special.ndtr

        def one(eps, low, high):
            x = jax.scipy.special.ndtri(cdf(low) + cdf(eps) * (cdf(high) - cdf(low)))
            u = (x - low) / (high - low)
            return jnp.log(u) - jnp.log1p(-u)

        t = one(eps, low, high)
        slope = jax.vmap(jax.grad(one))(eps.ravel(), low.ravel(), high.ravel()).reshape(eps.shape)
        return t, jnp.log(slope).reshape(len(eps), -1).sum(-1)

    return Bijection(lambda key, x, cond: {}, lambda *_: None, inverse)


def test_variational_dequantisation_has_no_gap_with_the_exact_posterior():
    """Within 1e-3 of log P(v) of every image, and with any single draw: the bound is tight where q is p(u | v)."""
    exact = cell_probability()[np.asarray(all_images()).reshape(81, 4)].sum(1)
    got = bound(lambda v, keys: dequantisation.variational(TINY, exact_posterior(), {}, v, keys), draws=4)
    np.testing.assert_allclose(got, exact, atol=1e-3)


def test_bits_per_dim_of_a_hand_value():
    """A flow that is uniform on [-1, 1)^D gives log2(levels) bits per dimension: (nll + D log 256) / (D log 2)."""
    space = images(2, 2, 1, 256)
    x, log_ratio = dequantisation.uniform(
        space, jnp.zeros((3, 2, 2, 1), jnp.uint8), jax.random.split(jax.random.key(0), 3)
    )
    nats = -4 * math.log(2.0) + log_ratio  # the density of the uniform law is 1 / 2 per dimension
    np.testing.assert_allclose(-nats / (4 * math.log(2)), 8.0, rtol=1e-6)
    assert x.min() >= -1.0


# ---- TarFlow ---------------------------------------------------------------------------------------------------------

TAR = tarflow.Config(
    space=images(4, 4, 1, 17), patch=1, flows=2, layers=2, width=16, heads=2, classes=3, group=4, tolerance=1e-6
)


def perturbed(params, scale=0.3):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda p: p + jnp.asarray(scale * rng.normal(size=p.shape), p.dtype), params)


@functools.cache
def tar_params():
    x = jax.random.normal(jax.random.key(0), (4, 4, 4, 1))
    return perturbed(tarflow.flow(TAR).init(jax.random.key(1), x, jnp.eye(3)[jnp.array([0, 1, 2, 0])]), 0.1)


@pytest.mark.parametrize("guidance", chosen([1.0, 2.5], [1.0]))
def test_decoders_of_tarflow_agree(guidance):
    """Sequential, cached and Jacobi decoding give the same images within 1e-4, also with guidance, and their
    log-determinants; the patches found are those whose latents were given."""
    z = jax.random.normal(jax.random.key(2), (4, 16, 1))
    cond = jnp.eye(3)[jnp.array([0, 1, 2, 0])]
    found = {}
    for decoding in ("sequential", "cached", "jacobi"):
        flow = tarflow.flow(dataclasses.replace(TAR, decoding=decoding, guidance=guidance))
        found[decoding] = jax.jit(flow.inverse)(tar_params(), z, cond)
    for decoding in ("cached", "jacobi"):
        for a, b in zip(found[decoding], found["sequential"], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)
    if guidance == 1.0:
        again, _ = tarflow.flow(TAR).forward(tar_params(), found["cached"][0], cond)
        np.testing.assert_allclose(again, z, atol=1e-4)


@pytest.mark.slow
def test_tarflow_log_determinant_is_that_of_the_jacobian():
    flow, x = tarflow.flow(TAR), jax.random.normal(jax.random.key(3), (1, 4, 4, 1))
    cond = jnp.eye(3)[:1]
    apply = lambda x: flow.forward(tar_params(), x.reshape(1, 4, 4, 1), cond)[0].ravel()  # noqa: E731
    exact = jnp.linalg.slogdet(jax.jacfwd(apply)(x.ravel()))[1]
    np.testing.assert_allclose(flow.forward(tar_params(), x, cond)[1][0], exact, atol=1e-4)


def test_a_patch_is_told_of_earlier_patches_only():
    """One transformer's Jacobian is lower triangular over patches, with every earlier patch used."""
    flow, x = tarflow.transformer_flow(TAR), jax.random.normal(jax.random.key(3), (16,))
    params = tar_params()[1]
    by = jax.jacfwd(lambda x: flow.forward(params, x.reshape(1, 16, 1), jnp.eye(3)[:1])[0].ravel())(x)
    np.testing.assert_array_equal(np.abs(np.asarray(by)) > 0, np.tril(np.ones((16, 16), bool)))


def test_guidance_without_weight_is_the_model():
    """The guided evaluation at a weight next to 1 equals the conditional one; at weight 2 it differs."""
    cond = jnp.eye(3)[jnp.array([0, 1, 2, 0])]
    x, params = jax.random.normal(jax.random.key(4), (4, 16, 1)), tar_params()[1]
    plain, _ = tarflow.evaluator(TAR, params, cond)(x, None, 0)
    tiny, _ = tarflow.evaluator(dataclasses.replace(TAR, guidance=1.0 + 1e-6), params, cond)(x, None, 0)
    strong, _ = tarflow.evaluator(dataclasses.replace(TAR, guidance=2.0), params, cond)(x, None, 0)
    np.testing.assert_allclose(tiny, plain, atol=1e-5)
    assert float(jnp.abs(strong - plain).max()) > 1e-3


def test_guidance_grows_along_the_patches():
    """What is said of patch i is w label + (1 - w) none with w = 1 + (guidance - 1) i / (N - 1)."""
    cond, params = jnp.eye(3)[jnp.array([0, 1, 2, 0])], tar_params()[1]
    x = jax.random.normal(jax.random.key(4), (4, 16, 1))
    net = tarflow.network(TAR)
    label, none = (net.apply({"params": params}, x, c)[0][:, :-1] for c in (cond, 0 * cond))
    guided, _ = tarflow.evaluator(dataclasses.replace(TAR, guidance=3.0), params, cond)(x, None, 0)
    w = jnp.array([1 + 2 * i / 15 for i in range(1, 16)]).reshape(1, 15, 1, 1)  # the network speaks of the next patch
    np.testing.assert_allclose(guided[:, :-1], w * label + (1 - w) * none, atol=1e-5)


# ---- what all flows share as algorithms ------------------------------------------------------------------------------


def test_tweedie_takes_the_noise_away():
    """Of a model N(0, s^2) of noisy images the cleaned sample is the mean given x, x (1 - noise_std^2 / s^2), to the
    rounding of grey values."""
    drawn = {}
    for denoise in (False, True):
        algorithm = flow_algorithm(
            **{"space": images(2, 2, 1), "bijection": identity_flow(), "optim": Optim(), "batch_size": 4},
            **{"noise_std": 0.3, "denoise": denoise, "temperature": 0.4},
        )
        state = algorithm.init(jax.random.key(0), {"image": jnp.zeros((4, 2, 2, 1), jnp.uint8)})
        drawn[denoise] = algorithm.sample(state, jax.random.key(1), 64) / 127.5 - 1.0
    assert float(jnp.abs(drawn[False]).max()) > 0.3
    np.testing.assert_allclose(drawn[True], drawn[False] * (1 - 0.3**2 / 0.6**2), atol=1.1 / 127.5)


def test_labels_are_hidden_at_the_configured_rate():
    """A map whose log-determinant counts the labels that it is told of."""
    counting = Bijection(
        lambda key, x, cond: {"shift": jnp.zeros(1)},
        lambda params, x, cond: (x + params["shift"][None], 1000.0 * cond.sum(-1)),
        lambda params, z, cond: (z - params["shift"][None], -1000.0 * cond.sum(-1)),
    )
    batch = {"x": jnp.zeros((4096, 2)), "label": jnp.arange(4096, dtype=jnp.int32) % 10}
    told = {}
    for rate in (0.0, 0.25):
        algorithm = flow_algorithm(vectors(2), counting, optim=Optim(), batch_size=4096, classes=10, label_drop=rate)
        state = algorithm.init(jax.random.key(0), batch)
        told[rate] = -2 * float(algorithm.step(state, batch, jax.random.key(1))[1]["loss"]) / 1000
        assert abs(algorithm.log_prob(state, batch, jax.random.key(2)).nats / 1000 - 1.0).max() < 0.01  # none is hidden
    assert abs(told[0.0] - 1.0) < 0.01
    assert abs(told[0.25] - 0.75) < 0.03


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "cfg", "named"),
    [
        (spline, spline.Config(vectors(1)), "at least 2 dimensions"),
        (spline, spline.Config(vectors(2), box=0.0), "box=0"),
        (spline, spline.Config(images(8, 8, 1)), "glow"),
        (glow, glow.Config(images(6, 6, 1), levels=2), "levels=2"),
        (glow, glow.Config(vectors(4)), "spline flow"),
        (glow, glow.Config(images(8, 8, 1), transform="spline", box=-1.0), "box=-1"),
        (tarflow, tarflow.Config(images(8, 8, 1), patch=3), "patch=3"),
        (tarflow, tarflow.Config(images(8, 8, 1), width=10, heads=4), "heads=4"),
        (tarflow, tarflow.Config(images(8, 8, 1), decoding="jacobi", group=5), "group=5"),
        (tarflow, tarflow.Config(images(8, 8, 1), guidance=2.0), "guidance=2"),
        (tarflow, tarflow.Config(images(8, 8, 1), denoise=True), "denoise=True"),
        (tarflow, tarflow.Config(images(8, 8, 1), logit=0.1, noise_std=0.1), "logit=0.1"),
    ],
)
def test_refusals_name_the_field(module, cfg, named):
    with pytest.raises(ValueError, match=named):
        module.algorithm(cfg, batch_size=8)


def test_sampling_noise_is_that_of_the_latents():
    """Temperature 0 draws the image of the mean latent, every sample the same; at 1 they differ."""
    cfg = glow.Config(images(4, 4, 1, 17), levels=1, depth=1, width=8, temperature=0.0)
    x = {"image": np.random.default_rng(0).integers(0, 17, (8, 4, 4, 1)).astype(np.uint8)}
    for temperature, distinct in ((0.0, 1), (1.0, 4)):
        algorithm = glow.algorithm(dataclasses.replace(cfg, temperature=temperature), batch_size=8)
        state = algorithm.init(jax.random.key(0), x)
        drawn = np.asarray(algorithm.sample(state, jax.random.key(1), 4, None))
        assert len(np.unique(drawn.reshape(4, -1), axis=0)) == distinct
