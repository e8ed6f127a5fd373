"""Backbones of diffusion: against diffusers with shared parameters, and what can be said without it."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genmap_jax.nn.adm import ADM
from genmap_jax.nn.dit import DiT


def randomised(net, *inputs):
    """Parameters far from the zeros that would let a wrong network agree; gains around 1."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs)["params"]
    draw = lambda path, p: ((path[-1].key == "scale") + 0.2 * rng.standard_normal(p.shape)).astype(np.float32)  # noqa: E731
    return jax.tree_util.tree_map_with_path(draw, shapes)


def close(net, params, x, emb, reference, tol=1e-4):
    """Outputs and the input gradient of a fixed projection of them, 1e-4. reference: (x, weights) -> (out, grad)."""
    weights = np.random.default_rng(1).standard_normal((len(x), *x.shape[1:3], net.features)).astype(np.float32)

    @jax.jit
    def run(x):
        out, pullback = jax.vjp(lambda x: net.apply({"params": params}, x, emb), x)
        return out, pullback(jnp.asarray(weights))[0]

    for ours, theirs in zip(run(x), reference(x, weights), strict=True):
        assert np.abs(theirs).max() > 0.1
        np.testing.assert_allclose(ours, theirs, atol=tol * max(1.0, np.abs(theirs).max()))


def in_torch(torch, forward):
    """(x [B, H, W, C], weights) -> output and gradient of sum(weights * output), channels last."""

    def run(x, weights):
        given = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))).requires_grad_()
        out = forward(given)
        (out * torch.from_numpy(np.ascontiguousarray(weights.transpose(0, 3, 1, 2)))).sum().backward()
        return out.detach().numpy().transpose(0, 2, 3, 1), given.grad.numpy().transpose(0, 2, 3, 1)

    return run


def put(torch, module, kernel, bias=None, rows=slice(None)):
    """flax Dense or Conv parameters into a torch layer."""
    kernel = np.asarray(kernel)
    kernel = kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T
    kernel = kernel.reshape(module.weight.shape) if kernel.ndim != module.weight.ndim else kernel
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(np.ascontiguousarray(kernel[rows])))
        module.bias.copy_(torch.from_numpy(np.ascontiguousarray(np.asarray(bias)[rows])))


def test_dit_equals_diffusers():
    """Output and input gradient within 1e-4 of DiTTransformer2DModel with our parameters."""
    torch = pytest.importorskip("torch", reason="the reference runs on it; in the extra parity")
    diffusers = pytest.importorskip("diffusers", reason="the reference; in the extra parity")
    net = DiT(features=8, width=32, blocks=2, heads=2, patch=2)
    rng = np.random.default_rng(2)
    x, t = rng.standard_normal((3, 8, 8, 4)).astype(np.float32), np.array([3.0, 250.0, 999.0], np.float32)
    theirs = diffusers.DiTTransformer2DModel(
        **{"num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 4, "out_channels": 8, "num_layers": 2},
        **{"sample_size": 8, "patch_size": 2, "num_embeds_ada_norm": 10, "norm_eps": 1e-6},
    ).eval()
    blocks = theirs.transformer_blocks
    emb = blocks[0].norm1.emb.time_proj(torch.from_numpy(t)).numpy()  # 256 sinusoids
    params = randomised(net, x, emb)
    copy = functools.partial(put, torch)

    p = params["embed"]
    patches = p["kernel"].reshape(2, 2, 4, 32)
    copy(theirs.pos_embed.proj, patches, p["bias"])
    for i, block in enumerate(blocks):
        ours = params[f"block_{i}"]
        for name, layer in (("emb_1", "linear_1"), ("emb_2", "linear_2")):  # every block has a copy of these
            copy(getattr(block.norm1.emb.timestep_embedder, layer), **params[name])
        torch.nn.init.zeros_(block.norm1.emb.class_embedder.embedding_table.weight)
        copy(block.norm1.linear, **ours["condition"])
        for j, layer in enumerate((block.attn1.to_q, block.attn1.to_k, block.attn1.to_v)):
            copy(layer, **ours["qkv"], rows=slice(32 * j, 32 * (j + 1)))
        copy(block.attn1.to_out[0], **ours["out"])
        copy(block.ff.net[0].proj, **ours["up"])
        copy(block.ff.net[2], **ours["down"])
    copy(theirs.proj_out_1, **params["last_condition"])
    copy(theirs.proj_out_2, **params["last"])
    labels = torch.zeros(3, dtype=torch.long)
    forward = lambda x: theirs(x, timestep=torch.from_numpy(t), class_labels=labels).sample  # noqa: E731
    close(net, params, x, emb, in_torch(torch, forward))


@pytest.mark.slow
def test_adm_equals_diffusers():
    """Output and input gradient within 1e-4 of UNet2DModel in ADM's configuration with our parameters."""
    torch = pytest.importorskip("torch", reason="the reference runs on it; in the extra parity")
    diffusers = pytest.importorskip("diffusers", reason="the reference; in the extra parity")
    net = ADM(features=2, width=16, channel_mult=(1, 2), blocks=1, attention=(8,), head_width=8)
    rng = np.random.default_rng(2)
    x, t = rng.standard_normal((2, 16, 16, 3)).astype(np.float32), np.array([3.0, 700.0], np.float32)
    theirs = diffusers.UNet2DModel(
        **{"sample_size": 16, "in_channels": 3, "out_channels": 2, "layers_per_block": 1, "norm_num_groups": 4},
        **{"block_out_channels": (16, 32), "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D")},
        **{"up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D"), "attention_head_dim": 8},
        **{"downsample_type": "resnet", "upsample_type": "resnet", "resnet_time_scale_shift": "scale_shift"},
        **{"attn_norm_num_groups": 4, "norm_eps": 1e-6},
    ).eval()
    emb = theirs.time_proj(torch.from_numpy(t)).numpy()
    params = randomised(net, x, emb)
    copy = functools.partial(put, torch)

    def norm(module, ours):
        with torch.no_grad():
            module.weight.copy_(torch.from_numpy(ours["scale"]))
            module.bias.copy_(torch.from_numpy(ours["bias"]))

    def residual(module, ours):
        norm(module.norm1, ours["GroupNorm_0"])
        norm(module.norm2, ours["GroupNorm_1"])
        copy(module.conv1, **ours["Conv_0"])
        copy(module.conv2, **ours["Conv_1"])
        copy(module.time_emb_proj, **ours["Dense_0"])
        if module.conv_shortcut is not None:
            copy(module.conv_shortcut, **ours["Conv_2"])

    def attention(module, ours):
        norm(module.group_norm, ours["GroupNorm_0"])
        channels = module.to_q.weight.shape[0]
        for j, layer in enumerate((module.to_q, module.to_k, module.to_v)):
            copy(layer, **ours["Dense_0"], rows=slice(channels * j, channels * (j + 1)))
        copy(module.to_out[0], **ours["Dense_1"])

    down, mid, up = theirs.down_blocks, theirs.mid_block, theirs.up_blocks
    residuals = [
        *[down[0].resnets[0], down[0].downsamplers[0], down[1].resnets[0], *mid.resnets],
        *[*up[0].resnets, up[0].upsamplers[0], *up[1].resnets],
    ]
    attentions = [down[1].attentions[0], mid.attentions[0], *up[0].attentions]
    copy(theirs.conv_in, **params["Conv_0"])
    copy(theirs.conv_out, **params["Conv_1"])
    norm(theirs.conv_norm_out, params["GroupNorm_0"])
    copy(theirs.time_embedding.linear_1, **params["Dense_0"])
    copy(theirs.time_embedding.linear_2, **params["Dense_1"])
    for i, module in enumerate(residuals):
        residual(module, params[f"Residual_{i}"])
    for i, module in enumerate(attentions):
        attention(module, params[f"Attention_{i}"])
    assert len([name for name in params if name.startswith(("Residual", "Attention"))]) == len(residuals + attentions)
    forward = lambda x: theirs(x, torch.from_numpy(t)).sample  # noqa: E731
    close(net, params, x, emb, in_torch(torch, forward))


def test_dit_is_the_size_of_its_paper():
    """DiT-XL/2 on 32 x 32 x 4 latents: 675 million parameters, less the table of classes and a learned variance."""
    net = DiT(features=8, width=1152, blocks=28, heads=16, patch=2)
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 32, 32, 4)), jnp.zeros((1, 256)))
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    assert 673e6 < count < 675e6
