"""Generative adversarial network: a generator and a discriminator in a min-max game. No density, only samples.

    min_G max_D  E_x[log sigmoid(D(x))] + E_z[log(1 - sigmoid(D(G(z))))],   x ~ data,  z ~ N(0, I)

Goodfellow et al. 2014 (https://arxiv.org/abs/1406.2661); given a label y, D(x, y) and G(z, y), Mirza & Osindero 2014
(https://arxiv.org/abs/1411.1784).

    config      what a GAN is made of
    networks    fully connected, residual, DCGAN / SNGAN, R3GAN; where a label enters them
    game        what each player minimises, one step of both, the samples; `algorithm`

and what other adversarial families share: `objectives.adversarial` (losses and penalties, each on its own),
`nn.augment` (DiffAugment, ADA), `nn.reparametrise` (spectral norm, equalised learning rate), `nn.batch_norm`.
"""

from genmap_jax.implicit.gan.config import Config
from genmap_jax.implicit.gan.game import State, algorithm, d_terms, discriminate, dither, g_terms, generate, latents
from genmap_jax.implicit.gan.networks import Discriminator, Generator

__all__ = [
    "Config",
    "Discriminator",
    "Generator",
    "State",
    "algorithm",
    "d_terms",
    "discriminate",
    "dither",
    "g_terms",
    "generate",
    "latents",
]
