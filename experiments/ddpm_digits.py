"""Denoising diffusion (DDPM) on the 8x8 digits. Ho et al. 2020, https://arxiv.org/abs/2006.11239

    python experiments/ddpm_digits.py
    python experiments/ddpm_digits.py --ablation all --seeds 3

Expect at most 3.909 ± 0.008 bits/dim on test data (from a lower bound of 250 steps; mean ± standard error of seeds 0 to
2: 3.9167 3.8936 3.9157) and an energy distance of 0.012 ± 0.003, with `--seeds 3`, 2 busy CPU cores and jax 0.10.2.
Samples are clean digits. The bound is loose, because the "simple" weights give little weight to the lowest noise
levels, where neighbouring grey values are told apart.

The ablations took 25 minutes on one busy core. They give bits/dim of seeds 0 to 2, and the energy distance of samples
(measured by version 0.1.0):

    baseline                     3.9167 3.8936 3.9157   0.012 ± 0.003
    linear_betas                 4.6129 4.5709 4.6057   0.017 ± 0.003
    predict_x0                   5.2273 5.2015 5.1895   0.013 ± 0.003
    predict_v                    3.8553 3.8512 3.8589   0.017 ± 0.003
    min_snr                      4.5782 4.5880 4.5824   0.011 ± 0.004
    sigmoid_weights              4.1920 4.1739 4.2035   0.010 ± 0.004
    vlb_weights                  3.8923 3.8847 3.8883   0.035 ± 0.003
    ddim_50, dpmpp_2m_20, heun_18   the same bound      0.009 ± 0.003, 0.007 ± 0.003, 0.008 ± 0.003
    no_ema                       3.9225 3.8967 3.9195   0.011 ± 0.003

Differs from the paper: a residual MLP on 64 pixels instead of a U-Net; the cosine schedule of Nichol & Dhariwal 2021;
continuous times in training; 250 steps in bound and sampler instead of 1,000; cosine decay of the learning rate.
"""

from genmap_jax.approximate import diffusion
from genmap_jax.optim import Optim
from genmap_jax.run.config import Experiment
from genmap_jax.spaces import images

STEPS, BATCH = 3000, 128

CONFIG = Experiment(
    name="ddpm_digits",
    data="digits",
    steps=STEPS,
    batch_size=BATCH,
    eval_every=1500,
    sample_every=1500,
    model=diffusion.Config(
        space=images(8, 8, 1, levels=17),
        **diffusion.DDPM,
        log_snr_max=8.5,  # sigma 0.014: a ninth of the distance of two grey values
        log_snr_min=-6.0,  # sigma 20
        data_std=0.85,
        width=256,
        blocks=3,
        bound_steps=250,
        sample_steps=250,
        optim=Optim(lr=1e-3, warmup=20_000, decay=STEPS * BATCH, weight_decay=0.1),
        ema_halflife=50_000.0,
    ),
)

FAMILY = diffusion.FAMILY
ABLATIONS = {
    "linear_betas": {"model.schedule": "ddpm"},
    "predict_x0": {"model.prediction": "x0"},
    "predict_v": {"model.prediction": "v"},
    "min_snr": {"model.weighting": "min_snr"},
    "sigmoid_weights": {"model.weighting": "sigmoid"},
    "vlb_weights": {"model.weighting": "vlb"},
    "ddim_50": {"model.sampler": "ddim", "model.sample_steps": 50},
    "dpmpp_2m_20": {"model.sampler": "dpmpp_2m", "model.sample_steps": 20},
    "heun_18": {"model.sampler": "heun", "model.sample_steps": 18, "model.sample_schedule": "karras"},
    "no_ema": {"model.ema_halflife": None},
}

if __name__ == "__main__":
    from genmap_jax.commands.experiment import main

    main(CONFIG, FAMILY, ABLATIONS)
