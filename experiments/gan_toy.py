"""A GAN of 25 Gaussians on the plane: how many modes it finds, with every loss and every penalty.

    python experiments/gan_toy.py
    python experiments/gan_toy.py --ablation all --seeds 3

Expect all 25 modes with each of seeds 0 to 2, among 10,000 samples; the KL of the modes' shares is 0.025 0.031 0.032
nats (data: 0.001). 53.9 53.4 53.2 % of the samples are within three standard deviations of a mode (data: 99.0), because
a generator that is continuous in z bridges neighbouring modes. These numbers are of 2 busy CPU cores and jax 0.10.2,
measured by version 0.1.0; now at most 5,000 samples are drawn (`--measured-samples 5000`).

The KL of the modes' shares, and the mean number of modes found, for every loss and penalty, with the same seeds, 24 s
each:

                           none               R1        R1 and R2          WGAN-GP           DRAGAN            LeCam
minimax        0.129±0.021 23.0 0.035±0.005 25.0 0.037±0.006 25.0 0.166±0.043 24.7 0.197±0.055 24.0     one diverged
nonsaturating  0.134±0.009 25.0 0.041±0.009 25.0 0.035±0.006 25.0 0.195±0.036 22.3 0.230±0.010 23.7 0.118±0.008 24.3
hinge          0.152±0.026 23.7 0.059±0.032 24.3 0.024±0.002 25.0 0.099±0.002 25.0 0.074±0.025 25.0 0.120±0.027 24.0
least_squares  0.101±0.009 25.0 0.083±0.013 24.7 0.051±0.005 25.0 0.373±0.068 18.3 0.316±0.040 19.7 0.077±0.002 25.0
wasserstein          no minimum 0.032±0.003 25.0 0.028±0.005 25.0 0.090±0.023 25.0 0.102±0.024 24.7       no minimum
relativistic   0.147±0.030 24.3 0.070±0.014 25.0 0.029±0.002 25.0 0.265±0.023 22.0 0.139±0.046 24.3 0.132±0.015 24.7

Spectral norm instead of a penalty gives 0.058±0.010 25.0, the baseline without EMA 0.028±0.002 25.0. With minimax and
LeCam, one generator of three diverged; the others found 25 and 23 modes, with a KL of 0.085 and 0.179. A constant
learning rate is better still if parameters are averaged: a KL of 0.009 0.010 0.011, and 57.9 60.6 59.4 % near a mode;
the last parameters give 0.099 0.028 0.018 and 43.5 56.5 57.5 %.

Metz et al. 2017 (https://arxiv.org/abs/1611.02163) made the grid of Gaussians a test of dropped modes. Loss and
penalties of the baseline are those of Huang et al. 2024, https://arxiv.org/abs/2501.05441.

Differs from the paper: fully connected networks, a constant penalty weight.
"""

from genmap_jax.implicit import gan
from genmap_jax.objectives import adversarial
from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import vectors

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
        space=vectors(2),
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
FAMILY = gan.FAMILY
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
ABLATIONS |= {
    "spectral_norm": OFF | {"model.spectral_norm": True},
    "no_ema": {"model.ema_halflife": None},
    "constant_rate": {"model.optim.decay": 0},  # where the average matters
    "constant_rate_no_ema": {"model.optim.decay": 0, "model.ema_halflife": None},
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
