"""A neural spline flow of eight Gaussians on the plane. Durkan et al. 2019, https://arxiv.org/abs/1906.04032

    python experiments/flow_toy.py
    python experiments/flow_toy.py --data toy/moons
    python experiments/flow_toy.py --ablation all --seeds 3
    genmap evaluate runs/flow_toy                        (the card, with both KL divergences to the true density)

Expect KL(data || model) of these nats (seeds 0 to 2, by `genmap evaluate` on 100,000 new points; jax 0.10.2):

    gaussians8    0.016 0.013 0.014        rings     0.041 0.045 0.041        checkerboard  0.021 0.020 0.021
    moons         0.005 0.005 0.006        pinwheel  0.019 0.019 0.024

Three seeds in one program take about 3 minutes on a CPU core. The ablations have not been run at full length.

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
