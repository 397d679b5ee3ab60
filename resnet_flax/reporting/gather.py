"""Reads the experiments and the runs in a folder, at any depth. It writes nothing there."""

import dataclasses
import datetime
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax.errors import UserError
from resnet_flax.reporting import record
from resnet_flax.runs import rules
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.runs.file_names import CHECKPOINTS, CONFIG, DAMAGED, holds_run, is_run
from resnet_flax.runs.reading import State
from resnet_flax.sweeps.shipped import ORDER


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """A run as read from its directory.

    Attributes:
      path: The absolute path of the run directory.
      label: The path to show, relative to the parent of the gathered folder.
      config: The complete config.
      lines: The records of metrics.jsonl.
      starts: A record of each start: its time, device and versions.
      state: The state, such as ``finished``, ``running`` or ``interrupted``.
      at_steps: At which step the run ended or is, and at which one it resumes.
      reason: The reason of a crash in one line, if known.
      old_rules: The old rules under which the run was begun, a reason for each (``resnet_flax/runs/rules.py``).
      mended: A text on lines of metrics that were restored from a checkpoint, or empty.
    """

    path: Path
    label: str
    config: ConfigDict
    lines: Sequence[Mapping[str, Any]]
    starts: Sequence[Mapping[str, Any]]
    state: str
    at_steps: str = ""
    reason: str = ""
    old_rules: Sequence[str] = ()
    mended: str = ""

    @property
    def name(self) -> str:
        """The name of the run's network, such as ``plain-56``."""
        return configs.name_of(self.config.model)

    @property
    def status(self) -> str:
        """The state with its steps, such as ``interrupted at step 300``."""
        return self.state + self.at_steps

    @property
    def finished(self) -> bool:
        """True if the run has taken the last step of its config."""
        return self.state == State.FINISHED

    @property
    def steps(self) -> int:
        """The last step in its metrics, or 0."""
        return self.lines[-1]["step"] if self.lines else 0

    @property
    def seconds(self) -> float:
        """The time spent in training steps, in seconds."""
        return sum(line.get("seconds", 0.0) for line in self.lines)

    def marked(self, text: str) -> str:
        """Returns a text with a mark if the run was begun under old rules."""
        return f"{text} ({rules.MARK})" if self.old_rules else text

    def final(self, key: str) -> float | None:
        """Returns a metric of the last line, or None if that line lacks it."""
        return self.lines[-1].get(key) if self.lines else None


@dataclasses.dataclass(frozen=True)
class ExperimentFolder:
    """An experiment as read from its folder.

    Attributes:
      path: The absolute path of the folder.
      label: The path to show.
      record: The content of its experiment.json.
      runs: Its runs that can be read.
      problems: A sentence on each thing that is missing.
    """

    path: Path
    label: str
    record: record.Record
    runs: Sequence[RunFolder]
    problems: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Unreadable:
    """A run that cannot be read.

    Attributes:
      path: The absolute path of the run directory.
      label: The path to show.
      why: The error's message.
    """

    path: Path
    label: str
    why: str


@dataclasses.dataclass(frozen=True)
class Gathered:
    """The experiments and runs that a folder holds.

    Attributes:
      name: The name of the folder, or the relative path as given.
      experiments: The experiments, in the order of the report.
      runs: All runs, those of experiments first.
      others: The runs that belong to no experiment.
      problems: Sentences on unreadable things that belong to no experiment, and on restored metrics.
      unreadable: The runs that cannot be read.
    """

    name: str
    experiments: Sequence[ExperimentFolder]
    runs: Sequence[RunFolder]
    others: Sequence[RunFolder]
    problems: Sequence[str]
    unreadable: Sequence[Unreadable] = ()


def gather(folder: Path, planned: Collection[Path] = ()) -> Gathered:
    """Reads every experiment.json and every run directory in a folder, at any depth.

    Args:
      folder: The folder.
      planned: Absolute paths of further runs, anywhere; those that have begun are read, too.

    Raises:
      UserError: The folder does not exist, or holds nothing that can be read, and no runs are planned.
    """
    if not folder.is_dir():
        raise UserError(f"--workdir={folder}: there is no such folder; name one that holds experiments or runs")
    root = folder.resolve()
    reader = _Reader(root)
    found = reader.walk()
    experiments, runs = [], {}
    for path in (p for p, files in found if record.FILE in files):
        if (experiment := reader.experiment(path)) is not None:
            experiments.append(experiment)
    experiments.sort(key=lambda e: (_position(e.record.experiment), e.record.experiment, e.label))
    for run in (run for experiment in experiments for run in experiment.runs):
        runs[run.path] = run
    inside = [path for path, files in found if holds_run(files)]
    paths = dict.fromkeys([*inside, *filter(is_run, planned)])
    others = [one for path in paths if path not in runs and (one := reader.run(path)) is not None]
    if not experiments and not others and not planned:
        if reader.problems:
            raise UserError(f"--workdir={folder}: nothing there can be read: {'; '.join(reader.problems)}")
        raise UserError(
            f"--workdir={folder} holds no {record.FILE} of an experiment and no {CONFIG} of a run, at any depth"
        )
    name = root.name if folder.is_absolute() or root.name != folder.name else folder.as_posix()
    every = [*runs.values(), *others]
    problems = [*reader.problems, *(reader.with_labels(run.mended, run.path) for run in every if run.mended)]
    return Gathered(name, experiments, every, others, problems, reader.unreadable())


def _position(experiment: str) -> int:
    return ORDER.index(experiment) if experiment in ORDER else len(ORDER)


class _Reader:
    """Reads each folder once, and collects the problems."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._runs: dict[Path, RunFolder | UserError] = {}
        self.problems: list[str] = []
        self._problems_of_experiments: set[str] = set()

    def _label(self, path: Path) -> str:
        return Path(os.path.relpath(path, self._root.parent)).as_posix()

    def walk(self) -> list[tuple[Path, set[str]]]:
        """Returns the path of every folder with the names of its files and folders. It does not follow links."""
        found = []
        for path, subfolders, files in os.walk(self._root, onerror=self._unwalkable):
            names = {*files, *subfolders}
            subfolders[:] = sorted(s for s in subfolders if s not in (CHECKPOINTS, DAMAGED) and not s.startswith("."))
            found.append((Path(path), names))
        return found

    def _unwalkable(self, error: OSError) -> None:
        self.problems.append(f"{self._label(Path(error.filename))}: cannot be read: {error.strerror}")

    def unreadable(self) -> list[Unreadable]:
        """Returns the runs that could not be read."""
        return [Unreadable(p, self._label(p), str(r)) for p, r in self._runs.items() if isinstance(r, UserError)]

    def experiment(self, path: Path) -> ExperimentFolder | None:
        try:
            left = record.read(path)
        except UserError as error:
            self.problems.append(self.with_labels(str(error), path))
            return None
        runs, problems = [], []
        for workdir in left.runs:
            if "\0" in workdir:
                problems.append(f"{self._label(path)}/{record.FILE}: {workdir!r} is not a folder")
                continue
            run = self._read((path / workdir).resolve())
            if isinstance(run, UserError):
                problems.append(str(run))
            else:
                runs.append(run)
        self._problems_of_experiments.update(problems)
        return ExperimentFolder(path, self._label(path), left, runs, problems)

    def run(self, path: Path) -> RunFolder | None:
        run = self._read(path)
        if isinstance(run, UserError):
            if str(run) not in self._problems_of_experiments:
                self.problems.append(str(run))
            return None
        return run

    def _read(self, path: Path) -> RunFolder | UserError:
        if path not in self._runs:
            try:
                self._runs[path] = read_run(path, self._label(path))
            except UserError as error:
                self._runs[path] = UserError(self.with_labels(str(error), path))
        return self._runs[path]

    def with_labels(self, text: str, path: Path) -> str:
        """Returns a message with the folder's label in place of its absolute path."""
        return text.replace(str(path), self._label(path))


def read_run(path: Path, label: str) -> RunFolder:
    """Reads the run in a directory.

    Raises:
      UserError: A file of the run is missing, unreadable or damaged.
    """
    run = RunDirectory(path)
    config = run.config()
    if config is None:
        raise UserError(f"{path / CONFIG}: there is no such file, so the folder holds no run")
    (lines, mended), starts = run.repaired_metrics(), run.starts()
    old = rules.old_rules(config, rules.rules_in(starts))
    return RunFolder(path, label, config, lines, starts, *run.status(lines, config.train.steps), old, mended)


def started(run: RunFolder) -> str:
    """Returns the date and time (UTC, to the minute) at which a run was first started, or a dash."""
    try:
        time = datetime.datetime.fromisoformat(run.starts[0]["time"])
    except (IndexError, KeyError, ValueError, TypeError):
        return "—"
    return time.astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M")


def device_of(run: RunFolder) -> str:
    """Returns the devices on which a run was last started, in words."""
    start = run.starts[-1]
    device, processor = str(start.get("device", "unknown")), str(start.get("processor", ""))
    named = processor if device == "cpu" and processor else device
    return f"{start.get('devices', 1)} × {named}, {start.get('cores', '?')} cores"
