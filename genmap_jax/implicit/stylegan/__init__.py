"""StyleGAN2: a generator whose layers are told by scales of their channels, a *style*, what to draw.

    z ~ N(0, I)  ->  w = mapping(z)  ->  every convolution's input channels are scaled by an affine map of w

Karras et al. 2020 (https://arxiv.org/abs/1912.04958); with adaptive discriminator augmentation, and labels, Karras et
al. 2020 (https://arxiv.org/abs/2006.06676).

    config      the options
    networks    mapping, synthesis with modulated convolutions, discriminator
    alias_free  the generator of StyleGAN3-T, as an option (Karras et al. 2021, https://arxiv.org/abs/2106.12423)
    game        state, one step of both players with lazy penalties, samples with truncation; `algorithm`, `FAMILY`
    projection  the style from which a given image is drawn

Shared with other adversarial families: `objectives.discriminator`, `objectives.lazy`, `objectives.path_length`,
`objectives.ada`, `nn.augment`, and `nn.fir`, which changes the resolution.
"""

from genmap_jax.implicit.stylegan.config import Config, r1_heuristic
from genmap_jax.implicit.stylegan.game import (
    FAMILY,
    State,
    algorithm,
    averaged,
    discriminate,
    draw_noise,
    latents,
    mix,
    style,
    synthesise,
    truncate,
)
from genmap_jax.implicit.stylegan.networks import Discriminator, Mapping, Synthesis
from genmap_jax.implicit.stylegan.projection import Projection, project

__all__ = [
    "FAMILY",
    "Config",
    "Discriminator",
    "Mapping",
    "Projection",
    "State",
    "Synthesis",
    "algorithm",
    "averaged",
    "discriminate",
    "draw_noise",
    "latents",
    "mix",
    "project",
    "r1_heuristic",
    "style",
    "synthesise",
    "truncate",
]
