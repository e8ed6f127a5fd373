"""Eight emulated CPU devices, no silent broadcasting, and quick compilation."""

import os
from importlib.metadata import version

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the time of a test is compilation. Less optimised machine code computes the same.
os.environ["XLA_FLAGS"] = f"--xla_backend_optimization_level=1 {os.environ.get('XLA_FLAGS', '')}"
# The default suite (launch/test.sh) takes half of that time, with no optimisation and without the newer of the two code
# generators that XLA has for CPUs, which a few large programs of the whole suite need. XLA ends at a flag that it does
# not know, so these are for the versions of jaxlib that were tried.
if os.environ.get("GENMAP_QUICK_TESTS") and version("jaxlib").startswith(("0.10.", "0.11.", "0.12.")):
    os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session", autouse=bool(os.environ.get("GENMAP_QUICK_TESTS")))
def shorter_fits():
    """In the default suite the feature network of the data is trained for a tenth of its steps, which takes seconds.

    Its files are named by the number of steps, so that nobody's real features are touched.
    """
    from genmap_jax.evaluate.features import own

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own, "STEPS", 200)
        yield


@pytest.fixture
def x64():
    """Double precision."""
    with jax.enable_x64(True):
        yield
