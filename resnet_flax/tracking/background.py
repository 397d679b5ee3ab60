"""A tracker at work in a thread of its own: training waits neither for a disk nor for a network."""

import contextlib
import importlib
import queue
import sys
import threading
from collections.abc import Iterator

from resnet_flax.runtime import stopping
from resnet_flax.tracking.tracker import Line, TrackedRun, Tracker

_PAUSE = 0.5  # seconds between two writes; lines that come meanwhile are written together
_PATIENCE = 20.0  # seconds that the end of a run waits for a tracker


class BackgroundTracker:
    """Hands the lines of a run to a tracker. A tracker that fails is given up; one line says so, and the run goes on.

    Args:
      title: of the tracker, for messages.
      module: that makes it; imported here, by the thread that trains, before it does.
      run: what it follows.
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
        """Hands over a line; returns at once."""
        self._lines.put(line)

    def close(self) -> None:
        """Returns when the tracker has all lines, or some time later."""
        self._lines.put(None)
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(_PATIENCE)
        if self._thread.is_alive():
            stopping.leave_behind(self._thread)
            self._say(f"is still busy after {_PATIENCE:g} s; the same command sends what it lacks")

    def _work(self, module: str) -> None:
        with self._given_up_on_failure():
            tracker: Tracker | None = importlib.import_module(module).open(self._run)
            if tracker is None:
                return
            with contextlib.closing(tracker):
                for lines in self._batches():
                    tracker.write(lines)

    def _batches(self) -> Iterator[list[Line]]:
        """The lines in order, those together that are there; until the log is closed."""
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
        except Exception as error:  # whatever a library raises: a tracker only reports
            reason = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
            self._say(f"cannot be written ({reason:.300}); training goes on")

    def _say(self, what: str) -> None:
        print(f"{self._run.path}: {self._title} {what}", file=sys.stderr, flush=True)
