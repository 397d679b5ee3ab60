"""Synchronises the hosts of a run, and ends a host when another one fails or is lost."""

import contextlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from resnet_flax.errors import Diverged, Failed, Interrupted, UserError
from resnet_flax.runtime import exit_message

# Matches errors of collective operations when another process is lost, on CPU (gloo), GPU (nccl) and in jax itself.
_LOST = re.compile(
    "gloo.*(connection|read error|timed? ?out|reset)|nccl.*(remote|abort|closed)|heartbeat|barrier.*(timed out|failed)"
    "|closed by peer|reset by peer|unavailable|deadline_exceeded|coordination service", re.IGNORECASE | re.DOTALL,
)  # fmt: skip


class Hosts:
    """The processes that compute one run together, each with its own devices; usually there is only one.

    Attributes:
      index: The index of this process, from 0.
      count: The number of processes.
      first: Whether this is process 0, which alone writes files and prints.
    """

    def __init__(self) -> None:
        self.index, self.count = jax.process_index(), jax.process_count()
        self.first = self.index == 0

    def say(self, line: str) -> None:
        """Prints a line on stderr, on the first host only."""
        if self.first:
            print(line, file=sys.stderr, flush=True)

    def next_call(self, stop: bool, steps: int) -> tuple[bool, int]:
        """Synchronises whether to stop (if any host was told to) and the number of steps (that of the first host).

        Without this, the hosts would wait for each other for ever once they measure different times, or once a signal
        reaches only one of them.
        """
        if self.count == 1:
            return stop, steps
        gathered = multihost_utils.process_allgather(np.array([stop, steps], np.int32))
        return bool(gathered[:, 0].any()), int(gathered[0, 1])

    def from_first(self, numbers: Sequence[int]) -> list[int]:
        """Returns the first host's numbers on all hosts, whatever the others pass. Each is below 2**31."""
        if self.count == 1:
            return list(numbers)
        count = int(multihost_utils.process_allgather(np.int32(len(numbers)))[0])
        if not count:
            return []
        mine = np.array(numbers if self.first else [0] * count, np.int32)
        return multihost_utils.process_allgather(mine)[0].tolist()

    def decide(self, choose: Callable[[], int]) -> int:
        """Calls a function on the first host; returns its number, or raises its UserError, on all hosts."""
        chosen, refusal = 0, None
        try:
            chosen = choose() if self.first else 0
        except UserError as error:
            refusal = error
        self.raise_together(refusal)
        return self.from_first([chosen])[0]

    def any(self, happened: bool) -> bool:
        """Returns, on all hosts, whether ``happened`` is true on any of them."""
        return self.next_call(happened, 0)[0]

    def raise_together(self, error: Exception | None) -> None:
        """Raises an error on every host if there is one on any host, so that none waits for a host that left."""
        if self.count > 1:
            failed = multihost_utils.process_allgather(np.array([error is not None]))
            if error is None and failed.any():
                hosts = ", ".join(str(i) for i in np.flatnonzero(failed))
                error = UserError(f"process {hosts} could not start; see its own error message")
        if error is not None:
            raise error

    def check_same(self, fingerprint: str, what: str) -> None:
        """Checks that all hosts read the same data; otherwise they would deadlock or train on a mixture.

        Args:
          fingerprint: The fingerprint of the data on this host, at most 16 hexadecimal digits.
          what: The name of the data, for the error message.

        Raises:
          UserError: A host has another fingerprint than process 0.
        """
        if self.count == 1:
            return
        halves = np.frombuffer(bytes.fromhex(fingerprint), np.int32)
        gathered = multihost_utils.process_allgather(halves)
        others = np.flatnonzero((gathered != gathered[0]).any(1))
        if len(others):
            raise UserError(
                f"{what} of process {', '.join(map(str, others))} differ from those of process 0; every host needs the "
                f"same images in the same form"
            )

    def wait(self, name: str) -> None:
        """Waits until every host has reached the barrier of this name."""
        if self.count > 1:
            multihost_utils.sync_global_devices(name)

    @contextlib.contextmanager
    def fail_fast(self, note: str) -> Iterator[None]:
        """Ends this process at once if it fails or finds another process lost; does nothing if there is only one.

        Otherwise it would wait for the others at its end (in the checkpoint writer and in jax), and they for it.

        Args:
          note: How the run can be resumed, for the error message.
        """
        try:
            yield
        except (Interrupted, Diverged):
            raise  # raised on all hosts at the same step
        except (Exception, KeyboardInterrupt) as error:
            if self.count == 1:
                raise
            self._exit(error, note)

    def _exit(self, error: BaseException, note: str) -> NoReturn:
        who = f"process {self.index} of {self.count}"
        if isinstance(error, UserError):
            code, text = error.exit_code, f"error: {who}: {error}"
        elif isinstance(error, KeyboardInterrupt):
            code, text = Interrupted.exit_code, f"{who}: stopped by a second SIGINT; not saved"
        elif is_lost_peer(error):
            code = Interrupted.exit_code
            text = f"error: {who}: another process is lost ({str(error).splitlines()[0]:.200}). {note}"
        else:
            code, text = Failed.exit_code, f"{traceback.format_exc()}error: {who} failed. {note}"
        # Not print, which writes the text and the newline separately, so that other threads may write in between.
        sys.stderr.write(f"{text}\n")
        exit_message.cancel()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error means that another process is gone."""
    return isinstance(error, RuntimeError | ValueError) and bool(_LOST.search(str(error)))
