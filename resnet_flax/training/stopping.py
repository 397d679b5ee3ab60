"""SIGTERM and SIGINT: save, then leave."""

import signal
import threading
from types import FrameType


class StopRequest:
    """While entered, remembers the first SIGTERM or SIGINT instead of ending the process.

    A second SIGINT raises KeyboardInterrupt at once: the way out for someone who will not wait for the save.
    Entered within another one, it knows what that one has received, and in the end tells it.
    """

    _SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.received: str | None = None
        self._previous: dict[int, object] = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name

    def __enter__(self) -> "StopRequest":
        # Python allows handlers in the main thread only; elsewhere the owner of that thread decides.
        if threading.current_thread() is threading.main_thread():
            self._previous = {s: signal.signal(s, self._receive) for s in self._SIGNALS}
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
