"""TarFlow on ImageNet 64x64, as in the paper. Zhai et al. 2024, https://arxiv.org/abs/2412.06329

    python experiments/tarflow_imagenet64.py             (16 GPUs in the paper)

The paper reports 2.99 bits/dim with patches of 2, width 768 and 8 transformers of 8 layers, on uniformly dequantised
images. Not trained by us.

Differs from the paper: see tractable/flow/tarflow.py.
"""

from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import images
from genmap_jax.tractable.flow import tarflow

CONFIG = Experiment(
    name="tarflow_imagenet64",
    data="downsampled_imagenet/64x64",
    steps=500_000,
    batch_size=256,
    eval_every=10_000,
    sample_every=10_000,
    save_every=5_000,
    augment=("flip",),
    model=tarflow.Config(
        space=images(64, 64, 3),
        patch=2,
        flows=8,
        layers=8,
        width=768,
        heads=12,
        dtype="bfloat16",
        remat=True,  # without it the backward pass needs 16 GiB for an image
        scan=True,
        optim=Optim(lr=1e-4, b2=0.95, weight_decay=1e-4, warmup=256_000, decay=128_000_000, final=0.01),
        ema_halflife=500_000,
        draws=1,
        decoding="jacobi",
        group=64,
    ),
)

FAMILY = tarflow.FAMILY
ABLATIONS = {
    "gaussian_noise": {"model.noise_std": 0.05, "model.denoise": True},
    "sequential": {"model.decoding": "cached"},
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
