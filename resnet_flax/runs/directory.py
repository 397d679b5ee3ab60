"""A run directory: what it tells (:class:`~.reading.RunReader`), who may write there, and what is written; without jax.

:mod:`~.checkpoints` writes and restores what lies in the folder of checkpoints.
"""

import contextlib
import datetime
import errno
import json
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax.errors import Busy, UserError
from resnet_flax.runs import checksums, rules
from resnet_flax.runs.file_names import (
    CONFIG,
    CRASH,
    DIVERGED,
    INTERRUPTED,
    LOCK,
    METRICS,
    PHOTOGRAPHS,
    PREPROCESSING,
    STARTS,
    broken_name,
)  # fmt: skip
from resnet_flax.runs.metrics import MetricsLog, text_of
from resnet_flax.runs.reading import RunReader
from resnet_flax.tracking import table
from resnet_flax.tracking.tracker import TENSORBOARD_ALONE, Tracking

if TYPE_CHECKING:  # it brings jax with it
    from resnet_flax.data.preprocessing import Preprocessing

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_Line = dict[str, Any]


class RunDirectory(RunReader):
    """Reads, checks and writes the files of a run.

    Args:
      path: of the folder.
    """

    # Who may write

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder for this process; another one is refused. The lock ends with the process."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--workdir={self.path}: cannot be made: {error.strerror}") from None
        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise Busy(
                f"--workdir={self.path}: another process is running there; wait for it, or choose another"
            ) from None
        except OSError as error:
            raise UserError(f"--workdir={self.path}: cannot be written: {error.strerror}") from None
        try:
            yield
        finally:
            lock.release()

    def wait_until_free(self, seconds: float, give_up: Callable[[], bool]) -> bool:
        """Waits, at most so long, for a process that holds the folder and is about to end, such as on a lost node.

        Args:
          seconds: after which it gives up; -1 for never.
          give_up: asked while waiting; True ends it.

        Returns:
          Whether it is free.
        """
        with contextlib.suppress(Timeout), FileLock(self.path / LOCK).acquire(timeout=seconds, cancel_check=give_up):
            return True
        return False

    @contextlib.contextmanager
    def report_full_disk(self) -> Iterator[None]:
        """Says in one line that a file of the run could not be written, or read."""
        try:
            yield
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise UserError(
                    f"{error.filename or self.path}: cannot be written: {error.strerror}. What was saved before stays; "
                    f"with room there, the same command goes on"
                ) from None
            if not error.filename or self.path.absolute() not in Path(str(error.filename)).absolute().parents:
                raise
            raise UserError(
                f"{error.filename}: cannot be used: {error.strerror}. What was saved before stays; with that mended, "
                f"the same command goes on"
            ) from None

    # What is written

    def write_config(self, config: ConfigDict) -> None:
        """Writes config.json, whole or not at all, where it does not hold the same."""
        path, text = self.path / CONFIG, configs.to_json(config)
        if not path.is_file() or path.read_text() != text:
            checksums.write(path, text)

    def write_images(self, preprocessing: "Preprocessing", photographs: _Line | None = None) -> None:
        """Writes what :meth:`check_images` compares with, where it is not there yet."""
        if self.readable_preprocessing() is None:
            checksums.write(self.path / PREPROCESSING, preprocessing.to_json())
        if photographs is not None and not (self.path / PHOTOGRAPHS).is_file():
            checksums.write(self.path / PHOTOGRAPHS, json.dumps(photographs) + "\n")

    def note_checksums(self) -> bool:
        """Adds the checksums that an earlier version did not write; returns whether it wrote none."""
        return checksums.add_missing(self.path)

    def record_start(
        self, step: int, parameters: int, classes: int, environment: Mapping[str, Any], data: str = ""
    ) -> list[str]:
        """Adds a line to starts.jsonl: when, at which step, the run's rules, the network's size, the environment.

        Args:
          environment: of :func:`resnet_flax.runtime.environment.environment`.
          data: what is to be known of the images, such as which were set aside for testing.

        Returns:
          Changes of the environment since the last start; results are bit-exact only if there are none.
        """
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        starts = self.starts() if step else []
        begun = rules.rules_in(starts) if step else rules.RULES
        line = {"time": now, "host": platform.node(), "step": step, "rules": begun, "parameters": parameters,
                "classes": classes, **environment}  # fmt: skip
        self.append(STARTS, line | ({"data": data} if data else {}))
        checksums.note(self.path / STARTS, (self.path / STARTS).read_bytes())
        checksums.remove(self.path / INTERRUPTED)
        # Not where an earlier version of this code wrote no such thing.
        return [f"{key} {there[key]}, now {value}" for there in starts[-1:] for key, value in environment.items()
                if key in there and key not in ("python", "orbax-checkpoint") and there[key] != value]  # fmt: skip

    def metrics_log(self, step: int, record: _Line | None = None, tracking: Tracking = TENSORBOARD_ALONE) -> MetricsLog:
        """Opens the metrics to append to; lines later than ``step`` are dropped, since the run writes them again.

        Args:
          record: of the checkpoint that the run resumes from, where it has one: its lines replace what was lost.
          tracking: which trackers get the lines.
        """
        found, said = (self.repaired_metrics_from(record) if record else (self.metrics(), "")) if step else ([], "")
        lines = [line for line in found if line["step"] <= step]
        if said and lines:
            print(said, file=sys.stderr)
        log = MetricsLog(self.path / METRICS, lines)
        log.trackers = table.start(tracking, self.path, self.config(), lines)
        return log

    def complete_trackers(self, lines: Sequence[_Line], tracking: Tracking) -> None:
        """Sends what trackers lack of a finished run: a crash at its end lost it, or they were asked for only now."""
        for tracker in table.start(tracking, self.path, self.config(), lines, ended=True):
            tracker.close()

    def repair_metrics(self) -> list[_Line]:
        """Puts lost or changed lines of metrics back, says which, and writes them into the file."""
        lines, said = self.repaired_metrics()
        if said:
            print(said, file=sys.stderr)
            checksums.write(self.path / METRICS, text_of(lines))
        return lines

    def write_interrupted(self, step: int) -> None:
        """Notes at which step a signal ended the run."""
        checksums.write(self.path / INTERRUPTED, json.dumps({"step": step}) + "\n")

    def write_diverged(self, step: int, message: str) -> None:
        """Notes at which step the loss, or a parameter, was not finite any more."""
        checksums.write(self.path / DIVERGED, json.dumps({"step": step, "message": message}))

    def write_crash(self, text: str) -> Path:
        """Notes why the run ended in an error of the program or the machine; returns the file's path."""
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / CRASH).write_text(text)
        return self.path / CRASH

    def forget_crash(self) -> None:
        """Deletes the note of a crash."""
        (self.path / CRASH).unlink(missing_ok=True)

    def note_broken(self, line: _Line, process: int = 0) -> Path:
        """Adds an image that was passed over: ``image``, ``split``, ``reason``; returns the path of the file."""
        self.append(broken_name(process), line)
        return self.path / broken_name(process)
