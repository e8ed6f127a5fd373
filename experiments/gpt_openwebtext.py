"""GPT-2 small, 124 M parameters, on OpenWebText. Radford et al. 2019 (GPT-2),
https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf
Data: Gokaslan & Cohen 2019, https://skylion007.github.io/OpenWebTextCorpus

    genmap prepare openwebtext --raw FOLDER              (the folder with its .parquet files)
    python experiments/gpt_openwebtext.py --text.tokenizer FOLDER/tokenizer.json

The tokenizer is GPT-2's, from the folder of the model `gpt2` in Hugging Face format. Not trained by us; nanoGPT reports
2.85 nats per token for this model, data and optimizer, after 4 days on eight A100. On eight devices a micro-batch has
12 windows on each. A smaller batch or another number of devices needs no other change, since schedules count examples.

Differs from the paper: OpenWebText instead of WebText, a start vector instead of a first token, no dropout. GPT-2 does
not give its optimizer's settings: these are nanoGPT's (batch 480, 600,000 updates).
"""

from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment, Text
from genmap_jax.tractable import gpt

STEPS, BATCH = 600_000, 480

CONFIG = Experiment(
    name="gpt_openwebtext",
    data="openwebtext",
    steps=STEPS,
    batch_size=BATCH,
    eval_every=10_000,
    sample_every=10_000,
    save_every=5_000,
    text=Text(tokenizer="gpt2/tokenizer.json"),
    model=gpt.Config(
        vocab=50_257,
        length=1024,
        layers=12,
        heads=12,
        width=768,
        dtype="bfloat16",
        accumulate=5,
        optim=Optim(lr=6e-4, b1=0.9, b2=0.95, weight_decay=0.1, warmup=2000 * BATCH, decay=STEPS * BATCH, final=0.1),
    ),
)

FAMILY = gpt.FAMILY
ABLATIONS = {
    "llama": {
        **{"model.norm": "rms", "model.positions": "rope", "model.bias": "none", "model.tied": False},
        **{"model.mlp": "swiglu", "model.hidden": 2048},  # as many parameters in a block
    },
    "packed": {"text.packed": True},
    "muon": {"model.optim.name": "muon"},
    "bytes": {"text.tokenizer": "bytes", "model.vocab": 256},
    "float32": {"model.dtype": "float32"},
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
