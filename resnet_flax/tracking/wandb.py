"""The Weights & Biases tracker: sends to its server, or with WANDB_MODE=offline writes files for ``wandb sync``."""

import os
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import wandb
from wandb.proto.wandb_internal_pb2 import Record
from wandb.sdk.lib import wbauth

from resnet_flax.tracking.tracker import PROJECT, Line, TrackedRun, finite_metrics

_PATIENCE = 30.0  # seconds to wait for the server
_BLOCK = 32768  # bytes of a block; no part of a record crosses its end


def open(run: TrackedRun) -> "History | None":
    """Begins or resumes the run in Weights & Biases, and sends the lines that it lacks."""
    recorded = max(map(_last_step, run.path.glob(f"wandb/*-{run.id}/run-{run.id}.wandb")), default=-1)
    if run.ended and run.lines and recorded >= run.lines[-1]["step"]:
        return None
    history = History(run, recorded)
    history.write(run.lines)
    return history


class History:
    """Adds lines to a run of Weights & Biases, which cannot replace lines: a step that it has is not sent again.

    Args:
      recorded: The last step in the files of earlier starts in the run directory, or -1.
    """

    def __init__(self, run: TrackedRun, recorded: int) -> None:
        known = wandb.setup().settings
        offline = known.mode in ("offline", "dryrun", "disabled")
        # Without this check, wandb would prompt for a login on the terminal.
        if not offline and wbauth.authenticate_session(host=known.base_url, source=PROJECT, prompt=False) is None:
            raise PermissionError("nobody is logged in: `wandb login`, or set WANDB_MODE=offline")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=run.id,
            name=run.name,
            group=run.group or None,
            dir=run.path,
            config=dict(run.config),
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True, init_timeout=_PATIENCE),
        )
        self._last = recorded if self._run.offline else self._run.step - 1  # The latter is the server's last step.
        if not self._run.offline:
            print(f"{run.path}: shown at {self._run.url}", file=sys.stderr, flush=True)

    def write(self, lines: Sequence[Line]) -> None:
        for line in lines:
            if line["step"] > self._last:
                self._run.log(finite_metrics(line), step=line["step"], commit=True)
                self._last = line["step"]

    def close(self) -> None:
        self._run.finish()


def _last_step(path: Path) -> int:
    """Returns the last step in a file of records, or -1."""
    steps = (record.history.step.num for record in _records(path.read_bytes()) if record.HasField("history"))
    return max(steps, default=-1)


def _records(content: bytes) -> Iterator[Record]:
    """Yields the records of a file, up to one that a crash cut short.

    The file is a header and a log in LevelDB's format.
    """
    offset, whole = 7, b""
    while offset + 7 <= len(content):
        if _BLOCK - offset % _BLOCK < 7:  # The end of a block is too short for a header, and is padding.
            offset += _BLOCK - offset % _BLOCK
            continue
        length, kind = struct.unpack_from("<HB", content, offset + 4)
        part = content[offset + 7 : offset + 7 + length]
        if len(part) < length or not kind:
            return
        offset, whole = offset + 7 + length, whole + part
        if kind in (1, 4):  # the whole record, or its last part
            yield Record.FromString(whole)
            whole = b""
