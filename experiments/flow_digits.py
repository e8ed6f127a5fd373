"""A normalizing flow (Glow) on 8x8 digits. Kingma & Dhariwal 2018, https://arxiv.org/abs/1807.03039

    python experiments/flow_digits.py
    python experiments/flow_digits.py --ablation all --seeds 3

Differs from the paper: other data, 17 grey values; two levels; logits of pixels; splines as elementwise maps; weight
decay; averaged parameters; see also tractable/flow/glow.py.
"""

from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import images
from genmap_jax.tractable.flow import glow

STEPS, BATCH = 1200, 64
CONFIG = Experiment(
    name="flow_digits",
    data="digits",
    steps=STEPS,
    batch_size=BATCH,
    model=glow.Config(
        space=images(8, 8, 1, levels=17),
        levels=2,
        depth=4,
        width=64,
        transform="spline",
        logit=0.01,
        optim=Optim(lr=1e-3, weight_decay=0.1, decay=STEPS * BATCH, final=0.01),
        ema_halflife=10_000,
    ),
)

FAMILY = glow.FAMILY
ABLATIONS = {
    "affine": {"model.transform": "affine"},
    "no_logit": {"model.logit": 0.0},
    "no_actnorm": {"model.actnorm": False},
    "permutation": {"model.mixing": "permutation"},
    "variational": {"model.dequantisation": "variational"},
    "half_depth": {"model.depth": 2, "model.width": 112},  # as many parameters
    "no_decay": {"model.optim.weight_decay": 0.0},
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
