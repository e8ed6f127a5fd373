"""Conditional GAN on 8x8 digits: the label beside z, and a projection in the discriminator.

    python experiments/cgan_digits.py
    python experiments/cgan_digits.py --ablation all --seeds 3

Expect: TODO
Mirza & Osindero 2014 (https://arxiv.org/abs/1411.1784) is the conditional game, Miyato & Koyama 2018
(https://arxiv.org/abs/1802.05637) the projection, Huang et al. 2024 (https://arxiv.org/abs/2501.05441) the loss.
Differs from the papers: fully connected networks, a constant penalty weight, no augmentation.
"""

from genmap_jax.config import Experiment
from genmap_jax.implicit import gan
from genmap_jax.optim import Optim

CONFIG = Experiment(
    name="cgan_digits",
    data="digits",
    steps=5000,
    batch_size=128,
    model=gan.Config(
        shape=(8, 8, 1),
        levels=17,
        classes=10,
        network="mlp",
        latent=64,
        width=256,
        depth=3,
        condition_g="concat",
        condition_d="projection",
        loss="relativistic",
        r1=1.0,
        r2=1.0,
        ema_halflife=10_000,
        optim=Optim(lr=1e-3, b1=0.0, b2=0.99, clip=0.0, decay=640_000),
    ),
)
ALGORITHM = gan.algorithm
ABLATIONS = {
    "concat": {"model.condition_d": "concat"},
    "auxiliary": {"model.condition_d": "auxiliary"},
    "no_ema": {"model.ema_halflife": None},
}

if __name__ == "__main__":
    from genmap_jax.train import main

    main(CONFIG, ALGORITHM, ABLATIONS)
