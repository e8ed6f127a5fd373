"""A convolutional VAE on CIFAR-10, one layer of latents. Kingma & Welling 2014, https://arxiv.org/abs/1312.6114;
Rezende et al. 2014, https://arxiv.org/abs/1401.4082

    python experiments/vae_cifar10.py                    (one GPU)

Not trained by us.

Differs from the papers: neither uses CIFAR-10; the decoder is the discretised logistic of Kingma et al. 2016
(https://arxiv.org/abs/1606.04934) with a scale for every channel of every pixel; residual convolutions.
"""

from genmap_jax.approximate import vae
from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import images

CONFIG = Experiment(
    name="vae_cifar10",
    data="cifar10",
    steps=200_000,
    batch_size=128,
    eval_every=10_000,
    sample_every=10_000,
    save_every=5_000,
    model=vae.Config(
        space=images(32, 32, 3),
        latent=128,
        network="conv",
        hidden=(64, 128, 256),
        blocks=2,
        optim=Optim(lr=5e-4, warmup=256_000),
        ema_halflife=500_000,
    ),
)

FAMILY = vae.FAMILY
ABLATIONS = {
    "beta_4": {"model.beta": 4.0},
    "latent_32": {"model.latent": 32},
    "global_scale": {"model.scale": "global"},
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
