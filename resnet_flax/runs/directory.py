"""Locks and writes a run directory, without importing jax.

:class:`~.reading.RunReader` reads it, and :mod:`~.checkpoints` saves and restores its checkpoints.
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

if TYPE_CHECKING:  # the module imports jax
    from resnet_flax.data.preprocessing import Preprocessing

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LOCK_SECONDS = 1.0  # longer than a command holds the lock that only looks whether the folder is locked
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
_Line = dict[str, Any]


class RunDirectory(RunReader):
    """Reads, checks and writes the files of a run.

    Args:
      path: The run directory's path.
    """

    # Locking

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Context manager that locks the folder for this process. The lock ends with the process, however it ends.

        Raises:
          Busy: Another process holds the lock.
          UserError: The folder cannot be created or written, or its file system has no locks.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--workdir={self.path}: cannot be created: {error.strerror}") from None
        try:
            lock = self._acquire(_LOCK_SECONDS)
        except Timeout:
            raise Busy(
                f"--workdir={self.path}: another process is running there; wait for it, or choose another"
            ) from None
        with lock:
            yield

    def wait_until_free(self, seconds: float, give_up: Callable[[], bool]) -> bool:
        """Waits until no process holds the lock, such as one that is about to end on a lost node.

        Args:
          seconds: The longest time to wait; -1 for no limit.
          give_up: Called while waiting; a result of True ends the wait.

        Returns:
          Whether the folder is free.

        Raises:
          UserError: The folder cannot be written, or its file system has no locks.
        """
        with contextlib.suppress(Timeout), self._acquire(seconds, give_up):
            return True
        return False

    def _acquire(
        self, seconds: float, give_up: Callable[[], bool] | None = None
    ) -> contextlib.AbstractContextManager[Any]:
        try:
            # Without fallback: a soft lock is a mere file, which outlives a killed process.
            return FileLock(self.path / LOCK, fallback_to_soft=False).acquire(timeout=seconds, cancel_check=give_up)
        except Timeout:
            raise
        except OSError as error:
            if error.errno in _NO_LOCKS:
                raise UserError(
                    f"--workdir={self.path}: its file system has no locks (flock); mount it with them, or choose "
                    f"another folder"
                ) from None
            raise UserError(f"--workdir={self.path}: cannot be written: {error.strerror}") from None

    @contextlib.contextmanager
    def report_full_disk(self) -> Iterator[None]:
        """Context manager that turns an operating system's error about a file of the run into one line.

        Raises:
          UserError: The disk is full, or a file of the run cannot be read or written.
        """
        try:
            yield
        except OSError as error:
            if error.errno in FULL_DISK:
                raise UserError(
                    f"{error.filename or self.path}: cannot be written: {error.strerror}. What was saved before is "
                    f"kept. Free disk space; the same command resumes"
                ) from None
            if not error.filename or self.path.absolute() not in Path(str(error.filename)).absolute().parents:
                raise
            raise UserError(
                f"{error.filename}: cannot be used: {error.strerror}. What was saved before is kept. Repair that; the "
                f"same command resumes"
            ) from None

    # Writing

    def write_config(self, config: ConfigDict) -> None:
        """Writes config.json atomically, unless it already holds the same config."""
        path, text = self.path / CONFIG, configs.to_json(config)
        if not path.is_file() or path.read_text() != text:
            checksums.write(path, text)

    def write_images(self, preprocessing: "Preprocessing", photographs: _Line | None = None) -> None:
        """Writes the files that :func:`resnet_flax.runs.resume.check_images` compares with, unless they exist.

        Args:
          preprocessing: The run's preprocessing.
          photographs: The description of the images, as :meth:`photographs` returns it; None writes none.
        """
        if self.preprocessing(damaged_as_none=True) is None:
            checksums.write(self.path / PREPROCESSING, preprocessing.to_json())
        if photographs is not None and not (self.path / PHOTOGRAPHS).is_file():
            checksums.write(self.path / PHOTOGRAPHS, json.dumps(photographs) + "\n")

    def note_checksums(self) -> bool:
        """Adds the checksums that an earlier version did not write; returns whether the run had none at all."""
        return checksums.add_missing(self.path)

    def record_start(
        self, step: int, parameters: int, classes: int, environment: Mapping[str, Any], data: str = "",
        own_code: Mapping[str, str] | None = None,
    ) -> list[str]:  # fmt: skip
        """Adds a line to starts.jsonl: the time, the step, the run's rules, the network's size and the environment.

        The notes on how an earlier start ended are deleted: this one may end otherwise.

        Args:
          step: The step at which the run starts or resumes.
          parameters: The number of the network's parameters.
          classes: The number of classes.
          environment: The result of :func:`resnet_flax.runtime.environment.environment`.
          data: A remark on the images, such as which were set aside for testing.
          own_code: The result of :func:`resnet_flax.config.own_code.checksums`, which :mod:`~.resume` compares.

        Returns:
          Changes of the environment since the last start; results are bit-exact only if there are none.
        """
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        starts = self.starts() if step else []
        begun = rules.rules_in(starts) if step else rules.RULES
        line = {"time": now, "host": platform.node(), "step": step, "rules": begun, "parameters": parameters,
                "classes": classes, **environment}  # fmt: skip
        optional = {"data": data, "own_code": dict(own_code or {})}
        self.append(STARTS, line | {key: value for key, value in optional.items() if value})
        checksums.note(self.path / STARTS, (self.path / STARTS).read_bytes())
        checksums.remove(self.path / INTERRUPTED)
        checksums.remove(self.path / DIVERGED)
        (self.path / CRASH).unlink(missing_ok=True)
        # Keys that an earlier version did not write are no changes.
        return [f"{key} {there[key]}, now {value}" for there in starts[-1:] for key, value in environment.items()
                if key in there and key not in ("python", "orbax-checkpoint") and there[key] != value]  # fmt: skip

    def metrics_log(self, step: int, record: _Line | None = None, tracking: Tracking = TENSORBOARD_ALONE) -> MetricsLog:
        """Opens metrics.jsonl for appending. Lines after ``step`` are dropped, because the run writes them again.

        Args:
          step: The step that the run resumes from; 0 for a new run.
          record: The record of the checkpoint that the run resumes from, or None. It restores lost lines.
          tracking: The trackers that receive the lines.
        """
        found, said = (self.repaired_metrics_from(record) if record else (self.metrics(), "")) if step else ([], "")
        lines = [line for line in found if line["step"] <= step]
        if said and lines:
            print(said, file=sys.stderr)
        log = MetricsLog(self.path / METRICS, lines)
        log.trackers = table.start(tracking, self.path, self.config(), lines)
        return log

    def complete_trackers(self, lines: Sequence[_Line], tracking: Tracking) -> None:
        """Sends a finished run's lines to trackers that lack them, after a crash or if the user has added a tracker."""
        for tracker in table.start(tracking, self.path, self.config(), lines, ended=True):
            tracker.close()

    def repair_metrics(self) -> list[_Line]:
        """Repairs lost or changed lines of metrics.jsonl from a checkpoint, prints which, and returns all lines."""
        lines, said = self.repaired_metrics()
        if said:
            print(said, file=sys.stderr)
            checksums.write(self.path / METRICS, text_of(lines))
        return lines

    def write_interrupted(self, step: int) -> None:
        """Records the step at which a signal stopped the run."""
        checksums.write(self.path / INTERRUPTED, json.dumps({"step": step}) + "\n")

    def write_diverged(self, step: int, message: str) -> None:
        """Records the step at which the loss or a parameter was no longer finite."""
        checksums.write(self.path / DIVERGED, json.dumps({"step": step, "message": message}))

    def write_crash(self, text: str) -> Path:
        """Records the error of the program or the machine that ended the run; returns the file's path."""
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / CRASH).write_text(text)
        return self.path / CRASH

    def note_broken(self, line: _Line, process: int = 0) -> Path:
        """Adds a line for an image that was skipped: ``image``, ``split``, ``reason``; returns the file's path."""
        self.append(broken_name(process), line)
        return self.path / broken_name(process)
