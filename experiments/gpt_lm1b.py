"""GPT-2 small on the bytes of the One Billion Word Benchmark. Radford et al. 2019 (GPT-2),
https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf
Data: Chelba et al. 2014, https://arxiv.org/abs/1312.3005

    python experiments/gpt_lm1b.py                       (several GPUs or TPUs; needs TFDS `lm1b` prepared)

Not trained by us. The attention weights kept for the backward pass take about 1 GB an example over all layers, so a
batch of 480 needs some 500 GB over all devices. A smaller batch needs no other change: schedules count examples.

Differs from the paper: bytes instead of BPE tokens, so 86 M parameters instead of 124 M, and 1,024 positions hold about
a quarter of the text; shuffled sentences joined by newlines instead of WebText's documents; no dropout. GPT-2 does not
give its optimizer's settings: these are nanoGPT's for the same model (batch 480, 600,000 updates).
"""

from genmap_jax.config import Experiment
from genmap_jax.optim import Optim
from genmap_jax.tractable import gpt

STEPS, BATCH = 600_000, 480

CONFIG = Experiment(
    name="gpt_lm1b",
    data="lm1b",
    steps=STEPS,
    batch_size=BATCH,
    eval_every=10_000,
    sample_every=10_000,
    save_every=5_000,
    model=gpt.Config(
        vocab=256,
        length=1024,
        layers=12,
        heads=12,
        width=768,
        dtype="bfloat16",
        optim=Optim(lr=6e-4, b1=0.9, b2=0.95, weight_decay=0.1, warmup=2000 * BATCH, decay=STEPS * BATCH, final=0.1),
    ),
)

ALGORITHM = gpt.algorithm
ABLATIONS = {
    "float32": {"model.dtype": "float32"},
    "length_256": {"model.length": 256},
    "half_depth": {"model.layers": 6},
}

if __name__ == "__main__":
    from genmap_jax.train import main

    main(CONFIG, ALGORITHM, ABLATIONS)
