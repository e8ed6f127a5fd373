"""Glow on MNIST. Kingma & Dhariwal 2018, https://arxiv.org/abs/1807.03039

    genmap prepare mnist --raw FOLDER                    (the four original files)
    python experiments/flow_mnist.py

Expect at most 1.231 bits/dim (1,000 test images, 95 % interval 1.215 to 1.246; seed 0, jax 0.10.2) after 1,000 updates,
which are 64,000 images or one pass over the data, in about 14 minutes on one CPU core. Many samples can be read.
Published, after trainings of days: Real NVP 1.06, Glow 1.05, FFJORD 0.99 (Grathwohl et al. 2019, table 2). The
ablations have not been run at full length.

Differs from the paper: other data; logits of pixels; splines; a small network.
"""

from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import images
from genmap_jax.tractable.flow import glow

STEPS, BATCH = 1000, 64
CONFIG = Experiment(
    name="flow_mnist",
    data="mnist",
    steps=STEPS,
    batch_size=BATCH,
    eval_examples=1000,
    model=glow.Config(
        space=images(28, 28, 1),
        levels=2,
        depth=6,
        width=64,
        logit=1e-6,
        transform="spline",
        optim=Optim(lr=1e-3, decay=STEPS * BATCH, final=0.01),
        ema_halflife=10_000,
        draws=4,
    ),
)

FAMILY = glow.FAMILY
ABLATIONS = {
    "affine": {"model.transform": "affine"},
    "no_logit": {"model.logit": 0.0},
    "no_actnorm": {"model.actnorm": False},
    "permutation": {"model.mixing": "permutation"},
    "variational": {"model.dequantisation": "variational"},
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
