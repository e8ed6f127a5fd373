"""StyleGAN2 on 8x8 digits. Karras et al. 2020, https://arxiv.org/abs/1912.04958

    python experiments/stylegan_digits.py
    python experiments/stylegan_digits.py --ablation all --seeds 3 --features own
    genmap map --data digits --only stylegan --seeds 3

Expect FD-own64 6.4 ± 0.3 on 250 samples, seeds 0 to 2 6.8 6.5 5.9 (real images 3.9 ± 1.0), and the shares of classes
off by 0.16 ± 0.03 in total variation (real 0.11), from the third command: 4000 steps in 330 s on one CPU core, jax
0.10.2. On another machine, from the first command with `--features own`, it was 9.3 6.3 6.8, and after convolutions on
CPUs had become quicker 8.0 7.1 (seeds 0 and 1) in 245 s: the game amplifies rounding. The fully connected `gan_digits`
reaches 11.0 ± 1.0 in 58 s on two cores, and 7.8 when it is trained for as long (15,000 steps, seed 0, 259 s on one).

With a tenth of the data adaptive augmentation helps: FD-own64 13.3 ± 1.4 without it, seeds 0 to 2 14.8 14.5 10.6, and
10.6 ± 0.3 with it, 10.3 10.3 11.2. With all of the data it does not: 9.3 with and without it (seed 0, as all that
follows, on that other machine). Path length 9.3, mixing 10.4, no noise 9.8, a tenth of R1 9.0, ten times 9.8: no more
than the spread over seeds. With labels (`--model.classes 10 --model.label_depth 2`) a classifier reads 99.6 % of the
samples as the digit that was asked for, at FD-own64 18.

Neither style mixing nor the path-length penalty, which ADA's paper leaves out on CIFAR-10 as well: they slow the start.
After 1000 steps (seed 0) FD-own64 was 30 without both and 72 with both. Images of 8x8 have four styles, which have to
fit together in all combinations when they are mixed. With both, a learning rate of 2e-3 and 1000 steps, a weaker
penalty R1 lost modes: FD-own64 169 with r1=0.03.

Differs from the paper: other data, 17 grey values; 32 channels, styles of 64 numbers, two layers of the mapping
network; a larger learning rate that decays; a half-life of averaging that suits the short run.
"""

from genmap_jax.implicit import stylegan
from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import images

STEPS, BATCH = 4000, 64
CONFIG = Experiment(
    name="stylegan_digits",
    data="digits",
    steps=STEPS,
    batch_size=BATCH,
    model=stylegan.Config(
        space=images(8, 8, 1, levels=17),
        latent=64,
        mapping_depth=2,
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
ADA = {"model.augment": ("integer_translation", "isotropic_scaling", "rotation"), "model.ada_target": 0.6}
ABLATIONS = {
    "path_length": {"model.path_length": 2.0},
    "mixing": {"model.mixing": 0.9},
    "no_noise": {"model.noise": False},
    "r1_weak": {"model.r1": 0.1},
    "r1_strong": {"model.r1": 10.0},
    "ada": ADA,
    "tenth": {"data": "part/10,digits"},
    "tenth_ada": {"data": "part/10,digits", **ADA},
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
