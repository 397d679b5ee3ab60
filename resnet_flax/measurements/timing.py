"""Times of several calls, taken by turns, so that what else the machine does falls on all of them."""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Spread:
    """Measurements of all rounds: seconds a call, or a ratio of such.

    Attributes:
      rounds: a value a round.
    """

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median over rounds."""
        return statistics.median(self.rounds)

    @property
    def least(self) -> float:
        """Least of the rounds."""
        return min(self.rounds)

    @property
    def most(self) -> float:
        """Most of the rounds."""
        return max(self.rounds)

    def over(self, other: "Spread") -> "Spread":
        """Round by round: this one's time over that of another, which was measured beside it."""
        return Spread(tuple(a / b for a, b in zip(self.rounds, other.rounds, strict=True)))

    def text(self, digits: int = 3) -> str:
        """``1.02 (0.98 to 1.1)``: the median, the least and the most."""
        return f"{self.median:.{digits}g} ({self.least:.{digits}g} to {self.most:.{digits}g})"


def time_in_turns(
    calls: Mapping[str, Callable[[], Any]], rounds: int, seconds: float, done: Callable[[str], None]
) -> dict[str, Spread]:
    """Seconds that each call takes, in each of ``rounds`` rounds in which all have their turn.

    Args:
      calls: what to call; each returns arrays, and has ended when they are there. Two calls of each come first
        that do not count.
      rounds: how many.
      seconds: a turn repeats its call for about that long, so that the clock and the start of a call weigh little.
      done: told the name after each turn.
    """
    repeats = {}
    for name, call in calls.items():
        _seconds(call, 1)
        repeats[name] = max(1, math.ceil(seconds / max(_seconds(call, 1), 1e-6)))
    measured: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(rounds):
        # Every other round backwards: nothing always comes after the same neighbour.
        for name in list(calls)[:: 1 if i % 2 == 0 else -1]:
            measured[name].append(_seconds(calls[name], repeats[name]))
            done(name)
    return {name: Spread(tuple(values)) for name, values in measured.items()}


def _seconds(call: Callable[[], Any], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        result = call()
    jax.block_until_ready(result)
    return (time.perf_counter() - start) / repeats
