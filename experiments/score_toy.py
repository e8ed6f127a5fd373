"""Score-based model (VP SDE) of eight Gaussians on the plane, where its density can be checked. Song et al. 2021,
https://arxiv.org/abs/2011.13456

    python experiments/score_toy.py
    python experiments/score_toy.py --ablation all --seeds 3

Expect: KL(data || model) 0.090 nats (estimate), 97 % of samples near one of the 8 modes, seed 0, jax 0.10.2.

The entropy of the data is 1.698 nats, so KL(data || model) = -log-likelihood - 1.698, up to the error of the solver.
Differs from the paper: a residual MLP; exact divergence in the likelihood; 200 sampler steps.
"""

from genmap_jax.config import Experiment
from genmap_jax.implicit import score
from genmap_jax.optim import Optim

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
        shape=(2,),
        width=128,
        blocks=2,
        sample_steps=200,
        trace="exact",
        tol=1e-3,
        optim=Optim(lr=2e-3, decay=STEPS * BATCH, final=0.01),
        ema_halflife=50_000,
    ),
)
ALGORITHM = score.algorithm
ABLATIONS = {
    "ve": {"model.sde": "ve", "model.sigma_max": 8.0},
    "subvp": {"model.sde": "subvp"},
    "likelihood_weighting": {"model.weighting": "likelihood"},
    "no_ema": {"model.ema_halflife": None},
    "ode_sampler": {"model.sampler": "ode"},
}

if __name__ == "__main__":
    from genmap_jax.train import main

    main(CONFIG, ALGORITHM, ABLATIONS)
