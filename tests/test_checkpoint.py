"""Checkpoints: exact, verified, and never lost to damage, to a kill or to another number of devices."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import families
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from variants import chosen

from genmap_jax import parallel
from genmap_jax.algorithm import like_batch
from genmap_jax.run import checkpoint
from genmap_jax.run.checkpoint import Checkpoints, Damaged
from genmap_jax.run.logs import NonFinite
from genmap_jax.run.loop import keyed_by_step


def start(case, algorithm, place):
    return place.init(algorithm, jax.random.key(0), place.put(case.batch()))


def layout(algorithm, place):
    return place.like(algorithm, jax.random.key(0), like_batch(algorithm.reads, families.BATCH))


def run(case, algorithm, place, state, first, last, step=None):
    step = step or place.compile(algorithm, state)
    for i in range(first, last):
        state, _ = step(state, place.put(case.batch(i)), jax.random.key(1))
    return state


def assert_equal(a, b):
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize(
    "family",
    chosen(
        ["gpt", "vae", "ebm", "ebm_vectors", "diffusion", "score", "gan", "cgan", "stylegan", "biggan", "cyclegan"]
        + ["glow", "pixelcnn"],
        ["gpt", "vae", "ebm_vectors"],
    ),
)
def test_ten_steps_are_five_and_a_restart_and_five(family, tmp_path):
    """Bit-exact, every leaf of the state, through the disk."""
    case = families.FAMILIES[family]
    place = parallel.placement("mesh", 1, families.BATCH)
    algorithm = keyed_by_step(case.build())
    compiled = place.compile(algorithm, start(case, algorithm, place))
    whole = run(case, algorithm, place, start(case, algorithm, place), 0, 10, compiled)
    half = run(case, algorithm, place, start(case, algorithm, place), 0, 5, compiled)
    first = Checkpoints(tmp_path / "c")
    first.save(5, half)
    first.close()
    step, state = restore(tmp_path / "c", layout(algorithm, place))
    assert step == 5
    assert_equal(whole, run(case, algorithm, place, state, 5, 10, compiled))


@pytest.mark.slow
def test_eight_devices_restore_on_two(tmp_path):
    """The EBM's buffer is split over devices: saved from eight under pmap, restored on two under mesh and on one."""
    case = families.FAMILIES["ebm"]
    eight = parallel.placement("pmap", 8, families.BATCH)
    algorithm = keyed_by_step(case.build(eight.axis_name))
    state = run(case, algorithm, eight, start(case, algorithm, eight), 0, 2)
    saved = Checkpoints(tmp_path / "c")
    saved.save(2, state)
    saved.close()
    for kind, devices in [("mesh", 2), ("pmap", 4), ("mesh", 1)]:
        place = parallel.placement(kind, devices, families.BATCH)
        again = keyed_by_step(case.build(place.axis_name))
        _, restored = restore(tmp_path / "c", layout(again, place))
        assert_equal(state, restored)
        assert all(len(x.sharding.device_set) == devices for x in jax.tree.leaves(restored))


def restore(folder: Path, wanted):
    """(step, state) of a folder opened afresh."""
    checkpoints = Checkpoints(folder)
    try:
        return checkpoints.restore(wanted)
    finally:
        checkpoints.close()


def steps(folder: Path) -> list[int]:
    checkpoints = Checkpoints(folder)
    checkpoints.close()
    return checkpoints.steps()


STATE = {"step": jnp.int32(0), "params": {"w": jnp.arange(4096.0).reshape(64, 64), "b": jnp.ones(7, jnp.bfloat16)}}


def like():
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), STATE)


def filled(folder: Path, steps=(1, 2, 3), keep: int = 3) -> Path:
    saved = Checkpoints(folder / "checkpoints", keep)
    for step in steps:
        saved.save(step, STATE | {"step": jnp.int32(step)})
    saved.close()
    return folder / "checkpoints"


def data_files(folder: Path) -> list[Path]:
    return sorted((p for p in folder.rglob("*") if p.is_file() and "/d/" in str(p)), key=lambda p: -p.stat().st_size)


def flip(folder: Path) -> None:
    path = data_files(folder)[0]
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 16] = bytes(b ^ 0xFF for b in content[middle : middle + 16])
    path.write_bytes(content)


def truncate(folder: Path) -> None:
    path = data_files(folder)[0]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def lose_item(folder: Path) -> None:
    (folder / "state").rename(folder / "gone")


def break_meta(folder: Path) -> None:
    for path in (folder / "meta").rglob("*"):
        if path.is_file():
            path.write_text(path.read_text()[:10])


def test_a_failed_save_or_read_is_told_once(tmp_path, monkeypatch, capsys):
    """What Orbax's threads would log of it in pages is left out, everything else is not."""
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    Checkpoints(tmp_path / "c").close()
    for word in ("Event loop is closed", "something else"):
        sys.excepthook(RuntimeError, RuntimeError(word), None)
    assert capsys.readouterr().err.strip() == "RuntimeError: something else"
    orbax = logging.LogRecord(
        "absl", logging.ERROR, "/x/orbax/checkpoint/futures.py", 1, "raised an exception", (), None
    )
    other = logging.LogRecord("absl", logging.ERROR, "/x/other.py", 1, "raised an exception", (), None)
    assert not logging.getLogger("absl").filter(orbax) and logging.getLogger("absl").filter(other)


@pytest.mark.parametrize("damage", [flip, truncate, lose_item, break_meta])
def test_a_damaged_checkpoint_is_skipped_with_a_warning(damage, tmp_path, caplog):
    folder = filled(tmp_path)
    damage(folder / "3")
    checkpoints = Checkpoints(folder)
    with caplog.at_level(logging.WARNING, logger=checkpoint.__name__):
        step, state = checkpoints.restore(like())
    assert step == 2 and int(state["step"]) == 2
    assert f"{folder / '3'} is damaged" in caplog.text
    assert (tmp_path / "damaged" / "3").exists(), "set aside, not deleted"
    checkpoints.save(3, STATE | {"step": jnp.int32(30)})  # Orbax refuses this while it still sees the old step 3
    checkpoints.close()
    assert int(restore(folder, like())[1]["step"]) == 30


def test_orbax_alone_does_not_notice_flipped_bytes(tmp_path, monkeypatch):
    """Why the checksum exists: without it the damaged numbers come back without complaint."""
    folder = filled(tmp_path)
    flip(folder / "3")
    monkeypatch.setattr(checkpoint, "_mismatches", lambda *_: [])
    step, state = restore(folder, like())
    assert step == 3 and not np.array_equal(state["params"]["w"], STATE["params"]["w"])


def test_all_damaged_is_one_clear_error(tmp_path):
    folder = filled(tmp_path, steps=(1,))
    truncate(folder / "1")
    with pytest.raises(Damaged, match="--workdir"):
        restore(folder, like())


def test_another_state_is_an_error_and_touches_nothing(tmp_path):
    folder = filled(tmp_path)
    other = like()
    other["params"]["w"] = jax.ShapeDtypeStruct((64, 32), jnp.float32, sharding=other["params"]["w"].sharding)
    with pytest.raises(ValueError, match="shape"):
        restore(folder, other)
    with pytest.raises(ValueError, match="another state"):
        restore(folder, like() | {"more": other["step"]})
    assert steps(folder) == [3, 2, 1]


def test_nan_is_never_saved(tmp_path):
    folder = filled(tmp_path)
    checkpoints = Checkpoints(folder)
    with pytest.raises(NonFinite, match=r"step 4: .*\['w'\]"):
        checkpoints.save(4, {"step": STATE["step"], "params": STATE["params"] | {"w": jnp.full((64, 64), jnp.nan)}})
    checkpoints.close()
    assert steps(folder) == [3, 2, 1]


def test_only_the_newest_are_kept(tmp_path):
    assert steps(filled(tmp_path, steps=(1, 2, 3, 4, 5), keep=2)) == [5, 4]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32, jnp.uint8, jnp.bool_])
def test_checksum_sees_one_bit_and_a_swap(dtype):
    x = (jax.random.bits(jax.random.key(0), (37, 5), jnp.uint8) & (1 if dtype == jnp.bool_ else 255)).astype(dtype)
    start = checkpoint._fingerprint({"x": x})[0][0]
    changed = x.at[20, 3].set(~x[20, 3] if dtype == jnp.bool_ else x[20, 3] + 1)
    swapped = x.at[0].set(x[1]).at[1].set(x[0])
    assert start != checkpoint._fingerprint({"x": changed})[0][0]
    assert start != checkpoint._fingerprint({"x": swapped})[0][0]


def test_checksum_does_not_depend_on_the_layout():
    x = jax.random.normal(jax.random.key(0), (64, 16))
    place = parallel.placement("mesh", 8)
    sharding = jax.sharding.NamedSharding(place.mesh, jax.sharding.PartitionSpec("data"))
    assert checkpoint._fingerprint(x)[0] == checkpoint._fingerprint(jax.device_put(x, sharding))[0]


KILLED = """
import sys, jax, jax.numpy as jnp
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from genmap_jax.run.checkpoint import Checkpoints
c = Checkpoints(Path(sys.argv[1]))
print("ready", flush=True)
for step in range(1, 10_000):
    c.save(step, {"step": jnp.int32(step), "w": jnp.full((512, 1024), float(step))})
"""


def test_kill_during_saves_leaves_a_consistent_checkpoint(tmp_path):
    folder = tmp_path / "checkpoints"
    root = Path(checkpoint.__file__).parents[1]
    job = subprocess.Popen([sys.executable, "-c", KILLED, str(folder), str(root)], stdout=subprocess.PIPE)
    job.stdout.readline()
    while len(list(folder.glob("[0-9]*"))) < 2:
        time.sleep(0.05)
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    wanted = {"step": jnp.int32(0), "w": jnp.zeros((512, 1024))}
    wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), wanted)
    step, state = restore(folder, wanted)
    assert step >= 1 and int(state["step"]) == step and bool((state["w"] == step).all())
