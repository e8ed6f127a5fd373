"""StyleGAN2 with labels on 32x32 glyphs: it draws the one of 62 letters and digits that it is asked for.

    python experiments/stylegan_glyphs.py --features own
    python experiments/stylegan_glyphs.py --ablation all --seeds 3 --features own       (not run by us)
    python experiments/style_mixing.py runs/stylegan_glyphs
    python experiments/truncation.py runs/stylegan_glyphs

Karras et al. 2020, https://arxiv.org/abs/1912.04958; labels and adaptive augmentation are those of Karras et al. 2020,
https://arxiv.org/abs/2006.06676.

Expect FD-own64 22 ± 2 on 1,000 samples, seeds 0 to 2 19.0 24.0 23.1 (real images 7.5 ± 1.0), coverage 0.74 (real
0.97), and samples of which a classifier reads 74 ± 2 % as the character that was asked for, 73.0 71.2 78.8 (real images
93): the first command with each seed, 17 minutes on one CPU core, jax 0.10.2. Most are easy to read, with strokes less
even than those of fonts; half of the training was enough for that. `biggan_glyphs` has 24 ± 6 and 74 % after 8 minutes,
`cgan_glyphs` 33.5 and 82 % after 5.

Labels are learnt late: with style mixing, path length, a learning rate of 2e-3 and 2500 steps of 32 images none was
(FD-own64 264, 4 %), and a weaker penalty lost modes (r1=0.05: 411). Truncation loses more than it gains: of a model
with FD-own64 20.5, 0.85 has 27, 0.7 48, 0.5 144.

Differs from the papers: other data; 32 channels, 8 at full resolution, styles of 64 numbers, two layers of each mapping
network; R1 with gamma = 1; neither style mixing nor path length; a half-life of averaging that suits the short run.
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
