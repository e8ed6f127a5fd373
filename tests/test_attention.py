"""Causal attention in one kernel, for GPUs: what it computes, by the implementation of it that CPUs have."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import perturbed

from genmap_jax.nn.attention import attend, can_fuse, causal_mask, fused_attention, scaled_scores
from genmap_jax.tractable import gpt
from genmap_jax.tractable.gpt import network

MODELS = {
    "gpt2": gpt.Config(vocab=7, length=12, layers=2, heads=2, width=16),
    "qwen2": gpt.Config(vocab=7, length=12, layers=2, **gpt.QWEN2 | {"heads": 4, "kv_heads": 2, "width": 16}),
    "window": gpt.Config(vocab=7, length=12, layers=2, heads=2, width=16, **gpt.LLAMA | {"window": 3}),
}


@pytest.mark.parametrize(("groups", "window"), [(4, None), (2, None), (1, 3)])
def test_fused_attention_is_ours(groups, window):
    """Values and gradients to 1e-5 in float32, with shared keys and with a window."""
    rng = np.random.default_rng(0)
    q, k, v, weight = (jnp.asarray(rng.normal(size=(2, 9, heads, 8)), jnp.float32) for heads in (4, groups, groups, 4))

    def ours(q, k, v):
        by_heads = lambda x: jnp.moveaxis(x, 2, 1)  # noqa: E731
        q = by_heads(q).reshape(2 * groups, -1, 9, 8)
        k, v = (by_heads(x).reshape(2 * groups, 9, 8) for x in (k, v))
        y = attend(scaled_scores(q, k), v, causal_mask(jnp.arange(9), jnp.arange(9), window)[None])
        return jnp.moveaxis(y.reshape(2, 4, 9, 8), 1, 2)

    fused = partial(fused_attention, window=window, implementation="xla")
    results = [
        jax.value_and_grad(lambda *args, f=f: (f(*args) * weight).sum(), argnums=(0, 1, 2))(q, k, v)
        for f in (ours, fused)
    ]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), *results)


@pytest.mark.parametrize("name", MODELS)
def test_a_gpt_with_fused_attention_is_the_same(name, monkeypatch):
    cfg, tokens = MODELS[name], jnp.arange(24).reshape(2, 12) % 7
    params = perturbed(cfg)
    expected = gpt.logits(cfg, params, tokens)
    calls = []
    monkeypatch.setattr(network, "can_fuse", lambda dtype, head: True)
    monkeypatch.setattr(network, "fused_attention", lambda *args: calls.append(1) or fused_attention(*args, "xla"))
    np.testing.assert_allclose(gpt.logits(cfg, params, tokens), expected, atol=2e-5)
    assert len(calls) == cfg.layers
    segments = jnp.zeros_like(tokens)  # packed strings are masked by documents, which the kernel does not know
    np.testing.assert_allclose(gpt.logits(cfg, params, tokens, segments=segments), expected, atol=2e-5)
    assert len(calls) == cfg.layers


def test_the_kernel_is_for_halves_on_a_gpu(monkeypatch):
    assert not can_fuse("bfloat16", 64)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert can_fuse("bfloat16", 64) and can_fuse("bfloat16", 128)
    assert not can_fuse("float32", 64) and not can_fuse("bfloat16", 6) and not can_fuse("bfloat16", 136)
