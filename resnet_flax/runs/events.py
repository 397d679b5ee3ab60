"""TensorBoard event files, written without PyTorch."""

import contextlib
import socket
import sys
import time
from pathlib import Path
from typing import Any

from resnet_flax.runtime.libraries import without_torch


class Events:
    """TensorBoard's events, which only report: where they cannot be written, that is said once.

    Args:
      workdir: of the run.
      step: after which the run writes.
    """

    def __init__(self, workdir: Path, step: int) -> None:
        self._workdir = workdir
        self._writer: Any = None
        # Events that an earlier start wrote after that step are left out by TensorBoard.
        resumed = any(workdir.glob("events.out.tfevents.*"))
        try:
            writer, proto = _tensorboard()
            name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}"
            self._proto, self._writer = proto, writer(str(workdir / name))
            self._add(file_version="brain.Event:2")
            if resumed:
                self._add(step=step + 1, session_log=proto.SessionLog(status=proto.SessionLog.START))
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
    """The writer of records in tensorboardX and its messages, imported only by who writes events.

    Its usual writer has a thread, and waits for ever where that has failed.
    """
    with without_torch():  # tensors are never given to it here
        from tensorboardX.proto import event_pb2  # half a second
        from tensorboardX.record_writer import RecordWriter
    return RecordWriter, event_pb2
