"""Reads a run directory: its config, metrics, starts, images and status. Never writes, and does not import jax.

Files are not trusted. Each is compared with its checksum (:mod:`~.checksums`), and its structure is checked
(:mod:`~.schemas`). A file that cannot be read causes a UserError that names it.
"""

import enum
import fcntl
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax.errors import UserError
from resnet_flax.runs import checksums, rules, schemas
from resnet_flax.runs.file_names import (
    CHECKPOINTS,
    CONFIG,
    CRASH,
    DIVERGED,
    INTERRUPTED,
    LOCK,
    METRICS,
    PHOTOGRAPHS,
    PREPROCESSING,
    RECORD,
    STARTS,
    broken_name,
)  # fmt: skip
from resnet_flax.runs.files import CheckedFiles
from resnet_flax.runs.metrics import parse, repair, step_of
from resnet_flax.runs.records import read_record

if TYPE_CHECKING:  # these modules import jax
    from resnet_flax.data.pixels import Normalization
    from resnet_flax.data.preprocessing import Preprocessing

_Line = dict[str, Any]


class State(enum.StrEnum):
    """The states of a run."""

    FINISHED = "finished"
    RUNNING = "running"
    DIVERGED = "diverged"
    INTERRUPTED = "interrupted"
    CRASHED = "crashed"
    KILLED = "killed or failed"
    NOT_BEGUN = "not begun"  # also of a run that was killed before its first step was compiled


class Status(NamedTuple):
    """The state of a run, with its steps. Its ``str`` is a text such as ``interrupted at step 300``.

    Attributes:
      state: The state.
      at_steps: The rest of the text: at which step the run ended or is, and at which one it resumes.
      reason: The reason of a crash in one line, or an empty text.
    """

    state: State
    at_steps: str = ""
    reason: str = ""

    def __str__(self) -> str:
        return self.state + self.at_steps


class RunReader(CheckedFiles):
    """Reads and checks the files of a run.

    Args:
      path: The run directory's path.
    """

    def config(self) -> ConfigDict | None:
        """Reads the run's config, with today's defaults for keys that it lacks; returns None if there is no run."""
        content = self.content(CONFIG)
        return None if content is None else schemas.read_config(content, self.path / CONFIG)

    def existing_config(self) -> ConfigDict:
        """Reads the run's config.

        Raises:
          UserError: The folder holds no run, or its config is damaged.
        """
        found = self.config()
        if found is None:
            raise UserError(f"--workdir={self.path}: no run is there (it has no {CONFIG})")
        return found

    def metrics(self) -> list[_Line]:
        """Reads the lines of metrics.jsonl. A last line that a crash cut short is left out.

        Raises:
          UserError: A line is damaged. :meth:`repaired_metrics` restores it if a checkpoint holds it.
        """
        return parse(self.content(METRICS), self.path / METRICS)

    def repaired_metrics(self) -> tuple[list[_Line], str]:
        """Reads the metrics, and restores lost or changed lines from the newest checkpoint that holds them.

        Returns:
          The lines, and a message that says which were restored or left out; empty if nothing was wrong.

        Raises:
          UserError: Lines are damaged, and no checkpoint holds them.
        """
        for step in reversed(self.steps()):
            try:
                record = self.record(step)
            except UserError:
                continue  # an earlier checkpoint may hold the lines; restoring this one reports the damage
            if record is not None:
                return self.repaired_metrics_from(record)
        return self.metrics(), ""

    def repaired_metrics_from(self, record: _Line) -> tuple[list[_Line], str]:
        """Reads the metrics, and restores lost or changed lines from a checkpoint's record; returns both as above."""
        known = checksums.read(self.path)  # before the file, which may grow in the meantime
        return repair(self.read_unchecked(METRICS) or b"", record, self.path / METRICS, known)

    def last_logged_step(self) -> int:
        """Returns the last step in metrics.jsonl, even if other lines are damaged; -1 if no line can be read."""
        return max((step_of(text) for text in (self.read_unchecked(METRICS) or b"").split(b"\n")), default=-1)

    def starts(self) -> list[_Line]:
        """Reads the lines of starts.jsonl."""
        return self.lines(STARTS, schemas.check_start)

    def rules(self) -> int:
        """Returns the version of the training rules that the run was begun under; 1 if none is recorded."""
        return rules.rules_in(self.starts())

    def broken(self, process: int = 0) -> list[_Line]:
        """Reads the list of unreadable images that a process has skipped."""
        return self.lines(broken_name(process), schemas.check_broken)

    def diverged(self) -> _Line | None:
        """Reads ``step`` and ``message`` of a diverged run; returns None for other runs."""
        return self.object(DIVERGED, schemas.check_diverged)

    def interrupted(self) -> int | None:
        """Reads the step at which a signal stopped the run; returns None if it has resumed, or was not stopped."""
        found = self.object(INTERRUPTED, schemas.check_step)
        return None if found is None else found["step"]

    def photographs(self) -> _Line | None:
        """Reads the description of the images that a run was begun on; None for a run of an earlier version."""
        return self.object(PHOTOGRAPHS, schemas.check_photographs)

    def preprocessing(self, damaged_as_none: bool = False) -> "Preprocessing | None":
        """Reads the preprocessing of images; returns None if an earlier version began the run.

        Args:
          damaged_as_none: Whether a damaged file without a checksum counts as missing, so that it is written again.

        Raises:
          UserError: The file is damaged.
        """
        from resnet_flax.data.preprocessing import Preprocessing  # Lazy import: reports do not need jax.

        text = self._preprocessing_text()
        try:
            return None if text is None else Preprocessing.from_json(text)
        except ValueError as error:
            if damaged_as_none:
                return None
            raise UserError(f"{self.path / PREPROCESSING}: {error}") from None

    def saved_normalization(self, config: ConfigDict) -> "Normalization | None":
        """Returns the normalisation that an earlier start of the same run saved, or None."""
        there = self.config()
        if there is None or configs.differences(there, config):
            return None
        found = self.preprocessing(damaged_as_none=True)
        return None if found is None else found.normalization

    def _preprocessing_text(self) -> str | None:
        content = self.content(PREPROCESSING)
        return None if content is None else content.decode(errors="replace")

    def check(self) -> None:
        """Reads every file that a resume or a report needs, except the metrics.

        Raises:
          UserError: A file cannot be read, or is not what the run wrote.
        """
        for read in (self.config, self.starts, self.diverged, self.interrupted, self.photographs,
                     self._preprocessing_text):  # fmt: skip
            read()

    def record(self, step: int) -> _Line | None:
        """Reads the record of the checkpoint at a step with :func:`~resnet_flax.runs.records.read_record`."""
        return read_record(self.path / CHECKPOINTS / str(step) / RECORD, step)

    def steps(self) -> list[int]:
        """Lists the steps of complete checkpoints, ascending.

        Orbax gives a folder its final name when the checkpoint is complete.
        """
        folder = self.path / CHECKPOINTS
        try:
            return sorted(int(p.name) for p in folder.iterdir() if re.fullmatch("[0-9]{1,18}", p.name) and p.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise UserError(f"{folder}: cannot be read: {error.strerror}") from None

    def is_finished(self, config: ConfigDict) -> bool:
        """Whether the folder holds a run of this config that has reached its last step."""
        there = self.config()
        if there is None or configs.differences(there, config) or there.train.steps != config.train.steps:
            return False
        try:
            lines = self.repaired_metrics()[0]
        except UserError:  # resuming the run reports the damage
            return False
        return bool(lines) and lines[-1]["step"] >= config.train.steps and config.train.steps in self.steps()

    def status(self, lines: Sequence[_Line], total_steps: int) -> Status:
        """Returns the run's state.

        The last line of metrics is written before the last checkpoint, so a run has finished only with both. Where no
        process is at work, a folder that has no checkpoints at all holds the results of a finished run, as in
        ``results/``. A process that ended without a word in the folder was killed, or failed outside of a sweep, which
        notes crashes.

        Args:
          lines: The run's metrics.
          total_steps: The run's number of steps, ``train.steps``.
        """
        diverged, interrupted, starts = self.diverged(), self.interrupted(), self.starts()
        crash, last, steps = self.read_unchecked(CRASH), lines[-1]["step"] if lines else 0, self.steps()
        is_locked = self.is_locked()
        kept = total_steps in steps or not (is_locked or (self.path / CHECKPOINTS).exists())
        if last >= total_steps and kept:
            return Status(State.FINISHED)
        if is_locked:
            return Status(State.RUNNING, f", after step {last}")
        if diverged is not None:
            return Status(State.DIVERGED, f" at step {diverged['step']}")
        if interrupted is not None:
            return Status(State.INTERRUPTED, f" at step {interrupted}")
        if not starts and crash is None:
            return Status(State.NOT_BEGUN)
        said = [line for line in (crash or b"").decode(errors="replace").split("\n") if line.strip()]
        ended = f" after step {last}, {f'resumes at step {steps[-1]}' if steps else 'restarts at step 0'}"
        return Status(State.KILLED if crash is None else State.CRASHED, ended, said[-1] if said else "")

    def is_locked(self) -> bool:
        """Whether a process holds the folder's lock."""
        try:
            with open(self.path / LOCK, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # released when the file is closed
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False
