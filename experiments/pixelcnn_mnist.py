"""A PixelCNN++ on binarised MNIST, in nats. Van den Oord et al. 2016, https://arxiv.org/abs/1601.06759, table 4

    genmap prepare binary_mnist --raw FOLDER             (the four original files)
    python experiments/pixelcnn_mnist.py

Expect 85.9 ± 0.7 nats (0.158 bits/dim; exact; seed 0, standard error over 1,000 test images) after 12 minutes of one
CPU core with jax 0.10.2. Published there, in nats of test data: 81.30 for a PixelCNN, 79.20 for a diagonal BiLSTM. An
image has 784 pixels, so nats are 543.4 times the bits/dim that are printed.

Differs from the paper: the network is that of PixelCNN++, with 24 filters and one block at each of three resolutions;
it sees 16,000 images, a quarter of an epoch; pixels were drawn from the grey values with other random numbers than
Larochelle's.
"""

from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import images
from genmap_jax.tractable import pixelcnn

STEPS, BATCH = 1000, 16
CONFIG = Experiment(
    name="pixelcnn_mnist",
    data="binary_mnist",
    steps=STEPS,
    batch_size=BATCH,
    eval_examples=1000,
    eval_every=500,
    sample_every=500,
    model=pixelcnn.Config(
        space=images(28, 28, 1, levels=2),
        head="bernoulli",
        filters=24,
        blocks=1,
        dropout=0.1,
        optim=Optim(lr=3e-3, b1=0.95, b2=0.9995, decay=STEPS * BATCH, final=0.03),
        ema_halflife=100 * BATCH,
    ),
)
FAMILY = pixelcnn.FAMILY
ABLATIONS = {
    "gated": {f"model.{name}": value for name, value in pixelcnn.GATED.items()},
    "attention": {"model.attention": (2,)},
    "no_dropout": {"model.dropout": 0.0},
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
