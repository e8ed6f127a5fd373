"""A pool of generated images for the discriminator: half of the time it judges an older image in place of a new one.

Shrivastava et al. 2017 (https://arxiv.org/abs/1612.07828), in the form of CycleGAN (Zhu et al. 2017,
https://arxiv.org/abs/1703.10593, section 4), with 50 images. Older images keep D from forgetting what G made before.

Differs from the papers: place i of the batch has its own slots, pool [B, slots, ...], instead of one pool for all. The
law of what comes back is that of a pool of `slots` images and batch size 1, on any number of devices, without
communication; with batch size 1, as in CycleGAN, it is the paper's pool. For the memory of the paper's 50 images at
batch size B, take 50 / B slots.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from genmap_jax import parallel
from genmap_jax.keys import split
from genmap_jax.spaces import Space

Array = jax.Array


@flax.struct.dataclass
class Pool:
    """images: [B, slots, ...]. filled: number of slots in use, the same at every place."""

    images: Array
    filled: Array


def empty(batch_size: int, slots: int, space: Space) -> Pool:
    """The pool before the first image. batch_size: global. Raises ValueError unless there is a slot."""
    if slots < 1:
        raise ValueError(f"slots={slots}: a pool needs at least one; without a pool, show D the new images")
    return Pool(images=jnp.zeros((batch_size, slots, *space.shape)), filled=jnp.zeros((), jnp.int32))


def spec() -> Pool:
    """Each device keeps the images of its part of the batch."""
    whole: Any = P()  # specs stand where the pool has arrays
    sharded: Any = P(parallel.AXIS)
    return Pool(images=sharded, filled=whole)


def exchange(pool: Pool, images: Array, keys: Array) -> tuple[Pool, Array]:
    """Puts new images into the pool and says which to show to D. images [B, ...], keys [B] -> (pool, [B, ...])

    While the pool fills, the new image is kept and shown. Later, with probability 1/2 the new image is shown and not
    kept; otherwise it takes the place of a uniformly chosen old one, which is shown. No gradient passes.
    """
    slots = pool.images.shape[1]
    filling = pool.filled < slots
    key_coin, key_slot = split(keys)

    def one(own: Array, new: Array, key_coin: Array, key_slot: Array) -> tuple[Array, Array]:
        slot = jnp.where(filling, pool.filled, jax.random.randint(key_slot, (), 0, slots))
        keep = filling | jax.random.bernoulli(key_coin)
        shown = jnp.where(keep & ~filling, own[slot], new)
        return own.at[slot].set(jnp.where(keep, new, own[slot])), shown

    kept, shown = jax.vmap(one)(pool.images, jax.lax.stop_gradient(images), key_coin, key_slot)
    return Pool(images=kept, filled=jnp.minimum(pool.filled + 1, slots)), shown
