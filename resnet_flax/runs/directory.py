"""A run directory: which run it holds, how far it came, and who may write there; without jax.

This is the only code that knows the names of the files; :mod:`~.checkpoints` writes and restores what lies in the
folder of checkpoints. A file that is read is not trusted: it is compared with its checksum (:mod:`~.checksums`), and
its shape is checked (:mod:`~.schemas`). One that cannot be read is refused in a line that names it.
"""

import contextlib
import datetime
import errno
import fcntl
import json
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax.errors import Busy, UserError
from resnet_flax.runs import checksums, rules, schemas
from resnet_flax.runs.files import CheckedFiles, read_bytes
from resnet_flax.runs.metrics import MetricsLog, mend, parse, step_of, text_of

if TYPE_CHECKING:  # it brings jax with it
    from resnet_flax.data.pixels import Normalization
    from resnet_flax.data.preprocessing import Preprocessing

CONFIG = "config.json"  # complete, enough to run it again
METRICS = "metrics.jsonl"  # a line each time the run logs
STARTS = "starts.jsonl"  # each start: when, at which step, on what
DIVERGED = "diverged.json"  # the step whose loss was not finite
INTERRUPTED = "interrupted.json"  # the step at which a signal ended it; gone once it resumes
PREPROCESSING = "preprocessing.json"  # how images are brought to what the network sees, and the classes
PHOTOGRAPHS = "photographs.json"  # of a stream: which photographs, so that it resumes with these alone
BROKEN = "broken_images.jsonl"  # images that could not be read and were passed over
CRASH = "crash.txt"  # why a run of an experiment ended in an error of the program or the machine
WORKER_LOG = "run.log"  # what the workers of a cluster printed
CHECKPOINTS = "checkpoints"  # a folder; its folders are named by the step
DAMAGED = "damaged_checkpoints"  # beside it: those that could not be read
RECORD = "record"  # in a checkpoint: the sums of its arrays, and the metrics up to its step
LOCK = ".lock"

_RECORD_FILE = "record.json"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_Line = dict[str, Any]


class RunDirectory(CheckedFiles):
    """Reads, checks and writes the files of a run.

    Args:
      path: of the folder.
    """

    # What is read

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
          UserError: a line is damaged. :meth:`mended` puts it back where a checkpoint holds it.
        """
        return parse(self.content(METRICS), self.path / METRICS)

    def mended(self) -> tuple[list[_Line], str]:
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
                return self._mended_from(record)
        return self.metrics(), ""

    def _mended_from(self, record: _Line) -> tuple[list[_Line], str]:
        known = checksums.read(self.path)  # before the file, which grows
        return mend(self.unchecked(METRICS) or b"", record, self.path / METRICS, known)

    def reached(self) -> int:
        """The last step of any line of metrics that can be read, whatever else is wrong with them; -1 without one."""
        return max((step_of(text) for text in (self.unchecked(METRICS) or b"").split(b"\n")), default=-1)

    def starts(self) -> list[_Line]:
        """The lines of starts.jsonl."""
        return self.lines(STARTS, schemas.check_start)

    def rules(self) -> int:
        """The rules under which the run was begun: 1 where none are recorded."""
        return rules.rules_in(self.starts())

    def broken(self, process: int = 0) -> list[_Line]:
        """The images that a process has passed over."""
        return self.lines(_broken_name(process), schemas.check_broken)

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
        """Reads a checkpoint's record; None in a checkpoint that an earlier version wrote.

        ``arrays`` (sums by name), ``lines`` (the texts of the metrics up to its step), ``validation_error``.

        Raises:
          UserError: it is damaged, or of another step.
        """
        path = self.path / CHECKPOINTS / str(step) / RECORD / _RECORD_FILE
        if not path.parent.exists():
            return None
        try:
            found = json.loads(read_bytes(path))
            if found["sha256"] != _sum_of(found["record"]):
                raise ValueError("its checksum is another")
            if found["record"]["step"] != step:
                raise ValueError(f"it is of step {found['record']['step']}")
            return found["record"]
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise schemas.unfit(path, error) from None

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
            lines = self.mended()[0]
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
        crash = self.unchecked(CRASH)
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

    def known_normalization(self, config: ConfigDict) -> "Normalization | None":
        """The normalisation saved by an earlier start of the same run, or None."""
        there = self.config()
        found = None if there is None or configs.differences(there, config) else self.readable_preprocessing()
        return None if found is None else found.normalization

    def readable_preprocessing(self) -> "Preprocessing | None":
        """Reads preprocessing.json; None if it is missing, or damaged and without a sum, and is to be written anew."""
        from resnet_flax.data.preprocessing import Preprocessing  # with jax, for which reports do not wait

        text = self._preprocessing_text()
        try:
            return None if text is None else Preprocessing.from_json(text)
        except ValueError:
            return None

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
        return checksums.note_unknown(self.path)

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
        line = {"time": now, "step": step, "rules": begun, "parameters": parameters, "classes": classes, **environment}
        self.append(STARTS, line | ({"data": data} if data else {}))
        checksums.note(self.path / STARTS, (self.path / STARTS).read_bytes())
        checksums.remove(self.path / INTERRUPTED)
        # Not where an earlier version of this code wrote no such thing.
        return [f"{key} {there[key]}, now {value}" for there in starts[-1:] for key, value in environment.items()
                if key in there and key not in ("python", "orbax-checkpoint") and there[key] != value]  # fmt: skip

    def metrics_log(self, step: int, record: _Line | None = None) -> MetricsLog:
        """Opens the metrics to append to; lines later than ``step`` are dropped, since the run writes them again.

        Args:
          record: of the checkpoint that the run resumes from, where it has one: its lines replace what was lost.
        """
        found, said = (self._mended_from(record) if record else (self.metrics(), "")) if step else ([], "")
        lines = [line for line in found if line["step"] <= step]
        if said and lines:
            print(said, file=sys.stderr)
        return MetricsLog(self.path / METRICS, lines, step)

    def put_back(self) -> list[_Line]:
        """Puts lost or changed lines of metrics back, says which, and writes them into the file."""
        lines, said = self.mended()
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
        self.append(_broken_name(process), line)
        return self.path / _broken_name(process)


def _broken_name(process: int) -> str:
    return BROKEN if not process else BROKEN.replace(".", f"-{process}.", 1)


def holds_run(names: Collection[str]) -> bool:
    """Whether a folder with files of these names is, or was, a run's."""
    return not {CONFIG, METRICS, STARTS}.isdisjoint(names)


def record_text(record: Mapping[str, Any]) -> str:
    """The content of a checkpoint's record, with its own sum; :meth:`RunDirectory.record` reads it."""
    return json.dumps({"sha256": _sum_of(record), "record": record})


def record_path(item: Any) -> Any:
    """The place of a checkpoint's record in the item's folder."""
    return item / _RECORD_FILE


def _sum_of(record: Any) -> str:
    return checksums.of(json.dumps(record, sort_keys=True).encode())
