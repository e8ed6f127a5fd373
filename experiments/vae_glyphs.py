"""A VAE on 32x32 glyphs. Kingma & Welling 2014, https://arxiv.org/abs/1312.6114

    python experiments/vae_glyphs.py                     (32 s of training on 2 busy CPU cores)
    python experiments/vae_glyphs.py --ablation all --seeds 3

Expect at most 0.809 bits/dim on 2,000 test images (an upper bound from 64 importance samples; standard error 0.005),
and an FD-own64 of 149 (131 to 172; real images 7.0 ± 1.0) from `genmap evaluate`, with seed 0 and jax 0.10.2. Nothing
was tuned. Most samples can be read as letters; their strokes are speckled because they include the decoder's noise.

Differs from the paper: other data; 256 grey values under a discretised logistic with a scale for every pixel; two
hidden layers of SiLU units; Adam with weight decay; averaged parameters.
"""

from genmap_jax.approximate import vae
from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import images

CONFIG = Experiment(
    name="vae_glyphs",
    data="glyphs",
    steps=2000,
    batch_size=128,
    model=vae.Config(
        space=images(32, 32, 1),
        latent=32,
        hidden=(512, 512),
        optim=Optim(lr=1e-3, weight_decay=0.1),
        ema_halflife=10_000,
    ),
)

FAMILY = vae.FAMILY
ABLATIONS = {
    "beta_4": {"model.beta": 4.0},
    "latent_8": {"model.latent": 8},
    "no_weight_decay": {"model.optim.weight_decay": 0.0},
    "no_ema": {"model.ema_halflife": None},
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
