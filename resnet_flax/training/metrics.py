"""The metrics of a run: one JSON object a line, and TensorBoard event files beside them.

JSON has no NaN and no infinity: a number that is not finite, such as a test loss beyond float32, is null.
"""

import contextlib
import hashlib
import json
import os
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resnet_flax import run_files, sums
from resnet_flax.run_files import RunFiles

FILE = run_files.METRICS  # in a run's folder

# What differs between two runs of the same bits.
WALL_CLOCK = ("images_per_second", "seconds")


class MetricsLog:
    """Appends to a run's ``metrics.jsonl``; a context manager.

    Lines later than ``step`` are dropped first: a run that resumes from a checkpoint writes them again, the same.

    Attributes:
      texts: the lines, as they stand in the file.

    Args:
      record: of the checkpoint that the run resumes from, where it has one: its lines replace what was lost.
    """

    def __init__(self, workdir: Path, step: int, record: dict[str, Any] | None = None) -> None:
        files, self._path = RunFiles(workdir), workdir / FILE
        lines, said = [], ""
        if step:
            lines, said = files.mended_from(record) if record else (files.metrics(), "")
        self.texts = [json.dumps(line) for line in lines if line["step"] <= step]
        if said and any(line["step"] <= step for line in lines):
            print(said, file=sys.stderr)
        content = "".join(text + "\n" for text in self.texts).encode()
        sums.write(self._path, content.decode())
        self._digest, self._size = hashlib.sha256(content), len(content)
        self._file = open(self._path, "ab")  # noqa: SIM115 (closed by __exit__)
        # Events that an earlier start wrote after that step, TensorBoard then leaves out.
        resumed = any(workdir.glob("events.out.tfevents.*"))
        self._events = _Events(workdir, purge_step=step + 1 if resumed else None)

    def write(self, line: dict[str, Any]) -> None:
        """Adds a line; it is on disk when this returns, before any checkpoint of its step.

        Args:
          line: numbers by name; None for one that is not finite.
        """
        text = json.dumps(line, allow_nan=False)
        content = f"{text}\n".encode()
        self._file.write(content)
        self._file.flush()
        os.fsync(self._file.fileno())
        self.texts.append(text)
        self._digest.update(content)
        self._size += len(content)
        sums.note_digest(self._path, self._size, self._digest.hexdigest())
        self._events.write(line)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()
        self._events.close()


class _Events:
    """TensorBoard's events, which only report: where they cannot be written, that is said once."""

    def __init__(self, workdir: Path, purge_step: int | None) -> None:
        self._workdir, self._writer = workdir, None
        try:
            writer, proto = _tensorboard()
            name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}"
            self._proto, self._writer = proto, writer(str(workdir / name))
            self._add(file_version="brain.Event:2")
            if purge_step is not None:
                self._add(step=purge_step, session_log=proto.SessionLog(status=proto.SessionLog.START))
            self._writer.flush()
        except (OSError, ImportError) as error:
            self._give_up(error)

    def write(self, line: dict[str, Any]) -> None:
        if self._writer is None:
            return
        numbers = {name: value for name, value in line.items() if name != "step" and value is not None}
        values = [{"tag": name, "simple_value": value} for name, value in numbers.items()]
        try:
            self._add(step=line["step"], summary={"value": values})
            self._writer.flush()
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        try:
            if self._writer is not None:
                self._writer.close()
        except OSError as error:
            self._give_up(error)

    def _add(self, **fields: Any) -> None:
        self._writer.write(self._proto.Event(wall_time=time.time(), **fields).SerializeToString())

    def _give_up(self, error: Exception) -> None:
        writer, self._writer = self._writer, None
        with contextlib.suppress(OSError):
            if writer is not None:
                writer.close()
        reason = getattr(error, "strerror", None) or error
        print(f"{self._workdir}: TensorBoard's events cannot be written ({reason}); training goes on", file=sys.stderr)


def _tensorboard() -> tuple[Any, Any]:
    """The writer of records in tensorboardX and its messages, imported only by who writes events, and without PyTorch.

    It would import PyTorch wherever that is installed, in seconds, to write tensors that are never given to it here.
    Its usual writer has a thread, and waits for ever where that has failed.
    """
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None
    try:
        from tensorboardX.proto import event_pb2
        from tensorboardX.record_writer import RecordWriter
    finally:
        if hidden:
            del sys.modules["torch"]
    return RecordWriter, event_pb2


class NoMetricsLog:
    """What the hosts other than the first write: nothing."""

    texts: Sequence[str] = ()

    def write(self, line: dict[str, Any]) -> None:
        """Does nothing."""

    def __enter__(self) -> "NoMetricsLog":
        return self

    def __exit__(self, *exception: object) -> None:
        pass


def read(workdir: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics, with what was lost or changed taken from the newest checkpoint."""
    return RunFiles(workdir).mended()[0]


def put_back(workdir: Path) -> list[dict[str, Any]]:
    """Puts lost or changed lines back, says which, and writes them into the file."""
    lines, said = RunFiles(workdir).mended()
    if said:
        print(said, file=sys.stderr)
        sums.write(workdir / FILE, "".join(json.dumps(line) + "\n" for line in lines))
    return lines
