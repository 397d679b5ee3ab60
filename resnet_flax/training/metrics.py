"""The metrics of a run: one JSON object a line, and TensorBoard event files beside them.

JSON has no NaN and no infinity: a number that is not finite, such as a test loss beyond float32, is null.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from resnet_flax import json_lines

FILE = "metrics.jsonl"  # in a run's folder

# What differs between two runs of the same bits.
WALL_CLOCK = ("images_per_second", "seconds")


class MetricsLog:
    """Appends to a run's ``metrics.jsonl``; a context manager.

    Lines later than ``step`` are dropped first: a run that goes on from a checkpoint writes them again, the same.
    """

    def __init__(self, workdir: Path, step: int) -> None:
        path = workdir / FILE
        kept = [line for line in read(workdir) if line["step"] <= step]
        temporary = path.with_suffix(".partial")
        with open(temporary, "w") as file:
            file.writelines(json.dumps(line) + "\n" for line in kept)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        self._file = open(path, "a")  # noqa: SIM115 (closed by __exit__)
        # Events that an earlier start wrote after that step, TensorBoard then leaves out.
        resumed = any(workdir.glob("events.out.tfevents.*"))
        self._events = _summary_writer()(str(workdir), purge_step=step + 1 if resumed else None)

    def write(self, line: dict[str, Any]) -> None:
        """Adds a line; it is on disk when this returns, before any checkpoint of its step.

        Args:
          line: numbers by name; None for one that is not finite.
        """
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        for name, value in line.items():
            if name != "step" and value is not None:
                self._events.add_scalar(name, value, line["step"])
        self._events.flush()

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()
        self._events.close()


def _summary_writer() -> Any:
    """The writer of tensorboardX, imported only by who writes events, and without PyTorch.

    It would import PyTorch wherever that is installed, in seconds, to write tensors that are never given to it here.
    """
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None
    try:
        from tensorboardX import SummaryWriter
    finally:
        if hidden:
            del sys.modules["torch"]
    return SummaryWriter


class NoMetricsLog:
    """What the hosts other than the first write: nothing."""

    def write(self, line: dict[str, Any]) -> None:
        """Does nothing."""

    def __enter__(self) -> "NoMetricsLog":
        return self

    def __exit__(self, *exception: object) -> None:
        pass


def read(workdir: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics; a last line that a crash cut short is left out."""
    return json_lines.read(workdir / FILE)
