"""Layers of flows beside nflows 0.14 and normflows 1.7.3: same parameters, same values, log-determinants, inverses.

Number 12 of the proofs of normalizing flows. Skipped where the references are not installed (extra `parity`).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genmap_jax.tractable.flow import coupling, images, linear, splines
from genmap_jax.tractable.flow.bijection import chain
from genmap_jax.tractable.flow.coupling import Elementwise

torch = pytest.importorskip("torch", reason="the reference implementations need PyTorch")
pytestmark = pytest.mark.slow

BINS, BOX, WIDTH = 5, 3.0, 16


def array(tensor):
    return jnp.asarray(tensor.detach().numpy())


@pytest.fixture(autouse=True)
def double(x64):
    """In float32 the two differ by up to 1e-4, where a spline is steep or an inverse as large as 1,000."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def close(ours, theirs, atol=1e-9):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, array(b), rtol=1e-9, atol=atol)


def noised(module, scale=0.3, seed=0):
    """Every parameter moved: at their initial values these maps are the identity, and any two agree."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return module


def dense(layer, masked=False):
    return {"kernel": array(layer.weight).T, "bias": array(layer.bias)}


def nflows_spline(raw):
    """The reference's way from raw parameters to knots: other floors, slopes by a softplus."""
    widths, heights, slopes = jnp.split(raw, (BINS, 2 * BINS), axis=-1)

    def positions(logits):
        sizes = 1e-3 + (1 - 1e-3 * BINS) * jax.nn.softmax(logits / WIDTH**0.5, axis=-1)
        inner = 2 * BOX * jnp.cumsum(sizes, axis=-1)[..., :-1] - BOX
        ends = jnp.full_like(inner[..., :1], BOX)
        return jnp.concatenate([-ends, inner, ends], axis=-1)

    ones = jnp.ones_like(slopes[..., :1])
    inner = 1e-3 + jax.nn.softplus(slopes)
    return positions(widths), positions(heights), jnp.concatenate([ones, inner, ones], axis=-1)


REFERENCE_SPLINE = Elementwise(
    3 * BINS - 1,
    lambda raw, x: splines.forward(x, *nflows_spline(raw)),
    lambda raw, y: splines.inverse(y, *nflows_spline(raw)),
)


def test_spline_coupling_is_that_of_nflows():
    nflows = pytest.importorskip("nflows.transforms", reason="nflows is not installed")
    nets = pytest.importorskip("nflows.nn.nets")
    theirs = nflows.PiecewiseRationalQuadraticCouplingTransform(
        [0, 0, 1, 1],
        lambda i, o: nets.ResidualNet(i, o, hidden_features=WIDTH, num_blocks=2),
        num_bins=BINS,
        tails="linear",
        tail_bound=BOX,
    )
    net = noised(theirs).transform_net
    params = {"Dense_0": dense(net.initial_layer), "Dense_5": dense(net.final_layer)}
    for i, block in enumerate(net.blocks):
        params |= {f"Dense_{1 + 2 * i + j}": dense(layer) for j, layer in enumerate(block.linear_layers)}
    ours = coupling.coupling(REFERENCE_SPLINE, lambda n: coupling.ResidualNetwork(WIDTH, 2, n))
    x = 1.5 * np.random.default_rng(0).normal(size=(64, 4))
    close(ours.forward(params, jnp.asarray(x), None), theirs.forward(torch.tensor(x)))
    close(ours.inverse(params, jnp.asarray(x), None), theirs.inverse(torch.tensor(x)))


def test_masked_autoregressive_flow_is_that_of_nflows():
    nflows = pytest.importorskip("nflows.transforms", reason="nflows is not installed")
    theirs = noised(nflows.MaskedAffineAutoregressiveTransform(4, WIDTH, num_blocks=2), 0.2)
    made = theirs.autoregressive_net
    params = {"MaskedDense_0": dense(made.initial_layer), "MaskedDense_5": dense(made.final_layer)}
    for i, block in enumerate(made.blocks):
        params |= {f"MaskedDense_{1 + 2 * i + j}": dense(layer) for j, layer in enumerate(block.linear_layers)}

    def forward(raw, x):  # the reference's scale, and x * scale + shift towards the latents
        scale = jax.nn.softplus(raw[..., 0]) + 1e-3
        return x * scale + raw[..., 1], jnp.log(scale)

    def inverse(raw, y):
        scale = jax.nn.softplus(raw[..., 0]) + 1e-3
        return (y - raw[..., 1]) / scale, -jnp.log(scale)

    ours = coupling.autoregressive(Elementwise(2, forward, inverse), lambda n: coupling.MADE(WIDTH, 2, n))
    x = np.random.default_rng(0).normal(size=(64, 4))
    close(ours.forward(params, jnp.asarray(x), None), theirs.forward(torch.tensor(x)))
    close(ours.inverse(params, jnp.asarray(x), None), theirs.inverse(torch.tensor(x)))


def test_lu_is_that_of_nflows():
    nflows = pytest.importorskip("nflows.transforms", reason="nflows is not installed")
    theirs = noised(nflows.LULinear(4))
    with torch.no_grad():
        theirs.bias.zero_()
    lower, upper = (array(m) for m in theirs._create_lower_upper())
    params = {"lower": lower, "upper": upper, "log_diagonal": jnp.log(jnp.diag(upper))}
    x = np.random.default_rng(0).normal(size=(64, 4))
    ours = linear.lu()
    close(ours.forward(params, jnp.asarray(x), None), theirs.forward(torch.tensor(x)))
    close(ours.inverse(params, jnp.asarray(x), None), theirs.inverse(torch.tensor(x)))


def test_glow_step_is_that_of_normflows():
    """actnorm, 1x1 convolution and affine coupling in the direction of the density, which is theirs called inverse."""
    normflows = pytest.importorskip("normflows", reason="normflows is not installed")
    theirs = normflows.flows.GlowBlock(4, WIDTH, scale_map="exp", split_mode="channel", leaky=0.0, use_lu=True)
    couple, mix, norm = noised(theirs, 0.1).flows
    norm.data_dep_init_done.fill_(1.0)
    with torch.no_grad():  # our LU has a positive diagonal, and its permutation is a map of its own
        mix.sign_S.fill_(1.0)
    order = array(mix.P).argmax(1)
    params = [
        {"shift": array(norm.t).ravel(), "log_std": array(norm.s).ravel()},
        {"lower": array(mix.L), "upper": array(mix.U), "log_diagonal": array(mix.log_S)},
        {},
        _convolutions(couple),
    ]

    def forward(raw, x):
        return (x - raw[..., 0]) * jnp.exp(-raw[..., 1]), -raw[..., 1]

    def inverse(raw, y):
        return y * jnp.exp(raw[..., 1]) + raw[..., 0], raw[..., 1]

    affine = coupling.coupling(Elementwise(2, forward, inverse), lambda n: images.ConvNetwork(WIDTH, n))
    ours = chain([linear.actnorm(), linear.lu(), linear.permutation(np.asarray(order)), affine])
    x = np.random.default_rng(0).normal(size=(8, 6, 6, 4))
    nchw = torch.tensor(x.transpose(0, 3, 1, 2))
    for mine, other in ((ours.forward, theirs.inverse), (ours.inverse, theirs.forward)):
        (y, logdet), (z, ld) = mine(params, jnp.asarray(x), None), other(nchw)
        np.testing.assert_allclose(y, array(z).transpose(0, 2, 3, 1), atol=1e-9)
        np.testing.assert_allclose(logdet, array(ld), atol=1e-9)


def _convolutions(couple):
    """The three convolutions of the conditioner: OIHW -> HWIO, without the pixels of the 1x1 one."""
    layers = [m for m in couple.modules() if isinstance(m, torch.nn.Conv2d)]
    params = {
        f"Conv_{i}": {"kernel": array(m.weight).transpose(2, 3, 1, 0), "bias": array(m.bias)}
        for i, m in enumerate(layers)
    }
    return params | {"Conv_1": params["Conv_1"] | {"kernel": params["Conv_1"]["kernel"][0, 0]}}
