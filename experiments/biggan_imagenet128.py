"""BigGAN on ImageNet at 128x128. Brock et al. 2019, https://arxiv.org/abs/1809.11096

    genmap prepare imagenet128 --raw FOLDER_OF_IMAGES --size 128 --crop
    python experiments/biggan_imagenet128.py

Not trained by us; the paper reports an Inception score of 166.5 and an FID of 7.4 with truncation, on 128 to 512 cores
of a TPU v3. G has 70.4 million parameters and D 88.0 million. A step takes 4,096 images, half of them for each of the
two updates of D.

Differs from the paper: averaging has a half-life in images, of the same length (a decay of 0.9999 a step), and starts
at once with a short memory.
"""

from genmap_jax.implicit import biggan
from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import images

CONFIG = Experiment(
    name="biggan_imagenet128",
    data="imagenet128",
    steps=150_000,
    batch_size=4096,
    model=biggan.Config(
        space=images(128, 128, 3),
        classes=1000,
        ema_halflife=28_000_000,
        dtype="bfloat16",
        optim=Optim(lr=5e-5, b1=0.0, b2=0.999, clip=0.0),
    ),
)
FAMILY = biggan.FAMILY
DEEP = {"model.deep": True, "model.latent": 128, "model.width": 128}
ABLATIONS = {
    "deep": DEEP,
    "flat_latent": {"model.hierarchical": False},
    "own_embeddings": {"model.shared_embedding": False},
    "no_orthogonal": {"model.orthogonal": 0.0},
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
