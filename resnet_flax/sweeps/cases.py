"""The data of a sweep: the request, its cases, the runs planned from them, and the outcomes of the runs."""

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
    """A Ray cluster that executes runs as tasks.

    Attributes:
      address: ``HOST:PORT`` of the head node. The default is ``$RAY_ADDRESS``, or else a cluster on this machine alone.
      workers: The number of runs at a time, only for a cluster on this machine.
      gpus_per_run: The GPUs for each run. The default is 1 if the cluster has GPUs, else 0.
      cpus_per_run: The CPU cores for each run.
    """

    address: str | None = None
    workers: int | None = None
    gpus_per_run: float | None = None
    cpus_per_run: float = 1.0


@dataclasses.dataclass(frozen=True)
class Request:
    """A request to an experiment, from the command line or from Python.

    Attributes:
      config: Path of the config file that all runs share.
      folder: The folder for the experiment's figures and tables.
      runs: The folder that holds the run directories.
      network: The name after the colon of ``--config``, or empty.
      overrides: Config values by dotted key that hold for every run.
      seeds: The seeds; each case is run once with each of them.
      settings: Values of the experiment's own flags, such as ``settings.depths``.
      dry_run: If true, the runs are only printed.
      draw: If true, no run is executed: figures and tables show the results so far.
      launcher: ``local`` or ``ray``.
      cluster: The cluster that the launcher ``ray`` uses.
      trackers: Names of the trackers that follow each run.
      call: The call from Python, for the record; empty for the command line of this process.
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
    call: str = ""


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """A planned run: its config, its directory, and its label in figures and tables.

    Attributes:
      config: The resolved config.
      workdir: The run directory.
      label: The network's name and the varied keys with their values, the same for every seed.
      trackers: Names of the trackers that follow the run.
      group: The name of the sweep for trackers.
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
        """True if the directory holds a run of this config that has taken its last step."""
        return self.directory.is_finished(self.config)

    @property
    def name(self) -> str:
        """The run's label and seed, for progress lines."""
        return f"{self.label}, seed {self.config.seed}"

    @property
    def tracking(self) -> Tracking:
        """The run's name, sweep and trackers."""
        return Tracking(self.trackers, self.name, self.group)


@dataclasses.dataclass(frozen=True)
class Case:
    """A network and settings that an experiment trains once with each seed.

    Attributes:
      name: The network's name, such as ``plain-56``. If empty, ``--config`` names the network.
      overrides: Config values by dotted key. The command line must not set these keys.
      label: The label of its runs (:class:`PlannedRun`). The default is the network's name with the overrides that it
        does not imply.
      scaled: Config values that the experiment computes from the config, such as a fraction of its steps. The command
        line may set these keys: the experiment then scales the given value.
      seeds: Seeds of this case alone, in place of the requested ones.
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
    """Returns a label such as ``plain-56 model.dropout=0.5``."""
    return " ".join([network, *(f"{key}={value}" for key, value in overrides.items())])


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The state and the metrics of a run.

    Attributes:
      lines: The records of metrics.jsonl so far.
      parameters: The number of trained parameters.
      classes: The number of classes in its data set.
      failure: Empty if the run is finished. If it failed: ``"diverged"``, ``"failed"`` (for a reason outside of the
        program, such as a full disk) or ``"crashed"``. If it has not ended: ``"interrupted"``, ``"running"`` or
        ``"not begun"``.
      reason: One line on why the run failed.
    """

    run: PlannedRun
    lines: Sequence[Mapping[str, Any]]
    parameters: int
    classes: int
    failure: str = ""
    reason: str = ""

    @property
    def final(self) -> Mapping[str, Any]:
        """The last record of metrics, or an empty mapping."""
        return self.lines[-1] if self.lines else {}

    @property
    def has_ended(self) -> bool:
        """True if the run is finished or has failed, so that it will take no further step."""
        return self.failure not in ("interrupted", "running", "not begun")

    @property
    def seconds(self) -> float:
        """The time spent in training steps, in seconds."""
        return sum(line["seconds"] for line in self.lines)
