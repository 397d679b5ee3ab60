"""Writes, parses and repairs a run's metrics.jsonl, which has a JSON object per line.

JSON has no NaN and no infinity, so a number that is not finite, such as a test loss beyond float32, is null.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from resnet_flax.errors import UserError
from resnet_flax.runs import checksums, schemas
from resnet_flax.tracking.background import BackgroundTracker

# The only metrics that differ between bit-identical runs.
WALL_CLOCK = ("images_per_second", "seconds")

_Line = dict[str, Any]


class MetricsLog:
    """Context manager that appends lines to a run's metrics and sends them to its trackers.

    Attributes:
      texts: The lines of the file, without line breaks.
      trackers: The trackers, which receive each new line and are closed with the log.

    Args:
      path: The file, which is overwritten.
      lines: The first lines of the new file.
    """

    def __init__(self, path: Path, lines: Sequence[_Line]) -> None:
        self._path, self.texts = path, [json.dumps(line) for line in lines]
        content = text_of(lines).encode()
        checksums.write(path, content.decode())
        self._digest, self._size = hashlib.sha256(content), len(content)
        self._file = open(path, "ab")  # noqa: SIM115 (closed by __exit__)
        self.trackers: Sequence[BackgroundTracker] = ()

    def write(self, line: _Line) -> None:
        """Appends a line and waits until it is on disk, so that a checkpoint never precedes its step's line.

        Args:
          line: Numbers by name, or None for a number that is not finite.
        """
        text = json.dumps(line, allow_nan=False)
        content = f"{text}\n".encode()
        self._file.write(content)
        self._file.flush()
        os.fsync(self._file.fileno())
        self.texts.append(text)
        self._digest.update(content)
        self._size += len(content)
        checksums.note_digest(self._path, self._size, self._digest.hexdigest())
        for tracker in self.trackers:
            tracker.write(line)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.ExitStack() as trackers:  # are closed even if the file cannot be, such as on a full disk
            for tracker in self.trackers:
                trackers.callback(tracker.close)
            self._file.close()


def text_of(lines: Iterable[_Line]) -> str:
    """Formats lines as the content of a .jsonl file."""
    return "".join(json.dumps(line) + "\n" for line in lines)


def parse(content: bytes | None, path: Path) -> list[_Line]:
    """Parses the content of metrics.jsonl. A last line that a crash cut short is left out.

    Args:
      content: The file's bytes, or None if it does not exist.
      path: The file's path, for messages.

    Raises:
      UserError: A line is damaged.
    """
    found: list[_Line] = []
    texts = (content or b"").split(b"\n")
    for number, text in enumerate(texts, start=1):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError) as error:
            if number == len(texts):
                break  # a crash cut it short
            raise schemas.invalid_file(path, f"line {number}: {error}") from None
        try:
            schemas.check_line(line)
            if found and line["step"] <= found[-1]["step"]:
                raise ValueError("its step is not greater than the previous line's")
        except (ValueError, TypeError) as error:
            raise schemas.invalid_file(path, f"line {number}: {error}") from None
        found.append(line)
    return found


def repair(content: bytes, record: _Line, path: Path, known: dict[str, _Line] | None) -> tuple[list[_Line], str]:
    """Restores lost or changed lines of metrics from a checkpoint's record.

    Args:
      content: The content of metrics.jsonl, which may be damaged.
      record: The record from :meth:`~.directory.RunDirectory.record`.
      path: The file's path.
      known: The run's checksums, which must be read before ``content``, because the file grows.

    Returns:
      The lines, and a message that says which were restored or left out; empty if nothing was wrong.
    """
    step = record["step"]
    # A record of an earlier version may include lines of later steps, which were logged while it was being saved.
    texts = [text for text in record["lines"] if step_of(text) <= step]
    kept = _joined(text.encode() for text in texts)
    there = content.split(b"\n")[:-1]  # a crash may have cut the last line short
    whole, said = set(there), []
    later = _joined(text for text in there if step_of(text) > step)
    if lost := [step_of(text) for text in texts if text.encode() not in whole]:
        count = f"{len(lost)} line{'s' if len(lost) > 1 else ''}"
        said.append(f"{count} of {_steps(lost)} lost or changed, restored from checkpoint {step}")
    elif not content.startswith(kept):
        said.append(f"lines up to step {step} duplicated or out of order, restored from checkpoint {step}")
    try:
        if not checksums.matches(path.name, kept + later, known):
            raise checksums.mismatch_error(path)
        found = parse(kept + later, path)
    except UserError:
        said.append(f"lines after step {step} lost or damaged, left out")
        found = parse(kept, path)
    return found, f"{path}: {'; '.join(said)}" if said else ""


def step_of(text: str | bytes) -> int:
    """Returns the step of a line of metrics; -1 if it cannot be read."""
    try:
        line = json.loads(text)
        schemas.check_step(line)
        return line["step"]
    except (ValueError, RecursionError):
        return -1


def _joined(texts: Iterable[bytes]) -> bytes:
    return b"".join(text + b"\n" for text in texts)


def _steps(steps: list[int]) -> str:
    return f"step {steps[0]}" if len(steps) == 1 else f"steps {steps[0]} to {steps[-1]}"


def columns(lines: Sequence[_Line]) -> dict[str, np.ndarray]:
    """Converts lines to columns of equal length.

    A column with an integer in every line is int64. Others are float64, with NaN where a line has no value.
    """
    names = dict.fromkeys(name for line in lines for name in line)
    values = {name: [line.get(name) for line in lines] for name in names}
    return {
        name: np.array(column)
        if all(type(value) is int for value in column)
        else np.array([np.nan if value is None else value for value in column], np.float64)
        for name, column in values.items()
    }
