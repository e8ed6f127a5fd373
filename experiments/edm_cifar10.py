"""EDM, class-conditional, on CIFAR-10. Karras et al. 2022, https://arxiv.org/abs/2206.00364

    python experiments/edm_cifar10.py

Not trained by us. The paper reports an FID of 1.79 (200 million images, 35 evaluations), and of 1.97 without labels.

Differs from the paper: no augmentation and no dropout (0.13 there); one seed, where the paper takes the best of three
FIDs; labels are dropped from a tenth of the examples, so that samples can be guided; see also genmap_jax/nn/unet.py.
"""

from genmap_jax.approximate import diffusion
from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import images

CONFIG = Experiment(
    name="edm_cifar10",
    data="cifar10",
    steps=390_625,
    batch_size=512,
    eval_every=20_000,
    sample_every=20_000,
    save_every=2_000,
    model=diffusion.Config(
        space=images(32, 32, 3, levels=256),
        classes=10,
        **diffusion.EDM,
        log_snr_max=12.43,  # sigma 0.002
        log_snr_min=-8.76,  # sigma 80
        data_std=0.5,
        network="unet",
        width=128,
        blocks=4,
        channel_mult=(2, 2, 2),
        attention=(16,),
        sample_steps=18,
        likelihood="ode",
        divergence="hutchinson",
        optim=Optim(lr=1e-3, warmup=10_000_000),
        ema_halflife=500_000.0,
    ),
)

FAMILY = diffusion.FAMILY
ABLATIONS = {
    "bfloat16": {"model.dtype": "bfloat16"},
    "flow_matching": {"model.schedule": "flow", "model.prediction": "velocity", "model.weighting": "output"},
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
