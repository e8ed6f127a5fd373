"""CycleGAN between two families of fonts, DejaVu Sans and DejaVu Serif, without pairs. https://arxiv.org/abs/1703.10593

    python experiments/cyclegan_fonts.py
    python experiments/cyclegan_fonts.py --ablation all --seeds 3
    genmap sample runs/cyclegan_fonts --direction ba
    genmap sample runs/cyclegan_fonts --from photographs_of_letters --direction ab

Expect, from seeds 0 to 2 (mean and standard error; jax 0.10.2, 5 minutes of training on one core of a 2-core CPU
machine), in percent of the range of grey values: error to the true letters of the other font 3.16 +- 0.02 from Sans to
Serif and 3.06 +- 0.01 back, where doing nothing has 3.44; error after the way there and back 1.01 +- 0.01; none is
inverted. Serifs and thin strokes are there, often at another place than in the true letter. The pictures of a run show
source, translation, truth and the way back. The variant `pix2pix`, which knows the pairs, has 3.53 after its 2,000
updates (seed 0, 84 s), no better than doing nothing either. The other ablations were not trained by us.

Differs from the paper (Zhu et al. 2017): grey letters of 32 x 32; smaller networks and patches of 34 pixels; batches of
4 and pools of 12 for each place; averaged generators; a higher learning rate.
"""

from genmap_jax.implicit import cyclegan
from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import images

STEPS, BATCH = 2000, 4
CONFIG = Experiment(
    name="cyclegan_fonts",
    data="fonts",
    steps=STEPS,
    batch_size=BATCH,
    sample_every=1000,
    model=cyclegan.Config(
        space=images(32, 32, 1),
        width=16,
        blocks=3,
        patch_layers=2,
        pool=12,
        ema_halflife=5_000,
        optim=Optim(
            lr=5e-4,
            b1=0.5,
            b2=0.999,
            clip=0.0,
            decay_from=STEPS * BATCH // 2,
            decay=STEPS * BATCH,
            shape="linear",
        ),
    ),
)
FAMILY = cyclegan.FAMILY
ABLATIONS = {
    "no_identity": {"model.identity": 0.0},
    "half_cycle": {"model.cycle": 5.0},
    "no_pool": {"model.pool": 0},
    "cut": {f"model.{name}": value for name, value in cyclegan.CUT.items()},
    "pix2pix": {
        **{f"model.{name}": value for name, value in cyclegan.PIX2PIX.items()},
        **{"data": "aligned/fonts", "model.depth": 5},
    },
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
