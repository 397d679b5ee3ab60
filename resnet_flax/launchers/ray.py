"""Executes runs on a Ray cluster, each as a task with its own devices. If a worker is lost, another resumes its run.

All nodes must see the folder of the runs, the data, and this checkout with its environment at the same paths.
"""

import contextlib
import dataclasses
import math
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax

from resnet_flax import config as configs
from resnet_flax.errors import Interrupted, UserError, first_line
from resnet_flax.launchers import ray_task
from resnet_flax.launchers.pace import Pace
from resnet_flax.runs.file_names import WORKER_LOG
from resnet_flax.runs.resume import remarks_on_finished
from resnet_flax.runtime.stopping import StopRequest
from resnet_flax.sweeps.cases import Cluster, PlannedRun
from resnet_flax.sweeps.endings import SUCCESS, Ending, earlier_failure

_LOSSES = 10  # the number of workers that a run may lose before the run itself is assumed to crash them
_POLL_SECONDS = 0.5
_OBJECT_STORE = 100 * 2**20  # bytes; only lines of text pass through it

# Environment variables (or their beginnings) that are passed on to workers: for jax, the data, and the trackers.
_ENVIRONMENT = ("JAX_", "XLA_FLAGS", "TFDS_DATA_DIR", "TRACKIO_", "WANDB_")


def launch(
    runs: Sequence[PlannedRun], folder: Path, cluster: Cluster, endings: dict[int, Ending], announcement: str = ""
) -> None:
    """Executes the runs as tasks, as many at a time as fit.

    Args:
      folder: The folder of the runs, which all nodes must see.
      cluster: The cluster, and the resources of each run.
      endings: Receives the ending of each run by its index, as soon as the run has ended.
      announcement: Lines that are printed once the cluster is connected, before the first run.

    Raises:
      UserError: Ray is not installed, the cluster cannot be reached or is too small, or a node does not see the folder.
        Runs that have started are saved and stopped.
      Interrupted: A signal stopped the runs, and all are saved. The same command resumes them.
    """
    ray = _ray()
    gpus = cluster.gpus_per_run
    if gpus and gpus > 1 and gpus % 1:
        raise UserError(f"--gpus_per_run={gpus:g}: give a whole number of GPUs, or a fraction below 1")
    with StopRequest() as stop, contextlib.ExitStack() as entered:

        def submitter() -> Callable[[PlannedRun], Any]:
            entered.enter_context(_connected(ray, cluster))
            if announcement:
                print(announcement, file=sys.stderr, flush=True)
            return _submitter(ray, entered.enter_context(_marker(folder)), cluster)

        _Sweep(ray, runs, stop, endings).run(submitter)
    if stop.received:
        raise Interrupted(
            f"stopped by {stop.received}: {len(endings)} of {len(runs)} runs are done and the others are saved; the "
            f"same command resumes from there"
        )


class _Sweep:
    """Executes the runs of one launch: submits tasks, receives their events, and collects the endings."""

    def __init__(
        self, ray: ModuleType, runs: Sequence[PlannedRun], stop: StopRequest, endings: dict[int, Ending]
    ) -> None:
        self._ray, self._runs, self._stop, self._endings = ray, runs, stop, endings
        self._streams: dict[Any, int] = {}
        self._started: dict[int, float] = {}  # the start time of each run that a worker is training
        self._losses: dict[int, int] = {}
        self._refusal: UserError | None = None
        self._stopping, self._at_once, self._pace = False, 1, Pace()

    def run(self, submitter: Callable[[], Callable[[PlannedRun], Any]]) -> None:
        """Executes the runs until all have ended, or a signal has stopped them. It needs no cluster if all have ended.

        Args:
          submitter: Connects to the cluster, and returns the function that submits a run.
        """
        for i, run in enumerate(self._runs):
            if run.is_finished:
                self._end(i, SUCCESS, "; ".join(["already finished", *remarks_on_finished(run.directory, run.config)]))
            elif earlier := earlier_failure(run.config, run.workdir):
                self._end(i, earlier)
        left = [i for i in range(len(self._runs)) if i not in self._endings]
        if not left:
            return
        self._submit = submitter()
        for i in left:
            self._streams[self._submit(self._runs[i])] = i
        while self._streams:
            if (self._stop.received or self._refusal) and not self._stopping:
                self._stopping = True
                for stream in self._streams:
                    self._ray.cancel(stream)
            for stream in self._ray.wait(list(self._streams), num_returns=1, timeout=_POLL_SECONDS)[0]:
                self._receive(stream)
        if self._refusal:
            raise self._refusal

    def _receive(self, stream: Any) -> None:
        i, errors = self._streams[stream], self._ray.exceptions
        try:
            kind, text = self._ray.get(next(stream))
        except (errors.TaskCancelledError, StopIteration):
            kind, text = ray_task.STOPPED, "cancelled"
        except (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError) as error:
            kind, text = ray_task.STOPPED, first_line(error).partition(". ")[0]
        except errors.RayTaskError as error:  # Something outside of the run failed, such as the node's environment.
            kind, text = "crashed", f"{type(error.cause).__name__}: {first_line(error.cause):.200}"
        if kind == ray_task.STARTED:
            self._started[i] = time.monotonic()
            self._at_once = max(self._at_once, len(self._started))
            self._say(i, f"starts on {text}")
            return
        del self._streams[stream]
        if kind == ray_task.REFUSED:
            self._refusal = self._refusal or UserError(f"run {self._runs[i].name}: {text}")
        elif kind == ray_task.STOPPED:
            self._lost(i, text)
        elif kind == ray_task.BUSY and i not in self._losses:
            self._started.pop(i, None)
            if not self._stopping:
                self._say(i, "another process is training it; trying again after the other runs")
                self._streams[self._submit(self._runs[i])] = i
        else:
            started = self._started.pop(i, None)
            if started and i not in self._losses:
                self._pace.add(self._runs[i], time.monotonic() - started)
            self._end(i, ("crashed" if kind == ray_task.BUSY else kind, text))

    def _lost(self, i: int, why: str) -> None:
        """Submits a run again whose worker was killed or stopped, unless this launch is stopping."""
        self._started.pop(i, None)
        losses = self._losses[i] = self._losses.get(i, 0) + 1
        if self._stopping:
            return
        if losses > _LOSSES:
            self._end(i, ("crashed", f"its worker was lost {losses} times, the last time because of: {why}"))
            return
        self._say(i, f"its worker was lost ({why}); another one resumes it from its checkpoint")
        self._streams[self._submit(self._runs[i])] = i

    def _end(self, i: int, ending: Ending, how: str = "done") -> None:
        self._endings[i] = ending
        failure, reason = ending
        if failure:
            how = f"{failure}: {reason}"
        if failure == "crashed":
            how += f"; its output is in {self._runs[i].workdir / WORKER_LOG}"
        left = [run for j, run in enumerate(self._runs) if j not in self._endings]
        spent = sum(time.monotonic() - started for started in self._started.values())
        rest = self._pace.left(left, min(self._at_once, max(1, len(left))), spent)
        self._say(i, f"{how}; {len(self._endings)} of {len(self._runs)} runs done{rest}")

    def _say(self, i: int, text: str) -> None:
        print(f"run {i + 1} of {len(self._runs)}: {self._runs[i].name}: {text}", file=sys.stderr, flush=True)


def _ray() -> ModuleType:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # must be set before the import
    try:
        import ray  # an optional dependency
    except ImportError:
        raise UserError(
            "--launcher=ray: Ray is not installed; pip install -r requirements-ray.txt, or leave the flag out"
        ) from None
    # Ray prints pages of its log when a worker or a node is lost. The launcher prints one line instead.
    ray._private.worker.print_to_stdstream = lambda *_, **__: None
    return ray


@contextlib.contextmanager
def _connected(ray: ModuleType, cluster: Cluster) -> Iterator[None]:
    """Connects to the named cluster, or starts a cluster on this machine that ends with the context."""
    address = cluster.address or os.environ.get("RAY_ADDRESS") or "local"
    own = address == "local"
    if cluster.workers and not own:
        raise UserError(
            f"--ray_workers={cluster.workers} is for a cluster on this machine, and {address} has its own workers; "
            f"give --ray_address=local, or leave --ray_workers out"
        )
    if not own:
        _check_reachable(address)
    given: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": "ERROR"}
    # The folder holds sockets, whose paths are limited to 107 bytes, and $TMPDIR may be too long for them.
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp") if own else None
    if own:
        cpus = cluster.workers and math.ceil(cluster.workers * cluster.cpus_per_run)
        given |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE, "_temp_dir": folder}
        given |= {"num_cpus": cpus}
    with contextlib.ExitStack() as undo:
        handler = signal.getsignal(signal.SIGTERM)
        undo.callback(signal.signal, signal.SIGTERM, handler)
        if folder:
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
        undo.callback(ray.shutdown)
        try:
            ray.init(**given)
        except SystemExit:  # Ray's own signal handler, which has replaced ours, raises it.
            raise Interrupted("stopped by SIGTERM before the first run began") from None
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(f"--ray_address={address}: cannot use the cluster: {first_line(error):.300}") from None
        signal.signal(signal.SIGTERM, handler)
        yield


def _check_reachable(address: str) -> None:
    """Raises a UserError if nothing answers at the address, because Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise UserError(f"--ray_address={address}: it must be HOST:PORT of the cluster's head, such as 10.0.0.1:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"--ray_address={address}: no cluster answers there: {first_line(error)}") from None


@contextlib.contextmanager
def _marker(folder: Path) -> Iterator[Path]:
    """Creates a temporary file in the folder. A node that finds the file sees the same folder."""
    marker = folder.absolute() / f".launch-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        marker.touch()
    except OSError as error:
        raise UserError(f"--runs={folder}: cannot be written: {error.strerror}") from None
    try:
        yield marker
    finally:
        marker.unlink(missing_ok=True)


def _submitter(ray: ModuleType, marker: Path, cluster: Cluster) -> Callable[[PlannedRun], Any]:
    """Returns the function that submits a run to the cluster and returns its stream of events."""
    cpus, gpus = cluster.cpus_per_run, _gpus_per_run(ray, cluster)
    environment = _environment(gpus, cluster)
    # Ray would retry silently, so the launcher retries instead and prints a line.
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(_task(str(marker), environment))
    cache = jax.config.values["jax_compilation_cache_dir"]  # Reading a setting initialises no devices.

    def submit(run: PlannedRun) -> Any:
        run.workdir.mkdir(parents=True, exist_ok=True)
        # Workers execute only those modules that this command has executed, too.
        modules = configs.names_in(configs.defining_files(configs.flatten(run.config)))
        tracking = dataclasses.astuple(run.tracking)
        return task.remote(configs.to_json(run.config), str(run.workdir), cache, tracking, modules)

    return submit


def _environment(gpus: float, cluster: Cluster) -> dict[str, str]:
    """Returns the environment variables that a worker sets before it imports jax; an empty one counts as not set."""
    environment = {name: value for name, value in os.environ.items() if name.startswith(_ENVIRONMENT)}
    if gpus:  # A head node without GPUs may set it to cpu, which would keep runs from using the workers' GPUs.
        environment.pop("JAX_PLATFORMS", None)
    if 0 < gpus < 1:  # By default, each process would take three quarters of the GPU's memory.
        environment["XLA_CLIENT_MEM_FRACTION"] = f"{0.75 * gpus:.3f}"
        environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] = ""  # the deprecated name, which jax refuses beside the new one
    if cluster.gpus_per_run == 0:  # By default, jax would use the GPUs of the node.
        environment.setdefault("JAX_PLATFORMS", "cpu")
    return environment


def _gpus_per_run(ray: ModuleType, cluster: Cluster) -> float:
    """Returns the number of GPUs for each run.

    Raises:
      UserError: No node is large enough for a run.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = cluster.gpus_per_run
    if gpus is None:
        gpus = 1 if any(node.get("GPU") for node in nodes) else 0
    cpus = cluster.cpus_per_run
    if not any(node.get("GPU", 0) >= gpus and node.get("CPU", 0) >= cpus for node in nodes):
        there = "; ".join(f"{node.get('CPU', 0):g} cores, {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise UserError(
            f"--cpus_per_run={cpus:g} --gpus_per_run={gpus:g}: no node of the cluster is large enough for a run; they "
            f"have {there}"
        )
    return gpus


def _task(marker: str, environment: dict[str, str]) -> Callable[..., Iterator[tuple[str, str]]]:
    """Returns the function for workers. It checks that the shared paths exist before it imports this package."""
    here, checkout = str(Path.cwd()), str(Path(__file__).parents[2])

    def run(*job: Any) -> Iterator[tuple[str, str]]:
        unseen = [path for path in (marker, here, checkout) if not os.path.exists(path)]
        if unseen:
            path = os.path.dirname(marker) if unseen[0] == marker else unseen[0]
            node = socket.gethostname()
            yield "refused", f"node {node} does not see {path}; it must be on a file system that all nodes share"
            return
        os.chdir(here)  # Paths in configs may be relative.
        os.environ.update(environment)  # must be set before jax is imported
        sys.path.insert(0, checkout)
        from resnet_flax.launchers import ray_task  # importable only after the line above

        yield from ray_task.work(*job)

    return run
