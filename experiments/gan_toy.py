"""A GAN of 25 Gaussians on the plane: which modes it finds, with every loss and every penalty.

    python experiments/gan_toy.py
    python experiments/gan_toy.py --ablation all --seeds 3

Expect: TODO
Metz et al. 2017 (https://arxiv.org/abs/1611.02163) made the grid of Gaussians the test of dropped modes; loss and
penalties of the baseline are those of Huang et al. 2024, https://arxiv.org/abs/2501.05441.

Differs from the paper: fully connected networks, a constant penalty weight.
"""

from genmap_jax.config import Experiment
from genmap_jax.implicit import gan
from genmap_jax.objectives import adversarial
from genmap_jax.optim import Optim

STEPS, BATCH = 3000, 128
CONFIG = Experiment(
    name="gan_toy",
    data="toy/gaussians25",
    steps=STEPS,
    batch_size=BATCH,
    sample_every=1500,
    save_every=1500,
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
OFF = {"model.r1": 0.0, "model.r2": 0.0}
PENALTIES = {
    "none": OFF,
    "r1": OFF | {"model.r1": 0.1},
    "r1_r2": {},
    "gp": OFF | {"model.gradient_penalty": 1.0},
    "dragan": OFF | {"model.dragan": 1.0},
    "lecam": OFF | {"model.lecam": 0.1},
}
ABLATIONS = {
    f"{loss}_{name}": {"model.loss": loss} | penalty
    for name, penalty in PENALTIES.items()
    for loss in adversarial.LOSSES
    if (loss, name) not in (("relativistic", "r1_r2"), ("wasserstein", "none"), ("wasserstein", "lecam"))
}  # the first is the baseline, the others have no minimum
ABLATIONS |= {"no_ema": {"model.ema_halflife": None}, "spectral_norm": OFF | {"model.spectral_norm": True}}

if __name__ == "__main__":
    from genmap_jax.train import main

    main(CONFIG, ALGORITHM, ABLATIONS)
