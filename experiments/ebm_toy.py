"""An energy-based model of eight Gaussians on the plane, where its density can be checked by quadrature.

Du & Mordatch 2019, https://arxiv.org/abs/1903.08689, with the samplers of Nijkamp et al. 2020,
https://arxiv.org/abs/1903.12370

    python experiments/ebm_toy.py
    python experiments/ebm_toy.py --ablation all --seeds 3

Expect -1.767 ± 0.027 nats on test data (an estimate; standard error over 2,000 points) with seed 0 and jax 0.10.2. The
entropy of the data is 1.698 nats, so KL(data || model) = -log-likelihood - 1.698. Most of that divergence comes from
the weights of the modes, because chains cross between modes only while the model is still smooth.

Differs from the papers: Langevin dynamics at temperature 1, one chain for each place in the batch, Fourier features.
"""

from genmap_jax.approximate import ebm
from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import vectors

CONFIG = Experiment(
    name="ebm_toy",
    data="toy/gaussians8",
    steps=2100,
    batch_size=256,
    model=ebm.Config(
        space=vectors(2),
        width=128,
        depth=2,
        frequencies=2,
        s=1.5,
        eps=0.12,
        chain_steps=20,
        reinit=0.05,
        optim=Optim(lr=1e-3, decay=2100 * 256, final=0.01),
        ema_halflife=50_000,
    ),
)

FAMILY = ebm.FAMILY
ABLATIONS = {
    "noise_start": {"model.reinit": 1.0},
    "never_restart": {"model.reinit": 0.0},
    "short_chains": {"model.chain_steps": 2},
    "no_frequencies": {"model.frequencies": 0},
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
