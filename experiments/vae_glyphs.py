"""A VAE on 32x32 glyphs. Kingma & Welling 2014, https://arxiv.org/abs/1312.6114

    python experiments/vae_glyphs.py                     (32 s of training on 2 busy CPU cores)
    python experiments/vae_glyphs.py --ablation all --seeds 3

Expect: 0.809 bits/dim on 2,000 test images (upper bound from 64 importance samples; standard error 0.005), and FD-own64
149 (131 to 172; real images 7.0 ± 1.0) by `genmap evaluate`; seed 0, jax 0.10.2. Not tuned. Most samples read as
letters, with speckled strokes: they include the decoder's noise.

Differs from the paper: other data; 256 grey values under a discretised logistic with a scale for every pixel; two
hidden layers of SiLU units; Adam with weight decay; averaged parameters.
"""

from genmap_jax.approximate import vae
from genmap_jax.config import Experiment
from genmap_jax.optim import Optim

CONFIG = Experiment(
    name="vae_glyphs",
    data="glyphs",
    steps=2000,
    batch_size=128,
    model=vae.Config(
        shape=(32, 32, 1),
        levels=256,
        latent=32,
        hidden=(512, 512),
        optim=Optim(lr=1e-3, weight_decay=0.1),
        ema_halflife=10_000,
    ),
)

ALGORITHM = vae.algorithm
ABLATIONS = {
    "beta_4": {"model.beta": 4.0},
    "latent_8": {"model.latent": 8},
    "no_weight_decay": {"model.optim.weight_decay": 0.0},
    "no_ema": {"model.ema_halflife": None},
}

if __name__ == "__main__":
    from genmap_jax.train import main

    main(CONFIG, ALGORITHM, ABLATIONS)
