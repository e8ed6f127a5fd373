"""Samplers of diffusion, step by step, against the schedulers of diffusers, in their own variables: 1e-6 per step.

Their states are z = alpha y (DDPM, DDIM, DPM-Solver++), y (Heun, EDM) or (1 - s) y (flow matching).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_denoising import keys_of

from genmap_jax.keys import fold, normal
from genmap_jax.processes import predictions
from genmap_jax.processes.log_snr import fixed
from genmap_jax.samplers import denoising

torch = pytest.importorskip("torch", reason="the references run on it; in the extra parity")
diffusers = pytest.importorskip("diffusers", reason="the references; in the extra parity")

SHAPE = (2, 1, 4, 4)  # diffusers wants images; ours does not care
TRAIN = {"num_train_timesteps": 1000, "beta_schedule": "linear"}


def network(xp, z, level):
    """A fixed nonlinear function that both sides take for the network. level: a number that tells the noise."""
    return xp.tanh(2.0 * z + level) - 0.3 * z


def denoiser(name, data_std=1.0):
    return predictions.denoiser(name, lambda z, log_sigma, cond: network(jnp, z, jnp.exp(log_sigma[0])), data_std)


def alpha_of(sigma):
    return 1.0 / np.sqrt(1.0 + np.asarray(sigma) ** 2)


def step_by_step(step, y, theirs, scale, tol=1e-6):
    """Every step from *their* state: errors do not add up. theirs: states; scale: of y into their variables."""
    run = jax.jit(step)
    carry = (jnp.asarray(y), jnp.zeros_like(jnp.asarray(y)))
    for i, state in enumerate(theirs):
        out, x_hat = run(i, carry)
        np.testing.assert_allclose(out * scale[i + 1], state, atol=tol, rtol=tol, err_msg=f"step {i}")
        carry = (jnp.asarray(state / scale[i + 1]), x_hat)


def start(seed=0):
    return np.random.default_rng(seed).standard_normal(SHAPE)


def vp_levels(scheduler):
    """Noise levels of their timesteps, and 0; strictly falling, as many as asked."""
    products = scheduler.alphas_cumprod.numpy().astype(np.float64)[scheduler.timesteps.numpy()]
    return np.append(np.sqrt((1 - products) / products), 0.0)


def stochastic(make, z, states, scale, noises):
    """The same where a step draws noise: two draws of ours give its mean and scale, then what theirs would give."""
    keys = [keys_of(seed, SHAPE[0]) for seed in (0, 1)]
    run = [jax.jit(make(k)) for k in keys]
    y = jnp.asarray(z / scale[0])
    for i, (state, noise) in enumerate(zip(states, noises, strict=True)):
        (one, _), (two, _) = (step(i, (y, y)) for step in run)
        n_one, n_two = (normal(fold(k, i + 1), SHAPE[1:]) for k in keys)
        ours = one + (one - two) / (n_one - n_two) * (noise.numpy() - n_one)
        np.testing.assert_allclose(ours * scale[i + 1], state, atol=1e-6, rtol=1e-6, err_msg=f"step {i}")
        y = jnp.asarray(state / scale[i + 1])


@pytest.mark.parametrize("eta, prediction, theirs", [(0.0, "eps", "epsilon"), (0.5, "v", "v_prediction")])
def test_ddim(eta, prediction, theirs, x64):
    options = {"clip_sample": False, "prediction_type": theirs}
    scheduler = diffusers.DDIMScheduler(**TRAIN, **options)
    scheduler.set_timesteps(8)
    scheduler.timesteps = torch.arange(
        999, -1, -125
    )  # their previous step is t - 125: a grid on which that is the next
    sigmas, z, states = vp_levels(scheduler), torch.from_numpy(start()), []
    noise = torch.from_numpy(start(1))
    for i, t in enumerate(scheduler.timesteps):
        out = network(torch, z, float(sigmas[i]))
        z = scheduler.step(out, t, z, eta=eta, variance_noise=noise if eta else None).prev_sample
        states.append(z.numpy())
    make = lambda keys: denoising.ddim(denoiser(prediction), sigmas, keys, eta=eta)  # noqa: E731
    stochastic(make, start(), states, alpha_of(sigmas), [noise] * 8)


def test_ddpm(x64):
    scheduler = diffusers.DDPMScheduler(**TRAIN, clip_sample=False, variance_type="fixed_small")
    scheduler.set_timesteps(10)
    sigmas, z, states, noises = vp_levels(scheduler), torch.from_numpy(start()), [], []
    assert len(sigmas) == 11 and np.all(np.diff(sigmas) < 0)
    for i, t in enumerate(scheduler.timesteps):
        noises.append(torch.randn(SHAPE, generator=torch.Generator().manual_seed(i), dtype=z.dtype))
        generator = torch.Generator().manual_seed(i)
        z = scheduler.step(network(torch, z, float(sigmas[i])), t, z, generator=generator).prev_sample
        states.append(z.numpy())
    make = lambda keys: denoising.ancestral(denoiser("eps"), sigmas, keys)  # noqa: E731
    stochastic(make, start(), states, alpha_of(sigmas), noises)


def test_dpm_solver_multistep(x64):
    scheduler = diffusers.DPMSolverMultistepScheduler(**TRAIN, solver_order=2, algorithm_type="dpmsolver++")
    scheduler.set_timesteps(12)
    sigmas, z, states = scheduler.sigmas.numpy().astype(np.float64), torch.from_numpy(start()), []
    assert len(sigmas) == 13 and sigmas[-1] == 0
    for i, t in enumerate(scheduler.timesteps):
        z = scheduler.step(network(torch, z, float(sigmas[i])), t, z).prev_sample
        states.append(z.numpy())
    scale = alpha_of(sigmas)
    step_by_step(denoising.dpmpp_2m(denoiser("eps"), sigmas), start() / scale[0], states, scale)


def test_heun(x64):
    scheduler = diffusers.HeunDiscreteScheduler(**TRAIN)
    scheduler.set_timesteps(8)
    sigmas = np.append(scheduler.sigmas.numpy()[:-1:2], 0.0).astype(np.float64)
    assert len(sigmas) == 9
    y, states = torch.from_numpy(start() * sigmas[0]), []
    for i, t in enumerate(scheduler.timesteps):
        level = float(scheduler.sigmas[scheduler.step_index or 0])
        out = network(torch, scheduler.scale_model_input(y, t), level)
        y = scheduler.step(out, t, y).prev_sample
        if i % 2 == 1 or i == len(scheduler.timesteps) - 1:
            states.append(y.numpy())
    step_by_step(denoising.heun(denoiser("eps"), sigmas), start() * sigmas[0], states, np.ones(9))


@pytest.mark.parametrize("name", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"])
def test_edm(name, x64):
    """With the preconditioning of EDM, which their schedulers hold. They round states to float32: 1e-5."""
    options = {} if "Euler" in name else {"solver_order": 2}
    scheduler = getattr(diffusers, name)(sigma_min=0.002, sigma_max=80.0, sigma_data=0.5, rho=7.0, **options)
    scheduler.set_timesteps(12)
    sigmas = scheduler.sigmas.numpy().astype(np.float64)
    ours = denoising.grid(fixed("karras", -2 * np.log(0.002), -2 * np.log(80.0)), 12)
    np.testing.assert_allclose(sigmas, ours, rtol=1e-5)
    y, states = torch.from_numpy(start() * 80.0), []
    for i, t in enumerate(scheduler.timesteps):
        out = network(torch, scheduler.scale_model_input(y, t), float(sigmas[i]))
        y = scheduler.step(out, t, y).prev_sample
        states.append(y.numpy().astype(np.float64))
    solver = denoising.euler if "Euler" in name else denoising.dpmpp_2m
    step_by_step(solver(denoiser("F", 0.5), sigmas), start() * 80.0, states, np.ones(13), tol=1e-5)


def test_flow_matching_euler(x64):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000)
    scheduler.set_timesteps(10)
    s = scheduler.sigmas.numpy().astype(np.float64)
    s[0] = 0.999  # at s = 1 there is no data left, and sigma is infinite
    scheduler.sigmas = torch.from_numpy(s)
    sigmas, z, states = s / (1 - s), torch.from_numpy(start()), []
    for i, t in enumerate(scheduler.timesteps):
        z = scheduler.step(network(torch, z, float(sigmas[i])), t, z).prev_sample
        states.append(z.numpy())
    step_by_step(denoising.euler(denoiser("velocity"), sigmas), start() / (1 - s[0]), states, 1 - s)
