"""CycleGAN: images of one domain become images of another, learned from two sets without a single pair.

Generators G: A -> B and F: B -> A, a discriminator for each domain, and a cycle that must close:

    L(G, F) = E_x[(D_B(G(x)) - 1)^2] + E_y[(D_A(F(y)) - 1)^2]
            + cycle (E_x |F(G(x)) - x| + E_y |G(F(y)) - y|) + cycle identity (E_y |G(y) - y| + E_x |F(x) - x|)
    L(D_B)  = (E_y[(D_B(y) - 1)^2] + E_x[D_B(G(x))^2]) / 2   and the same of D_A;   x ~ A,   y ~ B

where | | is a mean over pixels; Zhu et al. 2017 (https://arxiv.org/abs/1703.10593). On the same networks, from A to B
alone, CUT (Park et al. 2020, https://arxiv.org/abs/2007.15651), which holds patches to their place in the place of the
cycle, and pix2pix (Isola et al. 2017, https://arxiv.org/abs/1611.07004), which is given the pairs.

    config      the options; `CUT` and `PIX2PIX` are changes of them
    networks    ResNet and U-Net generators, PatchGAN discriminators, CUT's heads
    players     networks applied, and what generators and discriminators minimise
    game        state, one step of all players, translations; `algorithm`, `FAMILY`

A batch holds "source" from A and "image" from B. Samples are translations of sources; with `direction="ba"` images are
what is given, and samples are sources. Adversarial losses and pools are those of `objectives`.
"""

from genmap_jax.implicit.cyclegan.config import CUT, PIX2PIX, Config
from genmap_jax.implicit.cyclegan.game import CUT_FAMILY, FAMILY, PIX2PIX_FAMILY, State, algorithm, averaged
from genmap_jax.implicit.cyclegan.networks import Heads, PatchGAN, Resnet, UNet
from genmap_jax.implicit.cyclegan.players import (
    contrast,
    discriminate,
    discriminator_terms,
    features,
    generator_terms,
    translate,
    translations,
)

__all__ = [
    "CUT",
    "CUT_FAMILY",
    "FAMILY",
    "PIX2PIX",
    "PIX2PIX_FAMILY",
    "Config",
    "Heads",
    "PatchGAN",
    "Resnet",
    "State",
    "UNet",
    "algorithm",
    "averaged",
    "contrast",
    "discriminate",
    "discriminator_terms",
    "features",
    "generator_terms",
    "translate",
    "translations",
]
