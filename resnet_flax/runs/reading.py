"""Reads a run directory: its config, metrics, starts, images and status. Nothing here writes, or imports jax.

A file that is read is not trusted: it is compared with its checksum (:mod:`~.checksums`), and its shape is checked
(:mod:`~.schemas`). One that cannot be read is refused in a line that names it.
"""

import fcntl
import re
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:  # it brings jax with it
    from resnet_flax.data.pixels import Normalization
    from resnet_flax.data.preprocessing import Preprocessing

_Line = dict[str, Any]


class RunReader(CheckedFiles):
    """Reads and checks the files of a run.

    Args:
      path: of the folder.
    """

    def config(self) -> ConfigDict | None:
        """The run's config, with today's defaults for keys that an earlier version did not have; None without a run."""
        content = self.content(CONFIG)
        return None if content is None else schemas.read_config(content, self.path / CONFIG)

    def existing_config(self) -> ConfigDict:
        """The run's config.

        Raises:
          UserError: no run is there, or its config is damaged.
        """
        found = self.config()
        if found is None:
            raise UserError(f"--workdir={self.path}: no run is there (it has no {CONFIG})")
        return found

    def metrics(self) -> list[_Line]:
        """The lines of metrics; a last line that a crash cut short is left out.

        Raises:
          UserError: a line is damaged. :meth:`repaired_metrics` puts it back where a checkpoint holds it.
        """
        return parse(self.content(METRICS), self.path / METRICS)

    def repaired_metrics(self) -> tuple[list[_Line], str]:
        """The metrics with what is lost or changed put back from the newest checkpoint that holds them.

        Returns:
          The lines, and what was put back, in words; empty where all was in order.

        Raises:
          UserError: lines are damaged, and no checkpoint holds them.
        """
        for step in reversed(self.steps()):
            try:
                record = self.record(step)
            except UserError:
                continue  # another checkpoint may hold them; whoever restores this one says so
            if record is not None:
                return self.repaired_metrics_from(record)
        return self.metrics(), ""

    def repaired_metrics_from(self, record: _Line) -> tuple[list[_Line], str]:
        """The metrics with what is lost or changed put back from a checkpoint's record, and what that was, in words."""
        known = checksums.read(self.path)  # before the file, which grows
        return repair(self.read_unchecked(METRICS) or b"", record, self.path / METRICS, known)

    def last_logged_step(self) -> int:
        """The last step of any line of metrics that can be read, whatever else is wrong with them; -1 without one."""
        return max((step_of(text) for text in (self.read_unchecked(METRICS) or b"").split(b"\n")), default=-1)

    def starts(self) -> list[_Line]:
        """The lines of starts.jsonl."""
        return self.lines(STARTS, schemas.check_start)

    def rules(self) -> int:
        """The rules under which the run was begun: 1 where none are recorded."""
        return rules.rules_in(self.starts())

    def broken(self, process: int = 0) -> list[_Line]:
        """The images that a process has passed over."""
        return self.lines(broken_name(process), schemas.check_broken)

    def diverged(self) -> _Line | None:
        """``step`` and ``message`` of a run whose loss was not finite any more."""
        return self.object(DIVERGED, schemas.check_diverged)

    def interrupted(self) -> int | None:
        """The step at which a signal ended the run, until it resumes."""
        found = self.object(INTERRUPTED, schemas.check_step)
        return None if found is None else found["step"]

    def photographs(self) -> _Line | None:
        """Which photographs a streamed run was begun on."""
        return self.object(PHOTOGRAPHS, schemas.check_photographs)

    def preprocessing(self) -> "Preprocessing | None":
        """How images are brought to what the network sees; None in a run that an earlier version began.

        Raises:
          UserError: the file is damaged.
        """
        from resnet_flax.data.preprocessing import Preprocessing  # with jax, for which reports do not wait

        text = self._preprocessing_text()
        try:
            return None if text is None else Preprocessing.from_json(text)
        except ValueError as error:
            raise UserError(f"{self.path / PREPROCESSING}: {error}") from None

    def readable_preprocessing(self) -> "Preprocessing | None":
        """Reads preprocessing.json; None if it is missing, or damaged and without a sum, and is to be written anew."""
        from resnet_flax.data.preprocessing import Preprocessing  # with jax, for which reports do not wait

        text = self._preprocessing_text()
        try:
            return None if text is None else Preprocessing.from_json(text)
        except ValueError:
            return None

    def saved_normalization(self, config: ConfigDict) -> "Normalization | None":
        """The normalisation saved by an earlier start of the same run, or None."""
        there = self.config()
        found = None if there is None or configs.differences(there, config) else self.readable_preprocessing()
        return None if found is None else found.normalization

    def _preprocessing_text(self) -> str | None:
        content = self.content(PREPROCESSING)
        return None if content is None else content.decode(errors="replace")

    def check(self) -> None:
        """Reads everything that a resume, or a report, builds on.

        Raises:
          UserError: a file cannot be read, or is not what the run wrote.
        """
        for read in (self.config, self.starts, self.diverged, self.interrupted, self.photographs,
                     self._preprocessing_text):  # fmt: skip
            read()

    def record(self, step: int) -> _Line | None:
        """Reads the record of the checkpoint of a step: see :func:`~resnet_flax.runs.records.read_record`."""
        return read_record(self.path / CHECKPOINTS / str(step) / RECORD, step)

    def steps(self) -> list[int]:
        """The steps of whole checkpoints, in order."""
        place = self.path / CHECKPOINTS
        try:
            return sorted(int(p.name) for p in place.iterdir() if re.fullmatch("[0-9]{1,18}", p.name) and p.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise UserError(f"{place}: cannot be read: {error.strerror}") from None

    def has_checkpoint(self, step: int | None = None) -> bool:
        """Whether a whole checkpoint of that step (or of any) is there: orbax renames its folder when it is."""
        if step is None:
            return any(place.name.isdecimal() for place in (self.path / CHECKPOINTS).glob("*"))
        return (self.path / CHECKPOINTS / str(step)).is_dir()

    def is_finished(self, config: ConfigDict) -> bool:
        """Whether the folder holds this very run, to its last step."""
        there = self.config()
        if there is None or configs.differences(there, config) or there.train.steps != config.train.steps:
            return False
        try:
            lines = self.repaired_metrics()[0]
        except UserError:  # a resume says what is wrong with them
            return False
        return bool(lines) and lines[-1]["step"] >= config.train.steps and self.has_checkpoint(config.train.steps)

    def status(self, reached: int, wanted: int) -> tuple[str, str]:
        """Tells ``finished``, ``running``, or at which step the run was interrupted, diverged or crashed.

        Args:
          reached: the last step that its metrics hold.
          wanted: the last step of its config.

        Returns:
          The status in words, and the reason of a crash, a line, where it is known.
        """
        diverged, interrupted, starts = self.diverged(), self.interrupted(), self.starts()
        crash = self.read_unchecked(CRASH)
        if reached >= wanted:
            return "finished", ""
        if self.is_locked():
            return f"running, after step {reached}", ""
        if diverged is not None:
            return f"diverged at step {diverged['step']}", ""
        if interrupted is not None:
            return f"interrupted at step {interrupted}", ""
        if not starts and crash is None:
            return "never started", ""
        said = [line for line in (crash or b"").decode(errors="replace").split("\n") if line.strip()]
        return f"crashed after step {reached}", said[-1] if said else ""

    def is_locked(self) -> bool:
        """Whether a process holds the folder."""
        try:
            with open(self.path / LOCK, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # released when the file is closed
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False
