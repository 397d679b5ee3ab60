"""The TensorBoard tracker: writes event files into the run directory, without PyTorch and TensorFlow."""

import contextlib
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from resnet_flax.runtime.libraries import without_torch
from resnet_flax.tracking.tracker import Line, TrackedRun, finite_metrics

with without_torch():  # Importing torch would take half a second, and its tensors are never used here.
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData, SessionStartInfo
    from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboardX.record_writer import RecordWriter


def open(run: TrackedRun) -> "Events | None":
    """Begins an event file with the config and the lines that earlier files lack."""
    earlier = sorted(run.path.glob("events.out.tfevents.*"))
    steps = _steps_in(earlier)
    held = next((i for i, line in enumerate(run.lines) if line["step"] not in steps), len(run.lines))
    if run.ended and held == len(run.lines):
        return None
    with contextlib.ExitStack() as closed_on_failure:
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{len(earlier)}"
        events = closed_on_failure.enter_context(contextlib.closing(Events(run.path / name)))
        events.add(file_version="brain.Event:2")
        if run.config:
            events.add(summary=_hyperparameters(run))
        if earlier:  # Tells TensorBoard to ignore events of earlier files from this step on.
            first = run.lines[held - 1]["step"] + 1 if held else 0
            events.add(step=first, session_log=SessionLog(status=SessionLog.START))
        events.write(run.lines[held:])
        closed_on_failure.pop_all()
    return events


class Events:
    """Writes one event file.

    Args:
      path: The path of the new file.
    """

    def __init__(self, path: Path) -> None:
        # The usual writer of tensorboardX has a thread, and waits forever if that thread has failed.
        self._writer = RecordWriter(str(path))

    def add(self, **fields: Any) -> None:
        """Adds one event."""
        self._writer.write(Event(wall_time=time.time(), **fields).SerializeToString())

    def write(self, lines: Sequence[Line]) -> None:
        for line in lines:
            values = [{"tag": name, "simple_value": value} for name, value in finite_metrics(line).items()]
            self.add(step=line["step"], summary={"value": values})
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def _hyperparameters(run: TrackedRun) -> Summary:
    """Returns the config in the form that TensorBoard's plugin for hyperparameters reads."""
    info = SessionStartInfo(start_time_secs=time.time())
    for key, value in run.config.items():
        if isinstance(value, bool):
            info.hparams[key].bool_value = value
        elif isinstance(value, int | float):
            info.hparams[key].number_value = value
        else:
            info.hparams[key].string_value = str(value)
    content = HParamsPluginData(session_start_info=info).SerializeToString()
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="hparams", content=content))
    return Summary(value=[Summary.Value(tag="_hparams_/session_start_info", metadata=metadata)])


def _steps_in(paths: Sequence[Path]) -> set[int]:
    """Returns the steps of the lines that TensorBoard would draw from event files."""
    steps: set[int] = set()
    for path in paths:
        for event in _events_in(path.read_bytes()):
            if event.HasField("session_log") and event.session_log.status == SessionLog.START:
                steps = {step for step in steps if step < event.step}
            if any(value.HasField("simple_value") for value in event.summary.value):
                steps.add(event.step)
    return steps


def _events_in(content: bytes) -> Iterator[Event]:
    """Yields the events of a file, up to one that a crash cut short.

    An event is stored as its length, the length's checksum, the message, and the message's checksum.
    """
    offset = 0
    with contextlib.suppress(struct.error):
        while offset < len(content):
            (length,) = struct.unpack_from("<Q", content, offset)
            struct.unpack_from("<I", content, offset + 12 + length)
            yield Event.FromString(content[offset + 12 : offset + 12 + length])
            offset += 16 + length
