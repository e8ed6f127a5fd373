"""A character-level (byte-level) GPT on the Python language reference. Radford et al. 2019 (GPT-2),
https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf

    python experiments/gpt_pydoc.py                      (87 s of training on 2 CPU cores)
    python experiments/gpt_pydoc.py --ablation all --seeds 3

Expect 2.195 ± 0.013 bits per byte on test data (exact; mean ± standard error with `--seeds 3`: 2.1726 2.1953 2.2159;
standard error over the 637 windows 0.030) with jax 0.10.2. Each window of 64 bytes is read without what comes before
it. Numbers of different Python versions cannot be compared, since the data are the reference of the version in use.

The ablations differ from the baseline over the three seeds by: rope -0.120 ± 0.008, swiglu -0.051 ± 0.013, shallow_wide
-0.048 ± 0.010, relu2 -0.021 ± 0.005, qk_norm -0.014 ± 0.010, rms_norm +0.015 ± 0.001, deep_narrow +0.131 ± 0.006,
constant_lr +0.169 ± 0.003.

Differs from the paper: bytes instead of BPE tokens, 0.8 M parameters instead of 124 M and more, no dropout. Width,
depth and most of the optimizer's settings are those of nanoGPT's recipe for a laptop CPU; the learning rate is higher.
"""

from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.tractable import gpt

STEPS, BATCH = 2000, 8

CONFIG = Experiment(
    name="gpt_pydoc",
    data="pydoc",
    steps=STEPS,
    batch_size=BATCH,
    samples=16,
    model=gpt.Config(
        vocab=256,
        length=64,
        layers=4,
        heads=4,
        width=128,
        optim=Optim(lr=3e-3, b2=0.99, weight_decay=0.1, warmup=100 * BATCH, decay=STEPS * BATCH, final=0.1),
    ),
)

FAMILY = gpt.FAMILY
ABLATIONS = {
    "rope": {"model.positions": "rope"},
    "rms_norm": {"model.norm": "rms"},
    "swiglu": {"model.mlp": "swiglu", "model.hidden": 341},  # as many parameters
    "relu2": {"model.mlp": "relu2"},
    "qk_norm": {"model.qk_norm": True},
    "deep_narrow": {"model.layers": 8, "model.width": 92},  # as many parameters in the blocks, to 3 %
    "shallow_wide": {"model.layers": 2, "model.width": 180},
    "constant_lr": {"model.optim.decay": 0},
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
