"""Bold digits translated into digits, without pairs."""

from dry import translator

from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment

CONFIG = Experiment(
    name="dry_translator", data="rendered/bold,digits", steps=12, batch_size=16, save_every=4, log_every=4, samples=8,
    model=translator.Config(optim=Optim(lr=1e-1)),
)  # fmt: skip
FAMILY = translator.FAMILY
ABLATIONS = {"slow": {"model.optim.lr": 1e-4}}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
