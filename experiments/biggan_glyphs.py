"""BigGAN on 32x32 glyphs: it draws the one of 62 letters and digits that it is asked for.

    python experiments/biggan_glyphs.py --features own
    python experiments/biggan_glyphs.py --ablation all --seeds 3 --features own       (not run by us)
    python experiments/truncation.py runs/biggan_glyphs

Brock et al. 2019, https://arxiv.org/abs/1809.11096.

Expect FD-own64 24 ± 6 on 1,000 samples, seeds 0 to 2 13.8 22.1 36.0 (real images 7.5 ± 1.0), coverage 0.80 0.76 0.74
(real 0.97), and samples of which a classifier reads 74 ± 4 % as the character that was asked for, 80.4 74.3 67.9 (real
images 93.5), from the first command with `--seed`: 2500 steps in about 8 minutes on one CPU core, jax 0.10.2. Most are
easy to read. The fully connected `cgan_glyphs` has 33.5 ± 3.0 and 82 % after 5 minutes. With a fifth of G's learning
rate, and 8e-4 for D, labels were not learnt (seed 0: 3.8 %, FD-own64 89).

Truncation only loses here. FD-own64 and coverage by truncation, of seed 0 with the statistics taken again: 0.1: 69,
0.37; 0.25: 64, 0.47; 0.5: 52, 0.60; 1: 32, 0.74; 2: 16, 0.82.

Differs from the paper: other data; four resolutions of 32, 32, 16 and 8 channels, attention at 16x16; other learning
rates, and a half-life of averaging that suits the short run.
"""

from genmap_jax.implicit import biggan
from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import images

STEPS, BATCH = 2500, 64
CONFIG = Experiment(
    name="biggan_glyphs",
    data="glyphs",
    steps=STEPS,
    batch_size=BATCH,
    eval_every=1250,
    sample_every=1250,
    model=biggan.Config(
        space=images(32, 32, 1, levels=256),
        classes=62,
        latent=64,
        width=8,
        channels=(4, 4, 2, 1),
        attention=16,
        embedding=64,
        ema_halflife=10_000,
        rate_d=1.0,
        optim=Optim(lr=1e-3, b1=0.0, b2=0.999, clip=0.0, decay=STEPS * BATCH, final=0.1),
    ),
)
FAMILY = biggan.FAMILY
ABLATIONS = {"no_orthogonal": {"model.orthogonal": 0.0}, "no_attention": {"model.attention": 0}}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
