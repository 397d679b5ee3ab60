"""The hosts of one run: what they agree on, and how one of them ends where another fails or is lost."""

import contextlib
import os
import re
import sys
import traceback
from collections.abc import Iterator
from typing import NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from resnet_flax.errors import Diverged, Failed, Interrupted, UserError
from resnet_flax.runtime import exit_message

# What errors of a collective operation say where another process is gone, by platform.
_LOST = re.compile(
    "gloo.*(connection|read error|timed? ?out|reset)|nccl.*(remote|abort|closed)|heartbeat|barrier.*(timed out|failed)"
    "|closed by peer|reset by peer|unavailable|deadline_exceeded|coordination service", re.IGNORECASE | re.DOTALL,
)  # fmt: skip


class Hosts:
    """The processes that compute one run together, each with its devices; often there is one.

    Attributes:
      index: of this one, from 0.
      count: of all of them.
      first: whether this is the one that writes, and prints.
    """

    def __init__(self) -> None:
        self.index, self.count = jax.process_index(), jax.process_count()
        self.first = self.index == 0

    def say(self, line: str) -> None:
        """Prints a line on stderr, once for all hosts."""
        if self.first:
            print(line, file=sys.stderr, flush=True)

    def next_call(self, stop: bool, steps: int) -> tuple[bool, int]:
        """Agrees on whether to stop (one host was told to), and on how many steps come next (as the first one says).

        Without it, hosts that measure different times, or of which one is signalled, would wait for each other for
        ever.
        """
        if self.count == 1:
            return stop, steps
        everyone = multihost_utils.process_allgather(np.array([stop, steps], np.int32))
        return bool(everyone[:, 0].any()), int(everyone[0, 1])

    def any(self, happened: bool) -> bool:
        """Tells all hosts whether something is so on any of them."""
        return self.next_call(happened, 0)[0]

    def raise_together(self, error: Exception | None) -> None:
        """Raises what went wrong on one host on every host, so that none waits for the one that left."""
        if self.count > 1:
            anywhere = multihost_utils.process_allgather(np.array([error is not None]))
            if error is None and anywhere.any():
                hosts = ", ".join(str(i) for i in np.flatnonzero(anywhere))
                error = UserError(f"process {hosts} refused to start; its own message says why")
        if error is not None:
            raise error

    def check_same(self, fingerprint: str, what: str) -> None:
        """Refuses hosts that found different things: they would wait for each other, or learn from a mixture.

        Args:
          fingerprint: hexadecimal digits, at most 16.
          what: it is of.
        """
        if self.count == 1:
            return
        halves = np.frombuffer(bytes.fromhex(fingerprint), np.int32)
        everyone = multihost_utils.process_allgather(halves)
        others = np.flatnonzero((everyone != everyone[0]).any(1))
        if len(others):
            raise UserError(
                f"{what} of process {', '.join(map(str, others))} are not those of process 0; every host needs the "
                f"same, in the same form"
            )

    def wait(self, name: str) -> None:
        """Returns when every host has come to the place of that name."""
        if self.count > 1:
            multihost_utils.sync_global_devices(name)

    @contextlib.contextmanager
    def fail_fast(self, note: str) -> Iterator[None]:
        """Ends this process at once where it fails alone, or finds another one lost.

        Otherwise it would wait for the others (in the checkpoint writer, in jax's own end), and they for it.

        Args:
          note: what is said of the run that could go on.
        """
        try:
            yield
        except (Interrupted, Diverged):
            raise  # all of them end so, at the same step
        except (Exception, KeyboardInterrupt) as error:
            if self.count == 1:
                raise
            self._leave(error, note)

    def _leave(self, error: BaseException, note: str) -> NoReturn:
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
        sys.stderr.write(f"{text}\n")  # at once: print has two parts, between which other threads may print
        exit_message.cancel()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error says that another process is gone."""
    return isinstance(error, RuntimeError | ValueError) and bool(_LOST.search(str(error)))
