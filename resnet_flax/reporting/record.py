"""The record of an experiment (experiment.json), from which the report is made, and its plan of runs (plan.json)."""

import contextlib
import dataclasses
import json
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resnet_flax.atomic import write_atomically
from resnet_flax.errors import UserError
from resnet_flax.paths import relative
from resnet_flax.runs.file_names import EXPERIMENT, PLAN, holds_run
from resnet_flax.runs.files import read_bytes

FILE = EXPERIMENT


@dataclasses.dataclass(frozen=True)
class Figure:
    """The entry of a figure in the record.

    Attributes:
      file: The name of the PNG file in the experiment's folder.
      caption: The caption, with units.
    """

    file: str
    caption: str


@dataclasses.dataclass(frozen=True)
class Table:
    """The entry of a table in the record.

    Attributes:
      file: The name of the CSV file, with a header line, in the experiment's folder.
      caption: The caption, which explains rows and columns.
    """

    file: str
    caption: str


@dataclasses.dataclass(frozen=True)
class Record:
    """The results of an experiment, as written to ``experiment.json`` in its folder.

    Attributes:
      experiment: The name of the experiment's module, such as ``depth_sweep``.
      title: The title of its section in the report.
      question: The question, with the section, table or figure of the paper.
      figures: The figures, in the order of the report.
      tables: The tables, in the order of the report.
      notes: Sentences about the measured numbers and their limits.
      published: Keys of the tables in ``resnet_flax/published/`` to compare the runs with.
      runs: Paths of the run directories, relative to the experiment's folder.
      command: The command as typed, or the call from Python.
    """

    experiment: str
    title: str
    question: str
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    published: Sequence[str] = ()
    runs: Sequence[str] = ()
    command: str = ""


def write(record: Record, folder: Path, runs: Sequence[Path] = ()) -> None:
    """Writes experiment.json atomically, with the command of this process and the paths of the runs."""
    paths = [relative(run, folder) for run in runs]
    record = dataclasses.replace(record, runs=paths, command=record.command or command())
    _write_json(folder / FILE, dataclasses.asdict(record))


def write_plan(folder: Path, runs: Mapping[Path, str], call: str = "") -> None:
    """Writes plan.json before the first run: the command, and the paths and names of all planned runs.

    ``status`` shows those not begun, and ``--draw`` repeats the command, even if the sweep was killed.

    Args:
      folder: The experiment's folder.
      runs: The names of the runs by path.
      call: The call from Python, in place of the command.
    """
    named = {relative(path, folder): name for path, name in runs.items()}
    _write_json(folder / PLAN, {"command": call or command(), "runs": named})


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Bytes of a command line that are not UTF-8 are lone surrogates, whose Python escape is that of JSON, too.
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, text.encode(errors="backslashreplace"))


def _read_plan(folder: Path) -> tuple[str, dict[Path, str]]:
    """Returns the command of a folder's plan, and the planned names by path. Without a valid plan, both are empty."""
    with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
        plan = json.loads(read_bytes(folder / PLAN))
        # Plans of earlier versions hold the runs alone.
        command, runs = (plan["command"], plan["runs"]) if isinstance(plan.get("runs"), dict) else ("", plan)
        return str(command), {(folder / path).resolve(): str(name) for path, name in runs.items()}
    return "", {}


def planned(folder: Path) -> list[Path]:
    """Returns the paths of the runs in all plans in a folder, at any depth. Invalid plans are skipped."""
    found: dict[Path, str] = {}
    for path, subfolders, files in os.walk(folder.resolve()):
        if holds_run({*files, *subfolders}):
            subfolders.clear()  # A run directory holds no plan.
        if PLAN in files:
            found |= _read_plan(Path(path))[1]
    return list(found)


def latest_command(folder: Path) -> str:
    """Returns the command that last trained runs for the experiment in a folder; empty if none is recorded."""
    if command := _read_plan(folder)[0]:
        return command
    with contextlib.suppress(UserError):
        return read(folder).command
    return ""


def recorded_runs(folder: Path) -> list[Path]:
    """Returns the paths of the runs in the record and the plan of an experiment's folder."""
    found = dict.fromkeys(_read_plan(folder)[1])
    with contextlib.suppress(UserError):
        found |= dict.fromkeys((folder / run).resolve() for run in read(folder).runs if "\0" not in run)
    return list(found)


def read(folder: Path) -> Record:
    """Reads the record in an experiment's folder.

    Raises:
      UserError: The file is missing or is not a record.
    """
    path = folder / FILE
    try:
        fields: dict[str, Any] = json.loads(read_bytes(path))
        fields["figures"] = tuple(Figure(**f) for f in fields.get("figures", ()))
        fields["tables"] = tuple(Table(**t) for t in fields.get("tables", ()))
        record = Record(**fields)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: is not a record of an experiment: {error}") from None
    texts = [record.experiment, record.title, record.question, record.command]
    texts += [*record.notes, *record.published, *record.runs]
    texts += [text for part in record.figures for text in dataclasses.astuple(part)]
    texts += [text for part in record.tables for text in dataclasses.astuple(part)]
    if not all(isinstance(text, str) for text in texts):
        raise UserError(f"{path}: is not a record of an experiment: a field that must be a text is not")
    return record


def command() -> str:
    """Returns the command line of this process as a user would type it to train the runs: without ``--draw``."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    program = f"python -m {module.name}" if module else f"python {shlex.quote(sys.argv[0])}"
    return " ".join([program, *(shlex.quote(a) for a in sys.argv[1:] if not re.fullmatch("--?draw(=.*)?", a))])
