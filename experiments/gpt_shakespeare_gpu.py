"""A character-level GPT on Tiny Shakespeare, at the size of nanoGPT's recipe for one GPU. Radford et al. 2019 (GPT-2),
https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf

    genmap prepare tiny_shakespeare --raw FOLDER         (with input.txt of https://github.com/karpathy/char-rnn)
    python experiments/gpt_shakespeare_gpu.py

Not trained by us.

Differs from nanoGPT's recipe: dropout is not in the attention's weights; averaged parameters; the first character of a
window is predicted too. Differs from the paper: characters instead of BPE tokens, 10.7 M parameters, dropout of 0.2.
"""

from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment, Text
from genmap_jax.tractable import gpt

STEPS, BATCH = 5000, 64

CONFIG = Experiment(
    name="gpt_shakespeare_gpu",
    data="tiny_shakespeare",
    steps=STEPS,
    batch_size=BATCH,
    samples=16,
    eval_every=250,
    save_every=1000,
    text=Text(tokenizer="characters"),
    model=gpt.Config(
        vocab=65,
        length=256,
        layers=6,
        heads=6,
        width=384,
        bias="none",
        dropout=0.2,
        dtype="bfloat16",
        optim=Optim(lr=1e-3, b2=0.99, weight_decay=0.1, warmup=100 * BATCH, decay=STEPS * BATCH, final=0.1),
        ema_halflife=100 * BATCH,
    ),
)

FAMILY = gpt.FAMILY
ABLATIONS = {
    "no_dropout": {"model.dropout": 0.0},
    "no_average": {"model.ema_halflife": None},
    "float32": {"model.dtype": "float32"},
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
