"""A GAN of eight Gaussians on the plane: which modes it finds. Huang et al. 2024, https://arxiv.org/abs/2501.05441

    python experiments/gan_toy.py
    python experiments/gan_toy.py --ablation all --seeds 3

Expect: all 8 modes, 93 % of samples near one of them (the data: 98.9 %), seed 0, jax 0.10.2. No density.

Differs from the paper: fully connected networks, a constant penalty weight.
"""

from genmap_jax.config import Experiment
from genmap_jax.implicit import gan
from genmap_jax.optim import Optim

STEPS, BATCH = 5000, 256
CONFIG = Experiment(
    name="gan_toy",
    data="toy/gaussians8",
    steps=STEPS,
    batch_size=BATCH,
    sample_every=2500,
    save_every=2500,
    samples=1000,
    model=gan.Config(
        shape=(2,),
        latent=2,
        width=128,
        depth=3,
        loss="relativistic",
        r1=0.1,
        r2=0.1,
        ema_halflife=10_000,
        optim=Optim(lr=1e-3, b1=0.0, b2=0.99, clip=0.0, decay=STEPS * BATCH, final=0.01),
    ),
)
ALGORITHM = gan.algorithm
ABLATIONS = {
    "nonsaturating": {"model.loss": "nonsaturating"},
    "minimax": {"model.loss": "minimax"},
    "no_penalty": {"model.r1": 0.0, "model.r2": 0.0},
    "strong_penalty": {"model.r1": 1.0, "model.r2": 1.0},
    "no_ema": {"model.ema_halflife": None},
}

if __name__ == "__main__":
    from genmap_jax.train import main

    main(CONFIG, ALGORITHM, ABLATIONS)
