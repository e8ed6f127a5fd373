"""CycleGAN between bold and ordinary 8x8 digits, without pairs. Zhu et al. 2017, https://arxiv.org/abs/1703.10593

    python experiments/cyclegan_digits.py
    python experiments/cyclegan_digits.py --ablation all --seeds 3
    genmap sample runs/cyclegan_digits --direction ba
    genmap evaluate runs/cyclegan_digits --model.direction ba

Expect, from 250 translated test images and seeds 0 to 2 (jax 0.10.2, on one core of a 2-core CPU machine, 134 to 141 s
of training each), mean ± standard error, in percent of the range of grey values: error to the truth 7.56 ± 0.07 from
bold to ordinary, 7.21 ± 0.03 back, where doing nothing has 20.53; error after the way there and back 6.18 ± 0.02; none
is inverted. FD-own64 of the translations to digits 3.37 ± 0.18 (real images 3.85). Ablations, seed 0 (baseline 7.52 and
7.35): without the identity loss 24.31 and 23.90, for translations are digits, but others; without the cycle 22.84 and
19.21, and not digits any more; with half its weight 7.41 and 7.04; without pools 7.56 and 7.13; without noise 7.48 and
7.18; CUT, one way, 16.26; pix2pix, which knows the pairs, 5.15.

Differs from the paper: other data, of 17 grey values, with noise one level wide before the discriminators (`dither`);
smaller networks and patches of 16 pixels, which see a whole digit; batches of 32 and pools of 2 for each place;
averaged generators; a higher learning rate.
"""

from genmap_jax.implicit import cyclegan
from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import images

STEPS, BATCH = 1500, 32
CONFIG = Experiment(
    name="cyclegan_digits",
    data="rendered/bold,digits",
    steps=STEPS,
    batch_size=BATCH,
    model=cyclegan.Config(
        space=images(8, 8, 1, levels=17),
        width=16,
        blocks=2,
        patch_layers=1,
        pool=2,
        dither=True,
        ema_halflife=5_000,
        optim=Optim(
            lr=1e-3,
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
    "no_cycle": {"model.cycle": 0.0},
    "half_cycle": {"model.cycle": 5.0},
    "no_pool": {"model.pool": 0},
    "no_dither": {"model.dither": False},
    "cut": {f"model.{name}": value for name, value in cyclegan.CUT.items()}
    | {"model.patches": 64, "model.embedding": 32},
    "pix2pix": {
        **{f"model.{name}": value for name, value in cyclegan.PIX2PIX.items()},
        **{"data": "aligned/rendered/bold,digits", "model.generator": "resnet"},
    },
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
