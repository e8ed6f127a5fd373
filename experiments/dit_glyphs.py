"""A diffusion transformer, class-conditional, on 32x32 glyphs. Peebles & Xie 2023, https://arxiv.org/abs/2212.09748

    python experiments/dit_glyphs.py
    python experiments/dit_glyphs.py --ablation all --seeds 3

Expect at most 1.470 bits/dim on 512 test images given the label (a bound; standard error 0.007), with seed 0, after 26
minutes on one busy CPU core, with jax 0.10.2. Samples are letters and digits, with blocks of 4x4 pixels missing here
and there. A classifier gives 60 % [54, 66] of 250 samples the label that they were asked for (93 % of real images);
FD-own64 is 41 [28, 58], that of real images 31 ± 8. Adam on batches of 64 was at 1.733 after as many images, and its
samples were not letters. Other seeds and the ablations have not been run at full length.

Differs from the paper: other data, pixels instead of latents, a small network; trained and sampled as EDM; no learned
variance; Muon, and a learning rate that falls.
"""

from genmap_jax.approximate import diffusion
from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import images

STEPS, BATCH = 4000, 32

CONFIG = Experiment(
    name="dit_glyphs",
    data="glyphs",
    steps=STEPS,
    batch_size=BATCH,
    eval_every=STEPS,
    eval_examples=512,
    sample_every=STEPS // 2,
    save_every=250,
    model=diffusion.Config(
        space=images(32, 32, 1, levels=256),
        classes=62,
        **diffusion.EDM,
        log_snr_max=10.0,  # sigma 0.007: a grey value is 0.008
        log_snr_min=-7.0,  # sigma 33
        data_std=0.75,
        network="dit",
        width=128,
        blocks=4,
        head_width=32,
        patch=4,
        sample_steps=18,
        guidance=1.5,
        bound_draws=16,
        optim=Optim("muon", lr=1e-3, warmup=3_000, decay=STEPS * BATCH, final=0.05),
        ema_halflife=4_000.0,
    ),
)

FAMILY = diffusion.FAMILY
ABLATIONS = {
    "adam": {"model.optim.name": "adam"},
    "patch_2": {"model.patch": 2},
    "blocks_2": {"model.blocks": 2},
    "no_guidance": {"model.guidance": 1.0},
    "flow_matching": {"model.schedule": "flow", "model.prediction": "velocity", "model.weighting": "output"},
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
