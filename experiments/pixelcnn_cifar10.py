"""PixelCNN++ on CIFAR-10, at the size of the paper. Salimans et al. 2017, https://arxiv.org/abs/1701.05517

    genmap prepare cifar10 --raw FOLDER
    python experiments/pixelcnn_cifar10.py

Not trained by us. The paper reports 2.92 bits/dim, its code 3.0 after 10 hours and 2.92 after five days on eight
TITAN X. The network has 53.7 million parameters.

Differs from the paper: the learning rate decays by a cosine, not by 0.999995 in each update, and the number of updates
is our guess.
"""

from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import images
from genmap_jax.tractable import pixelcnn

STEPS, BATCH = 400_000, 128
CONFIG = Experiment(
    name="pixelcnn_cifar10",
    data="cifar10",
    steps=STEPS,
    batch_size=BATCH,
    eval_every=5_000,
    sample_every=20_000,
    save_every=5_000,
    samples=16,
    model=pixelcnn.Config(
        space=images(32, 32, 3),
        optim=Optim(lr=1e-3, b1=0.95, b2=0.9995, clip=0.0, decay=STEPS * BATCH, final=0.1),
        ema_halflife=177_000.0,  # decay 0.9995 per update of 128 examples
    ),
)
FAMILY = pixelcnn.FAMILY
ABLATIONS = {
    "no_skips": {"model.skips": False},
    "no_data_init": {"model.data_init": False},
    "mixtures_1": {"model.mixtures": 1},
    "mixtures_5": {"model.mixtures": 5},
    "categorical": {"model.head": "categorical"},
    "attention": {"model.attention": (2,)},
    "pixelsnail": {f"model.{name}": value for name, value in pixelcnn.PIXELSNAIL.items()},
    "no_dropout": {"model.dropout": 0.0},
    "class_conditional": {"model.classes": 10},
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
