"""The work of a worker of a Ray cluster: one run, its output in the run's folder."""

import contextlib
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax.errors import Busy, Interrupted
from resnet_flax.launchers.attempt import attempt
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.runs.file_names import WORKER_LOG
from resnet_flax.runtime.stopping import StopRequest
from resnet_flax.tracking.tracker import Tracking

# Events: (kind, text). A run begins with STARTED; any other event is its last, an Ending or one of the other three.
STARTED, STOPPED, REFUSED, BUSY = "started", "stopped", "refused", "busy"

# Seconds for a worker that was lost, but is not quite dead, to let go of the run's folder; file systems of a network
# know of a dead node after a minute or two.
_PATIENCE = 180.0


def work(
    config: str, workdir: str, cache: str | None, tracking: Sequence[Any] = (), modules: Sequence[str] = ()
) -> Iterator[tuple[str, str]]:
    """Runs it, on the main thread; yields an event when it starts and one when it ends.

    Args:
      config: of the run, as JSON.
      workdir: of the run; the launcher has made it.
      cache: jax's folder of compiled programs.
      tracking: the fields of a :class:`~resnet_flax.tracking.tracker.Tracking`, which the worker cannot import before.
      modules: files that define what the config names; those that the user's command has run.
    """
    folder = Path(workdir)
    with StopRequest() as stop, _output_in(folder / WORKER_LOG):
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
        yield STARTED, f"{socket.gethostname()}, process {os.getpid()}" + (f", GPU {gpus}" if gpus else "")
        for module in modules:
            configs.execute(module, "module")
        yield _end(configs.from_json(config), folder, cache, stop, Tracking(*tracking))


def _end(
    config: ConfigDict, workdir: Path, cache: str | None, stop: StopRequest, tracking: Tracking
) -> tuple[str, str]:
    if cache:
        jax.config.update("jax_compilation_cache_dir", cache)
    if not RunDirectory(workdir).wait_until_free(_PATIENCE, lambda: stop.received is not None) and not stop.received:
        return BUSY, f"{workdir}: after {_PATIENCE:g} s another process still holds it"
    try:
        return attempt(config, workdir, tracking)
    except Busy as error:
        return BUSY, str(error)
    except Interrupted as ending:
        return STOPPED, str(ending)


@contextlib.contextmanager
def _output_in(log: Path) -> Iterator[None]:
    """Adds what this process prints, and what its libraries and its last words print, to the file."""
    with open(log, "ab") as file:
        before = {stream: os.dup(stream) for stream in (1, 2)}
        _flush()
        for stream in before:
            os.dup2(file.fileno(), stream)
    try:
        yield
    finally:
        _flush()
        for stream, saved in before.items():
            os.dup2(saved, stream)
            os.close(saved)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
