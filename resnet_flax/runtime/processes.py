"""Flags with which a command joins the other processes of its run, on other hosts or for other GPUs."""

import contextlib
import signal
import socket
import time
from collections.abc import Iterator

from absl import flags

from resnet_flax.errors import UserError
from resnet_flax.runtime import exit_message

_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0; only if it is not detected.")
_PROCESSES = flags.DEFINE_integer("processes", None, "Number of processes; with --coordinator.")
_PROCESS = flags.DEFINE_integer("process", None, "Index of this process, from 0; with --coordinator.")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Join the hosts that jax detects (on a cluster or TPU pod).")
_TIMEOUT = flags.DEFINE_integer(
    "coordinator_timeout", 300, "Seconds to wait for the coordinator and the other processes.", lower_bound=1
)
_LOST_AFTER = flags.DEFINE_integer(
    "lost_after", 100, "Seconds without a heartbeat after which a process counts as lost.", lower_bound=10
)

_RETRY_SECONDS = 0.5  # between two attempts to reach the coordinator
_SHUTDOWN_SECONDS = 60  # that a finished process waits for the others


def join() -> int:
    """Joins the other processes if the flags name any; must be called before jax looks for devices.

    Returns:
      The index of this process, from 0.

    Raises:
      UserError: The flags are inconsistent, the coordinator does not answer, or a process does not join in time.
    """
    given = [f is not None for f in (_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)]
    if any(given) and not all(given):
        raise UserError("--coordinator, --processes and --process belong together; give all three or none")
    if not all(given) and not _DISTRIBUTED.value:
        return 0
    deadline = time.monotonic() + _TIMEOUT.value
    if _COORDINATOR.value is not None and _PROCESSES.value is not None and _PROCESS.value is not None:
        _check(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value, deadline)
    import jax  # imported late, so that --help does not wait for it

    # jax aborts the process if the others do not join in time.
    exit_message.register(
        f"error: gave up waiting for the other processes (at most {_TIMEOUT.value} s, --coordinator_timeout): "
        f"a process did not join, or the program that answers at "
        f"{_COORDINATOR.value or 'the coordinator that jax found'} is not process 0 of this run"
    )
    # The preemption service would handle SIGTERM instead of us, and report it only on request.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        with _default_signal_handlers():
            jax.distributed.initialize(
                _COORDINATOR.value, _PROCESSES.value, _PROCESS.value,
                initialization_timeout=max(1, round(deadline - time.monotonic())),
                heartbeat_timeout_seconds=_LOST_AFTER.value,
                shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
                # With explicit flags the user also assigns the GPUs, with CUDA_VISIBLE_DEVICES.
                cluster_detection_method="deactivate" if all(given) else None,
            )  # fmt: skip
    except (RuntimeError, ValueError) as error:
        raise UserError(_refusal(error)) from None
    exit_message.register(
        f"error: process {jax.process_index()} of {jax.process_count()} was killed, or ended by jax because "
        f"another process is lost (then lines above say so). The checkpoints are intact: the same command resumes the "
        f"run, with as many processes or fewer"
    )
    return jax.process_index()


@contextlib.contextmanager
def _default_signal_handlers() -> Iterator[None]:
    """Restores the default signal handlers, because Python's do not run while jax waits."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check(coordinator: str, processes: int, process: int, deadline: float) -> None:
    """Checks the flags, and waits until the coordinator's port is open."""
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f"--coordinator={coordinator} must be HOST:PORT, such as 10.0.0.1:1234")
    if not 0 <= process < processes:
        raise UserError(f"--process={process} must be from 0 to --processes - 1, which is {processes - 1}")
    if process == 0:
        return
    # jax would wait as long, but then abort the process.
    while True:
        try:
            socket.create_connection(
                (host.strip("[]"), int(port)), timeout=max(0.1, deadline - time.monotonic())
            ).close()
            return
        except OSError as error:
            if time.monotonic() + _RETRY_SECONDS >= deadline:
                reason = error.strerror or str(error) or type(error).__name__
                raise UserError(
                    f"--coordinator={coordinator}: no answer within {_TIMEOUT.value} s ({reason}); does process 0 run "
                    f"on that host, and is the port open?"
                ) from None
            time.sleep(_RETRY_SECONDS)


def _refusal(error: Exception) -> str:
    text = str(error)
    if isinstance(error, ValueError) and _COORDINATOR.value is None:
        return (
            f"--distributed: jax detects no cluster here ({text.splitlines()[0]}); "
            f"give --coordinator, --processes and --process"
        )
    where = "" if _COORDINATOR.value is None else f" at --coordinator={_COORDINATOR.value} (is its port taken?)"
    return f"the processes cannot be joined{where}: {text.splitlines()[0]:.200}"
