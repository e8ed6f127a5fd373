"""Generative adversarial network (GAN): a generator and a discriminator in a min-max game. No density, only samples.

    min_G max_D  E_x[log sigmoid(D(x))] + E_z[log(1 - sigmoid(D(G(z))))],   x ~ data,  z ~ N(0, I)

Goodfellow et al. 2014 (https://arxiv.org/abs/1406.2661); given a label y, D(x, y) and G(z, y), Mirza & Osindero 2014
(https://arxiv.org/abs/1411.1784).

    config      the options
    networks    fully connected, residual, DCGAN / SNGAN and R3GAN networks, and how a label enters them
    game        state, one step of both players, samples; `algorithm`, `FAMILY`, `CONDITIONAL`

Shared with other adversarial families: `objectives.adversarial` (losses and penalties), `objectives.discriminator`
(what each player minimises), `objectives.lazy` (terms at every n-th step), `objectives.ada` (adaptive augmentation),
`objectives.pool` (earlier generated images), `nn.augment` (DiffAugment, ADA's transforms), `nn.reparametrise` (spectral
norm, equalised learning rate), `nn.batch_norm`.
"""

from genmap_jax.implicit.gan.config import Config
from genmap_jax.implicit.gan.game import (
    CONDITIONAL,
    FAMILY,
    State,
    algorithm,
    averaged,
    discriminate,
    generate,
    latents,
)
from genmap_jax.implicit.gan.networks import Discriminator, Generator

__all__ = [
    "CONDITIONAL",
    "FAMILY",
    "Config",
    "Discriminator",
    "Generator",
    "State",
    "algorithm",
    "averaged",
    "discriminate",
    "generate",
    "latents",
]
