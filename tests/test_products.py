"""Products of bfloat16 arrays with float32 results, and where a GPT relies on them."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import perturbed

from genmap_jax.nn.products import einsum_float32
from genmap_jax.peaks import peak_flops
from genmap_jax.tractable import gpt
from genmap_jax.tractable.gpt import network

EQUATION = "btd,vd->btv"


def arrays(dtype: str, vocab: int = 5):
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(rng.normal(size=shape), dtype) for shape in ((2, 3, 8), (vocab, 8)))


def test_results_are_float32_and_those_of_exact_products():
    """Halves have 8 digits, so that their products are exact in float32: 1e-6 of the sum remains."""
    x, head = arrays("bfloat16")
    y = einsum_float32(EQUATION, x, head)
    exact = np.einsum(EQUATION, np.asarray(x, np.float64), np.asarray(head, np.float64))
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y, exact, atol=1e-6 * np.abs(exact).max())


def test_float32_is_an_ordinary_product_bit_for_bit():
    x, head = arrays("float32")
    slopes = [jax.grad(lambda x, head, f=f: jnp.sin(f(EQUATION, x, head)).sum(), argnums=(0, 1))(x, head)
              for f in (einsum_float32, jnp.einsum)]  # fmt: skip
    jax.tree.map(np.testing.assert_array_equal, *slopes)


def test_gradients_of_halves_are_products_of_halves():
    """Within the rounding of the cotangent and of the result, 2^-8 of the largest; no operand of a product is float32.

    With `preferred_element_type` alone, two of the three products are made in float32.
    """
    x, head = arrays("bfloat16")
    loss = lambda product: lambda x, head: jnp.sin(product(EQUATION, x, head)).sum()  # noqa: E731
    gradient = jax.grad(loss(einsum_float32), argnums=(0, 1))
    wide = (x.astype(jnp.float32), head.astype(jnp.float32))
    exact = jax.grad(loss(jnp.einsum), argnums=(0, 1))(*wide)
    for slope, other in zip(gradient(x, head), exact, strict=True):
        assert slope.dtype == jnp.bfloat16
        np.testing.assert_allclose(slope.astype(jnp.float32), other, atol=2**-7 * np.abs(other).max())
    lowered = jax.jit(gradient).lower(x, head).as_text()
    operands = re.findall(r"dot_general .* : \(tensor<\S+x(\w+)>, tensor<\S+x(\w+)>\)", lowered)
    assert operands == [("bf16", "bf16")] * 3


def test_rows_that_fill_up_a_vocabulary_are_cut_off_again():
    """50,257 tokens are no multiple of 8: the scores of all of them are those of a plain product, and so the slopes."""
    x, head = arrays("bfloat16", vocab=13)
    plain = lambda x, head: einsum_float32(EQUATION, x, head)  # noqa: E731
    assert network._scores(x, head).shape == (2, 3, 13)
    for f in (lambda f: f(x, head), lambda f: jax.grad(lambda x, h: jnp.sin(f(x, h)).sum(), argnums=(0, 1))(x, head)):
        jax.tree.map(np.testing.assert_array_equal, f(network._scores), f(plain))
    assert "pad" in str(jax.make_jaxpr(network._scores)(x, head))
    assert "pad" not in str(jax.make_jaxpr(network._scores)(x[:, :1], head))  # one position: not worth a copy


@pytest.mark.parametrize("tied", [True, False])
def test_a_decoding_step_casts_no_matrix(tied):
    """Weights are float32, products bfloat16: the cast is made once, before the loop over tokens."""
    cfg = gpt.Config(vocab=64, length=8, layers=1, heads=2, width=16, tied=tied, dtype="bfloat16")
    params = perturbed(cfg)
    step, cache = gpt.decoding_step(cfg, params), gpt.empty_cache(cfg, 2)
    text = str(jax.make_jaxpr(step)(cache, jnp.zeros(2, jnp.int32), jnp.int32(3)))
    assert "bf16[16,48]" in text and "f32[16,48]" not in text  # queries, keys and values
    casts = [line for line in text.splitlines() if "convert_element_type" in line and ":bf16[64,16]" in line]
    assert not casts


def test_peaks_are_those_of_dense_products():
    """NVIDIA's data sheet gives 1,979 TFLOP/s for sparse ones, which would halve every utilisation (fms-fsdp#89)."""
    assert peak_flops("NVIDIA H200") == peak_flops("NVIDIA H100 80GB HBM3") == pytest.approx(989.4e12)
    assert peak_flops("cpu") is None
