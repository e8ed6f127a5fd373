"""A GAN of 25 Gaussians on the plane: which modes it finds, with every loss and every penalty.

    python experiments/gan_toy.py
    python experiments/gan_toy.py --ablation all --seeds 3

Expect: all 25 modes with each of seeds 0 to 2, of 10,000 samples; KL of the modes' shares 0.025 0.031 0.032 nats (data:
0.001); 53.9 53.4 53.2 % of samples within three standard deviations of a mode (data: 99.0), for a generator that is
continuous in z bridges neighbours. 2 busy CPU cores, jax 0.10.2. KL of the variants that were run, same seeds (all
modes unless said):

                   no penalty                       R1                               R1 and R2
    minimax        0.137 0.091 0.160 (22 24 23)     0.026 0.038 0.041                0.046 0.025 0.038
    nonsaturating  0.124 0.126 0.151                0.044 0.024 0.054                0.025 0.035 0.045
    hinge          0.201 0.113 0.141 (22 24 25)     0.038 0.017 0.120 (25 25 23)     not run
    least_squares  0.117 0.100 0.085                0.109 0.073 0.066 (24 25 25)     not run
    wasserstein    no minimum                       0.030 0.038 0.029                not run
    relativistic   0.165 0.187 0.088 (24 24 25)     0.092 0.074 0.044                0.025 0.031 0.032

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
