"""A neural spline flow of eight Gaussians on the plane. Durkan et al. 2019, https://arxiv.org/abs/1906.04032

    python experiments/flow_toy.py
    python experiments/flow_toy.py --data toy/moons
    python experiments/flow_toy.py --ablation all --seeds 3

The density is exact, and so is the entropy of the data: KL(data || model) is the difference of two numbers.

Differs from the paper: other data; actnorm; a bounded slope of splines; averaged parameters.
"""

from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import vectors
from genmap_jax.tractable.flow import spline

STEPS, BATCH = 6000, 256
CONFIG = Experiment(
    name="flow_toy",
    data="toy/gaussians8",
    steps=STEPS,
    batch_size=BATCH,
    eval_every=3000,
    sample_every=3000,
    save_every=3000,
    samples=1000,
    model=spline.Config(
        space=vectors(2),
        layers=6,
        width=64,
        optim=Optim(lr=2e-3, decay=STEPS * BATCH, final=0.01),
        ema_halflife=50_000,
    ),
)

FAMILY = spline.FAMILY
ABLATIONS = {
    "affine": {"model.transform": "affine"},
    "affine_deep": {"model.transform": "affine", "model.layers": 8},
    "maf": {"model.kind": "autoregressive"},
    "no_actnorm": {"model.actnorm": False},
    "permutation": {"model.mixing": "permutation"},
    "half_depth": {"model.layers": 3, "model.width": 96},
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
