"""The record of an experiment, for the report: which figures and tables it made, of which runs, by which command."""

import contextlib
import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resnet_flax.atomic import write_atomically
from resnet_flax.errors import UserError
from resnet_flax.runs.file_names import holds_run
from resnet_flax.runs.files import read_bytes

FILE = "experiment.json"
PLAN = "plan.json"


@dataclasses.dataclass(frozen=True)
class Figure:
    """A picture and what it shows.

    Attributes:
      file: PNG, in the experiment's folder.
      caption: what is drawn, with units.
    """

    file: str
    caption: str


@dataclasses.dataclass(frozen=True)
class Table:
    """A table and what it holds.

    Attributes:
      file: CSV with a header line, in the experiment's folder.
      caption: what the rows and columns are.
    """

    file: str
    caption: str


@dataclasses.dataclass(frozen=True)
class Record:
    """An experiment's outcome, as ``experiment.json`` in its folder.

    Attributes:
      experiment: name of the module, such as ``depth_sweep``.
      title: of its section in the report.
      question: what it asks, with the section, table or figure of the source.
      figures: in the order of the report.
      tables: likewise.
      notes: sentences made from what was measured, and what to bear in mind.
      published: keys of the tables in ``resnet_flax/published/`` that belong beside it.
      runs: folders of the runs, relative to the experiment's own.
      command: as typed.
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
    """Writes experiment.json, whole or not at all, with the command of this process and the runs' places."""
    relative = [os.path.relpath(run, folder) for run in runs]
    record = dataclasses.replace(record, runs=relative, command=record.command or command())
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / FILE, json.dumps(dataclasses.asdict(record), indent=2, ensure_ascii=False) + "\n")


def write_plan(folder: Path, runs: Mapping[Path, str]) -> None:
    """Writes plan.json before the first run: the places and names of all runs, so that those to come can be shown."""
    folder.mkdir(parents=True, exist_ok=True)
    relative = {os.path.relpath(path, folder): name for path, name in runs.items()}
    write_atomically(folder / PLAN, json.dumps(relative, indent=2, ensure_ascii=False) + "\n")


def planned(folder: Path) -> dict[Path, str]:
    """The runs of every plan in a folder, at any depth: paths and names. What is no plan is passed over."""
    found: dict[Path, str] = {}
    for path, subfolders, files in os.walk(folder.resolve()):
        if holds_run({*files, *subfolders}):
            subfolders.clear()  # of a run: checkpoints
        if PLAN in files:
            with contextlib.suppress(OSError, ValueError, AttributeError):
                plan = json.loads(read_bytes(Path(path, PLAN)))
                found |= {Path(path, place).resolve(): str(name) for place, name in plan.items()}
    return found


def read(folder: Path) -> Record:
    """The record of an experiment's folder.

    Raises:
      UserError: the file is not there, or does not hold a record.
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
        raise UserError(f"{path}: is no record of an experiment: {error}") from None
    texts = [record.experiment, record.title, record.question, record.command]
    texts += [*record.notes, *record.published, *record.runs]
    texts += [text for part in record.figures for text in dataclasses.astuple(part)]
    texts += [text for part in record.tables for text in dataclasses.astuple(part)]
    if not all(isinstance(text, str) for text in texts):
        raise UserError(f"{path}: is no record of an experiment: a field that must be text is not")
    return record


def command() -> str:
    """The command line of this process, as a user would type it."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    program = f"python -m {module.name}" if module else f"python {sys.argv[0]}"
    return " ".join([program, *(shlex.quote(a) for a in sys.argv[1:])])
