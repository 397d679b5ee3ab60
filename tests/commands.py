"""Commands as a user types them, each in a process of its own, and what they leave behind."""

import json
import os
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
    """Starts ``python ARGUMENTS...`` in the project's folder; by default its output is one stream.

    Args:
      cold: start Python itself, not a fork of a process that has imported the libraries (tests/warm.py).
      quick: compile quickly what then computes slowly; for more than some hundred small steps, False is faster.
      prefix: what is started with the arguments, such as another command that starts Python; always cold.
      cwd: the folder it is started in; in another one, a warm command finds the project as if it were installed.
    """
    environment = environment or {}
    flags = f"{xla_flags.QUICK if quick else ''} --xla_force_host_platform_device_count={devices}"
    given = os.environ | {"XLA_FLAGS": flags} | environment
    cold = cold or arguments[0] == "-c" or "PYTHONPATH" in environment or tuple(prefix) != (sys.executable,)
    popen = subprocess.Popen if cold else warm.Popen
    return popen([*prefix, *arguments], cwd=cwd, env=given, text=True, stdout=subprocess.PIPE, stderr=stderr)


def finish(process, timeout=300):
    """Waits: (exit code, output)."""
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"no end after {timeout} s: {process.communicate()[0]}") from None
    return process.returncode, output


def command(*arguments, timeout=300, **keys):
    return finish(start(*arguments, **keys), timeout)


def streams(*arguments, **keys):
    """Runs a command to its end: (exit code, stdout, stderr)."""
    process = start(*arguments, stderr=subprocess.PIPE, **keys)
    out, error = process.communicate(timeout=300)
    return process.returncode, out, error


def train(workdir, *arguments, name="residual-8", config="configs/digits.py", **keys):
    """``python train.py`` on the digits."""
    return start("train.py", f"--config={config}:{name}", f"--workdir={workdir}", *arguments, **keys)


def lines(workdir, without=WALL_CLOCK):
    """The run's metrics, less what a clock gives."""
    text = (Path(workdir) / "metrics.jsonl").read_text()
    return [{k: v for k, v in json.loads(line).items() if k not in without} for line in text.splitlines()]


def arrays(workdir, step):
    """Everything in a checkpoint, as NumPy arrays by name."""
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    # Without 64-bit types, float64 would be restored as float32.
    with jax.enable_x64(True), ocp.StandardCheckpointer() as checkpointer:
        tree = checkpointer.restore((Path(workdir) / "checkpoints" / str(step) / "default").absolute())
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(tree)}


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]
