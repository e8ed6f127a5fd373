"""GAN with relativistic loss and R1 + R2 penalties on 8x8 digits. https://arxiv.org/abs/2501.05441

    python experiments/gan_digits.py                     (53 to 66 s of training on 2 CPU cores)
    python experiments/gan_digits.py --ablation all --seeds 3 --features own
    genmap map --data digits --seeds 3 --budget 250

Expect, from the second command as measured by version 0.1.0 on 250 samples (seeds 0 to 2, jax 0.10.2): FD-own64 10.3
8.8 11.1 (real images 4.0); total variation of the shares of classes 0.132 0.112 0.152 (real images 0.105); energy
distance to the test images 0.0128 0.0164 0.0192. Mean ± standard error:

                      FD-own64        class TV   energy distance
    baseline        10.1 ± 0.7   0.132 ± 0.012   0.0162 ± 0.0019
    nonsaturating   11.5 ± 1.0   0.140 ± 0.019   0.0164 ± 0.0017
    hinge           11.4 ± 1.1   0.149 ± 0.019   0.0168 ± 0.0007
    wasserstein      9.7 ± 0.7   0.144 ± 0.006   0.0155 ± 0.0019
    minimax         10.3 ± 1.2   0.129 ± 0.013   0.0177 ± 0.0018
    no_penalty      50.5 ± 4.9   0.431 ± 0.012   0.1868 ± 0.0244
    no_ema          10.1 ± 0.7   0.133 ± 0.010   0.0160 ± 0.0018
    diffaugment     14.7 ± 1.4   0.159 ± 0.031   0.0256 ± 0.0008
    ada              9.9 ± 0.4   0.143 ± 0.017   0.0190 ± 0.0015

On the samples of the card, from the third command (whose budget shortens no run): FD-own64 11.0 ± 1.0, seeds 0 to 2
10.0 9.9 13.1 (real images 3.9 ± 1.0).

Differs from the paper: fully connected networks, a constant penalty weight, no augmentation.
"""

from genmap_jax.implicit import gan
from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import images

CONFIG = Experiment(
    name="gan_digits",
    data="digits",
    steps=5000,
    batch_size=128,
    model=gan.Config(
        space=images(8, 8, 1, levels=17),
        network="mlp",
        latent=64,
        width=256,
        depth=3,
        loss="relativistic",
        r1=1.0,
        r2=1.0,
        ema_halflife=10_000,
        optim=Optim(lr=1e-3, b1=0.0, b2=0.99, clip=0.0, decay=640_000),
    ),
)
FAMILY = gan.FAMILY
ABLATIONS = {
    "nonsaturating": {"model.loss": "nonsaturating"},
    "hinge": {"model.loss": "hinge"},
    "wasserstein": {"model.loss": "wasserstein"},
    "minimax": {"model.loss": "minimax"},
    "conv": {"model.network": "conv", "model.width": 32, "model.depth": 2, "steps": 2000},
    "no_penalty": {"model.r1": 0.0, "model.r2": 0.0},
    "no_ema": {"model.ema_halflife": None},
    "diffaugment": {"model.augment": ("translation", "cutout")},
    "ada": {"model.augment": ("translation", "scaling", "colour", "cutout"), "model.ada_target": 0.6},
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
