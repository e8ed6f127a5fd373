"""Diffusion: a bound on log p(x) from learning to remove noise. DDPM, VDM, EDM, flow matching are configurations of it.

Ho et al. 2020, "Denoising Diffusion Probabilistic Models" (arXiv:2006.11239); Kingma et al. 2021, "Variational
Diffusion Models" (arXiv:2107.00630); Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative
Models" (arXiv:2206.00364); Lipman et al. 2023, "Flow Matching for Generative Modeling" (arXiv:2210.02747).

All are one model, `denoise(y, sigma, label) -> x_hat` of noised data y = x + sigma noise, and differ in four choices:

    schedule      how much noise, how often: log SNR as a function of time       samplers/log_snr.py
    prediction    what the network puts out                                      samplers/predictions.py
    weighting     what an error costs at each noise level                        objectives/denoising.py
    sampler       how the noise is taken away again                              samplers/denoising.py, guidance.py

    log_prob      the variational bound, or the ODE's estimate                   objectives/diffusion_bound.py

The papers' choices are changes to a configuration: dataclasses.replace(cfg, **diffusion.EDM).

Differs from the papers: the network is told log sigma through sinusoids, not time or an integer; the ends of every
schedule are set and stay (`log_snr_max`, `log_snr_min`), also of the learned one; VDM's decoder is a discretised
Gaussian with the exact CDF; no augmentation, no dropout.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import ClassVar, Literal, get_args

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from genmap_jax import algorithm as algorithms
from genmap_jax import averaging, parallel
from genmap_jax.algorithm import Algorithm, Array, Batch, Key, LogProb, Params, init_state, minimise
from genmap_jax.data import pixels
from genmap_jax.nn.adm import ADM
from genmap_jax.nn.dit import DiT
from genmap_jax.nn.mlp import MLP
from genmap_jax.nn.unet import UNet, sinusoidal
from genmap_jax.objectives import diffusion_bound
from genmap_jax.objectives.denoising import Weighting, even_times, weighted_denoising
from genmap_jax.optim import Optim, optimizer
from genmap_jax.samplers import denoising, guidance, log_snr, predictions
from genmap_jax.samplers.denoising import Denoise
from genmap_jax.samplers.log_snr import Schedule
from genmap_jax.samplers.watching import watch

EMBEDDING = 128
"""Width of the embedding of the noise level."""

DDPM = {"schedule": "cosine", "prediction": "eps", "weighting": "simple", "sampler": "ancestral"}
VDM = {"schedule": "linear", "prediction": "eps", "weighting": "vlb", "sampler": "ancestral"}
EDM = {"schedule": "lognormal", "prediction": "F", "weighting": "edm", "sampler": "heun", "sample_schedule": "karras"}
EDM2 = EDM | {"weighting": "uncertainty"}
FLOW_MATCHING = {"schedule": "flow", "prediction": "velocity", "weighting": "output", "sampler": "euler"}


@dataclasses.dataclass(frozen=True)
class Config:
    system: ClassVar[str] = "Diffusion"
    objective: ClassVar[str] = "weighted denoising"

    shape: tuple[int, ...]
    """(H, W, C) of images or (D,) of vectors."""
    levels: int = 256
    """Grey values of images; vectors ignore it."""
    classes: int | None = None
    """Of labelled data: the model is p(x | label), and where labels are dropped p(x) too."""
    label_drop: float = 0.1
    """Share of training labels replaced by "none", which classifier-free guidance needs."""

    schedule: Literal["linear", "ddpm", "cosine", "flow", "lognormal", "karras", "learned"] = "linear"
    """log SNR over time; "learned": a monotone network, for the least variance of the bound."""
    log_snr_max: float = 13.3
    """At time 0, where the data are decoded: sigma = exp(-log_snr / 2) = 0.0013."""
    log_snr_min: float = -5.0
    """At time 1, where sampling starts: sigma = 12."""
    log_sigma: tuple[float, float] = log_snr.LOG_SIGMA
    """Mean and standard deviation of log sigma under "lognormal": which noise levels training looks at. Too low a mean
    on large or plain images, and the model learns strokes but neither shapes nor labels, which form at much noise."""
    prediction: Literal["eps", "x0", "v", "F", "velocity", "levels"] = "eps"
    """"levels": a distribution over the grey values of each pixel, of which the denoiser is the posterior mean."""
    weighting: Weighting = "vlb"
    data_std: float = 1.0
    """Standard deviation of the data, images counted from -1 to 1: of the scaling of F, and of the prior N(0,
    data_std^2 + sigma^2) at time 1."""
    antithetic: bool = True
    """Times evenly spaced over the batch, from one random offset, instead of independent ones."""

    network: Literal["mlp", "unet", "adm", "dit"] = "mlp"
    """"unet" is DDPM++'s, "adm" that of ADM, "dit" a transformer on patches."""
    width: int = 256
    """mlp: hidden units. unet, adm: channels at the finest resolution. dit: of a token."""
    blocks: int = 3
    """Residual or transformer blocks; unet, adm: per resolution."""
    mult: tuple[int, ...] = (1, 2, 2, 2)
    """unet, adm: channels of each resolution in units of width, finest first."""
    attention: tuple[int, ...] = (16,)
    """unet, adm: resolutions with self-attention."""
    head_width: int = 64
    """adm, dit: channels of an attention head."""
    patch: int = 2
    """dit: side of a patch."""
    fourier: tuple[int, ...] = ()
    """Exponents n of extra inputs sin and cos (2^n pi x), by which a network sees the last bits. VDM: 7, 8."""

    sampler: Literal["ancestral", "ddim", "euler", "heun", "dpmpp_2m", "adaptive"] = "ancestral"
    sample_schedule: log_snr.Name | None = None
    """Schedule whose even times are the sampler's; None takes that of training ("linear" for a learned one)."""
    sample_steps: int = 250
    """Steps of the sampler; heun makes two evaluations in each."""
    eta: float = 0.0
    """ddim: from the ODE (0) to ancestral sampling (1)."""
    churn: float = 0.0
    """heun: S_churn, noise added and removed again; at all levels."""
    guidance: float = 1.0
    """Weight of classifier-free guidance: 1 is the conditional model, above it labels count for more."""
    guidance_interval: tuple[float, float] = (0.0, 1e9)
    """Noise levels sigma inside which samples are guided."""
    guidance_rescale: float = 0.0
    """Share of the guided prediction brought back to the spread of the unguided one."""

    likelihood: Literal["bound", "ode"] = "bound"
    """What log_prob gives: the variational bound, or the ODE's estimate."""
    bound_steps: int | None = None
    """T of the bound, all of whose terms are computed; None is continuous time."""
    bound_draws: int = 64
    """Continuous time: draws of time averaged per example."""
    trace: Literal["exact", "hutchinson"] = "exact"
    """ode: the divergence; "exact" costs D Jacobian products, right up to some 64 dimensions."""
    probes: int = 1
    """hutchinson: probes averaged per example."""
    tol: float = 1e-4
    """Relative and absolute tolerance of the ODE solver, in likelihood and adaptive sampler."""

    optim: Optim = Optim()
    ema_halflife: float | None = None
    """In examples; None evaluates the last parameters."""
    power_ema: tuple[float, ...] = ()
    """Widths of further averages to track, from which experiments/post_hoc_ema.py makes any other; EDM2: 0.05, 0.1."""


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
        x, shape, features = y, cfg.shape, cfg.shape[-1]
        if cfg.prediction == "levels":
            shape, features = (*shape, cfg.levels), features * cfg.levels
        if cfg.fourier:
            waves = [f(2.0**n * math.pi * y) for n in cfg.fourier for f in (jnp.sin, jnp.cos)]
            x = jnp.concatenate([y, *waves], axis=-1)
        if cfg.network == "mlp":
            net = MLP(cfg.width, cfg.blocks, (math.prod(shape),))
        elif cfg.network == "dit":
            net = DiT(features, cfg.width, cfg.blocks, cfg.width // cfg.head_width, cfg.patch)
        elif cfg.network == "adm":
            net = ADM(features, cfg.width, cfg.mult, cfg.blocks, cfg.attention, cfg.head_width)
        else:
            net = UNet(features, cfg.width, cfg.mult, cfg.blocks, cfg.attention)
        return net(x, emb).reshape(-1, *shape)


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
    """The schedule of the bound: a straight line stands in for fixed schedules in continuous time.

    There the bound does not depend on the course, but the variance of its estimate does: "lognormal" hardly ever looks
    at the ends, and then with enormous weights.
    """
    if cfg.bound_steps is not None or cfg.schedule == "learned":
        return schedule_of(cfg, params)
    return log_snr.fixed("linear", cfg.log_snr_max, cfg.log_snr_min)


def denoiser(cfg: Config, params: Params) -> Denoise:
    """denoise(y [B, *shape], sigma [B], label [B] or None) -> x_hat; the label `classes` stands for none."""
    network = lambda y, log_sigma, label: Network(cfg).apply({"params": params["network"]}, y, log_sigma, label)  # noqa: E731
    if cfg.prediction == "levels":
        return predictions.levels_denoiser(network, cfg.levels, cfg.data_std)
    return predictions.denoiser(cfg.prediction, network, cfg.data_std)


def guided_denoiser(cfg: Config, params: Params) -> Denoise:
    """The denoiser samples are drawn with."""
    denoise = denoiser(cfg, params)
    if cfg.guidance == 1.0:
        return denoise
    options = {"interval": cfg.guidance_interval, "rescale": cfg.guidance_rescale}
    return guidance.guided(denoise, guidance.unconditional(denoise, cfg.classes), cfg.guidance, **options)


def solver(cfg: Config, denoise: Denoise, sigmas: np.ndarray, keys: Key, label: Array | None) -> denoising.Step:
    """The sampler a configuration names, as one step; see `samplers.denoising`."""
    return {
        "ancestral": lambda: denoising.ancestral(denoise, sigmas, keys, cond=label),
        "ddim": lambda: denoising.ddim(denoise, sigmas, keys, eta=cfg.eta, cond=label),
        "euler": lambda: denoising.euler(denoise, sigmas, cond=label),
        "heun": lambda: denoising.heun(denoise, sigmas, keys, churn=cfg.churn, cond=label),
        "dpmpp_2m": lambda: denoising.dpmpp_2m(denoise, sigmas, cond=label),
    }[cfg.sampler]()


def levels_of(cfg: Config) -> np.ndarray:
    """Noise levels of the sampler, falling from sigma at log_snr_min to sigma at log_snr_max, then 0."""
    name = cfg.sample_schedule or ("linear" if cfg.schedule == "learned" else cfg.schedule)
    return denoising.grid(log_snr.fixed(name, cfg.log_snr_max, cfg.log_snr_min, cfg.log_sigma), cfg.sample_steps)


def to_real(cfg: Config, data: Array) -> Array:
    """Data as the batch holds them -> x: images on the grid from -1 to 1."""
    return pixels.to_grid(data, cfg.levels) if len(cfg.shape) == 3 else data


def from_real(cfg: Config, x: Array) -> Array:
    """The inverse, to the nearest grey value."""
    return pixels.from_grid(x, cfg.levels) if len(cfg.shape) == 3 else x


def training_loss(cfg: Config) -> Callable[[Params, Key, Batch], dict[str, Array]]:
    """The loss for `minimise`; the batch also holds times "t" [B]. See `objectives.denoising`."""

    def some_labels(keys, batch):
        if cfg.classes is None:
            return None
        drop = jax.vmap(lambda key: jax.random.bernoulli(key, cfg.label_drop))(keys)
        return jnp.where(drop, cfg.classes, batch["label"])

    def uncertainty(params, level):
        return Uncertainty().apply({"params": params["uncertainty"]}, -0.5 * level)

    return weighted_denoising(
        lambda params: schedule_of(cfg, params),
        lambda params: denoiser(cfg, params),
        lambda batch: to_real(cfg, batch["image" if len(cfg.shape) == 3 else "x"]),
        some_labels,
        cfg.weighting,
        cfg.prediction,
        cfg.data_std,
        uncertainty if cfg.weighting == "uncertainty" else None,
    )


# ---- the algorithm ---------------------------------------------------------------------------------------------------


@flax.struct.dataclass
class State(algorithms.State):
    """With an average of the parameters for each width of `power_ema`."""

    tracked: tuple[Params, ...] = ()


def check(cfg: Config) -> None:
    """Raise one ValueError that names the field and the fix."""
    images = len(cfg.shape) == 3
    convolutional = cfg.network in ("unet", "adm")
    factor = 2 ** (len(cfg.mult) - 1) if convolutional else cfg.patch if cfg.network == "dit" else 1
    fields = {field.name: field.type for field in dataclasses.fields(cfg)}
    for name in ("schedule", "prediction", "weighting", "network", "sampler", "likelihood", "trace"):
        allowed = get_args(fields[name])
        if getattr(cfg, name) not in allowed:
            raise ValueError(f"{name}={getattr(cfg, name)!r}: choose one of {', '.join(map(repr, allowed))}")
    if len(cfg.shape) not in (1, 3):
        raise ValueError(f"shape={cfg.shape}: give (H, W, C) for images or (D,) for vectors")
    if images and not 2 <= cfg.levels <= 256:
        raise ValueError(f"levels={cfg.levels}: uint8 images have 2 to 256 grey values")
    if not cfg.log_snr_min < cfg.log_snr_max:
        raise ValueError(f"log_snr_min={cfg.log_snr_min} must be less than log_snr_max={cfg.log_snr_max}: swap them")
    if cfg.schedule == "learned" and cfg.weighting != "vlb":
        raise ValueError(f"schedule='learned' is learned for the bound: set weighting='vlb', not {cfg.weighting!r}")
    if cfg.network != "mlp" and not images:
        raise ValueError(f"network={cfg.network!r} needs a shape (H, W, C), not {cfg.shape}: use network='mlp'")
    if images and (cfg.shape[0] % factor or cfg.shape[1] % factor):
        name = f"mult={cfg.mult}" if convolutional else f"patch={cfg.patch}"
        raise ValueError(f"{name} needs a shape that divides by {factor}, not {cfg.shape}: shorten it")
    if cfg.network == "adm" and cfg.width % 4:
        raise ValueError(f"width={cfg.width} of network='adm' must be a multiple of 4")
    if cfg.network == "dit" and (cfg.width % cfg.head_width or cfg.width % 4):
        raise ValueError(
            f"width={cfg.width} of network='dit' must be a multiple of head_width={cfg.head_width} and of 4"
        )
    if cfg.prediction == "levels" and (not images or cfg.weighting == "output"):
        raise ValueError(
            "prediction='levels' is of images, under any weighting but 'output': choose another of the two"
        )
    if cfg.data_std <= 0:
        raise ValueError(f"data_std={cfg.data_std}: give the standard deviation of the data, above 0")
    least = 2 if cfg.sampler == "dpmpp_2m" else 1
    if cfg.sample_steps < least:
        raise ValueError(f"sample_steps={cfg.sample_steps}: sampler={cfg.sampler!r} needs at least {least}")
    if not 0.0 <= cfg.eta <= 1.0 or cfg.churn < 0.0:
        raise ValueError(f"eta={cfg.eta}, churn={cfg.churn}: eta is from 0 to 1, churn at least 0")
    if cfg.guidance != 1.0 and (cfg.classes is None or not cfg.label_drop):
        raise ValueError(
            f"guidance={cfg.guidance} needs a conditional and an unconditional model: "
            "set classes and label_drop, or guidance=1"
        )
    if not 0.0 <= cfg.label_drop < 1.0:
        raise ValueError(f"label_drop={cfg.label_drop} is a share of the labels: give a number from 0 to below 1")
    if not all(0.0 < width <= averaging.WIDEST for width in cfg.power_ema):
        raise ValueError(f"power_ema={cfg.power_ema}: shares of the run, above 0 and at most {averaging.WIDEST:.3f}")
    if cfg.bound_steps is not None and cfg.bound_steps < 1 or cfg.bound_draws < 1 or cfg.probes < 1:
        raise ValueError(
            f"bound_steps={cfg.bound_steps}, bound_draws={cfg.bound_draws}, probes={cfg.probes}: at least 1"
        )


def check_labels(cfg: Config, label: Array | None) -> None:
    """Raise ValueError on labels of an unconditional model or, where their values are known, outside the classes."""
    if label is None:
        return
    if cfg.classes is None:
        raise ValueError("this diffusion model is unconditional, classes=None: call sample with cond=None")
    if not isinstance(label, jax.core.Tracer) and not ((0 <= label) & (label <= cfg.classes)).all():
        raise ValueError(f"cond has labels outside 0 to classes={cfg.classes} - 1 (or {cfg.classes} for none)")


def algorithm(cfg: Config, *, batch_size: int, axis_name: str | None = None) -> Algorithm:
    """Bind a diffusion model to its optimizer. Raises ValueError on a configuration that cannot work."""
    check(cfg)
    if cfg.schedule != "learned":
        log_snr.checked(schedule_of(cfg, {}))
    tx, sigmas = optimizer(cfg.optim, batch_size), levels_of(cfg)
    name = "image" if len(cfg.shape) == 3 else "x"

    def init(key):
        for_network, for_schedule = jax.random.split(key)
        label = None if cfg.classes is None else jnp.zeros(1, jnp.int32)
        params = {"network": Network(cfg).init(for_network, jnp.zeros((1, *cfg.shape)), jnp.zeros(1), label)["params"]}
        if cfg.schedule == "learned":
            params["schedule"] = log_snr.Learned().init(for_schedule, jnp.zeros(1))["params"]
        if cfg.weighting == "uncertainty":
            params["uncertainty"] = Uncertainty().init(key, jnp.zeros(1))["params"]
        state = init_state(params, tx, cfg.ema_halflife)
        tracked = tuple(jax.tree.map(jnp.copy, params) for _ in cfg.power_ema)
        return State(state.step, state.params, state.opt_state, state.ema, tracked)

    update = minimise(training_loss(cfg), tx, ema_halflife=cfg.ema_halflife, axis_name=axis_name)

    def step(state, batch, key):
        for_time, key = jax.random.split(key)
        size = len(batch[name])
        if cfg.antithetic:
            t = even_times(for_time, size, axis_name)
        else:
            t = jax.vmap(jax.random.uniform)(parallel.example_keys(for_time, size, axis_name))
        state, metrics = update(state, {**batch, "t": t}, key)
        tracked = averaging.power_update(state.tracked, state.params, state.step, cfg.power_ema)
        return state.replace(tracked=tracked), metrics

    def draw(state, key, n, cond, frames):
        """Frames [frames, n, ...] of what the model makes of its noise, the last the samples."""
        check_labels(cfg, cond)
        for_start, for_noise, for_label = (parallel.example_keys(k, n) for k in jax.random.split(key, 3))
        if cfg.classes is not None and cond is None:
            cond = jax.vmap(lambda k: jax.random.randint(k, (), 0, cfg.classes))(for_label)
        denoise = guided_denoiser(cfg, state.averaged)
        y = denoising.start(float(sigmas[0]), cfg.data_std, for_start, cfg.shape)
        if cfg.sampler == "adaptive":
            x, _ = denoising.adaptive(denoise, y, float(sigmas[0]), float(sigmas[-2]), tol=cfg.tol, cond=cond)
            return x[None]
        step = solver(cfg, denoise, sigmas, for_noise, cond)
        y, x_hat = watch(step, (y, jnp.zeros_like(y)), cfg.sample_steps, frames)
        return x_hat.at[-1].set(y[-1])

    def sample(state, key, n, cond=None):
        return from_real(cfg, draw(state, key, n, cond, 1)[-1])

    def trace(state, key, n, frames):
        """What the model believes the data are, from the first noise on."""
        return from_real(cfg, draw(state, key, n, None, frames))

    def log_prob(state, batch, key) -> LogProb:
        data, params = batch[name], state.averaged
        arguments = denoiser(cfg, params), schedule_of_bound(cfg, params), data, to_real(cfg, data)
        keys = parallel.example_keys(key, len(data))
        both = {
            "data_std": cfg.data_std,
            "levels": cfg.levels if name == "image" else None,
            "cond": batch["label"] if cfg.classes else None,
        }
        if cfg.likelihood == "bound":
            return diffusion_bound.bound(*arguments, keys, steps=cfg.bound_steps, draws=cfg.bound_draws, **both)
        probes = cfg.probes if cfg.trace == "hutchinson" else 0
        return diffusion_bound.ode_estimate(*arguments, keys, probes=probes, tol=cfg.tol, **both)

    if cfg.sampler == "adaptive":
        return Algorithm(init, step, sample, log_prob)
    evaluations = (2 * cfg.sample_steps - 1 if cfg.sampler == "heun" else cfg.sample_steps) * (
        1 + (cfg.guidance != 1.0)
    )
    return Algorithm(init, step, sample, log_prob, evaluations=evaluations, trace=trace)
