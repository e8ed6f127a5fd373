"""Rematerialisation of blocks, and one compiled block in the place of many: the same numbers, with less."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import FAMILIES
from networks import BIG, CODE, CYCLE, GAN, IMAGES, KEYS, LABEL, NETWORKS, STYLE, configured, denoiser, module
from variants import chosen

from genmap_jax.implicit import biggan, cyclegan, gan, stylegan
from genmap_jax.implicit.stylegan import alias_free
from genmap_jax.tractable.flow import tarflow

DEEP = dataclasses.replace(BIG, deep=True)
WAVES = dataclasses.replace(STYLE, alias_free=True, noise=False, alias_free_layers=4, path_length=0.0, mixing=0.0)
WS = jnp.tile(IMAGES.reshape(4, -1)[:, None, :8], (1, WAVES.layers, 1))
PATCHES = IMAGES.reshape(4, 16, 4)
SCANNED = {
    "dit": denoiser(network="dit", width=16, blocks=3, head_width=8),
    "tarflow": module(lambda **fields: tarflow.Transformer(16, 3, 2, 16, **fields), PATCHES, CODE),
}
WITH_BLOCKS = {
    **{name: NETWORKS[name][0] for name in ("mlp", "unet", "adm", "dit", "score_mlp", "score_conv", "tarflow")},
    **{name: NETWORKS[name][0] for name in ("vae_conv", "ebm_conv", "gan_conv_g", "gan_conv_d")},
    **{name: NETWORKS[name][0] for name in ("gan_r3gan_g", "gan_r3gan_d", "biggan_g", "biggan_d")},
    **{name: NETWORKS[name][0] for name in ("stylegan_g", "stylegan_d")},
    "cyclegan_resnet": configured(cyclegan.Resnet, CYCLE, jnp.tile(IMAGES, (1, 2, 2, 1)), KEYS, blocks=6),
    "biggan_deep_g": configured(biggan.Generator, DEEP, IMAGES.reshape(4, -1)[:, :6], LABEL, True),
    "biggan_deep_d": configured(biggan.Discriminator, DEEP, IMAGES, LABEL),
    "stylegan_alias_free": configured(alias_free.AliasFreeSynthesis, WAVES, WS),
}
QUICK = ("mlp", "dit", "tarflow", "vae_conv", "gan_conv_d", "biggan_g", "stylegan_d")


def gradient(output):
    return jax.jit(jax.grad(lambda params: jnp.square(output(params)).sum()))


def same(found, wanted):
    """To 1e-6 of the largest number of all."""
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(wanted))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * largest), found, wanted)


def kept(params, output):
    """Bytes that back-propagation keeps of the way there, beside the parameters."""
    residuals = jax.eval_shape(lambda params: jax.vjp(output, params)[1], params)
    size = lambda tree: sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))  # noqa: E731
    return size(residuals) - size(params)


@pytest.mark.parametrize("name", chosen(WITH_BLOCKS, QUICK))
def test_rematerialisation_keeps_less_and_changes_no_gradient(name):
    """Gradients to 1e-6 of the largest; parameters have the same names."""
    (params, output), (again, output_again) = (WITH_BLOCKS[name](remat=remat) for remat in (False, True))
    assert jax.tree.structure(params) == jax.tree.structure(again)
    same(gradient(output_again)(params), gradient(output)(params))
    assert kept(params, output_again) < 0.75 * kept(params, output)


@pytest.mark.parametrize("name", SCANNED)
@pytest.mark.parametrize("remat", [False, True])
def test_one_compiled_block_computes_what_all_compute(name, remat):
    """Outputs and gradients to 1e-6 of the largest, in a program with one block instead of three."""
    (params, output), (again, scanned) = (SCANNED[name](remat=remat, scan=scan) for scan in (False, True))
    assert jax.tree.structure(params) == jax.tree.structure(again)
    same(jax.jit(scanned)(params), jax.jit(output)(params))
    same(gradient(scanned)(params), gradient(output)(params))
    products = [jax.jit(f).lower(params).as_text().count("dot_general") for f in (output, scanned)]
    assert products[1] < 0.6 * products[0]


def test_scanned_layers_put_out_the_cache_of_each():
    """Keys and values of a whole string, of every layer in its place."""
    nets = [tarflow.Transformer(16, 3, 2, 16, scan=scan) for scan in (False, True)]
    params, _ = SCANNED["tarflow"]()
    caches = [net.apply({"params": params}, PATCHES, CODE)[1] for net in nets]
    assert jax.tree.structure(caches[0]) == jax.tree.structure(caches[1])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *caches)


@pytest.mark.parametrize("name", chosen(("gan_conv_d", "gan_r3gan_d", "stylegan_d"), ("gan_conv_d",)))
def test_penalties_of_gradients_go_through_rematerialised_blocks(name):
    """R1's gradient, that of |grad D|^2 over images, to 1e-6 of the largest."""
    found = []
    for remat in (False, True):
        params, _ = WITH_BLOCKS[name](remat=remat)
        found.append(jax.jit(jax.grad(lambda params, remat=remat: penalty(name, params, remat)))(params))
    same(*found[::-1])


def penalty(name, params, remat):
    if name == "stylegan_d":
        net = stylegan.Discriminator(dataclasses.replace(STYLE, remat=remat))
    else:
        net = gan.Discriminator(dataclasses.replace(GAN, network=name.split("_")[1], remat=remat))

    def logits(x):
        return jax.tree.leaves(net.apply({"params": params}, x, LABEL))[0].sum()

    return jnp.square(jax.grad(logits)(IMAGES)).sum()


@pytest.mark.parametrize("name", chosen(("diffusion", "tarflow", "stylegan", "biggan"), ("diffusion",)))
def test_an_update_is_the_same_with_rematerialised_blocks(name):
    """State and metrics, to 1e-5: running statistics and singular vectors too."""
    case, found = FAMILIES[name], []
    for remat in (False, True):
        algorithm = case.build(remat=remat)
        state = jax.jit(algorithm.init)(jax.random.key(0), case.batch())
        found.append(jax.jit(algorithm.step)(state, case.batch(), jax.random.key(1)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), *found)


@pytest.mark.parametrize("name", ["vae", "ebm", "gan", "cgan", "cyclegan"])
def test_networks_without_blocks_refuse_to_recompute_them(name):
    with pytest.raises(ValueError, match="remat=True: .*(has|have|has no) .*blocks"):
        FAMILIES[name].build(remat=True)


def test_only_equal_blocks_are_looped_over():
    with pytest.raises(ValueError, match="scan=True: only the blocks of network='dit' are equal"):
        FAMILIES["diffusion"].build(scan=True)
