"""A diagonal Gaussian on digits."""

from dry import gaussian

from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment

CONFIG = Experiment(
    name="dry_gaussian", data="digits", steps=12, batch_size=16, save_every=4, log_every=4, samples=8,
    model=gaussian.Config(optim=Optim(lr=1e-3)),
)  # fmt: skip
FAMILY = gaussian.FAMILY
ABLATIONS = {"broad": {"model.least": 1.0}}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
