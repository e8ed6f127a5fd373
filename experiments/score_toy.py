"""Score-based model (VP SDE) of eight Gaussians on the plane, where its density can be checked. Song et al. 2021,
https://arxiv.org/abs/2011.13456

    python experiments/score_toy.py
    python experiments/score_toy.py --ablation all --seeds 3

Expect a KL(data || model) of 0.090 nats (an estimate) and 97 % of samples near one of the 8 modes, with seed 0 and jax
0.10.2. The entropy of the data is 1.698 nats, so KL(data || model) = -log-likelihood - 1.698, up to the error of the
solver.

Differs from the paper: a residual MLP; the exact divergence in the likelihood; 200 sampler steps.
"""

from genmap_jax.implicit import score
from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import vectors

STEPS, BATCH = 6000, 256
CONFIG = Experiment(
    name="score_toy",
    data="toy/gaussians8",
    steps=STEPS,
    batch_size=BATCH,
    eval_every=3000,
    sample_every=3000,
    save_every=3000,
    samples=1000,
    model=score.Config(
        space=vectors(2),
        width=128,
        blocks=2,
        sample_steps=200,
        divergence="exact",
        tol=1e-3,
        optim=Optim(lr=2e-3, decay=STEPS * BATCH, final=0.01),
        ema_halflife=50_000,
    ),
)
FAMILY = score.FAMILY
ABLATIONS = {
    "ve": {"model.sde": "ve", "model.sigma_max": 8.0},
    "subvp": {"model.sde": "subvp"},
    "likelihood_weighting": {"model.weighting": "likelihood"},
    "no_ema": {"model.ema_halflife": None},
    "ode_sampler": {"model.sampler": "ode"},
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
