"""Reports progress with the rate and the time left: a bar on a terminal, plain lines otherwise."""

import sys
import time
from typing import Self

from tqdm import tqdm


class Progress:
    """Reports progress up to ``total`` units of work; a context manager.

    Args:
      total: The total number of units.
      description: The name of the work.
      unit: The name of a unit, in the plural.
      initial: The number of units done before.
      interval: Seconds between two plain lines.
    """

    def __init__(self, total: int, description: str, unit: str, initial: int = 0, interval: float = 10.0) -> None:
        self._total, self._done, self._first = total, initial, initial
        self._description, self._unit, self._interval = description, unit, interval
        self._started = self._printed = time.monotonic()
        self._note = ""
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=total, initial=initial, desc=description, unit=" " + unit, mininterval=0.2, dynamic_ncols=True
            )

    def update(self, count: int, note: str = "") -> None:
        """Adds ``count`` finished units; ``note`` is shown until the next note."""
        self._done += count
        self._note = note or self._note
        if self._bar is not None:
            self._bar.set_postfix_str(self._note, refresh=False)
            self._bar.update(count)
        elif time.monotonic() - self._printed >= self._interval:
            self._printed = time.monotonic()
            self.write(self._line())

    def write(self, line: str) -> None:
        """Prints a line without disturbing the bar."""
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)

    def _line(self) -> str:
        rate = (self._done - self._first) / max(self._printed - self._started, 1e-9)
        left = (self._total - self._done) / rate if rate else float("inf")
        note = f", {self._note}" if self._note else ""
        done = f"{self._done}/{self._total} {self._unit}"
        return f"{self._description}: {done}, {rate:.4g} {self._unit}/s, {duration(left)} left{note}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()


def duration(seconds: float) -> str:
    """Formats seconds as ``1:02:03`` or ``2:03``."""
    if seconds == float("inf"):
        return "unknown time"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
