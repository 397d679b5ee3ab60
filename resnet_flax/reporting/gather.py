"""The experiments and the runs in a folder, at any depth; nothing there is written to."""

import dataclasses
import datetime
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax.errors import UserError
from resnet_flax.reporting import record
from resnet_flax.runs import rules
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.runs.file_names import CHECKPOINTS, CONFIG, DAMAGED, holds_run
from resnet_flax.sweeps.registry import ORDER


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """A run, as its folder tells it.

    Attributes:
      path: of the folder, absolute.
      label: the path for people, relative to what was gathered.
      config: complete.
      lines: its metrics.
      starts: a line each time it was started: when, on what.
      status: ``finished``, ``running``, or at which step it was interrupted, diverged or crashed.
      reason: of a crash, a line, where it is known.
      old_rules: by which old rules it was begun, a reason each (``resnet_flax/runs/rules.py``).
      mended: which lines of metrics were taken from a checkpoint, in words.
    """

    path: Path
    label: str
    config: ConfigDict
    lines: Sequence[Mapping[str, Any]]
    starts: Sequence[Mapping[str, Any]]
    status: str
    reason: str = ""
    old_rules: Sequence[str] = ()
    mended: str = ""

    @property
    def name(self) -> str:
        """The name of the run's network, such as ``plain-56``."""
        return configs.name_of(self.config.model)

    @property
    def finished(self) -> bool:
        """True where the run came to the last step that its config wants."""
        return self.status == "finished"

    @property
    def steps(self) -> int:
        """How many it has done, as far as its metrics tell."""
        return self.lines[-1]["step"] if self.lines else 0

    @property
    def seconds(self) -> float:
        """Time spent in training steps."""
        return sum(line.get("seconds", 0.0) for line in self.lines)

    def marked(self, text: str) -> str:
        """A text in a table, with a mark where the run was begun under old rules."""
        return f"{text} ({rules.MARK})" if self.old_rules else text

    def final(self, key: str) -> float | None:
        """A metric at the last line, or None where it was not measured there."""
        return self.lines[-1].get(key) if self.lines else None


@dataclasses.dataclass(frozen=True)
class Experiment:
    """An experiment, as its folder tells it.

    Attributes:
      path: of the folder, absolute.
      label: the path for people.
      record: what it left for the report.
      runs: those of its runs that can be read.
      problems: what is missing, a sentence each.
    """

    path: Path
    label: str
    record: record.Record
    runs: Sequence[RunFolder]
    problems: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Unreadable:
    """A run that cannot be read: where, and why."""

    label: str
    why: str


@dataclasses.dataclass(frozen=True)
class Gathered:
    """The experiments and runs that a folder holds.

    Attributes:
      name: of the folder, as it was given where that says more.
      experiments: in the order of the report.
      runs: all of them; those of experiments first.
      others: the runs that belong to no experiment.
      problems: what could not be read and has no place of its own, a sentence each.
      unreadable: runs that have a row and no numbers.
    """

    name: str
    experiments: Sequence[Experiment]
    runs: Sequence[RunFolder]
    others: Sequence[RunFolder]
    problems: Sequence[str]
    unreadable: Sequence[Unreadable] = ()


def gather(folder: Path) -> Gathered:
    """Reads every experiment.json and every run's folder below a folder.

    Raises:
      UserError: the folder is not there, or holds nothing that can be read.
    """
    if not folder.is_dir():
        raise UserError(f"--workdir={folder}: there is no such folder; name one that holds experiments or runs")
    root = folder.resolve()
    readers = _Readers(root)
    found = readers.walk()
    experiments, runs = [], {}
    for path in (p for p, files in found if record.FILE in files):
        if (experiment := readers.experiment(path)) is not None:
            experiments.append(experiment)
    experiments.sort(key=lambda e: (_place(e.record.experiment), e.record.experiment, e.label))
    for run in (run for experiment in experiments for run in experiment.runs):
        runs[run.path] = run
    others = [
        one for path, files in found if holds_run(files) and path not in runs and (one := readers.run(path)) is not None
    ]
    if not experiments and not others:
        if readers.problems:
            raise UserError(f"--workdir={folder}: nothing there can be read: {'; '.join(readers.problems)}")
        raise UserError(
            f"--workdir={folder} holds no {record.FILE} of an experiment and no {CONFIG} of a run, at any depth"
        )
    name = root.name if folder.is_absolute() or root.name != folder.name else folder.as_posix()
    every = [*runs.values(), *others]
    problems = [*readers.problems, *(readers.said(run.mended, run.path) for run in every if run.mended)]
    return Gathered(name, experiments, every, others, problems, readers.unreadable())


def _place(experiment: str) -> int:
    return ORDER.index(experiment) if experiment in ORDER else len(ORDER)


class _Readers:
    """Reads each folder once, and keeps what went wrong."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._runs: dict[Path, RunFolder | UserError] = {}
        self.problems: list[str] = []
        self._said_already: set[str] = set()  # in the place of an experiment

    def _label(self, path: Path) -> str:
        return Path(os.path.relpath(path, self._root.parent)).as_posix()

    def walk(self) -> list[tuple[Path, set[str]]]:
        """Every folder with the names of what it holds, by path; links are not followed."""
        found = []
        for path, subfolders, files in os.walk(self._root, onerror=self._unwalkable):
            names = {*files, *subfolders}
            subfolders[:] = sorted(s for s in subfolders if s not in (CHECKPOINTS, DAMAGED) and not s.startswith("."))
            found.append((Path(path), names))
        return found

    def _unwalkable(self, error: OSError) -> None:
        self.problems.append(f"{self._label(Path(error.filename))}: cannot be read: {error.strerror}")

    def unreadable(self) -> list[Unreadable]:
        """The runs that were asked for and could not be read."""
        return [Unreadable(self._label(p), str(r)) for p, r in self._runs.items() if isinstance(r, UserError)]

    def experiment(self, path: Path) -> Experiment | None:
        try:
            left = record.read(path)
        except UserError as error:
            self.problems.append(self.said(str(error), path))
            return None
        runs, problems = [], []
        for place in left.runs:
            if "\0" in place:
                problems.append(f"{self._label(path)}/{record.FILE}: {place!r} is no folder")
                continue
            run = self._read((path / place).resolve())
            if isinstance(run, UserError):
                problems.append(str(run))
            else:
                runs.append(run)
        self._said_already.update(problems)
        return Experiment(path, self._label(path), left, runs, problems)

    def run(self, path: Path) -> RunFolder | None:
        run = self._read(path)
        if isinstance(run, UserError):
            if str(run) not in self._said_already:
                self.problems.append(str(run))
            return None
        return run

    def _read(self, path: Path) -> RunFolder | UserError:
        if path not in self._runs:
            try:
                self._runs[path] = read_run(path, self._label(path))
            except UserError as error:
                self._runs[path] = UserError(self.said(str(error), path))
        return self._runs[path]

    def said(self, text: str, path: Path) -> str:
        """A message, with the folder as people know it."""
        return text.replace(str(path), self._label(path))


def read_run(path: Path, label: str) -> RunFolder:
    """The run that a folder holds.

    Raises:
      UserError: a file of it cannot be read, or is not what a run writes.
    """
    run = RunDirectory(path)
    config = run.config()
    if config is None:
        raise UserError(f"{path / CONFIG}: there is no such file: the run is not there")
    (lines, mended), starts = run.repaired_metrics(), run.starts()
    status, reason = run.status(lines[-1]["step"] if lines else 0, config.train.steps)
    old = rules.old_rules(config, rules.rules_in(starts))
    return RunFolder(path, label, config, lines, starts, status, reason, old, mended)


def started(run: RunFolder) -> str:
    """The day and minute a run was first started, in UTC, or a dash."""
    try:
        time = datetime.datetime.fromisoformat(run.starts[0]["time"])
    except (IndexError, KeyError, ValueError, TypeError):
        return "—"
    return time.astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M")


def device_of(run: RunFolder) -> str:
    """The devices that a run was last started on."""
    start = run.starts[-1]
    device, processor = str(start.get("device", "unknown")), str(start.get("processor", ""))
    named = processor if device == "cpu" and processor else device
    return f"{start.get('devices', 1)} × {named}, {start.get('cores', '?')} cores"
