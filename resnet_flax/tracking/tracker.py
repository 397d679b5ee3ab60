"""The interface of trackers, and what each of them is told of a run."""

import dataclasses
import re
import secrets
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from resnet_flax.atomic import write_atomically
from resnet_flax.runs.file_names import TRACKER_ID

PROJECT = "resnet_flax"  # that all runs belong to, in trackers that have projects

Line = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Tracking:
    """Which trackers follow a run, and what they call it. No result depends on it.

    Attributes:
      trackers: names, of :data:`resnet_flax.tracking.table.TRACKERS`.
      name: of the run; by default its network's name on its data, and its directory.
      group: the sweep that the run belongs to; empty for none.
    """

    trackers: tuple[str, ...] = ("tensorboard",)
    name: str = ""
    group: str = ""


TENSORBOARD_ALONE = Tracking()

_lock = threading.Lock()


@dataclasses.dataclass(frozen=True)
class TrackedRun:
    """A run that starts or resumes, as a tracker is told of it.

    Attributes:
      path: the run directory.
      name: what tables call the run.
      group: the sweep that the run belongs to; empty for none.
      config: the values of all config keys, by dotted key.
      lines: the metrics up to the step that the run resumes from. The tracker may lack some of them, or hold later
        ones, which are computed again.
      ended: whether the run has taken its last step.
    """

    path: Path
    name: str
    group: str
    config: Mapping[str, Any]
    lines: Sequence[Line]
    ended: bool = False

    @property
    def id(self) -> str:
        """Hexadecimal digits that stay the same however often the run is stopped, moved or renamed."""
        path = self.path / TRACKER_ID
        with _lock:  # two trackers may ask at a time
            text = path.read_text() if path.is_file() else ""
            if not re.fullmatch(r"[0-9a-f]{16}", text):
                text = secrets.token_hex(8)
                write_atomically(path, text)
            return text


class Tracker(Protocol):
    """Shows the metrics of one run. Its methods are called by one thread, which is not the one that trains."""

    def write(self, lines: Sequence[Line]) -> None:
        """Adds lines of metrics. A line that the tracker holds and cannot replace is left out."""

    def close(self) -> None:
        """Returns when all lines are handed over."""


def numbers(line: Line) -> dict[str, Any]:
    """The metrics of a line by name, without those that are not finite."""
    return {name: value for name, value in line.items() if name != "step" and value is not None}
