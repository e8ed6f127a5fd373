"""A GPT over the pixels of 32x32 characters, given which character, with attention to the last three rows.
Chen et al. 2020 (iGPT), https://proceedings.mlr.press/v119/chen20s.html

    python experiments/gpt_glyphs.py
    python experiments/gpt_glyphs.py --seeds 3

Expect 0.663 ± 0.005 bits/dim of the image given its label, on test data (exact; mean ± standard error of seeds 0 to 2
on 500 images: 0.6621 0.6726 0.6555), with 2 busy CPU cores and jax 0.10.2. To say which of the 62 characters it is
would cost at most 0.006 more. Most samples can be read; longer training would help.

Differs from the paper: 256 grey values instead of a palette of 512 colours, windowed attention, a model of 0.2 M
parameters, labels.
"""

from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.tractable import gpt

STEPS, BATCH = 4000, 4
CONFIG = Experiment(
    name="gpt_glyphs",
    data="glyphs",
    steps=STEPS,
    batch_size=BATCH,
    eval_every=2000,
    eval_examples=500,
    sample_every=2000,
    model=gpt.Config(
        vocab=256,
        length=1024,
        shape=(32, 32, 1),
        classes=62,
        layers=3,
        heads=4,
        width=64,
        window=96,
        optim=Optim(lr=3e-3, b2=0.99, weight_decay=0.1, warmup=100 * BATCH, decay=STEPS * BATCH, final=0.1),
        ema_halflife=100 * BATCH,
    ),
)
FAMILY = gpt.FAMILY
ABLATIONS = {
    "unconditional": {"model.classes": None},
    "window_32": {"model.window": 32},
    "global_last": {"model.global_every": 3},
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
