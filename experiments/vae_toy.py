"""A VAE of eight Gaussians on the plane, where its density can be checked. Kingma & Welling 2014,
https://arxiv.org/abs/1312.6114

    python experiments/vae_toy.py
    python experiments/vae_toy.py --ablation all --seeds 3

Expect a KL(data || model) of at most 0.457 nats (from a lower bound) and 74 % of samples near one of the 8 modes, with
seed 0 and jax 0.10.2. The entropy of the data is 1.698 nats, so KL(data || model) is at most -(lower bound) - 1.698. A
Gaussian decoder of two latents bridges the gaps between modes.

Differs from the paper: a Gaussian decoder with learned standard deviations; SiLU; Adam.
"""

from genmap_jax.approximate import vae
from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import vectors

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
        space=vectors(2),
        latent=2,
        hidden=(128, 128),
        optim=Optim(lr=2e-3, decay=STEPS * BATCH, final=0.01),
        ema_halflife=50_000,
    ),
)

FAMILY = vae.FAMILY
ABLATIONS = {
    "beta_4": {"model.beta": 4.0},
    "global_scale": {"model.scale": "global"},
    "latent_1": {"model.latent": 1},
    "no_ema": {"model.ema_halflife": None},
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
