"""A character-level GPT on Tiny Shakespeare, at the size of nanoGPT's recipe for a laptop CPU.
Radford et al. 2019 (GPT-2),
https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf

    genmap prepare tiny_shakespeare --raw FOLDER         (with input.txt of https://github.com/karpathy/char-rnn)
    python experiments/gpt_shakespeare.py
    python experiments/gpt_shakespeare.py --seeds 3

Expect 2.632 ± 0.012 bits per character on test data (exact; mean ± standard error of seeds 0 to 2: 2.6515 2.6345
2.6106), that is 1.825 nats, with 2 CPU cores and jax 0.10.2. The validation text is easier: 2.53 bits, 1.75 nats (seed
0). nanoGPT's README gives 1.88 nats on the two together, for the same network and as many updates.

Differs from nanoGPT's recipe: a learning rate of 3e-3 instead of 1e-3, and averaged parameters (with nanoGPT's rate and
no average, seed 0 gives 1.90 nats on validation and 1.93 on test text); the first character of a window is predicted
too. Differs from the paper: characters instead of BPE tokens, 0.8 M parameters.
"""

from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment, Text
from genmap_jax.tractable import gpt

STEPS, BATCH = 2000, 12

CONFIG = Experiment(
    name="gpt_shakespeare",
    data="tiny_shakespeare",
    steps=STEPS,
    batch_size=BATCH,
    samples=16,
    text=Text(tokenizer="characters"),
    model=gpt.Config(
        vocab=65,
        length=64,
        layers=4,
        heads=4,
        width=128,
        optim=Optim(lr=3e-3, b2=0.99, weight_decay=0.1, warmup=100 * BATCH, decay=STEPS * BATCH, final=0.1),
        ema_halflife=100 * BATCH,
    ),
)

FAMILY = gpt.FAMILY
ABLATIONS = {
    "nanogpt": {"model.optim.lr": 1e-3, "model.ema_halflife": None},
    "rope": {"model.positions": "rope"},
    "muon": {"model.optim.name": "muon"},
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
