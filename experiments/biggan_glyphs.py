"""BigGAN on 32x32 glyphs: it draws the one of 62 letters and digits that it is asked for.

    python experiments/biggan_glyphs.py
    python experiments/biggan_glyphs.py --ablation all --seeds 3 --features own
    python experiments/truncation.py runs/biggan_glyphs

Brock et al. 2019, https://arxiv.org/abs/1809.11096. Not trained by us to a number that is written down.

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
        optim=Optim(lr=2e-4, b1=0.0, b2=0.999, clip=0.0, decay=STEPS * BATCH, final=0.1),
    ),
)
FAMILY = biggan.FAMILY
ABLATIONS = {"no_orthogonal": {"model.orthogonal": 0.0}, "no_attention": {"model.attention": 0}}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
