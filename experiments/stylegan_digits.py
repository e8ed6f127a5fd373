"""StyleGAN2 on 8x8 digits. Karras et al. 2020, https://arxiv.org/abs/1912.04958

    python experiments/stylegan_digits.py
    python experiments/stylegan_digits.py --ablation all --seeds 3 --features own
    genmap map --data digits --only stylegan --seeds 3

Not trained by us to a number that is written down.

Differs from the paper: other data, 17 grey values; 32 channels, styles of 64 numbers, two layers of the mapping
network; a lighter R1; a half-life of averaging that suits the short run.
"""

from genmap_jax.implicit import stylegan
from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import images

STEPS, BATCH = 2000, 64
CONFIG = Experiment(
    name="stylegan_digits",
    data="digits",
    steps=STEPS,
    batch_size=BATCH,
    model=stylegan.Config(
        space=images(8, 8, 1, levels=17),
        latent=64,
        mapping_depth=2,
        channels=32,
        capacity=256,
        r1=1.0,
        ema_halflife=10_000,
        optim=Optim(lr=2e-3, b1=0.0, b2=0.99, clip=0.0),
    ),
)
FAMILY = stylegan.FAMILY
ADA = {"model.augment": ("integer_translation", "isotropic_scaling", "rotation"), "model.ada_target": 0.6}
ABLATIONS = {
    "no_path_length": {"model.path_length": 0.0},
    "no_mixing": {"model.mixing": 0.0},
    "no_noise": {"model.noise": False},
    "r1_weak": {"model.r1": 0.1},
    "r1_strong": {"model.r1": 10.0},
    "ada": ADA,
    "tenth": {"data": "part/10,digits"},
    "tenth_ada": {"data": "part/10,digits", **ADA},
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
