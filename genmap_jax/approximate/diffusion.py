"""Diffusion: a bound on log p(x) from learning to remove noise. DDPM, VDM, EDM, flow matching are configurations of it.

Ho et al. 2020, "Denoising Diffusion Probabilistic Models" (arXiv:2006.11239); Kingma et al. 2021, "Variational
Diffusion Models" (arXiv:2107.00630); Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative
Models" (arXiv:2206.00364); Lipman et al. 2023, "Flow Matching for Generative Modeling" (arXiv:2210.02747).

All are one model, `denoise(y, sigma, label) -> x_hat` of noised data y = x + sigma noise, and differ in four choices:

    schedule      how much noise, how often: log SNR as a function of time       processes/log_snr.py
    prediction    what the network puts out                                      processes/predictions.py
    weighting     what an error costs at each noise level                        objectives/denoising.py
    sampler       how the noise is taken away again                              samplers/denoising.py, guidance.py

    log_prob      the variational bound, or the ODE's estimate                   objectives/diffusion_bound.py

The papers' choices are changes to a configuration: dataclasses.replace(cfg, **diffusion.EDM).

A conditional model reads the label of a batch; where it is dropped in training, an extra label stands for "none".

Differs from the papers: the network is told log sigma through sinusoids, not time or an integer; the ends of every
schedule are set and stay (`log_snr_max`, `log_snr_min`), also of the learned one; VDM's decoder is a discretised
Gaussian with the exact CDF; no augmentation, no dropout.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from genmap_jax import algorithm as algorithms
from genmap_jax import averaging
from genmap_jax.algorithm import (
    Algorithm,
    Array,
    Batch,
    Cond,
    Family,
    Key,
    LogProb,
    Params,
    averaged,
    check_cond,
    check_parts,
    init_state,
    log_prob_in_parts,
    minimise,
    reads_of,
)
from genmap_jax.keys import example_keys, uniform
from genmap_jax.nn.adm import ADM
from genmap_jax.nn.dit import DiT
from genmap_jax.nn.mlp import MLP
from genmap_jax.nn.products import in_type, widened
from genmap_jax.nn.unet import UNet, sinusoidal
from genmap_jax.objectives import diffusion_bound
from genmap_jax.objectives.denoising import Weighting, even_times, weighted_denoising
from genmap_jax.optim import Optim, optimizer
from genmap_jax.options import Count, NotNegative, Positive, Range, Share, check_options
from genmap_jax.processes import Denoise, log_snr, predictions
from genmap_jax.processes.log_snr import Schedule
from genmap_jax.samplers import denoising, guidance
from genmap_jax.shapes import expect, expect_label
from genmap_jax.spaces import Space

EMBEDDING = 128
"""Width of the embedding of the noise level."""

DDPM: dict[str, Any] = {"schedule": "cosine", "prediction": "eps", "weighting": "simple", "sampler": "ancestral"}
VDM: dict[str, Any] = {"schedule": "linear", "prediction": "eps", "weighting": "vlb", "sampler": "ancestral"}
EDM: dict[str, Any] = {
    "schedule": "lognormal",
    "prediction": "F",
    "weighting": "edm",
    "sampler": "heun",
    "sample_schedule": "karras",
}
EDM2 = EDM | {"weighting": "uncertainty"}
FLOW_MATCHING: dict[str, Any] = {
    "schedule": "flow",
    "prediction": "velocity",
    "weighting": "output",
    "sampler": "euler",
}


@dataclasses.dataclass(frozen=True)
class Config:
    """The four choices, the network, and how the model is sampled and evaluated."""

    space: Space
    """The space of one example: images or vectors."""
    classes: Count | None = None
    """Classes of the labels of the data; the model is then p(x | label) and, where labels are dropped, p(x) too. None
    reads no labels."""
    label_drop: Annotated[float, Range(0, below=1)] = 0.1
    """Share of training labels that are replaced by "none", which classifier-free guidance needs."""

    schedule: Literal["linear", "ddpm", "cosine", "flow", "lognormal", "karras", "learned"] = "linear"
    """The log SNR over time in training; "learned" is a monotone network, for the least variance of the bound."""
    log_snr_max: float = 13.3
    """The log SNR at time 0, where the data are decoded: sigma = exp(-log_snr / 2) = 0.0013 (VDM)."""
    log_snr_min: float = -5.0
    """The log SNR at time 1, where sampling starts: sigma = 12 (VDM)."""
    log_sigma: tuple[float, Positive] = log_snr.LOG_SIGMA
    """Mean and standard deviation of log sigma under "lognormal": which noise levels training looks at (EDM: -1.2 and
    1.2). Too low a mean on large or plain images, and the model learns strokes but neither shapes nor labels, which
    form at much noise."""
    prediction: Literal["eps", "x0", "v", "F", "velocity", "levels"] = "eps"
    """What the network puts out; "levels" is a distribution over the grey values of each pixel, of which the denoiser
    is the posterior mean."""
    weighting: Weighting = "vlb"
    """The weight of the loss at each noise level; see `objectives.denoising.weight`."""
    data_std: Positive = 1.0
    """Standard deviation of the data, images counted from -1 to 1. The scaling of F uses it (EDM: 0.5), and the prior
    N(0, data_std^2 + sigma^2) at time 1."""
    antithetic: bool = True
    """The times of a batch are evenly spaced from one random offset; False draws them independently."""

    network: Literal["mlp", "unet", "adm", "dit"] = "mlp"
    """The network: a residual MLP, the U-Net of DDPM++, that of ADM, or a transformer on patches."""
    width: Count = 256
    """Hidden units of "mlp", channels of "unet" and "adm" at the finest resolution, or width of a token of "dit"."""
    blocks: Count = 3
    """Residual or transformer blocks; those of "unet" and "adm" are counted per resolution."""
    channel_mult: tuple[Count, ...] = (1, 2, 2, 2)
    """Channels of "unet" and "adm" at each resolution in units of width, finest first."""
    attention: tuple[Count, ...] = (16,)
    """Resolutions of "unet" and "adm" that have self-attention."""
    head_width: Count = 64
    """Channels of an attention head of "adm" and "dit"."""
    patch: Count = 2
    """Side of a patch of "dit", in pixels."""
    fourier: tuple[int, ...] = ()
    """Exponents n of extra inputs sin and cos (2^n pi x), by which a network sees the last bits (VDM: 7, 8)."""

    sampler: denoising.Name = "ancestral"
    """The sampler; "ode" is the probability-flow ODE by an adaptive solver."""
    sample_schedule: log_snr.Name | None = None
    """The schedule whose evenly spaced times the sampler steps through; None takes that of training ("linear" for a
    learned one)."""
    sample_steps: Count = 250
    """Steps of the sampler; "heun" makes two evaluations in each."""
    eta: Share = 0.0
    """The noise of "ddim": from the ODE (0) to ancestral sampling (1)."""
    churn: NotNegative = 0.0
    """The noise S_churn that "heun" adds and removes again, at all noise levels."""
    guidance: NotNegative = 1.0
    """The weight of classifier-free guidance: 0 is the unconditional model, 1 the conditional one, and above it labels
    count for more."""
    guidance_interval: tuple[NotNegative, NotNegative] = (0.0, 1e9)
    """The noise levels sigma between which samples are guided."""
    guidance_rescale: Share = 0.0
    """Share of the guided prediction that is brought back to the spread of the unguided one."""

    likelihood: Literal["bound", "ode"] = "bound"
    """What log_prob gives: the variational bound, or the estimate by the ODE."""
    bound_steps: Count | None = None
    """The number of steps T of the bound, all of whose terms are computed; None is continuous time."""
    bound_draws: Count = 64
    """Draws of time averaged per example by the bound in continuous time."""
    divergence: Literal["exact", "hutchinson"] = "exact"
    """How "ode" computes the divergence: "exact" costs D Jacobian products, right up to some 64 dimensions."""
    probes: Count = 1
    """Probes averaged per example by "hutchinson"; from 2 on, the likelihood has a standard error."""
    tol: Positive = 1e-4
    """The relative and absolute tolerance of the ODE solver, in likelihood and sampler."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Activations and products of the network have this type in training and sampling. Parameters, normalisations, the
    loss and the likelihood are always float32."""
    remat: bool = False
    """The backward pass recomputes the inside of every block, to save memory."""
    scan: bool = False
    """One block of "dit" is compiled and looped over, in the place of all of them: the same results, compiled in a
    fraction of the time."""
    accumulate: Count = 1
    """An update computes its gradient over this many micro-batches, one after another, to save memory."""
    optim: Optim = Optim()
    """The optimizer."""
    ema_halflife: Positive | None = None
    """The half-life of the parameters' average, in examples; None evaluates the last parameters."""
    power_ema: tuple[Annotated[float, Range(above=0, most=averaging.WIDEST)], ...] = ()
    """Widths of further averages that are tracked, from which experiments/post_hoc_ema.py makes any other (EDM2: 0.05
    and 0.1)."""


# ---- the network -----------------------------------------------------------------------------------------------------


class Network(nn.Module):
    """(scaled y [B, *shape], log sigma [B], labels [B] or None) -> what is predicted, [B, *shape(, levels)]."""

    cfg: Config

    @nn.compact
    def __call__(self, y, log_sigma, label=None):
        cfg = self.cfg
        emb = sinusoidal(4.0 * log_sigma, EMBEDDING, period=100.0)  # log sigma: about -7 to 5
        if cfg.classes is not None:
            emb = emb + nn.Embed(cfg.classes + 1, EMBEDDING, embedding_init=nn.initializers.normal(1.0))(label)
        shape, features = cfg.space.shape, cfg.space.shape[-1]
        if cfg.prediction == "levels":
            shape, features = (*shape, cfg.space.levels), features * cfg.space.levels
        waves = [f(2.0**n * math.pi * y) for n in cfg.fourier for f in (jnp.sin, jnp.cos)]
        x, emb = in_type(cfg.dtype, jnp.concatenate([y, *waves], axis=-1), emb)
        if cfg.network == "mlp":
            net = MLP(cfg.width, cfg.blocks, (math.prod(shape),), cfg.remat)
        elif cfg.network == "dit":
            heads = cfg.width // cfg.head_width
            net = DiT(features, cfg.width, cfg.blocks, heads, cfg.patch, cfg.remat, cfg.scan)
        else:
            sizes = features, cfg.width, cfg.channel_mult, cfg.blocks, cfg.attention
            net = UNet(*sizes, cfg.remat) if cfg.network == "unet" else ADM(*sizes, cfg.head_width, cfg.remat)
        return widened(net(x, emb)).reshape(-1, *shape)


class Uncertainty(nn.Module):
    """log of the loss expected at log sigma, [B] -> [B]; 0 at first. Karras et al. 2024, eq. 22."""

    @nn.compact
    def __call__(self, log_sigma):
        features = sinusoidal(4.0 * log_sigma, EMBEDDING, period=100.0)
        return nn.Dense(1, kernel_init=nn.initializers.zeros)(features)[:, 0]


# ---- the model as free functions of its parameters -------------------------------------------------------------------


def schedule_of(cfg: Config, params: Params) -> Schedule:
    """The schedule of training, and of the bound in T steps."""
    if cfg.schedule == "learned":
        return log_snr.learned(params["schedule"], cfg.log_snr_max, cfg.log_snr_min)
    return log_snr.fixed(cfg.schedule, cfg.log_snr_max, cfg.log_snr_min, cfg.log_sigma)


def schedule_of_bound(cfg: Config, params: Params) -> Schedule:
    """The schedule of the bound. For a fixed schedule in continuous time it is linear log SNR: the same bound.

    There the bound does not depend on the course, but the variance of its estimate does: "lognormal" hardly ever looks
    at the ends, and then with enormous weights.
    """
    if cfg.bound_steps is not None or cfg.schedule == "learned":
        return schedule_of(cfg, params)
    return log_snr.fixed("linear", cfg.log_snr_max, cfg.log_snr_min)


def denoiser(cfg: Config, params: Params) -> Denoise:
    """denoise(y [B, *shape], sigma [B], label [B] or None) -> x_hat; the label `classes` stands for "none".

    Raises ValueError on other shapes, unless labels come exactly with a conditional model, and for known labels that
    are none.
    """

    def network(y, log_sigma, label):
        expect((None, *cfg.space.shape), y=y)
        expect((y.shape[0],), sigma=log_sigma)
        expect_label(label, y.shape[0], cfg.classes, none=True)
        return Network(cfg).apply({"params": params["network"]}, y, log_sigma, label)

    if cfg.prediction == "levels":
        return predictions.levels_denoiser(network, cfg.space.grey_levels, cfg.data_std)
    return predictions.denoiser(cfg.prediction, network, cfg.data_std)


def guided_denoiser(cfg: Config, params: Params) -> Denoise:
    """The denoiser samples are drawn with."""
    denoise = denoiser(cfg, params)
    if cfg.guidance == 1.0:
        return denoise
    assert cfg.classes is not None  # `check`: only a conditional model is guided
    without = guidance.unconditional(denoise, cfg.classes)
    interval, rescale = cfg.guidance_interval, cfg.guidance_rescale
    return guidance.guided(denoise, without, cfg.guidance, interval=interval, rescale=rescale)


def sigmas_of(cfg: Config) -> np.ndarray:
    """Noise levels of the sampler, falling from sigma at log_snr_min to sigma at log_snr_max, then 0."""
    name = cfg.sample_schedule or ("linear" if cfg.schedule == "learned" else cfg.schedule)
    schedule = log_snr.fixed(name, cfg.log_snr_max, cfg.log_snr_min, cfg.log_sigma)
    return denoising.levels(cfg.sampler, schedule, cfg.sample_steps)


def training_times(cfg: Config, key: Key, size: int, axis_name: str | None) -> Array:
    """Uniform times of a batch, [size]."""
    if cfg.antithetic:
        return even_times(key, size, axis_name)
    return uniform(example_keys(key, size, axis_name))


def training_loss(cfg: Config) -> Callable[[Params, Key, Batch], dict[str, Array]]:
    """The loss for `minimise`; the batch also holds times "t" [B]. See `objectives.denoising`."""

    def some_labels(keys, batch):
        if cfg.classes is None:
            return None
        return guidance.some_hidden(batch["label"], keys, cfg.label_drop, cfg.classes)

    def uncertainty(params, log_snr):
        return Uncertainty().apply({"params": params["uncertainty"]}, -0.5 * log_snr)

    return weighted_denoising(
        lambda params: schedule_of(cfg, params),
        lambda params: denoiser(cfg, params),
        lambda batch: cfg.space.to_grid(batch[cfg.space.field]),
        some_labels,
        cfg.weighting,
        "x0" if cfg.prediction == "levels" else cfg.prediction,  # asked by the weighting "output" only
        cfg.data_std,
        uncertainty if cfg.weighting == "uncertainty" else None,
    )


# ---- the algorithm ---------------------------------------------------------------------------------------------------


@flax.struct.dataclass
class State(algorithms.State):
    """The state of `minimise`, with an average of the parameters for each width of `power_ema`."""

    tracked: tuple[Params, ...] = ()


def check(cfg: Config) -> None:
    """Raise one ValueError that names the field and the fix."""
    cfg.space.check()
    shape, images = cfg.space.shape, cfg.space.image
    convolutional = cfg.network in ("unet", "adm")
    check_options(cfg)
    if convolutional and not cfg.channel_mult:
        raise ValueError(f"channel_mult={cfg.channel_mult}: network={cfg.network!r} needs one resolution at least")
    factor = 2 ** (len(cfg.channel_mult) - 1) if convolutional else cfg.patch if cfg.network == "dit" else 1
    if not cfg.log_snr_min < cfg.log_snr_max:
        raise ValueError(f"log_snr_min={cfg.log_snr_min} must be less than log_snr_max={cfg.log_snr_max}: swap them")
    if cfg.schedule == "learned" and cfg.weighting != "vlb":
        raise ValueError(f"schedule='learned' is learned for the bound: set weighting='vlb', not {cfg.weighting!r}")
    if cfg.network != "mlp" and not images:
        raise ValueError(f"network={cfg.network!r} needs images, not space.shape={shape}: use network='mlp'")
    if images and (shape[0] % factor or shape[1] % factor):
        name = f"channel_mult={cfg.channel_mult}" if convolutional else f"patch={cfg.patch}"
        raise ValueError(f"{name} needs an image that divides by {factor}, not {shape}: shorten it")
    if cfg.network == "adm" and cfg.width % 4:
        raise ValueError(f"width={cfg.width} of network='adm' must be a multiple of 4")
    if cfg.network == "dit" and (cfg.width % cfg.head_width or cfg.width % 4):
        raise ValueError(
            f"width={cfg.width} of network='dit' must be a multiple of head_width={cfg.head_width} and of 4"
        )
    if cfg.scan and cfg.network != "dit":
        raise ValueError(f"scan=True: only the blocks of network='dit' are equal, not those of {cfg.network!r}")
    if cfg.prediction == "levels" and (not images or cfg.weighting == "output"):
        raise ValueError(
            "prediction='levels' is of images, under any weighting but 'output': choose another of the two"
        )
    if cfg.sample_steps < denoising.least_steps(cfg.sampler):
        least = denoising.least_steps(cfg.sampler)
        raise ValueError(f"sample_steps={cfg.sample_steps}: sampler={cfg.sampler!r} needs at least {least}")
    guidance.check_guidance(cfg.guidance, cfg.classes, cfg.label_drop)
    if not cfg.guidance_interval[0] < cfg.guidance_interval[1]:
        raise ValueError(f"guidance_interval={cfg.guidance_interval}: give the lower noise level first")


def algorithm(cfg: Config, *, batch_size: int, axis_name: str | None = None) -> Algorithm:
    """Bind a diffusion model to its optimizer. Raises ValueError on a configuration that cannot work."""
    check(cfg)
    check_parts(batch_size, cfg.accumulate)
    if cfg.schedule != "learned":
        log_snr.checked(schedule_of(cfg, {}))
    tx, sigmas, space = optimizer(cfg.optim, batch_size), sigmas_of(cfg), cfg.space
    reads = reads_of(space, cfg.classes)

    def init(key: Key, batch: Batch) -> State:
        for_network, for_schedule = jax.random.split(key)
        label = None if cfg.classes is None else jnp.zeros(1, jnp.int32)
        y = jnp.zeros((1, *space.shape))
        params = {"network": Network(cfg).init(for_network, y, jnp.zeros(1), label)["params"]}
        if cfg.schedule == "learned":
            params["schedule"] = log_snr.Learned().init(for_schedule, jnp.zeros(1))["params"]
        if cfg.weighting == "uncertainty":
            params["uncertainty"] = Uncertainty().init(for_schedule, jnp.zeros(1))["params"]  # never both; all zeros
        state = init_state(params, tx, cfg.ema_halflife)
        tracked = tuple(jax.tree.map(jnp.copy, params) for _ in cfg.power_ema)
        return State(state.step, state.params, state.opt_state, state.ema, tracked)

    update = minimise(
        training_loss(cfg), tx, ema_halflife=cfg.ema_halflife, axis_name=axis_name, accumulate=cfg.accumulate
    )

    def step(state: State, batch: Batch, key: Key):
        for_time, key = jax.random.split(key)
        t = training_times(cfg, for_time, len(batch[space.field]), axis_name)
        state, metrics = update(state, {**batch, "t": t}, key)
        tracked = averaging.power_update(state.tracked, state.params, state.step, cfg.power_ema)
        return dataclasses.replace(state, tracked=tracked), metrics

    def sample(state: State, key: Key, n: int, cond: Cond | None = None) -> Array:
        return trajectory(state, key, n, cond, 1)[-1]

    def trajectory(state: State, key: Key, n: int, cond: Cond | None, frames: int) -> Array:
        """What the model believes the data are, from the first noise on; the last frame is the samples."""
        check_cond(reads, n, cond)
        for_start, for_noise, _ = (example_keys(k, n) for k in jax.random.split(key, 3))
        y = denoising.start((cfg.data_std**2 + float(sigmas[0]) ** 2) ** 0.5, for_start, space.shape)
        options: dict[str, Any] = {"eta": cfg.eta, "churn": cfg.churn, "tol": cfg.tol, "cond": cond and cond["label"]}
        denoise = guided_denoiser(cfg, averaged(state))
        return space.from_grid(denoising.draw(cfg.sampler, denoise, y, sigmas, for_noise, frames, **options))

    def log_prob(state: State, batch: Batch, key: Key) -> LogProb:
        params, exact = averaged(state), dataclasses.replace(cfg, dtype="float32")

        def of_part(keys: Key, batch: Batch) -> LogProb:
            data = batch[space.field]
            arguments = denoiser(exact, params), schedule_of_bound(cfg, params), data, space.to_grid(data)
            both: dict[str, Any] = {
                "data_std": cfg.data_std,
                "levels": space.levels,
                "cond": None if cfg.classes is None else batch["label"],
            }
            if cfg.likelihood == "bound":
                return diffusion_bound.bound(*arguments, keys, steps=cfg.bound_steps, draws=cfg.bound_draws, **both)
            probes = cfg.probes if cfg.divergence == "hutchinson" else 0
            return diffusion_bound.ode_estimate(*arguments, keys, probes=probes, tol=cfg.tol, **both)

        return log_prob_in_parts(of_part, reads, batch, key, cfg.accumulate)

    evaluations = denoising.evaluations(cfg.sampler, cfg.sample_steps)
    return Algorithm(
        reads=reads,
        init=init,
        step=step,
        sample=sample,
        log_prob=log_prob,
        evaluations=evaluations and evaluations * (1 if cfg.guidance == 1.0 else 2),
        trajectory=None if cfg.sampler == "ode" else trajectory,
    )


FAMILY = Family(
    name="Diffusion",
    continent="approximate",
    objective="weighted denoising",
    citation="Ho et al. 2020, https://arxiv.org/abs/2006.11239; Kingma et al. 2021, https://arxiv.org/abs/2107.00630",
    algorithm=algorithm,
    sampling=(
        "sampler",
        "sample_schedule",
        "sample_steps",
        "eta",
        "churn",
        "guidance",
        "guidance_interval",
        "guidance_rescale",
        "likelihood",
        "bound_steps",
        "bound_draws",
        "divergence",
        "probes",
        "tol",
    ),
)
