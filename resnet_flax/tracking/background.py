"""Runs a tracker in a thread of its own, so that training waits neither for the disk nor for the network."""

import contextlib
import importlib
import queue
import sys
import threading
from collections.abc import Iterator

from resnet_flax.runtime import stopping
from resnet_flax.tracking.tracker import Line, TrackedRun, Tracker

_PAUSE = 0.5  # seconds between two writes; lines that arrive in between are written together
_PATIENCE = 20.0  # seconds to wait for a tracker at the end of a run


class BackgroundTracker:
    """Hands the lines of a run to a tracker. If the tracker fails, it prints a line and stops, and training continues.

    Args:
      title: The title of the tracker, for messages.
      module: The module of the tracker, which is imported in the calling thread.
      run: The run to follow.
    """

    def __init__(self, title: str, module: str, run: TrackedRun) -> None:
        self._title, self._run = title, run
        self._lines: queue.SimpleQueue[Line | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, args=[module], name=title, daemon=True)
        with self._given_up_on_failure():
            importlib.import_module(module)
            self._thread.start()

    def write(self, line: Line) -> None:
        """Hands over a line, and returns at once."""
        self._lines.put(line)

    def close(self) -> None:
        """Waits until the tracker has written all lines, or at most ``_PATIENCE`` seconds."""
        self._lines.put(None)
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(_PATIENCE)
        if self._thread.is_alive():
            stopping.note_stuck_thread(self._thread)
            self._say(f"is still busy after {_PATIENCE:g} s; the same command will send it the missing lines")

    def _work(self, module: str) -> None:
        with self._given_up_on_failure():
            tracker: Tracker | None = importlib.import_module(module).open(self._run)
            if tracker is None:
                return
            with contextlib.closing(tracker):
                for lines in self._batches():
                    tracker.write(lines)

    def _batches(self) -> Iterator[list[Line]]:
        """Yields the lines in order, all waiting ones together, until the log is closed."""
        while True:
            lines = [self._lines.get()]
            while not self._lines.empty():
                lines.append(self._lines.get())
            if found := [line for line in lines if line is not None]:
                yield found
            if lines[-1] is None:
                return
            self._closing.wait(_PAUSE)

    @contextlib.contextmanager
    def _given_up_on_failure(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Whatever a library raises, training must continue.
            reason = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
            self._say(f"cannot be written ({reason:.300}); training continues without it")

    def _say(self, what: str) -> None:
        print(f"{self._run.path}: {self._title} {what}", file=sys.stderr, flush=True)
