"""Estimates the remaining time of a list of runs from the runs that are done."""

from collections.abc import Sequence

from resnet_flax.runtime.progress import duration
from resnet_flax.sweeps.cases import PlannedRun


class Pace:
    """Estimates the remaining time. The cost of a run is taken to be its depth times its training images."""

    def __init__(self) -> None:
        self._cost = self._seconds = 0.0

    def add(self, run: PlannedRun, seconds: float) -> None:
        """Adds the time that a run took. Times of at most a second are ignored, because no training was done."""
        if seconds > 1:
            self._cost += _cost(run)
            self._seconds += seconds

    def left(self, runs: Sequence[PlannedRun], at_once: int = 1, spent: float = 0.0) -> str:
        """Returns ``; about 2:03 left in total``, or an empty text if no run is done yet.

        Args:
          runs: The runs that have not ended.
          at_once: The number of runs at a time.
          spent: The total time spent on these runs so far, in seconds.
        """
        if not self._cost or not runs:
            return ""
        work = sum(map(_cost, runs)) * self._seconds / self._cost
        return f"; about {duration(max(0.0, work - spent) / at_once)} left in total"


def _cost(run: PlannedRun) -> float:
    return float(run.config.model.depth * run.config.train.steps * run.config.train.batch_size)
