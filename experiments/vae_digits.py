"""A VAE on 8x8 digits. Kingma & Welling 2014, https://arxiv.org/abs/1312.6114

    python experiments/vae_digits.py                     (11 s of training on 2 CPU cores)
    python experiments/vae_digits.py --ablation all --seeds 3

Expect at most 1.869 ± 0.004 bits/dim on test data (mean ± standard error of seeds 0 to 2: 1.870 1.861 1.875) with jax
0.10.2. They are an upper bound, from 64 importance samples. Samples include the decoder's noise. More steps, more width
or no weight decay overfit, since there are only 1,297 images to train on.

Differs from the paper: other data; 17 grey values under a discretised logistic with a scale for every pixel; two hidden
layers of SiLU units; Adam with weight decay; averaged parameters.
"""

from genmap_jax.approximate import vae
from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import images

CONFIG = Experiment(
    name="vae_digits",
    data="digits",
    steps=2000,
    batch_size=128,
    model=vae.Config(
        space=images(8, 8, 1, levels=17),
        latent=16,
        hidden=(256, 256),
        optim=Optim(lr=1e-3, weight_decay=0.3),
        ema_halflife=10_000,
    ),
)

FAMILY = vae.FAMILY
ABLATIONS = {
    "beta_4": {"model.beta": 4.0},
    "latent_2": {"model.latent": 2},
    "no_weight_decay": {"model.optim.weight_decay": 0.0},
    "no_ema": {"model.ema_halflife": None},
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
