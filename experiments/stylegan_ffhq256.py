"""StyleGAN2 with adaptive augmentation on faces, FFHQ at 256x256. Karras et al. 2020, https://arxiv.org/abs/2006.06676

    genmap prepare ffhq256 --raw FOLDER_OF_IMAGES --size 256
    python experiments/stylegan_ffhq256.py

Not trained by us. The configuration is that of the paper at 256 pixels: 64 images a step, half of the channels of
config F, R1 with gamma = 1, 25 million images on 8 GPUs. G has 24.8 million parameters and D 24.0 million.

Differs from the paper: the half-life of averaging grows with the first images; images are not mirrored, for which
`augment=("flip",)` of the experiment is.
"""

from genmap_jax.implicit import stylegan
from genmap_jax.nn.augment import BGC
from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import images

CONFIG = Experiment(
    name="stylegan_ffhq256",
    data="ffhq256",
    steps=390_625,
    batch_size=64,
    model=stylegan.Config(
        space=images(256, 256, 3),
        capacity=16384,
        group=8,
        r1=1.0,
        augment=BGC,
        ada_target=0.6,
        ema_halflife=20_000,
        dtype="bfloat16",
        optim=Optim(lr=2.5e-3, b1=0.0, b2=0.99, clip=0.0),
    ),
)
FAMILY = stylegan.FAMILY
ABLATIONS = {
    "no_ada": {"model.augment": (), "model.ada_target": None},
    "no_path_length": {"model.path_length": 0.0},
    "no_mixing": {"model.mixing": 0.0},
    "no_noise": {"model.noise": False},
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
