"""Runs commands as a user would, each in its own process, and reads the files they write."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

from resnet_flax.runs.metrics import WALL_CLOCK
from tests import warm, xla_flags

ROOT = Path(__file__).parents[1]


def start(
    *arguments, devices=1, environment=None, stderr=subprocess.STDOUT, cold=False, quick=True, prefix=(sys.executable,),
    cwd=ROOT,
):  # fmt: skip
    """Starts ``python ARGUMENTS...`` in the project's folder; by default stdout and stderr are one stream.

    Args:
      cold: Whether to start Python itself instead of forking a process with the libraries imported (tests/warm.py).
      quick: Whether to compile quickly to slower programs; False is faster for more than some hundred small steps.
      prefix: The program that gets the arguments, such as a command that starts Python; implies ``cold``.
      cwd: The folder to start in; elsewhere, a forked command finds the project as if it were installed.
    """
    environment = environment or {}
    flags = f"{xla_flags.QUICK if quick else ''} --xla_force_host_platform_device_count={devices}"
    given = os.environ | {"XLA_FLAGS": flags} | environment
    cold = cold or arguments[0] == "-c" or "PYTHONPATH" in environment or tuple(prefix) != (sys.executable,)
    popen = subprocess.Popen if cold else warm.Popen
    return popen([*prefix, *arguments], cwd=cwd, env=given, text=True, stdout=subprocess.PIPE, stderr=stderr)


def finish(process, timeout=300):
    """Waits for a process; returns its exit code and its output."""
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"no end after {timeout} s: {process.communicate()[0]}") from None
    return process.returncode, output


def command(*arguments, timeout=300, **keys):
    return finish(start(*arguments, **keys), timeout)


def streams(*arguments, **keys):
    """Runs a command; returns its exit code, stdout and stderr."""
    process = start(*arguments, stderr=subprocess.PIPE, **keys)
    out, error = process.communicate(timeout=300)
    return process.returncode, out, error


def train(workdir, *arguments, name="residual-8", config="configs/digits.py", **keys):
    """Starts ``python train.py``, by default on the digits."""
    return start("train.py", f"--config={config}:{name}", f"--workdir={workdir}", *arguments, **keys)


def lines(workdir, without=WALL_CLOCK):
    """Returns the run's metrics without wall-clock times."""
    text = (Path(workdir) / "metrics.jsonl").read_text()
    return [{k: v for k, v in json.loads(line).items() if k not in without} for line in text.splitlines()]


def arrays(workdir, step):
    """Returns all arrays of a checkpoint, by name."""
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    # Without 64-bit types, float64 would be restored as float32.
    with jax.enable_x64(True), ocp.StandardCheckpointer() as checkpointer:
        tree = checkpointer.restore((Path(workdir) / "checkpoints" / str(step) / "default").absolute())
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(tree)}


def assert_same_bits(workdir, expected, step):
    """Checks that two runs have the same arrays in their checkpoints of a step, and the same metrics."""
    import numpy as np

    ours, theirs = arrays(workdir, step), arrays(expected, step)
    assert ours.keys() == theirs.keys()
    assert {re.findall(r"\w+", name)[0] for name in theirs} == {"step", "params", "batch_stats", "opt_state", "sums"}
    for name in theirs:
        assert ours[name].dtype == theirs[name].dtype, name
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    assert lines(workdir) == lines(expected)


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]
