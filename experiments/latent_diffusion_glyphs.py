"""Latent diffusion on 32x32 glyphs: a diffusion prior for a VAE. Rombach et al. 2022, https://arxiv.org/abs/2112.10752

    python experiments/latent_diffusion_glyphs.py
    python experiments/latent_diffusion_glyphs.py --ablation all --seeds 3

Expect at most 0.8203 ± 0.0003 bits/dim on 2,000 test images (a bound; mean ± standard error of seeds 0 to 2: 0.8208
0.8201 0.8200), with `--seeds 3`, in 6 minutes on one busy CPU core, with jax 0.10.2. Nothing was tuned. Most samples
can be read as letters; their strokes are speckled because they include the decoder's noise. The ablations have not been
run at full length.

Differs from the paper: other data; the VAE of vae_glyphs.py, whose latent is a vector; a residual MLP as the network of
the diffusion model; VAE and diffusion model are trained at the same time.
"""

from genmap_jax.approximate import diffusion, latent_diffusion, vae
from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import images, vectors

STEPS, BATCH = 2000, 128

CONFIG = Experiment(
    name="latent_diffusion_glyphs",
    data="glyphs",
    steps=STEPS,
    batch_size=BATCH,
    eval_every=STEPS // 2,
    sample_every=STEPS // 2,
    model=latent_diffusion.Config(
        space=images(32, 32, 1, levels=256),
        autoencoder=vae.Config(images(32, 32, 1), latent=32, hidden=(512, 512)),
        prior=diffusion.Config(
            vectors(32),
            **diffusion.EDM | {"weighting": "vlb", "schedule": "linear"},
            log_snr_max=8.0,
            log_snr_min=-6.0,
            width=256,
            blocks=3,
            sample_steps=18,
            bound_draws=16,
        ),
        bound_samples=8,
        optim=Optim(lr=1e-3, weight_decay=0.1),
        prior_optim=Optim(lr=1e-3, weight_decay=0.1, decay=512_000, final=0.05),
        ema_halflife=20_000.0,
    ),
)

FAMILY = latent_diffusion.FAMILY
ABLATIONS = {
    "latent_8": {"model.autoencoder.latent": 8},
    "edm_weights": {"model.prior.weighting": "edm", "model.prior.schedule": "lognormal"},
    "beta_2": {"model.autoencoder.beta": 2.0},
    "no_ema": {"model.ema_halflife": None},
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
