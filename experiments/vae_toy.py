"""A VAE of eight Gaussians on the plane, where its density can be checked. Kingma & Welling 2014,
https://arxiv.org/abs/1312.6114

    python experiments/vae_toy.py
    python experiments/vae_toy.py --ablation all --seeds 3

Expect: KL(data || model) at most 0.457 nats (from a lower bound), 74 % of samples near one
of the 8 modes, seed 0, jax 0.10.2. A Gaussian decoder of two latents bridges the gaps between modes.

The entropy of the data is 1.698 nats, so KL(data || model) is at most -(lower bound) - 1.698.
Differs from the paper: a Gaussian decoder with learned standard deviations; SiLU; Adam.
"""

from genmap_jax.approximate import vae
from genmap_jax.config import Experiment
from genmap_jax.optim import Optim

STEPS, BATCH = 6000, 256
CONFIG = Experiment(
    name="vae_toy",
    data="toy/gaussians8",
    steps=STEPS,
    batch_size=BATCH,
    eval_every=3000,
    sample_every=3000,
    save_every=3000,
    samples=1000,
    model=vae.Config(
        shape=(2,),
        latent=2,
        hidden=(128, 128),
        optim=Optim(lr=2e-3, decay=STEPS * BATCH, final=0.01),
        ema_halflife=50_000,
    ),
)
ALGORITHM = vae.algorithm
ABLATIONS = {
    "beta_4": {"model.beta": 4.0},
    "global_scale": {"model.scale": "global"},
    "latent_1": {"model.latent": 1},
    "no_ema": {"model.ema_halflife": None},
}

if __name__ == "__main__":
    from genmap_jax.train import main

    main(CONFIG, ALGORITHM, ABLATIONS)
