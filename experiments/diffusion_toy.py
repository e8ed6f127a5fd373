"""Diffusion model (EDM) of eight Gaussians on the plane, where its density can be checked. Karras et al. 2022,
https://arxiv.org/abs/2206.00364

    python experiments/diffusion_toy.py
    python experiments/diffusion_toy.py --ablation all --seeds 3
    python experiments/diffusion_toy.py --data toy/rings --ablation no_fourier --seeds 3 --workdir runs/diffusion_rings
    python experiments/diffusion_toy.py --data toy/moons --ablation no_fourier --seeds 3 --workdir runs/diffusion_moons

Expect, from the last three, this KL(data || model) in nats (an estimate; seeds 0 to 2, 2 minutes each on one quiet CPU
core, jax 0.10.2), and these bits/dim:

    gaussians8                -0.003  0.004 -0.015    1.2226 1.2281 1.2144
    gaussians8, no_fourier     0.024  0.011  0.011    1.2421 1.2326 1.2328
    rings                      0.032  0.025  0.040    2.5729 2.5679 2.5784
    rings, no_fourier          0.325  0.373  0.341    2.7838 2.8187 2.7960
    moons                      0.038  0.042  0.051    0.7540 0.7571 0.7636
    moons, no_fourier          0.039  0.032  0.052    0.7549 0.7499 0.7646

KL(data || model) = -log-likelihood - entropy. The entropies of the three datasets are 1.698, 3.535 and 1.008 nats. The
error is that of the solver and that of 2,000 test points, which on eight Gaussians is 0.026 nats and the same for all
seeds. The other ablations have not been run at full length.

Differs from the paper: a residual MLP with Fourier inputs; the likelihood comes from the probability-flow ODE with the
exact divergence.
"""

from genmap_jax.approximate import diffusion
from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import vectors

STEPS, BATCH = 6000, 256
CONFIG = Experiment(
    name="diffusion_toy",
    data="toy/gaussians8",
    steps=STEPS,
    batch_size=BATCH,
    eval_every=3000,
    sample_every=3000,
    save_every=3000,
    samples=1000,
    model=diffusion.Config(
        space=vectors(2),
        **diffusion.EDM,
        log_snr_max=8.0,  # sigma 0.018: a tenth of the data's finest scale
        log_snr_min=-7.0,  # sigma 33
        data_std=1.4,
        width=128,
        blocks=2,
        fourier=(-2, -1, 0, 1),  # waves 8 to 1 long, without which thin rings stay blurred
        sample_steps=20,
        likelihood="ode",
        tol=1e-3,
        optim=Optim(lr=2e-3, decay=STEPS * BATCH, final=0.01),
        ema_halflife=50_000,
    ),
)
FAMILY = diffusion.FAMILY
BOUND = {"model.weighting": "vlb", "model.schedule": "linear", "model.likelihood": "bound"}
ABLATIONS = {
    "bound": BOUND,
    "bound_learned_schedule": BOUND | {"model.schedule": "learned"},
    "flow_matching": {"model.schedule": "flow", "model.prediction": "velocity", "model.weighting": "output"},
    "ddpm": {"model.schedule": "cosine", "model.prediction": "eps", "model.weighting": "simple"},
    "no_fourier": {"model.fourier": ()},
    "predict_x0": {"model.prediction": "x0"},
    "predict_v": {"model.prediction": "v"},
    "independent_times": {"model.antithetic": False},
    "no_ema": {"model.ema_halflife": None},
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
