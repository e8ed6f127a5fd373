"""PatchNCE: a patch of a translation is to be recognised among all patches of its source (CUT).

Park et al. 2020 (https://arxiv.org/abs/2007.15651), equations 2 and 3; a lower bound of mutual information as in van
den Oord et al. 2018 (https://arxiv.org/abs/1807.03748).
"""

import jax
import jax.numpy as jnp
import optax

from genmap_jax.shapes import expect

Array = jax.Array


def patch_nce(query: Array, target: Array, temperature: float) -> Array:
    """Cross-entropy of telling which of the P patches of the source a patch of the translation shows, in nats.

    query, target: unit vectors [B, P, D] of the translation and of the source, patch p of both at the same place.
    Returns the mean over patches, [B]; the other patches of the same source are the wrong answers. No gradient passes
    to the target. Raises ValueError unless shapes are equal.
    """
    expect((*query.shape,), query=query, target=target)
    logits = jnp.einsum("bpd,bqd->bpq", query, jax.lax.stop_gradient(target)) / temperature
    return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.arange(query.shape[1])[None]).mean(-1)


def places(keys: Array, size: int, count: int) -> Array:
    """At most `count` different places among `size`, drawn at random for each example. keys [B] -> int32 [B, P]"""
    return jax.vmap(lambda key: jax.random.permutation(key, size)[:count])(keys)


def patches(features: Array, where: Array) -> Array:
    """The features at these places. features [B, H, W, C], where [B, P] -> [B, P, C]"""
    flat = features.reshape(len(features), -1, features.shape[-1])
    return jnp.take_along_axis(flat, where[..., None], axis=1)
