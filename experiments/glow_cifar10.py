"""Glow on CIFAR-10, as in the paper. Kingma & Dhariwal 2018, https://arxiv.org/abs/1807.03039

    python experiments/glow_cifar10.py                   (8 GPUs in the paper)

The paper reports 3.35 bits/dim with 3 levels of 32 steps, width 512 and affine couplings. Not trained by us.

Differs from the paper: see tractable/flow/glow.py; averaged parameters.
"""

from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import images
from genmap_jax.tractable.flow import glow

CONFIG = Experiment(
    name="glow_cifar10",
    data="cifar10",
    steps=1_000_000,
    batch_size=512,
    eval_every=10_000,
    sample_every=10_000,
    save_every=5_000,
    augment=("flip",),
    model=glow.Config(
        space=images(32, 32, 3),
        levels=3,
        depth=32,
        width=512,
        reversible=True,
        optim=Optim(lr=1e-3, warmup=500_000),
        ema_halflife=500_000,
        temperature=0.7,
    ),
)

FAMILY = glow.FAMILY
ABLATIONS = {
    "spline": {"model.transform": "spline"},
    "no_actnorm": {"model.actnorm": False},
    "permutation": {"model.mixing": "permutation"},
    "variational": {"model.dequantisation": "variational"},
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
