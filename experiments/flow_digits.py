"""A normalizing flow (Glow) on 8x8 digits. Kingma & Dhariwal 2018, https://arxiv.org/abs/1807.03039

    python experiments/flow_digits.py
    python experiments/flow_digits.py --ablation all --seeds 3

Expect at most 1.898 ± 0.001 bits/dim (seeds 0 to 2: 1.8998 1.8976 1.8977) and FD-own64 10.3 ± 0.7 (11.7 9.1 10.0; real
images 3.9), from `genmap map --data digits --only flow --seeds 3 --budget 60`: 50 seconds of training each on 2 CPU
cores, jax 0.10.2. Samples are digits that can be read.

Ablations, seed 0, from the second command with one seed, in bits/dim at most (baseline 1.900): without logits 2.018,
affine maps in the place of splines 1.982, half the depth with as many parameters 1.939, without weight decay 1.903,
without actnorm 1.901, channels in reverse order in the place of 1x1 convolutions 1.871, variational dequantisation
1.825.

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
