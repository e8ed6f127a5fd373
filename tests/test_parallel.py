"""The law: metrics and SGD updates do not depend on the placement or on the number of devices."""

import json
import os
import re
import subprocess
import sys

import families
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from variants import chosen

from genmap_jax import parallel
from genmap_jax.keys import example_keys
from genmap_jax.run.loop import keyed_by_step

STEPS = 2
LAYOUTS = [("mesh", 1, False), ("pmap", 8, False), ("mesh", 8, False), ("mesh", 8, True)]


def train(case: families.Case, kind: str, devices: int, fsdp: bool):
    place = parallel.placement(kind, devices, families.BATCH, fsdp)
    algorithm = keyed_by_step(case.build(place.axis_name, optim=families.SGD))
    state = place.init(algorithm, jax.random.key(0), place.put(case.batch()))
    step = place.compile(algorithm, state)
    rows = []
    for i in range(STEPS):
        state, metrics = step(state, place.put(case.batch(i)), jax.random.key(1))
        rows.append(jax.device_get(metrics))
    return jax.device_get(state), rows


FAMILIES = [
    "gpt",
    "gpt_labels",
    "pixelcnn",
    "spline_flow",
    "glow",
    "tarflow",
    "continuous_flow",
    "vae",
    "ebm",
    "ebm_vectors",
    "diffusion",
    "latent_diffusion",
    "score",
    "gan",
    "gan_vectors",
    "cgan",
    "stylegan",
    "biggan",
    "cyclegan",
]


@pytest.mark.parametrize("family", chosen(FAMILIES, ["vae", "gan_vectors"]))
def test_one_device_equals_eight(family, monkeypatch):
    """1e-5 on metrics and on every leaf of the state, under pmap, mesh and mesh with sharded parameters."""
    monkeypatch.setattr(parallel, "SMALLEST_SHARDED", 16)  # so that tiny parameters are sharded at all
    case = families.FAMILIES[family]
    reference, reference_rows = train(case, *LAYOUTS[0])
    for layout in LAYOUTS[1:]:
        state, rows = train(case, *layout)
        for a, b in zip(reference_rows, rows, strict=True):
            for name in a:
                np.testing.assert_allclose(b[name], a[name], rtol=1e-5, atol=1e-5, err_msg=f"{layout} {name}")
        for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(reference), jax.tree.leaves(state), strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5, err_msg=f"{layout} {jax.tree_util.keystr(path)}")


def test_fsdp_shards_and_pmap_replicates(monkeypatch):
    monkeypatch.setattr(parallel, "SMALLEST_SHARDED", 16)
    case = families.FAMILIES["gpt"]
    for kind, fsdp, sharded in [("mesh", True, True), ("mesh", False, False), ("pmap", False, False)]:
        place = parallel.placement(kind, 8, families.BATCH, fsdp)
        state = place.init(case.build(place.axis_name), jax.random.key(0), place.put(case.batch()))
        assert any(x.sharding.spec != P() for x in jax.tree.leaves(state.params)) == sharded


@pytest.mark.parametrize("family", families.named(["gpt", "vae", "ebm", "gan"]))
def test_data_parallel_step_gathers_nothing(family):
    """A gather in a data-parallel step is a layout mistake that costs bandwidth silently."""
    case = families.FAMILIES[family]
    place = parallel.placement("mesh", 8, families.BATCH)
    algorithm = keyed_by_step(case.build())
    state = place.init(algorithm, jax.random.key(0), place.put(case.batch()))
    compiled = place.compile(algorithm, state).lower(state, place.put(case.batch()), jax.random.key(1)).compile()
    text = compiled.as_text()
    assert "all-reduce" in text
    gathers = re.findall(r"= (\S+) all-gather", text)
    assert not gathers, gathers


def test_example_keys_do_not_depend_on_the_split():
    """Eight devices of two draw what one device of sixteen draws, and no two examples draw the same."""
    key = jax.random.key(3)
    whole = jax.random.key_data(example_keys(key, 16))
    split = jax.pmap(lambda k, _: jax.random.key_data(example_keys(k, 2, "data")), axis_name="data", in_axes=(None, 0))(
        key, jnp.arange(8)
    )
    np.testing.assert_array_equal(split.reshape(16, -1), whole)
    assert len(np.unique(whole, axis=0)) == 16


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"devices": 9}, "--devices 9"),
        ({"devices": 8, "batch_size": 12}, "batch_size=12"),
        ({"kind": "pmap", "fsdp": True}, "--fsdp"),
    ],
)
def test_bad_layouts_name_the_flag(arguments, words):
    with pytest.raises(ValueError, match=words):
        parallel.placement(**arguments)


WORKER = """
import json, sys, os
import jax
processes, devices, rank, port, kind = (*map(int, sys.argv[1:5]), sys.argv[5])
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", devices)
if processes > 1:
    jax.distributed.initialize(f"127.0.0.1:{port}", processes, rank, initialization_timeout=60)
import families, numpy as np
from genmap_jax import parallel
from genmap_jax.run.loop import keyed_by_step
out = {}
for name in ("vae", "ebm", "gan"):
    case = families.FAMILIES[name]
    place = parallel.placement(kind, None, families.BATCH)
    algorithm = keyed_by_step(case.build(place.axis_name, optim=families.SGD))
    part = lambda i: place.put({k: np.array_split(v, processes)[rank] for k, v in case.batch(i).items()})
    state = place.init(algorithm, jax.random.key(0), part(0))
    step = place.compile(algorithm, state)
    for i in range(2):
        state, metrics = step(state, part(i), jax.random.key(1))
    size = jax.jit(lambda s: sum((x.astype("float32") ** 2).sum() for x in jax.tree.leaves(s)))(state)
    out[name] = {**{k: float(v) for k, v in jax.device_get(metrics).items()}, "state": float(size)}
if rank == 0:
    print("RESULT" + json.dumps(out))
"""


def run_processes(processes: int, devices: int, kind: str) -> dict:
    port = 20000 + os.getpid() % 20000
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    here = os.path.dirname(__file__)
    environment["PYTHONPATH"] = os.pathsep.join([here, os.path.dirname(here)])
    command = ["timeout", "-s", "KILL", "240", sys.executable, "-c", WORKER, str(processes), str(devices)]
    jobs = [
        subprocess.Popen(
            [*command, str(rank), str(port), kind],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    outputs = [job.communicate() for job in jobs]
    assert [job.returncode for job in jobs] == [0] * processes, outputs[0][1][-3000:]
    return json.loads(outputs[0][0].split("RESULT")[1])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pmap", "mesh"])
def test_two_processes_of_four_equal_one_of_eight(kind):
    """Over gloo on this machine; 1e-5 on metrics and on the squared norm of the whole state."""
    one, two = run_processes(1, 8, kind), run_processes(2, 4, kind)
    for family, values in one.items():
        for name, value in values.items():
            np.testing.assert_allclose(two[family][name], value, rtol=1e-5, atol=1e-5, err_msg=f"{family} {name}")
