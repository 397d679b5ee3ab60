"""The files of a run's folder, without jax: their names, what each must hold, and the one reader of all of them.

What a file holds is not trusted: it is compared with its checksum (:mod:`resnet_flax.sums`), and its shape is checked.
Training, evaluation, sweeps and the report read through :class:`RunFiles`; a file that cannot be read is one line, a
:class:`~resnet_flax.errors.UserError` that names it.
"""

import errno
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from resnet_flax import schemas, sums
from resnet_flax.errors import UserError

CONFIG = "config.json"  # complete, enough to run it again
METRICS = "metrics.jsonl"  # a line each time the run logs
STARTS = "starts.jsonl"  # each start: when, at which step, on what
DIVERGED = "diverged.json"  # the step whose loss was not finite
INTERRUPTED = "interrupted.json"  # the step at which a signal ended it; gone once it resumes
PREPROCESSING = "preprocessing.json"  # how images are brought to what the network sees, and the classes
PHOTOGRAPHS = "photographs.json"  # of a stream: which photographs, so that it resumes with these alone
BROKEN = "broken_images.jsonl"  # images that could not be read and were passed over
CRASH = "crash.txt"  # why a run of an experiment ended in an error of the program or the machine
CHECKPOINTS = "checkpoints"  # a folder; its folders are named by the step
RECORD = "record"  # in a checkpoint: the sums of its arrays, and the metrics up to its step

_RECORD_FILE = "record.json"
_Line = dict[str, Any]


class RunFiles:
    """Reads and checks the files of a run's folder; writes nothing.

    Args:
      folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def config(self) -> ConfigDict | None:
        """The run's config, with today's defaults for keys that an earlier version did not have; None without a run."""
        content = self.content(CONFIG)
        return None if content is None else schemas.read_config(content, self.folder / CONFIG)

    def metrics(self) -> list[_Line]:
        """The lines of metrics; a last line that a crash cut short is left out.

        Raises:
          UserError: a line is damaged. :func:`mended` puts it back where a checkpoint holds it.
        """
        return self._metric_lines(self.content(METRICS))

    def reached(self) -> int:
        """The last step of any line of metrics that can be read, whatever else is wrong with them; -1 without one."""
        return max((_step_of(text) for text in (self._bytes(METRICS) or b"").split(b"\n")), default=-1)

    def starts(self) -> list[_Line]:
        """The lines of starts.jsonl."""
        return self._lines(STARTS, schemas.check_start)

    def broken(self, name: str = BROKEN) -> list[_Line]:
        """The lines of broken_images.jsonl, or of another process's."""
        return self._lines(name, schemas.check_broken)

    def diverged(self) -> _Line | None:
        """``step`` and ``message`` of a run whose loss was not finite any more."""
        return self._object(DIVERGED, schemas.check_diverged)

    def interrupted(self) -> int | None:
        """The step at which a signal ended the run, until it resumes."""
        found = self._object(INTERRUPTED, schemas.check_step)
        return None if found is None else found["step"]

    def photographs(self) -> _Line | None:
        """Which photographs a streamed run was begun on."""
        return self._object(PHOTOGRAPHS, schemas.check_photographs)

    def preprocessing(self) -> str | None:
        """The text of preprocessing.json, for ``Preprocessing.from_json``."""
        content = self.content(PREPROCESSING)
        return None if content is None else content.decode(errors="replace")

    def crash(self) -> list[str]:
        """The lines of crash.txt."""
        content = self._bytes(CRASH)
        return [] if content is None else content.decode(errors="replace").split("\n")

    def check(self) -> None:
        """Reads everything that a resume, or a report, builds on.

        Raises:
          UserError: a file cannot be read, or is not what the run wrote.
        """
        for read in (self.config, self.starts, self.diverged, self.interrupted, self.photographs, self.preprocessing):
            read()

    def record(self, step: int) -> _Line | None:
        """Reads a checkpoint's record; None in a checkpoint that an earlier version wrote.

        ``arrays`` (sums by name), ``lines`` (the texts of the metrics up to its step), ``validation_error``.

        Raises:
          UserError: it is damaged, or of another step.
        """
        path = self.folder / CHECKPOINTS / str(step) / RECORD / _RECORD_FILE
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
        place = self.folder / CHECKPOINTS
        try:
            return sorted(int(p.name) for p in place.iterdir() if re.fullmatch("[0-9]{1,18}", p.name) and p.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise UserError(f"{place}: cannot be read: {error.strerror}") from None

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
                return self.mended_from(record)
        return self.metrics(), ""

    def mended_from(self, record: _Line) -> tuple[list[_Line], str]:
        """Puts lines of metrics back from one checkpoint's record; returns what :meth:`mended` does."""
        step, path = record["step"], self.folder / METRICS
        # Earlier versions now and then wrote lines of later steps as well: those that came while it was being saved.
        texts = [text for text in record["lines"] if _step_of(text) <= step]
        known = sums.read(self.folder)  # before the file, which grows
        kept, content = _joined(text.encode() for text in texts), self._bytes(METRICS) or b""
        there = content.split(b"\n")[:-1]  # the last one a crash may have cut short
        whole, said = set(there), []
        later = _joined(text for text in there if _step_of(text) > step)
        if lost := [_step_of(text) for text in texts if text.encode() not in whole]:
            count = f"{len(lost)} line{'s' if len(lost) > 1 else ''}"
            said.append(f"{count} of {_steps(lost)} lost or changed, put back from checkpoint {step}")
        elif not content.startswith(kept):
            said.append(f"lines up to step {step} doubled or in another order, put back from checkpoint {step}")
        try:
            if not sums.fits(METRICS, kept + later, known):
                raise sums.refusal(path)
            found = self._metric_lines(kept + later)
        except UserError:
            said.append(f"lines after step {step} lost or damaged, left out")
            found = self._metric_lines(kept)
        return found, f"{path}: {'; '.join(said)}" if said else ""

    def _metric_lines(self, content: bytes | None) -> list[_Line]:
        path, found = self.folder / METRICS, []
        texts = (content or b"").split(b"\n")
        for number, text in enumerate(texts, start=1):
            try:
                line = json.loads(text)
            except (ValueError, RecursionError) as error:
                if number == len(texts):
                    break  # a crash cut it short
                raise schemas.unfit(path, f"line {number}: {error}") from None
            try:
                schemas.check_line(line)
                if found and line["step"] <= found[-1]["step"]:
                    raise ValueError("its step is not after that of the line before")
            except (ValueError, TypeError) as error:
                raise schemas.unfit(path, f"line {number}: {error}") from None
            found.append(line)
        return found

    def _lines(self, name: str, check: Callable[[Any], None]) -> list[_Line]:
        found = []
        for number, text in enumerate((self.content(name) or b"").split(b"\n"), start=1):
            try:
                line = json.loads(text)
            except RecursionError as error:
                raise schemas.unfit(self.folder / name, f"line {number}: {error}") from None
            except ValueError:
                continue  # a crash cut it short, and a later start went on behind it
            try:
                check(line)
            except (ValueError, TypeError) as error:
                raise schemas.unfit(self.folder / name, f"line {number}: {error}") from None
            found.append(line)
        return found

    def _object(self, name: str, check: Callable[[Any], None]) -> _Line | None:
        content = self.content(name)
        if content is None:
            return None
        try:
            found = json.loads(content)
            check(found)
        except (ValueError, TypeError, RecursionError) as error:
            raise schemas.unfit(self.folder / name, error) from None
        return found

    def content(self, name: str) -> bytes | None:
        """A file's bytes, as the run wrote them; None where there is no such file."""
        for last in (False, True):  # it may be replaced between the reading of the two
            found, content = sums.read(self.folder), self._bytes(name)
            if sums.fits(name, content, found):
                break
            if last:
                raise sums.refusal(self.folder / name, content is not None)
        return content

    def _bytes(self, name: str) -> bytes | None:
        path = self.folder / name
        try:
            return read_bytes(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def read_bytes(path: Path) -> bytes:
    """A file's bytes; anything else that may stand there, such as a pipe that nobody fills, is an OSError."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no file")
        return file.read()


def record_text(record: Mapping[str, Any]) -> str:
    """The content of a checkpoint's record, with its own sum; :meth:`RunFiles.record` reads it."""
    return json.dumps({"sha256": _sum_of(record), "record": record})


def record_path(item: Any) -> Any:
    """The place of a checkpoint's record in the item's folder."""
    return item / _RECORD_FILE


def _sum_of(record: Any) -> str:
    return sums.of(json.dumps(record, sort_keys=True).encode())


def _joined(texts: Iterable[bytes]) -> bytes:
    return b"".join(text + b"\n" for text in texts)


def _step_of(text: str | bytes) -> int:
    """The step of a line of metrics; -1 where it has none."""
    try:
        line = json.loads(text)
        schemas.check_step(line)
        return line["step"]
    except (ValueError, RecursionError):
        return -1


def _steps(steps: list[int]) -> str:
    return f"step {steps[0]}" if len(steps) == 1 else f"steps {steps[0]} to {steps[-1]}"
