"""Whether an experiment fits a TPU slice, and how fast it can be there at best, found out on a machine without one.

The train step, the sampler and the likelihood are compiled by the TPU's own compiler, which comes with the package
libtpu and needs no TPU. Nothing is run, and no data are read.
"""

import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from genmap_jax import parallel
from genmap_jax.algorithm import Family, conditions, like_batch
from genmap_jax.commands.compiled import Collective, Memory, collectives, memory, seconds_on_links
from genmap_jax.flops import flops
from genmap_jax.options import check_options
from genmap_jax.peaks import TPUS, Chip, peak_flops
from genmap_jax.run import loop
from genmap_jax.run.config import Experiment

TRIES = 6
"""Programs compiled to find the largest batch, at most."""
FULL = re.compile(r"([\d.]+)([KMGT])\)? (?:exceeds|of) ")
"""How the compiler says what a program needs that does not fit."""


@dataclasses.dataclass(frozen=True)
class Slice:
    """A part of a TPU pod, as in v5e:2x4."""

    name: str
    chip: Chip
    devices: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Fit:
    """One program on a slice."""

    fits: bool
    needed: int
    """Bytes on each device, rounded as the compiler says it where the program does not fit."""
    memory: Memory | None
    """What they are; None where the program does not fit."""
    flops: int
    """Operations of matrix products and convolutions, on all devices together."""
    collectives: dict[str, Collective]
    seconds: dict[str, float]
    """The least time for products, for reading and writing memory, and for links between chips."""


def target(name: str) -> Slice:
    """The devices of a slice such as v5e:2x4. Raises ValueError or ImportError that names the flag and the fix."""
    kind, _, shape = name.partition(":")
    if kind not in TPUS or not re.fullmatch(r"\d+(x\d+){1,2}", shape):
        raise ValueError(f"--target {name}: give a kind and a shape, such as v5e:2x4; kinds are {', '.join(TPUS)}")
    if importlib.util.find_spec("libtpu") is None:
        raise ImportError(
            "--target: the TPU's compiler is not installed here; pip install libtpu, in jax[tpu]'s version"
        )
    chips = math.prod(int(side) for side in shape.split("x"))
    type_ = {"v5e": f"v5litepod-{chips}", "v5p": f"v5p-{2 * chips}", "v6e": f"v6e-{chips}"}[kind]
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}
    # Nothing runs on a TPU here, so others may compile at the same time.
    os.environ |= {"TPU_ACCELERATOR_TYPE": type_, "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    alone = {"chips_per_host_bounds": [1, 1, 1]} if chips == 1 else {}
    try:
        topology = topologies.get_topology_desc(platform="tpu", topology_name=name, **alone)
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(f"--target {name}: there is no such slice ({error})") from error
    return Slice(name, TPUS[kind], tuple(topology.devices))


class Programs:
    """The programs of an experiment on a slice, compiled when they are asked for."""

    def __init__(self, cfg: Experiment, family: Family, where: Slice, fsdp: bool = False):
        """Raises ValueError for an option out of its range or a batch that does not divide over the devices."""
        check_options(cfg)
        if cfg.batch_size % len(where.devices):
            raise ValueError(
                f"batch_size={cfg.batch_size} does not divide over the {len(where.devices)} devices of {where.name}: "
                "make it a multiple"
            )
        mesh = Mesh(np.array(where.devices), (parallel.AXIS,), axis_types=(AxisType.Auto,))
        self.where, self.place, self.n = where, parallel.Placement("mesh", mesh, fsdp), cfg.batch_size
        with parallel.tracing_for("tpu"):
            self.algorithm = loop.bind(cfg, family)
            self.key = jax.eval_shape(lambda: jax.random.key(0))
            self.batch = self.place.spread(like_batch(self.algorithm.reads, self.n))
            self.state = self.place.like(self.algorithm, self.key, self.batch)

    def step(self) -> Fit:
        """One update."""
        train = self.place.compile(self.algorithm, self.state)
        return self._fit(train, self.algorithm.step, self.state, self.batch, self.key)

    def sampler(self) -> Fit | None:
        """As many samples as there are examples in a batch; None for a family that draws none."""
        draw, cond = self.algorithm.sample, conditions(self.algorithm.reads, self.batch)
        if draw is None:
            return None
        function = lambda state, key, cond: draw(state, key, self.n, cond)  # noqa: E731
        return self._fit(self.place.draw(function, self.n), function, self.state, self.key, cond)

    def likelihood(self) -> Fit | None:
        """The log-probabilities of a batch; None for a family without a density."""
        log_prob, state = self.algorithm.log_prob, self.state
        if log_prob is None:
            return None
        if self.algorithm.prepare is not None:
            with parallel.tracing_for("tpu"):
                state = jax.eval_shape(self.algorithm.prepare, state, self.key)
        values = lambda state, batch, key: jax.tree.leaves(log_prob(state, batch, key))  # noqa: E731
        return self._fit(self.place.map_examples(values), values, state, self.batch, self.key)

    def _fit(self, compiled: Any, function: Callable, *arguments: Any) -> Fit:
        chip, devices = self.where.chip, len(self.where.devices)
        with parallel.tracing_for("tpu"):
            work, lowered = flops(function, *arguments), compiled.lower(*arguments)
        products = work / devices / (peak_flops(chip.kind) or math.inf)
        try:
            program = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            needs = FULL.search(str(error))
            if "RESOURCE_EXHAUSTED" not in str(error) or needs is None:
                raise
            needed = float(needs[1]) * 2 ** (10 * (1 + "KMGT".index(needs[2])))
            return Fit(False, int(needed), None, work, {}, {"products": products})
        held, sent = memory(program), collectives(program.as_text())
        # The compiler counts a loop as one round. Every argument and output is read or written once, loops or not.
        moved = max(program.cost_analysis().get("bytes accessed", 0.0), held.arguments + held.outputs)
        seconds = {
            "products": products,
            "memory": moved / chip.bandwidth,
            "links": seconds_on_links(sent, devices, chip.links),
        }
        return Fit(held.total <= chip.memory, held.total, held, work, sent, seconds)


def largest_batch(cfg: Experiment, family: Family, where: Slice, fsdp: bool = False, known: Fit | None = None) -> int:
    """The largest batch whose step fits, to within a part in eight; 0 if that of one example per device does not.

    What a step needs grows about linearly with the batch: two sizes tell the next, and every answer was compiled.
    known: the step of `cfg`, if it has been compiled.
    """
    unit = len(where.devices) * micro_batches(cfg.model)
    needs: dict[int, int] = {}
    fits, least_too_many = 0, math.inf
    batch = max(unit, cfg.batch_size // unit * unit)
    for _ in range(TRIES):
        fit = known if batch == cfg.batch_size else None
        fit = fit or Programs(dataclasses.replace(cfg, batch_size=batch), family, where, fsdp).step()
        needs[batch] = fit.needed
        if fit.fits:
            fits = batch
        else:
            least_too_many = batch
        if fits and least_too_many - fits <= max(unit, fits // 8):
            break
        if len(needs) == 1:
            batch = 2 * batch if fit.fits else batch // 2
        else:
            (a, low), (b, high) = sorted(needs.items())[-2:]
            slope = max(1.0, (high - low) / (b - a))
            batch = int(b + (0.97 * where.chip.memory - high) / slope)
        batch = int(min(max(batch, fits + unit), least_too_many - unit, 16 * max(fits, unit))) // unit * unit
        if batch < unit:
            break
    return fits


def micro_batches(model: Any) -> int:
    """The least number of examples that divides into the micro-batches of a configuration and of those inside of it."""
    values = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
    inside = [micro_batches(value) for value in values.values() if dataclasses.is_dataclass(value)]
    return math.lcm(values.get("accumulate", 1), *inside)


def changed(cfg: Experiment, words: list[str]) -> Experiment:
    """An experiment with words such as --batch_size 64 --model.width 32, in the types of its fields.

    A field that does not exist or a value that does not fit ends the program with tyro's message and exit code 2.
    """
    import tyro

    typed: Any = Experiment[type(cfg.model)]  # type: ignore[misc]  # a type that is known only here
    return tyro.cli(typed, prog="genmap fit EXPERIMENT", default=cfg, args=words)


def report(cfg: Experiment, family: Family, where: Slice, fsdp: bool = False, search: bool = True) -> dict[str, Any]:
    """All of it, as JSON values. search: also `largest_batch`, which compiles a few times more."""
    programs = Programs(cfg, family, where, fsdp)
    found = {"step": programs.step(), "sampler": programs.sampler(), "likelihood": programs.likelihood()}
    return {
        "experiment": cfg.name,
        "target": where.name,
        "devices": len(where.devices),
        "memory": where.chip.memory,
        "batch_size": cfg.batch_size,
        "fsdp": fsdp,
        **{name: None if fit is None else dataclasses.asdict(fit) for name, fit in found.items()},
        "largest_batch": largest_batch(cfg, family, where, fsdp, found["step"]) if search else None,
    }


def in_words(values: dict[str, Any]) -> str:
    """A report as a table for the terminal."""
    gib = lambda size: f"{size / 2**30:8.3f}"  # noqa: E731
    lines = [
        f"{values['experiment']}, batch {values['batch_size']}, on {values['target']}: {values['devices']} devices "
        f"of {gib(values['memory']).strip()} GiB each",
        f"{'GiB on each device':18s} {'in all':>8s} {'arguments':>9s} {'outputs':>9s} {'temporary':>9s} {'code':>9s} "
        f"{'TFLOP':>9s}   at best",
    ]
    for name in ("step", "sampler", "likelihood"):
        if values[name] is None:
            continue
        lines.append(_row(name, values[name], gib))
    for kind, each in values["step"]["collectives"].items():
        lines.append(f"each step: {each['count']} {kind}, {each['bytes'] / 1e6:,.2f} MB on each device")
    if values["largest_batch"] is not None:
        lines.append(f"the largest batch that fits: {values['largest_batch'] or 'none'}")
    return "\n".join(lines)


def _row(name: str, fit: dict[str, Any], gib: Callable[[float], str]) -> str:
    limit = max(fit["seconds"], key=fit["seconds"].get)
    parts = f"{'does not fit':39s}"
    if fit["memory"] is not None:
        parts = "  ".join(gib(fit["memory"][part]) for part in ("arguments", "outputs", "temporaries", "code"))
    best = f"{1e3 * fit['seconds'][limit]:9.3f} ms ({limit})"
    return f"{name:18s} {gib(fit['needed'])}  {parts} {fit['flops'] / 1e12:9.4f} {best}"
