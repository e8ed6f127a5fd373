"""DDPM++ cont. with the VP SDE on CIFAR-10. Song et al. 2021, https://arxiv.org/abs/2011.13456

    python experiments/score_cifar10.py

Not trained by us. The paper reports, after 1.3 million updates, an FID of 2.55 by predictor-corrector with 1,000 steps
and of 3.93 by the ODE, and 3.16 bits/dim, with 61.8 million parameters.

Differs from the paper: no dropout (0.1 there); images dequantised in training; see also genmap_jax/implicit/score.py.
"""

from genmap_jax.implicit import score
from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import images

CONFIG = Experiment(
    name="score_cifar10",
    data="cifar10",
    steps=1_300_000,
    batch_size=128,
    eval_every=50_000,
    sample_every=50_000,
    save_every=5_000,
    model=score.Config(
        space=images(32, 32, 3, levels=256),
        network="conv",
        width=128,
        blocks=4,
        channel_mult=(1, 2, 2, 2),
        attention=(16,),
        optim=Optim(lr=2e-4, warmup=5_000 * 128, clip=1.0),
        ema_halflife=887_000.0,  # decay 0.9999 per update of 128 examples
    ),
)

FAMILY = score.FAMILY
ABLATIONS = {
    "subvp": {"model.sde": "subvp"},  # the paper's best likelihood: 3.02 bits/dim
    "likelihood_weighting": {"model.weighting": "likelihood"},
    "predictor_only": {"model.corrector_steps": 0, "model.sample_steps": 2000},  # the same number of scores
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
