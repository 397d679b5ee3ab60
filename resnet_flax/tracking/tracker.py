"""The interface of trackers, and the data about a run that they receive."""

import dataclasses
import re
import secrets
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from resnet_flax.atomic import write_atomically
from resnet_flax.runs.file_names import TRACKER_ID

PROJECT = "resnet_flax"  # the project of all runs, in trackers that have projects

Line = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Tracking:
    """The trackers that follow a run, and the names that they show. It changes no result.

    Attributes:
      trackers: Names from :data:`resnet_flax.tracking.table.TRACKERS`.
      name: The name of the run. The default is made of the network, the data set and the run directory.
      group: The name of the sweep that the run belongs to, or empty.
    """

    trackers: tuple[str, ...] = ("tensorboard",)
    name: str = ""
    group: str = ""


TENSORBOARD_ALONE = Tracking()

_lock = threading.Lock()


@dataclasses.dataclass(frozen=True)
class TrackedRun:
    """A run that starts or resumes, as passed to a tracker.

    Attributes:
      path: The run directory.
      name: The name of the run.
      group: The name of the sweep that the run belongs to, or empty.
      config: The values of all config keys, by dotted key.
      lines: The lines of metrics up to the step that the run resumes from. The tracker may lack some of them, or hold
        later ones, which will be computed again.
      ended: True if the run has taken its last step.
    """

    path: Path
    name: str
    group: str
    config: Mapping[str, Any]
    lines: Sequence[Line]
    ended: bool = False

    @property
    def id(self) -> str:
        """An identifier of hexadecimal digits that stays the same when the run is resumed, moved or renamed."""
        path = self.path / TRACKER_ID
        with _lock:  # Two trackers may read it at the same time.
            text = path.read_text() if path.is_file() else ""
            if not re.fullmatch(r"[0-9a-f]{16}", text):
                text = secrets.token_hex(8)
                write_atomically(path, text)
            return text


class Tracker(Protocol):
    """Shows the metrics of one run. Its methods are called by a single thread that is not the training thread."""

    def write(self, lines: Sequence[Line]) -> None:
        """Adds lines of metrics. A line whose step the tracker has, and cannot replace, is left out."""

    def close(self) -> None:
        """Waits until all lines are written."""


def finite_metrics(line: Line) -> dict[str, Any]:
    """Returns the metrics of a line by name, without those that are not finite."""
    return {name: value for name, value in line.items() if name != "step" and value is not None}
