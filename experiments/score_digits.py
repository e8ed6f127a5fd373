"""Score-based model (VP SDE) on the 8x8 digits. Song et al. 2021, https://arxiv.org/abs/2011.13456

    python experiments/score_digits.py                     (83 s of training on 2 CPU cores)
    python experiments/score_digits.py --ablation all --seeds 3

Expect 2.340 ± 0.005 bits/dim on test data (an estimate; mean ± standard error of seeds 0 to 2: 2.3299 2.3483 2.3412;
standard error over the 300 images 0.018) with jax 0.10.2.

Differs from the paper: a residual MLP on 64 pixels instead of a U-Net; 200 sampler steps instead of 1,000; the exact
divergence in the likelihood; cosine decay of the learning rate; see also genmap_jax/implicit/score.py.
"""

from genmap_jax.implicit import score
from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import images

STEPS, BATCH = 8000, 128

CONFIG = Experiment(
    name="score_digits",
    data="digits",
    steps=STEPS,
    batch_size=BATCH,
    eval_every=4000,
    sample_every=2000,
    model=score.Config(
        space=images(8, 8, 1, levels=17),
        width=256,
        blocks=3,
        sample_steps=200,
        divergence="exact",
        spacing=0.5,
        tol=1e-3,
        optim=Optim(lr=1e-3, warmup=20_000, decay=STEPS * BATCH),
        ema_halflife=50_000.0,
    ),
)

FAMILY = score.FAMILY
ABLATIONS = {
    "ve": {"model.sde": "ve", "model.sigma_max": 10.0},  # the largest distance between two digits is 9.1
    "subvp": {"model.sde": "subvp"},
    "likelihood_weighting": {"model.weighting": "likelihood"},
    "no_ema": {"model.ema_halflife": None},
    "predictor_only": {"model.corrector_steps": 0, "model.sample_steps": 400},  # the same number of scores
    "ode_sampler": {"model.sampler": "ode"},
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
