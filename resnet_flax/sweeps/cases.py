"""The parts of a sweep: what was asked for, cases, the runs that they become, and their outcomes."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ml_collections import ConfigDict

from resnet_flax.runs.directory import RunDirectory
from resnet_flax.tracking.tracker import TENSORBOARD_ALONE, Tracking


@dataclasses.dataclass(frozen=True)
class Cluster:
    """A Ray cluster whose tasks are runs.

    Attributes:
      address: ``HOST:PORT`` of the cluster's head; by default ``$RAY_ADDRESS``, else a cluster of this machine.
      workers: runs at a time, where this machine is the cluster.
      gpus_per_run: of a node, for each run; by default 1 where there are any.
      cpus_per_run: of a node, for each run.
    """

    address: str | None = None
    workers: int | None = None
    gpus_per_run: float | None = None
    cpus_per_run: float = 1.0


@dataclasses.dataclass(frozen=True)
class Request:
    """The request to an experiment, from the command line or from Python.

    Attributes:
      config: path of the config file that all runs share.
      folder: of the experiment's figures and tables.
      runs: folder that holds a folder for each run.
      network: the name after the colon of ``--config``, where one was given.
      overrides: config values by dotted key, which hold for every run.
      seeds: each case runs with each of them.
      settings: the experiment's own, such as ``settings.depths``.
      dry_run: whether the runs are only printed.
      draw: whether nothing is run, and what the runs hold so far is drawn and written.
      launcher: ``local`` or ``ray``.
      cluster: of the launcher ``ray``.
      trackers: names of those that follow each run.
    """

    config: str
    folder: Path
    runs: Path
    network: str = ""
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seeds: Sequence[int] = (0,)
    settings: SimpleNamespace = dataclasses.field(default_factory=SimpleNamespace)
    dry_run: bool = False
    draw: bool = False
    launcher: str = "local"
    cluster: Cluster = Cluster()
    trackers: tuple[str, ...] = TENSORBOARD_ALONE.trackers


@dataclasses.dataclass(frozen=True)
class Run:
    """A config, the folder that it runs in, and what figures and tables call it.

    Attributes:
      config: resolved.
      workdir: the run's folder.
      label: of the network and whatever is varied, the same for every seed.
      trackers: names of those that follow it.
      group: what they call the sweep.
    """

    config: ConfigDict
    workdir: Path
    label: str
    trackers: tuple[str, ...] = TENSORBOARD_ALONE.trackers
    group: str = ""

    @property
    def directory(self) -> RunDirectory:
        """The run's directory."""
        return RunDirectory(self.workdir)

    @property
    def is_finished(self) -> bool:
        """Whether the folder holds this very run, to its last step."""
        return self.directory.is_finished(self.config)

    @property
    def name(self) -> str:
        """The run's name in lines of progress."""
        return f"{self.label}, seed {self.config.seed}"

    @property
    def tracking(self) -> Tracking:
        """The run's name, sweep and trackers."""
        return Tracking(self.trackers, self.name, self.group)


@dataclasses.dataclass(frozen=True)
class Case:
    """A config that an experiment wants run with every seed.

    Attributes:
      name: of the network, as after the colon of ``--config``: ``plain-56``; empty for the one that ``--config`` names.
      overrides: config values by dotted key, which the command line must not set.
      label: see :class:`Run`; by default the network's name, and the overrides that it does not say.
      scaled: config values that the experiment makes of others, such as a part of the steps or of a published width;
        the command line may set these keys for whatever they are made of.
      seeds: its own, in place of those that were asked for.
    """

    name: str
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    label: str = ""
    scaled: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seeds: Sequence[int] = ()

    def __post_init__(self) -> None:
        if self.name and not self.label:
            object.__setattr__(self, "label", label_of(self.name, self.overrides))


def label_of(network: str, overrides: Mapping[str, Any]) -> str:
    """``plain-56 model.dropout=0.5``."""
    return " ".join([network, *(f"{key}={value}" for key, value in overrides.items())])


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The end of a run, or how far it came.

    Attributes:
      run: which.
      lines: its metrics, as far as it came.
      parameters: how many it trains.
      classes: of its data set.
      failure: ``"diverged"``, ``"failed"`` (the reason is no error of the program) or ``"crashed"``; of a run that has
        not ended ``"interrupted"``, ``"running"`` or ``"not begun"``; empty of a finished one.
      reason: of the failure, one line.
    """

    run: Run
    lines: Sequence[Mapping[str, Any]]
    parameters: int
    classes: int
    failure: str = ""
    reason: str = ""

    @property
    def final(self) -> Mapping[str, Any]:
        """The last line of metrics."""
        return self.lines[-1] if self.lines else {}

    @property
    def has_ended(self) -> bool:
        """True where the run is finished, or has failed and is not to be resumed."""
        return self.failure not in ("interrupted", "running", "not begun")

    @property
    def seconds(self) -> float:
        """Time spent in training steps."""
        return sum(line["seconds"] for line in self.lines)
