"""Times several calls in turns, so that other load on the machine affects all of them."""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Spread:
    """The measurements of all rounds: seconds per call, or ratios of times.

    Attributes:
      rounds: One value per round.
    """

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median over rounds."""
        return statistics.median(self.rounds)

    @property
    def least(self) -> float:
        """The least value of all rounds."""
        return min(self.rounds)

    @property
    def most(self) -> float:
        """The greatest value of all rounds."""
        return max(self.rounds)

    def over(self, other: "Spread") -> "Spread":
        """Divides these times by those of another call, round by round."""
        return Spread(tuple(a / b for a, b in zip(self.rounds, other.rounds, strict=True)))

    def text(self, digits: int = 3) -> str:
        """Formats the median, the least and the greatest value, such as ``1.02 (0.98 to 1.1)``."""
        return f"{self.median:.{digits}g} ({self.least:.{digits}g} to {self.most:.{digits}g})"


def time_in_turns(
    calls: Mapping[str, Callable[[], Any]], rounds: int, seconds: float, done: Callable[[str], None]
) -> dict[str, Spread]:
    """Measures the seconds of each call, in rounds in which every call has one turn.

    Args:
      calls: The functions to call, by name. Each returns arrays; a call's time ends when they are computed. Each is
        called twice before the first round, which does not count.
      rounds: Number of rounds.
      seconds: Approximate duration of a turn, which repeats its call so that timing overhead matters little.
      done: Called with a function's name after each of its turns.
    """
    repeats = {}
    for name, call in calls.items():
        _seconds(call, 1)
        repeats[name] = max(1, math.ceil(seconds / max(_seconds(call, 1), 1e-6)))
    measured: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(rounds):
        # Every other round is in reverse order, so that no call always follows the same neighbour.
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
