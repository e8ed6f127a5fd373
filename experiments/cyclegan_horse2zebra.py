"""CycleGAN between horses and zebras at 256 x 256, at the scale of the paper: 200 epochs, batches of one image.

    genmap prepare cycle_gan/horse2zebra
    python experiments/cyclegan_horse2zebra.py
    genmap sample runs/cyclegan_horse2zebra --from my_photographs --direction ab

Not trained by us. Zhu et al. 2017, https://arxiv.org/abs/1703.10593; CUT is Park et al. 2020,
https://arxiv.org/abs/2007.15651. The first command downloads and needs the extra `tf`. A folder of your own with
subfolders A and B takes its place: `genmap prepare mine --raw FOLDER --size 256 --crop`, then `--data mine`.

Differs from the paper: validation images are a tenth of the training images, so an epoch is 1,201 of the larger set;
images are moved by up to an eighth instead of enlarged to 286 and cropped.
"""

from genmap_jax.implicit import cyclegan
from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import images

EPOCH = 1201
CONFIG = Experiment(
    name="cyclegan_horse2zebra",
    data="cycle_gan/horse2zebra",
    steps=200 * EPOCH,
    batch_size=1,
    augment=("crop", "flip"),
    log_every=100,
    eval_every=10 * EPOCH,
    sample_every=5 * EPOCH,
    save_every=EPOCH,
    model=cyclegan.Config(
        space=images(256, 256, 3),
        optim=Optim(
            **{"lr": 2e-4, "b1": 0.5, "b2": 0.999, "clip": 0.0},
            # at the beginning of every epoch the rate is that of the paper's table
            **{"decay_from": 99 * EPOCH, "decay": 200 * EPOCH, "shape": "linear"},
        ),
    ),
)
FAMILY = cyclegan.FAMILY
ABLATIONS = {
    "no_identity": {"model.identity": 0.0},
    "no_pool": {"model.pool": 0},
    "cut": {f"model.{name}": value for name, value in cyclegan.CUT.items()},
    "fast_cut": {
        **{f"model.{name}": value for name, value in cyclegan.CUT.items()},
        **{"model.identity": 0.0, "model.contrastive": 10.0},
    },
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
