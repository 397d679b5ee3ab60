"""The Python interface: load a config, train, open a run, read its metrics, evaluate it and predict with it.

    from resnet_flax import api

    config = api.load_config("configs/digits.py", "residual-20", {"train.steps": 300})
    run = api.train(config, "runs/r20")  # returns at once if the run is finished, resumes it if it was stopped
    frame = pandas.DataFrame(run.metrics)
    run.evaluate().error
    run.model().predict("three.png")

docs/python.md has more examples. A mistake raises :class:`~resnet_flax.errors.UserError` with the line that a command
would print. A signal, such as from a notebook's stop button, raises ``Interrupted`` after the run is saved.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from resnet_flax import shipped
from resnet_flax.config import execute, load, name_of, resolve, set_by_user, track_changes, without_effect
from resnet_flax.data.cache import cache_root
from resnet_flax.data.views import View
from resnet_flax.errors import UserError
from resnet_flax.escaping import escape_hidden
from resnet_flax.evaluation_config import config_of_run
from resnet_flax.evaluation_set import Trained, load_evaluation_set
from resnet_flax.model import Model, from_run
from resnet_flax.model import from_weights as load_model
from resnet_flax.model_evaluation import evaluate
from resnet_flax.paths import expanded
from resnet_flax.reporting.gather import gather
from resnet_flax.runs.checkpoints import Checkpoints
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.runs.metrics import columns
from resnet_flax.runtime import compilation
from resnet_flax.sweeps import cases
from resnet_flax.sweeps.execution import read_outcome
from resnet_flax.sweeps.experiment import Experiment
from resnet_flax.tracking import table
from resnet_flax.tracking.tracker import TENSORBOARD_ALONE, Tracking
from resnet_flax.training import loop
from resnet_flax.training.evaluation import Evaluation

__all__ = ["Run", "experiment", "load_config", "load_model", "open_run", "open_runs", "train"]


@dataclasses.dataclass(frozen=True)
class Run:
    """A run directory. Every access reads its files again, so the run may still be training.

    Attributes:
      path: The run directory's path.
    """

    path: Path

    @property
    def config(self) -> ConfigDict:
        """The run's resolved config.

        Raises:
          UserError: The config names a unit or the like of your own, and the file that defines it is not imported.
        """
        return resolve(self._directory.existing_config())

    @property
    def status(self) -> str:
        """The run's state: ``finished``, ``running, after step 300``, ``interrupted at step 300``, and so on."""
        return str(self._directory.status(self.lines, self._directory.existing_config().train.steps))

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl. A value of None was not finite."""
        return self._directory.repaired_metrics()[0]

    @property
    def metrics(self) -> dict[str, np.ndarray]:
        """The metrics as columns of equal length, NaN where a line has no value; ``pandas.DataFrame`` accepts them.

        Errors are fractions. Columns with an integer in every line, such as ``step``, are int64, others float64.
        """
        return columns(self.lines)

    @property
    def steps(self) -> list[int]:
        """The steps of the checkpoints on disk, ascending."""
        return self._directory.steps()

    @property
    def last_step(self) -> int:
        """The step of the newest checkpoint.

        Raises:
          UserError: There is no checkpoint.
        """
        return self._find_step("latest")

    @property
    def best_step(self) -> int:
        """The step of the checkpoint with the lowest validation error.

        Raises:
          UserError: The run has no validation split (``data.validation``), or no checkpoint.
        """
        return self._find_step("best")

    def model(self, step: int | str = "latest") -> Model:
        """Loads the network with its variables at a checkpoint, and the preprocessing of its images.

        Args:
          step: A checkpoint's step, ``latest``, or ``best``.

        Raises:
          UserError: There is no such checkpoint.
        """
        return from_run(self.path, str(step))

    def evaluate(
        self,
        split: str = "test",
        step: int | str = "latest",
        view: View = "center",
        reestimate_bn: bool = False,
        config: ConfigDict | None = None,
    ) -> Evaluation:
        """Evaluates a checkpoint on a split. Each image counts once.

        Args:
          split: ``test``, ``validation``, ``train`` (without augmentation) or ``all``.
          step: A checkpoint's step, ``latest``, or ``best``.
          view: The crops of a photograph to average over (``data/views.py``).
          reestimate_bn: Whether to replace BN's running statistics by averages over the training images.
          config: A config of the same network that names other images, or their new location; None for the run's own.

        Raises:
          UserError: The checkpoint or the images do not exist.
          Diverged: A weight or the loss is not finite.
        """
        compilation.use_cache(cache_root() / "xla")
        chosen = load_evaluation_set(config_of_run(self.path, config), split, view, Trained.of_run(self._directory))
        return evaluate(self.model(step), chosen, reestimate_bn)

    def outcome(self, label: str = "") -> cases.Outcome:
        """The run in the form that figures and tables accept. They leave its errors out while it has not finished.

        Args:
          label: The run's name in them; by default the network's name.
        """
        config = self._directory.existing_config()
        return read_outcome(cases.PlannedRun(config, self.path, label or name_of(config.model)))

    @property
    def _directory(self) -> RunDirectory:
        return RunDirectory(self.path)

    def _find_step(self, wanted: str) -> int:
        with Checkpoints(self.path, read_only=True) as checkpoints:
            return checkpoints.find_step(wanted)


def load_config(path: str, name: str | None = None, overrides: Mapping[str, Any] | None = None) -> ConfigDict:
    """Loads a config file, with the arguments of :func:`resnet_flax.config.load`.

    Keys that are changed in the returned config count as set by the user, as ``overrides`` do.

    Raises:
      UserError: There is no such file or key, or the file raised an exception.
    """
    return track_changes(load(path, name, overrides))


def train(config: ConfigDict, workdir: str | Path, trackers: str | Sequence[str] = TENSORBOARD_ALONE.trackers) -> Run:
    """Trains the network of a config in a run directory, or resumes the run that is there.

    A finished run is returned at once. ``train.py`` writes the same directory, so either can resume the other's run.

    Args:
      config: A config from :func:`load_config`.
      workdir: The run directory.
      trackers: The trackers that receive the metrics, such as ``("tensorboard", "trackio")``; ``none`` for none.

    Raises:
      UserError: The config, a tracker or the directory does not fit; raised before anything is compiled.
      Interrupted: The process received SIGTERM or SIGINT. The run is saved.
      Diverged: The loss or a parameter is no longer finite. The last good checkpoint is kept.
    """
    compilation.use_cache(cache_root() / "xla")
    for remark in without_effect(set_by_user(config), [resolve(config)]):
        print(remark, file=sys.stderr)
    loop.run(config, workdir, Tracking(table.chosen(trackers)))
    return Run(expanded(workdir))


def open_run(workdir: str | Path) -> Run:
    """Opens the directory of a run, which may be finished, running or stopped.

    Raises:
      UserError: The directory holds no run.
    """
    run = Run(expanded(workdir))
    run._directory.existing_config()  # raises if there is no run
    return run


def open_runs(folder: str | Path) -> list[Run]:
    """Opens every readable run below a folder, at any depth. Runs of experiments come first.

    It prints a line to stderr for each run that is left out because it cannot be read.

    Raises:
      UserError: The folder does not exist, or holds no run.
    """
    found = gather(expanded(folder))
    for problem in dict.fromkeys([*(run.why for run in found.unreadable), *found.problems]):
        print(f"warning: {escape_hidden(problem)}", file=sys.stderr)
    return [Run(run.path) for run in found.runs]


def experiment(name: str) -> Experiment:
    """Returns an experiment that comes with the project; :meth:`Experiment.carry_out` runs it.

    Args:
      name: The experiment's name, such as ``plain_vs_residual``, or ``sweep`` for a grid of your own.

    Raises:
      UserError: There is no experiment of that name.
    """
    compilation.use_cache(cache_root() / "xla")
    if name not in (known := shipped.names("experiments")):
        raise UserError(f"there is no experiment {name!r}; choose one of {', '.join(known)}")
    module = execute(str(shipped.folder("experiments") / f"{name}.py"), "experiment")
    if not hasattr(module, "EXPERIMENT"):
        raise UserError(f"{name!r} is a command, not a declared experiment; run it with python -m resnet_flax {name}")
    return dataclasses.replace(module.EXPERIMENT, name=name)
