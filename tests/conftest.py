"""Eight CPU devices by default, float32 unless a test asks for more; a cache of compiled programs of its own."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

# Before jax is imported. More devices than one by default: what holds only on one device is then found out. Most of
# the tests' time is compiling small programs: LLVM leaves them as they are, which halves it. Commands that tests start
# (tests/commands.py) have flags of their own, and run as they do for users.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")


def pytest_collection_modifyitems(items):
    """Files with whole runs first: at the end, one worker would be busy with them and the others wait."""
    long = ("tests/runs/", "tests/experiments/", "tests/interchange/")
    items.sort(key=lambda item: not item.nodeid.startswith(long))


@pytest.fixture
def double():
    """64-bit types, for comparisons that leave no room for rounding."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """The user's own cache folder is neither read nor written, by fixtures of whole modules neither."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        # What two tests compile alike is compiled once.
        jax.config.update("jax_compilation_cache_dir", str(cache / "tests"))
        yield


@pytest.fixture
def begun_before(tmp_path):
    """Folders of runs, of a sweep and a file of weights as the commit 4cfe0ac wrote them, a copy for this test."""
    with tarfile.open(Path(__file__).parent / "fixtures" / "begun_at_4cfe0ac.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "begun_at_4cfe0ac"


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
