"""The experiments and the runs in a folder, at any depth; nothing there is written to."""

import dataclasses
import datetime
import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments import record
from resnet_flax import config as configs
from resnet_flax import json_lines
from resnet_flax.errors import UserError
from resnet_flax.training import metrics, rules
from resnet_flax.training import workdir as folders

# Folders of a run that hold neither runs nor experiments, and many files.
_SKIPPED = ("checkpoints", "damaged_checkpoints")
_CRASH = "crash.txt"  # which experiments leave in the folder of a run that crashed
_SECTIONS = ("model", "data", "optimizer", "schedule", "train")


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
      old_rules: by which old rules it was begun, a reason each (``resnet_flax/training/rules.py``).
    """

    path: Path
    label: str
    config: ConfigDict
    lines: Sequence[Mapping[str, Any]]
    starts: Sequence[Mapping[str, Any]]
    status: str
    reason: str = ""
    old_rules: Sequence[str] = ()

    @property
    def name(self) -> str:
        """Of its network, such as ``plain-56``."""
        return configs.name_of(self.config.model)

    @property
    def finished(self) -> bool:
        """Whether it came to the last step its config wants."""
        return self.status == "finished"

    @property
    def steps(self) -> int:
        """How many it has done, as far as its metrics tell."""
        return self.lines[-1]["step"] if self.lines else 0

    @property
    def seconds(self) -> float:
        """Time spent in training steps."""
        return sum(line.get("seconds", 0.0) for line in self.lines)

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
class Gathered:
    """What a folder holds.

    Attributes:
      name: of the folder, as it was given where that says more.
      experiments: in the order of the report.
      runs: all of them; those of experiments first.
      others: the runs that belong to no experiment.
      problems: what could not be read and has no place of its own, a sentence each.
    """

    name: str
    experiments: Sequence[Experiment]
    runs: Sequence[RunFolder]
    others: Sequence[RunFolder]
    problems: Sequence[str]


# Experiments that tell one story come in its order; others follow by name.
_ORDER = (
    "cifar10", "plain_vs_residual", "depth_sweep", "highway", "propagation", "claims", "shortcuts", "initialisation",
    "cost",
)  # fmt: skip


def gather(folder: Path) -> Gathered:
    """Reads every experiment.json and every run's folder below a folder.

    Raises:
      UserError: the folder is not there, or holds nothing that can be read.
    """
    if not folder.is_dir():
        raise UserError(f"--workdir={folder}: there is no such folder; name one that holds experiments or runs")
    root = folder.resolve()
    readers = _Readers(root)
    found = list(_walk(root))
    experiments, runs = [], {}
    for path in (p for p, files in found if record.FILE in files):
        if (experiment := readers.experiment(path)) is not None:
            experiments.append(experiment)
    experiments.sort(key=lambda e: (_place(e.record.experiment), e.record.experiment, e.label))
    for run in (run for experiment in experiments for run in experiment.runs):
        runs[run.path] = run
    others = [
        run
        for path, files in found
        if folders.CONFIG in files and path not in runs and (run := readers.run(path)) is not None
    ]
    if not experiments and not others:
        if readers.problems:
            raise UserError(f"--workdir={folder}: nothing there can be read: {'; '.join(readers.problems)}")
        raise UserError(
            f"--workdir={folder} holds no {record.FILE} of an experiment and no {folders.CONFIG} of a run, at any depth"
        )
    name = root.name if folder.is_absolute() or root.name != folder.name else folder.as_posix()
    return Gathered(name, experiments, [*runs.values(), *others], others, readers.problems)


def _place(experiment: str) -> int:
    return _ORDER.index(experiment) if experiment in _ORDER else len(_ORDER)


def _walk(root: Path) -> list[tuple[Path, set[str]]]:
    """Every folder with its files' names, by path; links are not followed."""
    found = []
    for path, subfolders, files in os.walk(root):
        subfolders[:] = sorted(s for s in subfolders if s not in _SKIPPED and not s.startswith("."))
        found.append((Path(path), set(files)))
    return found


class _Readers:
    """Reads each folder once, and keeps what went wrong."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._runs: dict[Path, RunFolder | UserError] = {}
        self.problems: list[str] = []
        self._said_already: set[str] = set()  # in the place of an experiment

    def _label(self, path: Path) -> str:
        return Path(os.path.relpath(path, self._root.parent)).as_posix()

    def experiment(self, path: Path) -> Experiment | None:
        try:
            left = record.read(path)
        except UserError as error:
            self.problems.append(self._said(error, path))
            return None
        runs, problems = [], []
        for place in left.runs:
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
                self._runs[path] = UserError(self._said(error, path))
        return self._runs[path]

    def _said(self, error: UserError, path: Path) -> str:
        """The error, with the folder as people know it."""
        return str(error).replace(str(path), self._label(path))


def read_run(path: Path, label: str) -> RunFolder:
    """The run that a folder holds.

    Raises:
      UserError: a file of it cannot be read, or is not what a run writes.
    """
    file = path / folders.CONFIG
    try:
        given = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(given, dict) or not all(isinstance(given.get(s), dict) for s in _SECTIONS):
            raise ValueError(f"it lacks one of the sections {', '.join(_SECTIONS)}")
        config = configs.from_json(json.dumps(given))
        file = path / metrics.FILE
        lines = metrics.read(path)
        if not all(isinstance(line, dict) and isinstance(line.get("step"), int) for line in lines):
            raise ValueError("a line has no step")
        file = path / folders.STARTS
        starts = json_lines.read(file)
        old = rules.old_rules(config, folders.rules_of(path))
        file = path / folders.DIVERGED
        diverged = json.loads(file.read_text())["step"] if file.is_file() else None
        file = path / folders.INTERRUPTED
        interrupted = json.loads(file.read_text())["step"] if file.is_file() else None
        file = path / _CRASH
        crash = file.read_text(errors="replace").split("\n") if file.is_file() else []
    except FileNotFoundError:
        raise UserError(f"{file}: there is no such file: the run is not there") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: is not what a run writes: {error}") from None
    steps, reason = lines[-1]["step"] if lines else 0, ""
    if steps >= config.train.steps:
        status = "finished"
    elif _is_locked(path):
        status = f"running, after step {steps}"
    elif diverged is not None:
        status = f"diverged at step {diverged}"
    elif interrupted is not None:
        status = f"interrupted at step {interrupted}"
    elif not starts and not crash:
        status = "never started"
    else:
        status, reason = f"crashed after step {steps}", next((line for line in reversed(crash) if line.strip()), "")
    return RunFolder(path, label, config, lines, starts, status, reason, old)


def _is_locked(path: Path) -> bool:
    """Whether a process holds the run's folder."""
    try:
        with open(path / ".lock", "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # released when the file is closed
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def started(run: RunFolder) -> str:
    """The day and minute a run was first started, in UTC, or a dash."""
    try:
        time = datetime.datetime.fromisoformat(run.starts[0]["time"])
    except (IndexError, KeyError, ValueError, TypeError):
        return "—"
    return time.astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M")
