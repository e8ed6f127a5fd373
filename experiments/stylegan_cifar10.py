"""StyleGAN2 with adaptive augmentation and labels on CIFAR-10. Karras et al. 2020, https://arxiv.org/abs/2006.06676

    python experiments/stylegan_cifar10.py

Not trained by us; the paper reports an FID of 2.42 and an Inception score of 10.14 with labels, 2.92 and 9.83 without,
after 100 million images on 2 GPUs. The configuration is the paper's for this set: 20.2 million parameters in G and 23.1
million in D, which has no skip connections; 512 channels everywhere; no style mixing and no path-length penalty.

Differs from the paper: nothing but what `genmap_jax/implicit/stylegan/` says. The authors' code corrects the constants
of G's optimizer for the path-length penalty on this set too, where there is none: its learning rate is 0.8 as large.
"""

from genmap_jax.implicit import stylegan
from genmap_jax.nn.augment import BGC
from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import images

CONFIG = Experiment(
    name="stylegan_cifar10",
    data="cifar10",
    steps=1_562_500,
    batch_size=64,
    model=stylegan.Config(
        space=images(32, 32, 3),
        classes=10,
        mapping_depth=2,
        residual=False,
        group=32,
        r1=0.01,
        path_length=0.0,
        mixing=0.0,
        augment=BGC,
        ada_target=0.6,
        ema_halflife=500_000,
        dtype="bfloat16",
        optim=Optim(lr=2.5e-3, b1=0.0, b2=0.99, clip=0.0),
    ),
)
FAMILY = stylegan.FAMILY
ABLATIONS = {
    "unconditional": {"model.classes": None},
    "no_ada": {"model.augment": (), "model.ada_target": None},
    "path_length": {"model.path_length": 2.0},
    "residual": {"model.residual": True},
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
