"""StyleGAN2 with labels on 32x32 glyphs: it draws the one of 62 letters and digits that it is asked for.

    python experiments/stylegan_glyphs.py
    python experiments/stylegan_glyphs.py --ablation all --seeds 3 --features own
    python experiments/style_mixing.py runs/stylegan_glyphs
    python experiments/truncation.py runs/stylegan_glyphs

Karras et al. 2020, https://arxiv.org/abs/1912.04958; labels and adaptive augmentation are those of Karras et al. 2020,
https://arxiv.org/abs/2006.06676. Not trained by us to a number that is written down.

Differs from the papers: other data; 32 channels, 16 at full resolution, styles of 64 numbers, two layers of each
mapping network; R1 with gamma = 1; a half-life of averaging that suits the short run.
"""

from genmap_jax.implicit import stylegan
from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import images

STEPS, BATCH = 6000, 64
CONFIG = Experiment(
    name="stylegan_glyphs",
    data="glyphs",
    steps=STEPS,
    batch_size=BATCH,
    eval_every=3000,
    sample_every=3000,
    model=stylegan.Config(
        space=images(32, 32, 1, levels=256),
        classes=62,
        latent=64,
        mapping_depth=2,
        label_depth=2,
        channels=32,
        capacity=256,
        path_length=0.0,
        mixing=0.0,
        r1=1.0,
        ema_halflife=10_000,
        optim=Optim(lr=8e-3, b1=0.0, b2=0.99, clip=0.0, decay=STEPS * BATCH, final=0.05),
    ),
)
FAMILY = stylegan.FAMILY
MOVES = ("integer_translation", "isotropic_scaling", "rotation", "anisotropic_scaling", "fractional_translation")
ABLATIONS = {
    "path_length_and_mixing": {"model.path_length": 2.0, "model.mixing": 0.9},
    "ada": {"model.augment": MOVES, "model.ada_target": 0.6},
    "tenth": {"data": "part/10,glyphs"},
    "tenth_ada": {"data": "part/10,glyphs", "model.augment": MOVES, "model.ada_target": 0.6},
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
