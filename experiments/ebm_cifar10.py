"""An energy-based model of CIFAR-10 at the size of the papers. Du & Mordatch 2019, https://arxiv.org/abs/1903.08689

    python experiments/ebm_cifar10.py --parallel mesh

Not trained by us, so there is no number to expect. Contrastive divergence (Hinton 2002,
https://doi.org/10.1162/089976602760128018) with persistent chains (Tieleman 2008,
https://doi.org/10.1145/1390156.1390290) is known to diverge at this size for some seeds. Watch `energy_gap`, which
should stay near zero; if it runs away, train again with a lower `optim.lr`.

As in Du & Mordatch: a residual network of 128 and 256 channels without normalisation, 60 Langevin steps per update,
about 10,000 stored chains that restart with probability 5 %, squared energies in the loss with weight 1, Adam at 1e-4
without momentum.

Differs from the paper: the temperature is 1, that is, drift and noise of a chain agree as in the convergent learning of
Nijkamp et al. 2020 (https://arxiv.org/abs/1903.12370), while the paper's drift is far longer than its noise allows;
SiLU instead of leaky ReLU; no spectral normalisation; uniform dequantisation; 78 chains for each place in the batch
instead of one common pool of 10,000.
"""

from genmap_jax.approximate import ebm
from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import images

CONFIG = Experiment(
    name="ebm_cifar10",
    data="cifar10",
    steps=100_000,
    batch_size=128,
    model=ebm.Config(
        space=images(32, 32, 3),
        network="conv",
        width=128,
        depth=2,
        mu=0.0,
        s=0.6,
        eps=0.01,
        chain_steps=60,
        chains_per_example=78,
        reinit=0.05,
        alpha=1.0,
        sample_steps=5000,
        ais_chains=64,
        ais_temperatures=10_000,
        optim=Optim(lr=1e-4, b1=0.0, warmup=128_000),
        ema_halflife=500_000,
    ),
)

FAMILY = ebm.FAMILY
ABLATIONS = {
    "noise_start": {"model.reinit": 1.0},
    "no_energy_penalty": {"model.alpha": 0.0},
    "short_chains": {"model.chain_steps": 20},
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
