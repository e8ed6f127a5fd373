"""What the two players of an adversarial game minimise, for any networks: loss, penalties, anchors, consistency.

A family brings its networks as a `Judge`, which augments, conditions and calls D, and gets the per-example terms that
`algorithm.player` minimises, as `algorithm.mean_terms` of them. The update of StyleGAN2's discriminator, with ADA and a
lazy R1 that shares its step:

    def update_d(state, part):                                  # part: "x", "label", "keys" of examples [B]
        def loss(params_d, part):
            label = part["label"]
            def judge(x, keys):
                return D.apply(params_d, augment(x, keys, state.ada.p, ADA), label), None
            fake = generate(state.params_g, keys.fold(part["keys"], 0), label)
            penalties = Penalties(r1=gamma, every=16)
            terms = d_terms("nonsaturating", judge, part["x"], fake, part["keys"], penalties, step=state.step)
            terms["sign"] = ada.statistic(terms["logit_real"])
            return mean_terms(terms)
        params_d, opt_d, _, metrics = player(loss, state.params_d, state.opt_d, tx, axis_name, (part,))
        control = ada.adjust(state.ada, metrics["sign"], state.step + 1, batch_size, target=0.6, ramp=500_000)
        return state.replace(params_d=params_d, opt_d=opt_d, ada=control), metrics

With an optimizer step of its own, as in the paper, R1 is left out of `d_terms`, and a second `lazy.own_step` minimises
`gradient_penalties(judge, real, fake, keys, Penalties(r1=gamma))`.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from genmap_jax.algorithm import Array, Metrics
from genmap_jax.keys import split
from genmap_jax.nn.augment import augment
from genmap_jax.objectives import adversarial, lazy
from genmap_jax.shapes import expect

DRAGAN_SD = 0.1  # standard deviation of DRAGAN's noise, in units of data
ANCHOR_DECAY = 0.99  # of LeCam's running means, per update
SMALL_MOVES = ("translation",)  # the transforms of the consistency term

Judge = Callable[[Array, Array], tuple[Array, Array | None]]
"""(x, keys [B]) -> logits [B], or [B, ...] of patches, and a loss [B] of D's own on x that both players minimise (of an
auxiliary classifier) or None. x [B, ...] is real or generated; keys are for augmentation. It must not mix examples."""


@dataclasses.dataclass(frozen=True)
class Penalties:
    """Weights of what D minimises beside its loss. A weight of 0 turns a penalty off."""

    r1: float = 0.0
    """Weight gamma of R1, (gamma / 2) |grad D|^2 on real examples."""
    r2: float = 0.0
    """Weight gamma of R2, (gamma / 2) |grad D|^2 on generated examples."""
    gradient_penalty: float = 0.0
    """Weight of WGAN-GP's (|grad D| - 1)^2 between real and generated examples."""
    dragan: float = 0.0
    """Weight of DRAGAN's (|grad D| - 1)^2 around real examples."""
    every: int = 1
    """Number of steps from one use of the four gradient penalties above to the next, which then weigh as much more."""
    lecam: float = 0.0
    """Weight of LeCam's squared distance of logits to running means."""
    consistency: float = 0.0
    """Weight of the squared change of D when images move by pixels, real and generated."""


# ---- the discriminator -----------------------------------------------------------------------------------------------


def d_terms(
    loss: adversarial.Loss,
    judge: Judge,
    real: Array,
    fake: Array,
    keys: Array,
    penalties: Penalties = Penalties(),
    *,
    anchors: Array | None = None,
    step: Array | int = 0,
) -> dict[str, Array]:
    """What D minimises ("loss") and its parts, each [B]. No gradient reaches the generator through `fake`.

    L_D + (r1 / 2) |grad D(real)|^2 + (r2 / 2) |grad D(fake)|^2 + ...

    real, fake: [B, ...], the pairs of the loss. keys: [B], for augmentation and penalties; real and generated examples
    have draws of their own. anchors: [2], see `move_anchors`. step: updates done, which tells when the gradient
    penalties are due. Gradients are with respect to images before augmentation. Raises ValueError where shapes differ.
    """
    expect((len(keys), *real.shape[1:]), real=real, fake=fake)
    fake = jax.lax.stop_gradient(fake)
    key_real, key_fake, _, key_move, _, key_move_fake = split(keys, 6)
    (logit_real, own_real), (logit_fake, own_fake) = judge(real, key_real), judge(fake, key_fake)
    value = _example_mean(adversarial.LOSSES[loss][0](logit_real, logit_fake))
    terms = {"loss": value, "loss_d": value, "logit_real": logit_real, "logit_fake": logit_fake}

    def add(name: str, weight: float, term: Array) -> None:
        terms[name] = term
        terms["loss"] = terms["loss"] + weight * _example_mean(term)

    if _gradient_weights(penalties):
        same = jax.random.clone(keys)  # the same augmentations again, on purpose
        due = lazy.every(penalties.every, step, lambda: gradient_penalties(judge, real, fake, same, penalties))
        terms["loss"] = terms["loss"] + due.pop("loss")
        terms |= due
    if penalties.lecam:
        if anchors is None:
            raise ValueError(f"penalties.lecam={penalties.lecam} needs running means of the logits: give anchors")
        add("lecam", penalties.lecam, adversarial.lecam(logit_real, logit_fake, anchors))
    if penalties.consistency:
        moved = (augment(x, key, 1.0, SMALL_MOVES) for x, key in ((real, key_move), (fake, key_move_fake)))
        pairs = zip((logit_real, logit_fake), moved, (key_real, key_fake), strict=True)
        change = sum(adversarial.consistency(logits, judge(x, key)[0]) for logits, x, key in pairs)
        add("consistency", penalties.consistency, jnp.asarray(change))
    if own_real is not None and own_fake is not None:
        add("auxiliary", 1.0, own_real + own_fake)
    return {name: _example_mean(term) for name, term in terms.items()}


def gradient_penalties(judge: Judge, real: Array, fake: Array, keys: Array, penalties: Penalties) -> dict[str, Array]:
    """The gradient penalties whose weight is not 0, each [B] without its weight, and their weighted sum as "loss".

    With the keys of `d_terms` the augmentations are the same, so that the compiler computes D(x) once for both.
    """
    fake = jax.lax.stop_gradient(fake)
    key_real, key_fake, key_line, _, key_noise, _ = split(keys, 6)
    on_real, on_fake = (lambda x, key=key: judge(x, key)[0] for key in (key_real, key_fake))
    compute = {
        "r1": lambda: adversarial.zero_centred_gradient_penalty(on_real, real),
        "r2": lambda: adversarial.zero_centred_gradient_penalty(on_fake, fake),
        "gradient_penalty": lambda: adversarial.one_centred_gradient_penalty(
            on_real, adversarial.interpolate(real, fake, key_line)
        ),
        "dragan": lambda: adversarial.one_centred_gradient_penalty(
            on_real, adversarial.perturb(real, key_noise, DRAGAN_SD)
        ),
    }
    weights = _gradient_weights(penalties)
    terms = {name: compute[name]() for name in weights}
    return {"loss": jnp.asarray(sum(weight * terms[name] for name, weight in weights.items())), **terms}


def _gradient_weights(penalties: Penalties) -> dict[str, float]:
    weights = {
        "r1": penalties.r1 / 2,
        "r2": penalties.r2 / 2,
        "gradient_penalty": penalties.gradient_penalty,
        "dragan": penalties.dragan,
    }
    return {name: weight for name, weight in weights.items() if weight}


def move_anchors(anchors: Array, metrics: Metrics) -> Array:
    """LeCam's running means of the logits of real and of generated examples, [2], after an update of D."""
    now = jnp.stack([metrics["logit_real"], metrics["logit_fake"]])
    return ANCHOR_DECAY * anchors + (1.0 - ANCHOR_DECAY) * now


# ---- the generator ---------------------------------------------------------------------------------------------------


def g_terms(loss: adversarial.Loss, judge: Judge, real: Array, fake: Array, keys: Array) -> dict[str, Array]:
    """What G minimises ("loss"), [B]. Only the relativistic loss looks at `real`."""
    key_real, key_fake = split(keys)
    logit_fake, own = judge(fake, key_fake)
    value = _example_mean(adversarial.LOSSES[loss][1](judge(real, key_real)[0], logit_fake))
    return {"loss": value if own is None else value + own}


def _example_mean(x: Array) -> Array:
    """[B, ...] of patches -> [B]"""
    return x.mean(axis=tuple(range(1, x.ndim))) if x.ndim > 1 else x
