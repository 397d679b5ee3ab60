"""The flags by which a command joins the other processes of its run: those of other hosts, or of other GPUs."""

import contextlib
import signal
import socket
import time
from collections.abc import Iterator

from absl import flags

from resnet_flax.errors import UserError
from resnet_flax.runtime import exit_message

_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0; only where it is not detected.")
_PROCESSES = flags.DEFINE_integer("processes", None, "How many processes there are; with --coordinator.")
_PROCESS = flags.DEFINE_integer("process", None, "Which of them this is, from 0; with --coordinator.")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Join the hosts that jax detects (a cluster, TPU pods).")
_TIMEOUT = flags.DEFINE_integer(
    "coordinator_timeout", 300, "Seconds to wait for the coordinator and the other processes.", lower_bound=1
)
_LOST_AFTER = flags.DEFINE_integer(
    "lost_after", 100, "Seconds without a sign of life after which a process counts as lost.", lower_bound=10
)

_EVERY = 0.5  # seconds between two tries to reach the coordinator
_AT_THE_END = 60  # seconds that a process which has ended waits for the others


def join() -> int:
    """Joins the other processes, if the flags say that there are any. Before anything asks jax for devices.

    Returns:
      which of them this is, from 0.

    Raises:
      UserError: the flags do not fit; the coordinator does not answer, or not every process comes, in time.
    """
    given = [f is not None for f in (_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)]
    if any(given) and not all(given):
        raise UserError("--coordinator, --processes and --process belong together; give all three or none")
    if not all(given) and not _DISTRIBUTED.value:
        return 0
    deadline = time.monotonic() + _TIMEOUT.value
    if _COORDINATOR.value is not None and _PROCESSES.value is not None and _PROCESS.value is not None:
        _check(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value, deadline)
    import jax  # for which --help does not wait

    # jax aborts where they do not come.
    exit_message.leave(
        f"error: ended while waiting for the other processes, which takes {_TIMEOUT.value} s at most "
        f"(--coordinator_timeout): not every one came, or what answers at "
        f"{_COORDINATOR.value or 'the coordinator that jax found'} is not process 0 of this run"
    )
    # It would take SIGTERM for itself, and say so only where it is asked.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        with _signals_end_it():
            jax.distributed.initialize(
                _COORDINATOR.value, _PROCESSES.value, _PROCESS.value,
                initialization_timeout=max(1, round(deadline - time.monotonic())),
                heartbeat_timeout_seconds=_LOST_AFTER.value,
                shutdown_timeout_seconds=_AT_THE_END,
                # Who says which process this is, says which devices are its own, too: by CUDA_VISIBLE_DEVICES.
                cluster_detection_method="deactivate" if all(given) else None,
            )  # fmt: skip
    except (RuntimeError, ValueError) as error:
        raise UserError(_refusal(error)) from None
    exit_message.leave(
        f"error: process {jax.process_index()} of {jax.process_count()} was ended from outside, or by jax because "
        f"another process is lost (then lines above say so). Checkpoints are whole: the same command goes on, with as "
        f"many processes or fewer"
    )
    return jax.process_index()


@contextlib.contextmanager
def _signals_end_it() -> Iterator[None]:
    """While jax waits, no handler of Python's runs."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check(coordinator: str, processes: int, process: int, deadline: float) -> None:
    """Refuses flags that do not fit; waits until the coordinator's port is open."""
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f"--coordinator={coordinator} must be HOST:PORT, such as 10.0.0.1:1234")
    if not 0 <= process < processes:
        raise UserError(f"--process={process} must be from 0 to --processes - 1, which is {processes - 1}")
    if process == 0:
        return
    # jax would try as long, but end in an abort.
    while True:
        try:
            socket.create_connection(
                (host.strip("[]"), int(port)), timeout=max(0.1, deadline - time.monotonic())
            ).close()
            return
        except OSError as error:
            if time.monotonic() + _EVERY >= deadline:
                reason = error.strerror or str(error) or type(error).__name__
                raise UserError(
                    f"--coordinator={coordinator}: no answer within {_TIMEOUT.value} s ({reason}); does process 0 run "
                    f"on that host, and is the port open?"
                ) from None
            time.sleep(_EVERY)


def _refusal(error: Exception) -> str:
    text = str(error)
    if isinstance(error, ValueError) and _COORDINATOR.value is None:
        return (
            f"--distributed: jax detects no cluster here ({text.splitlines()[0]}); "
            f"give --coordinator, --processes and --process"
        )
    where = "" if _COORDINATOR.value is None else f" at --coordinator={_COORDINATOR.value} (is its port taken?)"
    return f"the processes cannot be joined{where}: {text.splitlines()[0]:.200}"
