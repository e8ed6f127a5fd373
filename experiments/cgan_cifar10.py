"""R3GAN on CIFAR-10 with class labels: the paper's networks, 20.78 million parameters in G and 21.28 million in D.

    python experiments/cgan_cifar10.py

Not trained by us. Huang et al. 2024 (https://arxiv.org/abs/2501.05441) report an FID of 1.96 with their own code.

Differs from the paper: constants where it has cosine schedules (penalty weight 0.05 -> 0.005, averaging half-life 0 ->
5 million examples, Adam's b2 0.9 -> 0.99); adaptive instead of scheduled augmentation, with fewer kinds of transforms;
D has an unconditional logit as well.
"""

from genmap_jax.implicit import gan
from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import images

CONFIG = Experiment(
    name="cgan_cifar10",
    data="cifar10",
    steps=40_000,
    batch_size=512,
    model=gan.Config(
        space=images(32, 32, 3, levels=256),
        classes=10,
        network="r3gan",
        latent=64,
        width=768,
        depth=3,
        condition_g="concat",
        condition_d="projection",
        loss="relativistic",
        r1=0.05,
        r2=0.05,
        augment=("flip", "translation", "scaling", "colour", "cutout"),
        ada_target=0.6,
        ema_halflife=500_000,
        optim=Optim(lr=2e-4, b1=0.0, b2=0.99, clip=0.0, decay=20_000_000, final=0.25),
    ),
)
FAMILY = gan.CONDITIONAL
ABLATIONS = {}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
