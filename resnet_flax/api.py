"""The project from Python: load a config, train, open a run, look into it, evaluate it and predict with it.

    from resnet_flax import api

    config = api.load_config("configs/digits.py", "residual-20", {"train.steps": 300})
    run = api.train(config, "runs/r20")  # returns at once where it is finished, and resumes where it was stopped
    frame = pandas.DataFrame(run.metrics)
    run.evaluate().error
    run.model().predict("three.png")

docs/python.md shows all of it. A mistake raises :class:`~resnet_flax.errors.UserError`, whose text is the line that the
commands print; a signal, such as the one of a notebook's stop button, raises ``Interrupted`` once all is saved.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from resnet_flax import shipped
from resnet_flax.config import execute, name_of, resolve
from resnet_flax.config import load as load_config
from resnet_flax.data.cache import cache_root
from resnet_flax.data.views import View
from resnet_flax.errors import UserError
from resnet_flax.evaluation_config import config_of_run
from resnet_flax.model import Model, from_run
from resnet_flax.model import from_weights as load_model
from resnet_flax.model_evaluation import choose, evaluate
from resnet_flax.paths import expanded
from resnet_flax.reporting.gather import gather
from resnet_flax.runs.checkpoints import Checkpoints
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.runs.metrics import columns
from resnet_flax.runtime import compilation
from resnet_flax.sweeps import cases
from resnet_flax.sweeps.endings import SUCCESS, earlier_failure
from resnet_flax.sweeps.execution import outcome
from resnet_flax.sweeps.experiment import Experiment
from resnet_flax.tracking.tracker import TENSORBOARD_ALONE, Tracking
from resnet_flax.training import loop
from resnet_flax.training.evaluation import Evaluation

__all__ = ["Run", "experiment", "load_config", "load_model", "open_run", "open_runs", "train"]


@dataclasses.dataclass(frozen=True)
class Run:
    """A run directory. What it tells is read anew each time, so it may be of a run that is still training.

    Attributes:
      path: of the directory.
    """

    path: Path

    @property
    def config(self) -> ConfigDict:
        """The run's config, resolved."""
        return resolve(self._directory.existing_config())

    @property
    def status(self) -> str:
        """``finished``, ``running, after step 300``, or at which step it was interrupted, diverged or crashed."""
        lines = self.lines
        return self._directory.status(lines[-1]["step"] if lines else 0, self.config.train.steps)[0]

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; None stands for a number that was not finite."""
        return self._directory.mended()[0]

    @property
    def metrics(self) -> dict[str, np.ndarray]:
        """The metrics as columns of equal length, NaN where a line lacks one; ``pandas.DataFrame`` takes them.

        Errors are fractions; ``step`` and whatever else is whole in every line are int64, other columns float64.
        """
        return columns(self.lines)

    @property
    def steps(self) -> list[int]:
        """The steps of the checkpoints that are there, in order."""
        return self._directory.steps()

    @property
    def last_step(self) -> int:
        """The step of the newest checkpoint.

        Raises:
          UserError: there is none.
        """
        return self._chosen("latest")

    @property
    def best_step(self) -> int:
        """The step of the checkpoint with the least validation error.

        Raises:
          UserError: no images were set aside for validation (``data.validation``), or there is no checkpoint.
        """
        return self._chosen("best")

    def model(self, step: int | str = "latest") -> Model:
        """The network, its variables at a checkpoint, and what comes before it.

        Args:
          step: of a checkpoint; or ``latest``, or ``best``.

        Raises:
          UserError: there is no such checkpoint.
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
        """Evaluates a checkpoint on a split, each image once.

        Args:
          split: ``test``, ``validation``, ``train`` (without augmentation) or ``all``.
          step: see :meth:`model`.
          view: of photographs (``data/views.py``).
          reestimate_bn: whether averages over the training images take the place of BN's running statistics.
          config: of the same network with other images, or the place where they lie now; None for the run's own.

        Raises:
          UserError: there is no such checkpoint, or there are no such images.
          Diverged: weights, or the loss, are not finite.
        """
        _use_cache()
        chosen = choose(config_of_run(self.path, config), split, view)
        return evaluate(self.model(step), chosen)

    def outcome(self, label: str = "") -> cases.Outcome:
        """The run as figures and tables take it.

        Args:
          label: that they call it by; by default the network's name.
        """
        config = self.config
        found = earlier_failure(config, self.path) or SUCCESS
        return outcome(cases.Run(config, self.path, label or name_of(config.model)), *found)

    @property
    def _directory(self) -> RunDirectory:
        return RunDirectory(self.path)

    def _chosen(self, wanted: str) -> int:
        with Checkpoints(self.path, read_only=True) as checkpoints:
            return checkpoints.choose(wanted)


def train(config: ConfigDict, workdir: str | Path, trackers: Sequence[str] = TENSORBOARD_ALONE.trackers) -> Run:
    """Trains what the config says, in the directory; resumes where an earlier call was stopped.

    A run that is finished there is returned at once. The directory is the one that ``train.py`` writes: either goes on
    with what the other began.

    Args:
      config: see :func:`load_config`.
      workdir: the run directory.
      trackers: that get its metrics, such as ``("tensorboard", "trackio")``.

    Raises:
      UserError: a mistake, before anything is compiled.
      Interrupted: SIGTERM or SIGINT came; everything is saved.
      Diverged: the loss is not finite any more; the last good checkpoint is kept.
    """
    _use_cache()
    loop.run(config, workdir, Tracking(tuple(trackers)))
    return Run(expanded(workdir))


def open_run(workdir: str | Path) -> Run:
    """Opens the directory of a run, which may be finished, running or stopped.

    Raises:
      UserError: no run is there.
    """
    run = Run(expanded(workdir))
    run.config  # noqa: B018 (refuses)
    return run


def open_runs(folder: str | Path) -> list[Run]:
    """Opens all runs in a folder that can be read, at any depth; those of experiments first.

    Raises:
      UserError: the folder is not there, or holds none.
    """
    return [Run(found.path) for found in gather(expanded(folder)).runs]


def experiment(name: str) -> Experiment:
    """An experiment that comes with the project; :meth:`Experiment.carry_out` runs it.

    Args:
      name: such as ``plain_vs_residual``, or ``sweep`` for a grid of one's own.

    Raises:
      UserError: there is none of that name.
    """
    _use_cache()
    if name not in (known := shipped.names("experiments")):
        raise UserError(f"there is no experiment {name!r}; choose of {', '.join(known)}")
    module = execute(str(shipped.folder("experiments") / f"{name}.py"), "experiment")
    if not hasattr(module, "EXPERIMENT"):
        raise UserError(f"{name!r} is a command, and no experiment that is declared")
    return dataclasses.replace(module.EXPERIMENT, name=name)


def _use_cache() -> None:
    """Keeps compiled programs where the commands keep them, unless jax was told of another place."""
    if not jax.config.values["jax_compilation_cache_dir"]:
        compilation.use_cache(cache_root() / "xla")
