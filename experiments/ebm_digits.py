"""An energy-based model of 8x8 digits. Du & Mordatch 2019, https://arxiv.org/abs/1903.08689

    python experiments/ebm_digits.py                     (53 s of training on 2 CPU cores)
    python experiments/ebm_digits.py --ablation all --seeds 3

Expect 2.829 ± 0.003 bits/dim on test data, an estimate (seeds 0 to 2: 2.8230 2.8312 2.8331; standard error over images
0.017). It is an estimate, with an error of each sign: log Z comes from annealed importance sampling, which errs on the
low side, and dequantisation errs on the high side. The interval of a card holds the error of log Z too. Samples are
Langevin chains of 2,000 steps from noise.

Differs from the paper: Langevin dynamics at temperature 1 (Nijkamp et al. 2020, https://arxiv.org/abs/1903.12370),
so that samples follow the trained energy; a fully connected network with Fourier features; one chain for each place in
the batch.
"""

from genmap_jax.approximate import ebm
from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import images

STEPS, BATCH = 2400, 128

CONFIG = Experiment(
    name="ebm_digits",
    data="digits",
    steps=STEPS,
    batch_size=BATCH,
    eval_every=1200,
    sample_every=800,
    model=ebm.Config(
        space=images(8, 8, 1, levels=17),
        width=256,
        depth=2,
        frequencies=1,
        mu=-0.4,
        s=0.75,
        noise=0.1,
        eps=0.08,
        chain_steps=20,
        reinit=0.02,
        ais_chains=128,
        ais_temperatures=2000,
        optim=Optim(lr=1e-3, decay=STEPS * BATCH, final=0.01),
        ema_halflife=200 * BATCH,
    ),
)

FAMILY = ebm.FAMILY
ABLATIONS = {
    "noise_start": {"model.reinit": 1.0},
    "short_chains": {"model.chain_steps": 5},
    "no_data_noise": {"model.noise": 0.0},
    "no_frequencies": {"model.frequencies": 0},
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
