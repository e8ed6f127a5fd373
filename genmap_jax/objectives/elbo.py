"""The evidence lower bound: as a loss to minimise, and tightened by importance weights to evaluate with.

    log p(x)  >=  E_q[log p(x | z)] - KL(q(z | x) || p(z))         Kingma & Welling 2014 (arXiv:1312.6114), eq. 3

A family supplies the two terms per example, in nats summed over dimensions. The *loss* alone is divided by the number
of dimensions, so that gradient clipping means the same for 2 dimensions and for 3,072.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from genmap_jax.algorithm import Array, Batch, Key, LogProb, Params


def gaussian_kl(mu: Array, logvar: Array) -> Array:
    """KL(N(mu, diag(exp(logvar))) || N(0, I)) in nats. [B, Z], [B, Z] -> [B]. Kingma & Welling 2014, appendix B."""
    return 0.5 * (jnp.square(mu) + jnp.expm1(logvar) - logvar).sum(-1)


def negative_elbo(
    terms: Callable[[Params, Key, Batch], tuple[Array, Array]], dims: int, beta: float = 1.0
) -> Callable[[Params, Key, Batch], dict[str, Array]]:
    """The loss for `minimise`: (beta KL - reconstruction) / dims, per example [B].

    terms: (params, keys [B], batch) -> reconstruction log-likelihood and KL, each [B] in nats, reported as they are.
    dims: dimensions of one example; at beta = 1 the loss is in nats per dimension.
    beta: weight of the KL (Higgins et al. 2017). At other values than 1 the loss is no bound and must not be quoted.
    """

    def loss(params, keys, batch):
        recon, kl = terms(params, keys, batch)
        return {"loss": (beta * kl - recon) / dims, "recon": recon, "kl": kl}

    return loss


def importance_bound(log_weights: Array) -> LogProb:
    """The K-sample bound  E[log 1/K sum_k w_k] <= log p(x),  w_k = p(x, z_k) / q(z_k | x). [K, B] -> LogProb of [B].

    Burda et al. 2016 (arXiv:1509.00519), eq. 8. K = 1 is the ELBO; the expectation grows with K towards log p(x), so
    the kind stays "lower_bound". stderr is the delta method's, and None at K = 1; it is blind to where q never goes.
    """
    samples = log_weights.shape[0]
    nats = jax.nn.logsumexp(log_weights, axis=0) - jnp.log(samples)
    if samples == 1:
        return LogProb(nats, "lower_bound")
    relative = jnp.exp(log_weights - nats[None, :])  # w_k / mean(w)
    stderr = jnp.sqrt(jnp.square(relative - 1.0).sum(0) / (samples * (samples - 1.0)))
    return LogProb(nats, "lower_bound", stderr)
