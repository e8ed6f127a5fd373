"""Unconditional GAN on CIFAR-10: residual networks without normalisation, relativistic loss, R1 + R2 penalties.

    python experiments/gan_cifar10.py

Not trained by us. Goodfellow et al. 2014 (https://arxiv.org/abs/1406.2661) introduced the game, Radford et al. 2016
(https://arxiv.org/abs/1511.06434) made it convolutional, Mescheder et al. 2018 (https://arxiv.org/abs/1801.04406) made
it converge, and Huang et al. 2024 (https://arxiv.org/abs/2501.05441) give the loss, the optimizer and the penalty
weights.

Differs from the paper: plain residual blocks instead of grouped inverted bottlenecks (8.5 million parameters in G where
it has 20.8), no class labels, no augmentation; constants where it has cosine schedules (penalty weight 0.05 -> 0.005,
averaging half-life 0 -> 5 million examples, Adam's b2 0.9 -> 0.99).
"""

from genmap_jax.implicit import gan
from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import images

CONFIG = Experiment(
    name="gan_cifar10",
    data="cifar10",
    steps=40_000,
    batch_size=512,
    model=gan.Config(
        space=images(32, 32, 3, levels=256),
        network="conv",
        latent=64,
        width=256,
        depth=3,
        loss="relativistic",
        r1=0.05,
        r2=0.05,
        ema_halflife=500_000,
        optim=Optim(lr=2e-4, b1=0.0, b2=0.99, clip=0.0, decay=20_000_000, final=0.25),
    ),
)
FAMILY = gan.FAMILY
ABLATIONS = {
    "nonsaturating_r1": {"model.loss": "nonsaturating", "model.r2": 0.0},
    "hinge": {"model.loss": "hinge"},
    "r1_only": {"model.r2": 0.0},
    "no_ema": {"model.ema_halflife": None},
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
