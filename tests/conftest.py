"""Eight emulated CPU devices, no silent broadcasting, and quick compilation."""

import os
from importlib.metadata import version

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the time of a test is compilation. It takes a third as long with less optimisation and without the newer of
# the two code generators that XLA has for CPUs; the programs compute the same. A flag that XLA does not know is fatal,
# so these are for the versions of jaxlib that were tried.
if version("jaxlib").startswith(("0.10.", "0.11.", "0.12.")):
    quick = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    os.environ["XLA_FLAGS"] = f"{quick} {os.environ.get('XLA_FLAGS', '')}"

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64():
    """Double precision."""
    with jax.enable_x64(True):
        yield
