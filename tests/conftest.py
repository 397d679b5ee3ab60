"""Configures the tests: eight CPU devices, float32 unless a test asks for more, and their own compilation cache."""

import gc
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from tests import xla_flags

# These must be set before jax is imported. With several devices, the tests find code that works on one device only.
# The tests spend most of their time compiling small programs, hence QUICK.
os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count=8 {xla_flags.QUICK}")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")

import jax
import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")


def pytest_collection_modifyitems(items):
    """Runs long files first; at the end, one worker would be busy with them while the others wait."""
    long = ("runs/", "experiments/", "test_", "interchange/", "training/", "networks/")
    items.sort(key=lambda item: [item.nodeid.startswith(f"tests/{start}") for start in long], reverse=True)


def pytest_collection_finish():
    """Makes garbage collection rare, because jax's traces are millions of objects that stay in use."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.fixture
def double():
    """Enables 64-bit types, for comparisons with small tolerances."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(autouse=True, scope="session")
def _cache_of_the_tests(tmp_path_factory):
    """Sets one cache of compiled programs and decoded data for all workers and their commands, empty at first.

    The user's own cache is neither read nor written. A program that several tests need is compiled once.
    """
    root = tmp_path_factory.getbasetemp()
    cache = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        patch.setenv("WARM_SERVER", f"{cache}-warm-server")
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        jax.config.update("jax_compilation_cache_dir", str(cache / "tests"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        yield


@pytest.fixture
def begun_before(tmp_path):
    """A copy of run directories, a sweep and a file of weights that commit 4cfe0ac wrote."""
    return _unpacked("begun_at_4cfe0ac", tmp_path)


@pytest.fixture
def begun_with_items(tmp_path):
    """A copy of two run directories that commit 9cda689 wrote."""
    return _unpacked("begun_at_9cda689", tmp_path)


def _unpacked(name, place):
    with tarfile.open(Path(__file__).parent / "fixtures" / f"{name}.tar.gz") as archive:
        archive.extractall(place, filter="data")
    return place / name


@pytest.fixture
def bound():
    """A function that runs a command as a user for whom permission bits apply; skips the test if there is none."""
    from tests import commands

    prefix = (sys.executable,)
    if os.geteuid() == 0:
        without = "-dac_override,-dac_read_search"
        prefix = ("setpriv", f"--bounding-set={without}", f"--inh-caps={without}", sys.executable)
        if shutil.which("setpriv") is None or subprocess.run([*prefix, "-c", ""], capture_output=True).returncode:
            pytest.skip("the tests run as root, for whom permission bits do not apply, and setpriv cannot change that")
    return lambda *arguments, **keys: commands.finish(commands.start(*arguments, prefix=prefix), **keys)
