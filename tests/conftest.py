"""Eight CPU devices by default, float32 unless a test asks for more; a cache of compiled programs of its own."""

import gc
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from tests import xla_flags

# Before jax is imported. More devices than one by default: what holds only on one device is then found out. Most of
# the tests' time is compiling small programs.
os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count=8 {xla_flags.QUICK}")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")


def pytest_collection_modifyitems(items):
    """Long files first: at the end, one worker would be busy with them and the others wait."""
    long = ["tests/runs/", "tests/experiments/", "tests/interchange/", "tests/training/", "tests/networks/"]
    items.sort(key=lambda item: [item.nodeid.startswith(folder) for folder in long], reverse=True)


def pytest_collection_finish():
    """Garbage is looked for less often: jax's traces are millions of objects, and none of them is garbage."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.fixture
def double():
    """64-bit types, for comparisons that leave no room for rounding."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(autouse=True, scope="session")
def _cache_of_the_tests(tmp_path_factory):
    """One cache of compiled programs and decoded data for all workers and the commands they start, empty at first.

    The user's own is neither read nor written. What two tests compile alike is compiled once.
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
    """Folders of runs, of a sweep and a file of weights as the commit 4cfe0ac wrote them, a copy for this test."""
    return _unpacked("begun_at_4cfe0ac", tmp_path)


@pytest.fixture
def begun_with_items(tmp_path):
    """Folders of two runs as the commit 9cda689 wrote them, a copy for this test."""
    return _unpacked("begun_at_9cda689", tmp_path)


def _unpacked(name, place):
    with tarfile.open(Path(__file__).parent / "fixtures" / f"{name}.tar.gz") as archive:
        archive.extractall(place, filter="data")
    return place / name


@pytest.fixture
def bound():
    """Runs a command as a user whom permission bits bind: (exit code, output); skips where that is not possible."""
    from tests import commands

    prefix = (sys.executable,)
    if os.geteuid() == 0:
        without = "-dac_override,-dac_read_search"
        prefix = ("setpriv", f"--bounding-set={without}", f"--inh-caps={without}", sys.executable)
        if shutil.which("setpriv") is None or subprocess.run([*prefix, "-c", ""], capture_output=True).returncode:
            pytest.skip("the tests run as root, whom permission bits do not bind, and setpriv cannot change that")
    return lambda *arguments, **keys: commands.finish(commands.start(*arguments, prefix=prefix), **keys)
