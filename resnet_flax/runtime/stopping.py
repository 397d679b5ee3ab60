"""SIGTERM and SIGINT: save, then leave, or leave at once; and the end of a process whose threads go on."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

from resnet_flax.errors import DONE, INTERRUPTED
from resnet_flax.runtime import exit_message

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_PATIENCE = 5.0  # seconds that other threads have to end, once the command has
_left_behind: list[threading.Thread] = []


class StopRequest:
    """While entered, remembers the first SIGTERM or SIGINT instead of ending the process.

    A second SIGINT raises KeyboardInterrupt at once: the way out for someone who will not wait for the save.
    Entered within another one, it knows what that one has received, and in the end tells it.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._previous: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name

    def __enter__(self) -> "StopRequest":
        # Python allows handlers in the main thread only; elsewhere the owner of that thread decides.
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


def leave_at_once() -> None:
    """Lets signals end the process at once; while there is something to save, :class:`StopRequest` handles them."""
    for number in _SIGNALS:
        signal.signal(number, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    # Not by an exception: in the middle of an import, one comes out as an ImportError of something else.
    with contextlib.suppress(OSError):  # nobody may read it
        os.write(2, f"stopped by {signal.Signals(number).name}\n".encode())
    exit_message.cancel()
    os._exit(INTERRUPTED)


def end_in_time(code: int) -> None:
    """Ends the process soon: threads (of the checkpoint writer, of the distributed service) must not keep it alive."""
    timer = threading.Timer(_PATIENCE, os._exit, [code])
    timer.daemon = True
    timer.start()


def leave_behind(thread: threading.Thread) -> None:
    """Notes a thread that may never end, and keep libraries waiting at the end of the process."""
    _left_behind.append(thread)


def end_without_waiting() -> None:
    """Ends a process whose work is done, if such a thread is still alive."""
    if any(thread.is_alive() for thread in _left_behind):
        end_in_time(DONE)
