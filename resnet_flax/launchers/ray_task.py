"""The task of a Ray worker: it trains one run and writes its output to a log in the run directory."""

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

# A task yields events (kind, text): first STARTED, then one last event, which is an Ending or one of the other three.
STARTED, STOPPED, REFUSED, BUSY = "started", "stopped", "refused", "busy"

# Seconds to wait until a lost worker has released the run directory. A network file system may notice a dead node only
# after a minute or two.
_PATIENCE = 180.0


def work(
    config: str, workdir: str, cache: str | None, tracking: Sequence[Any] = (), modules: Sequence[str] = ()
) -> Iterator[tuple[str, str]]:
    """Trains a run on the main thread, and yields an event when it starts and one when it ends.

    Args:
      config: The config of the run, as JSON.
      workdir: The run directory, which the launcher has created.
      cache: The folder of jax's compilation cache.
      tracking: The fields of a :class:`~resnet_flax.tracking.tracker.Tracking`, because the worker cannot unpickle the
        class itself before it can import this package.
      modules: The user's files that define names in the config.
    """
    folder = Path(workdir)
    with StopRequest() as stop, _output_in(folder / WORKER_LOG):
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
        yield STARTED, f"{socket.gethostname()}, process {os.getpid()}" + (f", GPU {gpus}" if gpus else "")
        for module in modules:
            configs.execute(module, "module")
        yield _train(configs.from_json(config), folder, cache, stop, Tracking(*tracking))


def _train(
    config: ConfigDict, workdir: Path, cache: str | None, stop: StopRequest, tracking: Tracking
) -> tuple[str, str]:
    if cache:
        jax.config.update("jax_compilation_cache_dir", cache)
    try:
        free = RunDirectory(workdir).wait_until_free(_PATIENCE, lambda: stop.received is not None)
        if not free and not stop.received:
            return BUSY, f"{workdir}: after {_PATIENCE:g} s another process still holds it"
        return attempt(config, workdir, tracking)
    except Busy as error:
        return BUSY, str(error)
    except Interrupted as ending:
        return STOPPED, str(ending)


@contextlib.contextmanager
def _output_in(log: Path) -> Iterator[None]:
    """Appends everything that this process and its libraries print to the file."""
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
