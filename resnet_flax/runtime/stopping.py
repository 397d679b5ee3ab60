"""Handles SIGTERM and SIGINT, and ends processes whose threads do not end."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

from resnet_flax.errors import DONE, INTERRUPTED
from resnet_flax.runtime import exit_message

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_GRACE_SECONDS = 5.0  # for other threads to end after the command has ended
_stuck_threads: list[threading.Thread] = []


class StopRequest:
    """A context manager that remembers the first SIGTERM or SIGINT instead of ending the process.

    A second SIGINT raises KeyboardInterrupt at once, for users who do not want to wait until the run is saved. Nested
    requests share the signal: the inner one takes over what the outer one has received, and passes on its own.

    Attributes:
      received: The name of the first signal, or None.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._previous: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or signal.Signals(number).name

    def __enter__(self) -> "StopRequest":
        # Python allows signal handlers only in the main thread; in other threads, signals are left to its owner.
        if threading.current_thread() is threading.main_thread():
            self._previous = {s: signal.signal(s, self._receive) for s in _SIGNALS}
            for handler in self._previous.values():
                outer = getattr(handler, "__self__", None)
                if isinstance(outer, StopRequest):
                    self.received = self.received or outer.received
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
            outer = getattr(handler, "__self__", None)
            if isinstance(outer, StopRequest):
                outer.received = outer.received or self.received


def exit_on_signal() -> None:
    """Makes signals end the process at once, until a :class:`StopRequest` takes them over."""
    for number in _SIGNALS:
        signal.signal(number, _exit)


def _exit(number: int, frame: FrameType | None) -> None:
    # Not with an exception: one raised in the middle of an import can surface as an unrelated ImportError.
    with contextlib.suppress(OSError):  # stderr may be closed
        os.write(2, f"stopped by {signal.Signals(number).name}\n".encode())
    exit_message.cancel()
    os._exit(INTERRUPTED)


def exit_soon(code: int) -> None:
    """Ends the process after a grace period, even if threads (of the checkpoint writer, of jax) are still alive."""
    timer = threading.Timer(_GRACE_SECONDS, os._exit, [code])
    timer.daemon = True
    timer.start()


def note_stuck_thread(thread: threading.Thread) -> None:
    """Records a thread that may never end, for which libraries might wait at the end of the process."""
    _stuck_threads.append(thread)


def exit_despite_stuck_threads() -> None:
    """Ends the process, whose work is done, after a grace period if a recorded thread is still alive."""
    if any(thread.is_alive() for thread in _stuck_threads):
        exit_soon(DONE)
