"""A GPT over the pixels of 8x8 digits, one grey value after the other. Chen et al. 2020 (iGPT),
https://proceedings.mlr.press/v119/chen20s.html

    python experiments/gpt_digits.py                     (80 s of training on 2 CPU cores)
    python experiments/gpt_digits.py --ablation all --seeds 3

Expect 1.841 ± 0.008 bits/dim on test data (exact; mean ± standard error of seeds 0 to 2: 1.8437 1.8534 1.8260) with jax
0.10.2. Longer training overfits. Two of the ablations differ from the baseline over three seeds by -0.045 ± 0.011
(rope) and +0.015 ± 0.003 (rms_norm).

Differs from the paper: 17 grey values instead of a palette of 512 colours, a model of 0.2 M parameters, unconditional.
"""

from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.tractable import gpt

STEPS, BATCH = 1700, 32
CONFIG = Experiment(
    name="gpt_digits",
    data="digits",
    steps=STEPS,
    batch_size=BATCH,
    eval_every=850,
    model=gpt.Config(
        vocab=17,
        length=64,
        shape=(8, 8, 1),
        layers=3,
        heads=4,
        width=64,
        optim=Optim(lr=3e-3, b2=0.99, weight_decay=0.3, warmup=100 * BATCH, decay=STEPS * BATCH, final=0.1),
        ema_halflife=200 * BATCH,
    ),
)
FAMILY = gpt.FAMILY
ABLATIONS = {
    "rope": {"model.positions": "rope"},
    "rms_norm": {"model.norm": "rms"},
    "swiglu": {"model.mlp": "swiglu", "model.hidden": 171},  # as many parameters
    "qk_norm": {"model.qk_norm": True},
    "deep_narrow": {"model.layers": 6, "model.width": 44},  # as many parameters in the blocks, to 6 %
    "shallow_wide": {"model.layers": 1, "model.width": 112},
    "class_conditional": {"model.classes": 10},  # bits of the image given its label
    "no_weight_decay": {"model.optim.weight_decay": 0.0},
    "no_ema": {"model.ema_halflife": None},
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
