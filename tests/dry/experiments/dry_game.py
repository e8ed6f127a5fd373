"""Two linear players on digits."""

from dry import game

from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment

CONFIG = Experiment(
    name="dry_game", data="digits", steps=12, batch_size=16, save_every=4, log_every=4, samples=8,
    model=game.Config(optim=Optim(lr=1e-3)),
)  # fmt: skip
FAMILY = game.FAMILY
ABLATIONS = {"small_pool": {"model.slots": 1}}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
