"""A continuous flow of eight Gaussians on the plane. Grathwohl et al. 2019, "FFJORD", https://arxiv.org/abs/1810.01367

    python experiments/cnf_toy.py
    python experiments/cnf_toy.py --ablation all --seeds 3
    genmap evaluate runs/cnf_toy --model.divergence hutchinson       (trained once, measured with either divergence)

Expect 1.802 ± 0.015 nats by the adaptive solver, where the entropy is 1.698: KL(data || model) of 0.103 0.078 0.130
nats (seeds 0 to 2, on 2,000 test points, whose error of 0.05 nats is the same for all; three seeds in one program took
about 25 minutes on one busy CPU core, jax 0.10.2). The ablations have not been run at full length.

Differs from the paper: other data; a residual network modulated by time; Runge-Kutta in training;
the penalties of Finlay et al. 2020; averaged parameters.
"""

from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import vectors
from genmap_jax.tractable.flow import continuous

STEPS, BATCH = 800, 256
CONFIG = Experiment(
    name="cnf_toy",
    data="toy/gaussians8",
    steps=STEPS,
    batch_size=BATCH,
    eval_every=400,
    sample_every=400,
    save_every=400,
    samples=1000,
    model=continuous.Config(
        space=vectors(2),
        width=64,
        blocks=2,
        steps=8,
        kinetic=0.01,
        jacobian=0.01,
        optim=Optim(lr=1e-3, decay=STEPS * BATCH, final=0.01),
        ema_halflife=10_000,
    ),
)

FAMILY = continuous.FAMILY
ABLATIONS = {
    "hutchinson": {"model.training_divergence": "hutchinson"},
    "adjoint": {"model.gradient": "adjoint"},
    "unregularised": {"model.kinetic": 0.0, "model.jacobian": 0.0},
    "16_steps": {"model.steps": 16},
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
