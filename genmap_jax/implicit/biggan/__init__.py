"""BigGAN: a large class-conditional GAN of residual networks, whose samples trade variety for quality by truncation.

Brock et al. 2019 (https://arxiv.org/abs/1809.11096).

    config      the options
    networks    residual blocks normalised by class and latent, self-attention, and the deep variant
    game        state, one step of both players, samples with truncation; `algorithm`, `FAMILY`

Shared with other adversarial families: `objectives.discriminator`, `nn.reparametrise` (spectral norm, orthogonal
regularisation) and `nn.batch_norm`, whose statistics are over the batch of all devices.
"""

from genmap_jax.implicit.biggan.config import Config
from genmap_jax.implicit.biggan.game import (
    FAMILY,
    State,
    algorithm,
    averaged,
    discriminate,
    generate,
    latents,
    standing_statistics,
)
from genmap_jax.implicit.biggan.networks import Discriminator, Generator

__all__ = [
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
    "standing_statistics",
]
