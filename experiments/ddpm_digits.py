"""Denoising diffusion (DDPM) on the 8x8 digits. Ho et al. 2020, https://arxiv.org/abs/2006.11239

    python experiments/ddpm_digits.py
    python experiments/ddpm_digits.py --ablation all --seeds 3

Expect: at most 3.909 ± 0.008 bits/dim on test data (lower bound of 250 steps; mean ± standard error of seeds 0 to 2:
3.9167 3.8936 3.9157), and energy distance 0.012 ± 0.003, by `--seeds 3`; 2 busy CPU cores, jax 0.10.2. Samples are
clean digits; the bound is loose, since "simple" weights spend little on the last noise, where integers are told apart.

Differs from the paper: a residual MLP on 64 pixels instead of a U-Net; the cosine schedule (Nichol & Dhariwal 2021);
continuous times in training; 250 steps in bound and sampler instead of 1,000; cosine decay of the learning rate.
"""

from genmap_jax.approximate import diffusion
from genmap_jax.config import Experiment
from genmap_jax.optim import Optim

STEPS, BATCH = 3000, 128

CONFIG = Experiment(
    name="ddpm_digits",
    data="digits",
    steps=STEPS,
    batch_size=BATCH,
    eval_every=1500,
    sample_every=1500,
    model=diffusion.Config(
        shape=(8, 8, 1),
        levels=17,
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

ALGORITHM = diffusion.algorithm
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
    from genmap_jax.train import main

    main(CONFIG, ALGORITHM, ABLATIONS)
