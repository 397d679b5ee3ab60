"""How long the runs that are left will take, from those done."""

from collections.abc import Sequence

from experiments.runs import Run
from resnet_flax.runtime.progress import duration


class Pace:
    """Depth times images is what a run is taken to cost."""

    def __init__(self) -> None:
        self._cost = self._seconds = 0.0

    def add(self, run: Run, seconds: float) -> None:
        """A run that took so long; next to no time says nothing."""
        if seconds > 1:
            self._cost += _cost(run)
            self._seconds += seconds

    def left(self, runs: Sequence[Run], at_once: int = 1, spent: float = 0.0) -> str:
        """``; about 2:03 left in all``, or nothing as long as nothing is known.

        Args:
          runs: that have not ended.
          at_once: how many of them run at a time.
          spent: seconds on them so far, of all of them together.
        """
        if not self._cost or not runs:
            return ""
        work = sum(map(_cost, runs)) * self._seconds / self._cost
        return f"; about {duration(max(0.0, work - spent) / at_once)} left in all"


def _cost(run: Run) -> float:
    return float(run.config.model.depth * run.config.train.steps * run.config.train.batch_size)
