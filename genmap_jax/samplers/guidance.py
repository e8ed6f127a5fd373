"""Guidance and inpainting: functions that wrap a denoiser into another, so that every sampler can use them.

denoise(y [B, ...], sigma [B], cond) -> x_hat [B, ...], with y = x + sigma noise; cond: int32 labels [B].
"""

import jax
import jax.numpy as jnp

from genmap_jax.processes import Array, Denoise, expand


def unconditional(denoise: Denoise, null: int) -> Denoise:
    """The unconditional model inside a conditional one that was trained with some labels dropped.

    null: the label that stands for "none".
    """
    return lambda y, sigma, cond=None: denoise(y, sigma, jnp.full(y.shape[0], null, jnp.int32))


def some_hidden(label: Array, keys: Array, share: float, null: int) -> Array:
    """Labels of which each becomes `null`, the label that stands for "none", with probability `share`. label, keys [B]

    Trains one model to be conditional and unconditional, as classifier-free guidance needs it.
    """
    hidden = jax.vmap(lambda key: jax.random.bernoulli(key, share))(keys)
    return jnp.where(hidden, null, label)


def check_guidance(guidance: float, classes: int | None, label_drop: float) -> None:
    """Raise ValueError unless the model is, or need not be, a conditional and an unconditional one at once.

    guidance: the weight of the label in samples, 1 without guidance; classes: None is unconditional; label_drop: the
    share of training examples whose label is hidden.
    """
    if guidance != 1.0 and (classes is None or not label_drop):
        raise ValueError(
            f"guidance={guidance} needs a conditional and an unconditional model: "
            "set classes and label_drop, or guidance=1"
        )


def guided(
    denoise: Denoise,
    weak: Denoise,
    weight: float,
    *,
    interval: tuple[float, float] = (0.0, float("inf")),
    rescale: float = 0.0,
) -> Denoise:
    """Push away from what a weaker model says: x_hat = weight * denoise + (1 - weight) * weak. Two evaluations.

    With `unconditional` as the weak model this is classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598), with
    a smaller or less trained one autoguidance (Karras et al. 2024, arXiv:2406.02507). Weight 1 is exactly `denoise`, 0
    exactly `weak`. In classifier-free papers' other notation the weight is 1 + w.

    interval: of sigma, outside which the weight is 1 (Kynkaanniemi et al. 2024, arXiv:2404.07724).
    rescale: share phi of the guided x_hat brought back to the standard deviation of denoise's, per example (Lin et al.
        2023, arXiv:2305.08891, eq. 15 and 16).
    Raises ValueError for a share outside [0, 1] or an interval in the wrong order.
    """
    if not 0.0 <= rescale <= 1.0:
        raise ValueError(f"rescale={rescale} is a share: give a number from 0 to 1")
    if not 0.0 <= interval[0] < interval[1]:
        raise ValueError(f"interval={interval}: give two noise levels, the smaller first")

    def denoise_guided(y, sigma, cond=None):
        strong = denoise(y, sigma, cond)
        inside = (sigma > interval[0]) & (sigma <= interval[1])
        w = expand(jnp.where(inside, weight, 1.0).astype(y.dtype), y)
        x_hat = w * strong + (1.0 - w) * weak(y, sigma, cond)
        if rescale:
            spread = lambda x: jnp.std(x, axis=tuple(range(1, x.ndim)), keepdims=True)  # noqa: E731
            own = spread(x_hat)
            share = jnp.where(own > 0, rescale * spread(strong) / jnp.where(own > 0, own, 1.0), rescale)  # no 0 / 0
            x_hat = x_hat * (share + 1.0 - rescale)
        return x_hat

    return denoise_guided


def inpainting(denoise: Denoise, known: Array, mask: Array) -> Denoise:
    """Keep x = known where mask is true: there the model is not asked. known, mask [B, ...].

    The replacement method (Song et al. 2021, arXiv:2011.13456, appendix I.2; Lugmayr et al. 2022, arXiv:2201.09865) in
    terms of x_hat. An ancestral step then draws the known part from its own noising, given its present state. The rest
    is only approximately conditional: a step sees the known part no better than through its noise.
    """
    return lambda y, sigma, cond=None: jnp.where(mask, known, denoise(y, sigma, cond))
