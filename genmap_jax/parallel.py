"""The one place that knows devices: how a step, a batch and a state are laid out, and the only collectives.

The same `step` runs under two interchangeable placements. `pmap` (the default on several devices) runs one program per
device on its part of the batch, with `None` axes for replicated state, so no leading device axis shows in state or
checkpoints. `mesh` is `jax.jit` over a one-axis mesh, where the compiler inserts the collectives; it can also shard
parameters (`fsdp`). Results do not depend on the placement or on the number of devices: tests/test_parallel.py.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXIS = "data"
Kind = Literal["pmap", "mesh"]
SMALLEST_SHARDED = 2**14  # entries; below it, gathering an array costs more than keeping it


# ---- inside a step: what algorithms call -----------------------------------------------------------------------------


def mean(tree: Any, axis_name: str | None) -> Any:
    """Average over devices. Without an axis name the batch is whole and there is nothing to average."""
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def gather(x: jax.Array, axis_name: str | None) -> jax.Array:
    """The whole batch, from this device's part of it: [b, ...] -> [B, ...], in the order of the examples."""
    return x if axis_name is None else jax.lax.all_gather(x, axis_name, tiled=True)


def total(size: int, axis_name: str | None) -> int:
    """Global number of examples of a per-device batch of `size` (a Python int: known while tracing)."""
    return size if axis_name is None else size * jax.lax.axis_size(axis_name)


def first_example(size: int, axis_name: str | None) -> int | jax.Array:
    """Global index of the first example of this device's part of the batch."""
    return 0 if axis_name is None else jax.lax.axis_index(axis_name) * size


def replicated(state: Any) -> Any:
    """The default `Algorithm.spec`: every device holds everything."""
    return jax.tree.map(lambda _: P(), state)


def platform() -> str:
    """What the program that is being traced will run on: "cpu", "gpu" or "tpu". For code that differs by it."""
    return _target.get() or jax.default_backend()


@contextlib.contextmanager
def tracing_for(target: str) -> Iterator[None]:
    """What is traced inside is for this platform, whichever there is: to compile for devices that are not here.

    JAX keeps what it has traced by the function, without regard to this: inside, trace functions that are made inside.
    """
    token = _target.set(target)
    try:
        yield
    finally:
        _target.reset(token)


_target: ContextVar[str | None] = ContextVar("target", default=None)


# ---- around a step: what the runner calls ----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where things are. Build with `placement`."""

    kind: Kind
    mesh: Mesh
    fsdp: bool = False
    why: str = "asked for"
    """Of `kind`, in words."""

    @property
    def axis_name(self) -> str | None:
        """What to build the algorithm with."""
        return AXIS if self.kind == "pmap" else None

    def specs(self, algorithm, state: Any) -> Any:
        """A full tree of `PartitionSpec`s for a state (or its shapes)."""
        prefix = algorithm.spec(state)
        full = jax.tree.map(
            lambda spec, sub: jax.tree.map(lambda _: spec, sub), prefix, state, is_leaf=lambda x: isinstance(x, P)
        )
        if self.fsdp:
            full = jax.tree.map(lambda spec, x: _fsdp(spec, x, self.mesh.size), full, state)
        return full

    def shardings(self, algorithm, state: Any) -> Any:
        """A full tree of `NamedSharding`s: the layout of the state as one global value, also in checkpoints."""
        return jax.tree.map(lambda spec: NamedSharding(self.mesh, spec), self.specs(algorithm, state))

    def like(self, algorithm, key: jax.Array, batch: Any) -> Any:
        """Shapes, types and layout of the state, without a value: what a checkpoint is restored into.

        batch: a global batch, or its shapes.
        """
        shapes = jax.eval_shape(algorithm.init, key, batch)
        struct = lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)  # noqa: E731
        return jax.tree.map(struct, shapes, self.shardings(algorithm, shapes))

    def init(self, algorithm, key: jax.Array, batch: dict[str, jax.Array]) -> Any:
        """The initial state, born in its layout: never whole on one device when it is sharded.

        batch: the first global batch, as `put` makes it.
        """
        shapes = jax.eval_shape(algorithm.init, key, batch)
        out = self.shardings(algorithm, shapes)
        return jax.jit(algorithm.init, out_shardings=out)(key, batch)

    def put(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        """This process's slice of the batch -> the global batch, split over devices by its first axis."""
        sharding = NamedSharding(self.mesh, P(AXIS))
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)

    def spread(self, batch: Any) -> Any:
        """Shapes of a batch with the layout that `put` gives it."""
        sharding = NamedSharding(self.mesh, P(AXIS))
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), batch)

    def compile(self, algorithm, state: Any) -> Callable:
        """The compiled, donating train step (state, batch, key) -> (state, metrics), on global arrays."""
        if self.kind == "mesh":
            layout = self.shardings(algorithm, state)
            return jax.jit(algorithm.step, donate_argnums=0, out_shardings=(layout, NamedSharding(self.mesh, P())))
        return self._pmap(algorithm, state)

    def _pmap(self, algorithm, state: Any) -> Callable:
        local, hosts = self.mesh.local_mesh.size, jax.process_count()
        structure = jax.tree.structure(state)
        specs = tuple(jax.tree.leaves(self.specs(algorithm, state), is_leaf=lambda x: isinstance(x, P)))
        axes = tuple(0 if spec == P(AXIS) else None for spec in specs)

        def flat_step(leaves, batch, key):  # a flat state, because pmap hashes its axes and dicts do not hash
            state, metrics = algorithm.step(structure.unflatten(leaves), batch, key)
            return tuple(jax.tree.leaves(state)), metrics

        step = jax.pmap(
            flat_step,
            axis_name=AXIS,
            in_axes=(axes, 0, None),
            out_axes=(axes, None),
            donate_argnums=0,
            devices=None if hosts > 1 else list(self.mesh.devices.flat),
        )

        # pmap wants the device axis written out, and in multi-process runs it speaks host-local arrays: both stop here.
        def split(x):
            return x.reshape(local, x.shape[0] // local, *x.shape[1:])

        def merge(x):
            return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])

        def run(state, batch, key):
            leaves = tuple(jax.tree.leaves(state))
            if hosts > 1:
                leaves = multihost_utils.global_array_to_host_local_array(leaves, self.mesh, specs)
                batch = multihost_utils.global_array_to_host_local_array(batch, self.mesh, P(AXIS))
            leaves = tuple(x if axis is None else split(x) for x, axis in zip(leaves, axes, strict=True))
            leaves, metrics = step(leaves, jax.tree.map(split, batch), key)
            leaves = tuple(x if axis is None else merge(x) for x, axis in zip(leaves, axes, strict=True))
            if hosts > 1:
                leaves = multihost_utils.host_local_array_to_global_array(leaves, self.mesh, specs)
            return structure.unflatten(leaves), metrics

        return run

    def map_examples(self, fn: Callable) -> Callable:
        """Compile `fn(state, batch, key)` for evaluation: examples split over devices, results whole on each."""
        return jax.jit(fn, out_shardings=NamedSharding(self.mesh, P()))

    def draw(self, fn: Callable, n: int) -> Callable:
        """Compile `fn(state, key)` that makes `n` examples, spread over devices where `n` divides, then gathered."""
        split = NamedSharding(self.mesh, P(AXIS) if n % self.mesh.size == 0 else P())
        spread = lambda *args: jax.lax.with_sharding_constraint(fn(*args), split)  # noqa: E731
        return jax.jit(spread, out_shardings=NamedSharding(self.mesh, P()))


def available() -> list[jax.Device]:
    """The devices of all processes. Raises ValueError for a platform that is not there, naming those that are."""
    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as error:
        jax.config.update("jax_platforms", None)
        there = ", ".join(sorted({device.platform for device in jax.devices()}))
        text = f"--platform or JAX_PLATFORMS: what is asked for is not here, where there is only {there}"
        raise ValueError(text) from error


def placement(
    kind: Kind | None = None, devices: int | None = None, batch_size: int | None = None, fsdp: bool = False
) -> Placement:
    """Choose devices and layout.

    kind: None takes `pmap` on several devices and `mesh` (a plain `jit`) on one.
    devices: how many to use; None takes all. Several processes must use all of theirs.
    batch_size: the global batch, checked to divide.
    Raises ValueError that names the flag and the fix.
    """
    here = available()
    count = len(here) if devices is None else devices
    if not 1 <= count <= len(here):
        raise ValueError(
            f"--devices {count}: this job has {len(here)} {here[0].platform} device(s). "
            "Ask for at most that many, or emulate them with --platform cpu."
        )
    if jax.process_count() > 1 and count != len(here):
        raise ValueError(
            f"--devices {count}: a job of {jax.process_count()} processes must use all {len(here)} devices"
        )
    if batch_size is not None and batch_size % count:
        raise ValueError(f"batch_size={batch_size} does not divide over {count} devices: make it a multiple of {count}")
    if fsdp and kind == "pmap":
        raise ValueError("--fsdp shards parameters, which only --parallel mesh can do")
    why = "asked for" if kind else "--fsdp needs it" if fsdp else f"the default on {'several' if count > 1 else 'one'}"
    kind = kind or ("pmap" if count > 1 and not fsdp else "mesh")
    mesh = Mesh(np.array(here[:count]), (AXIS,), axis_types=(AxisType.Auto,))
    return Placement(kind, mesh, fsdp, why)


def _fsdp(spec: P, x: Any, devices: int) -> P:
    """Shard the largest dimension that divides; small arrays and arrays with a layout of their own stay as they are."""
    if spec != P() or np.prod(x.shape) < SMALLEST_SHARDED:
        return spec
    for axis in sorted(range(len(x.shape)), key=lambda a: -x.shape[a]):
        if x.shape[axis] % devices == 0:
            return P(*(AXIS if a == axis else None for a in range(axis + 1)))
    return spec
