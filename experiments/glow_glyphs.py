"""Glow on 32x32 glyphs. Kingma & Dhariwal 2018, https://arxiv.org/abs/1807.03039

    python experiments/glow_glyphs.py
    python experiments/glow_glyphs.py --ablation all --seeds 3

Expect at most 0.860 ± 0.002 bits/dim given the label (seeds 0 to 2: 0.8625 0.8546 0.8614; 6 to 7 minutes each on one
CPU core, jax 0.10.2); samples at temperature 0.8 are letters, many of which can be read. Without logits, after 800
steps in the place of 500, it ended at 1.803 (seed 0). The other ablations have not been run at full length.

Differs from the paper: other data; logits of pixels; a small network; see also tractable/flow/glow.py.
"""

from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import images
from genmap_jax.tractable.flow import glow

STEPS, BATCH = 500, 32
CONFIG = Experiment(
    name="glow_glyphs",
    data="glyphs",
    steps=STEPS,
    batch_size=BATCH,
    eval_examples=512,
    model=glow.Config(
        space=images(32, 32, 1),
        levels=3,
        depth=4,
        width=64,
        classes=62,
        logit=1e-4,
        transform="spline",
        optim=Optim(lr=1e-3, decay=STEPS * BATCH, final=0.01),
        ema_halflife=5_000,
        draws=4,
        temperature=0.8,
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
