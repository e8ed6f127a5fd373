"""Variational diffusion model on CIFAR-10. Kingma et al. 2021, https://arxiv.org/abs/2107.00630

    python experiments/vdm_cifar10.py

Not trained by us. The paper reports at most 2.65 bits/dim, after 10 million updates without augmentation.

Differs from the paper: no dropout (0.1 there); the network is a DDPM++ U-Net of 32 blocks without changes of
resolution; the noise level is embedded as log sigma; the ends of the schedule are set.
"""

from genmap_jax.approximate import diffusion
from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import images

CONFIG = Experiment(
    name="vdm_cifar10",
    data="cifar10",
    steps=10_000_000,
    batch_size=128,
    eval_every=50_000,
    sample_every=50_000,
    save_every=5_000,
    model=diffusion.Config(
        space=images(32, 32, 3, levels=256),
        **diffusion.VDM | {"schedule": "learned", "prediction": "v"},
        log_snr_max=13.3,
        log_snr_min=-5.0,
        network="unet",
        width=128,
        blocks=32,
        channel_mult=(1,),
        attention=(),
        fourier=(7, 8),
        sample_steps=1000,
        optim=Optim(lr=2e-4, weight_decay=0.01, b2=0.99, warmup=100 * 128),
        ema_halflife=887_000.0,  # decay 0.9999 per update of 128 examples
    ),
)

FAMILY = diffusion.FAMILY
ABLATIONS = {}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
