"""Experiments: declarations that can be carried out as a command or from Python.

A user's own file that declares an experiment is a command with the flags of all experiments (``options.py``)::

    EXPERIMENT = Experiment(
        title="Width",
        question="How does the error change with the width?",
        settings={"widths": Setting((0.5, 1.0), "Values of model.width.")},
        cases=lambda request: [Case("residual-8", {"model.width": width}) for width in request.settings.widths],
        findings=lambda results: Findings(
            [final_errors.side_by_side(results.outcomes, results.folder / "errors.png", "width")]
        ),
    )

    if __name__ == "__main__":
        EXPERIMENT.run()
"""

import dataclasses
import importlib
import operator
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from resnet_flax import command
from resnet_flax.errors import UserError
from resnet_flax.paths import expanded
from resnet_flax.sweeps import earlier, options
from resnet_flax.sweeps.cases import Cluster, Request
from resnet_flax.sweeps.declaration import Declaration, Findings, Results
from resnet_flax.sweeps.options import Setting
from resnet_flax.tracking import table
from resnet_flax.tracking.tracker import TENSORBOARD_ALONE

__all__ = ["Experiment", "Findings", "Results", "Setting", "name_of_command"]


@dataclasses.dataclass(frozen=True)
class Experiment(Declaration):
    """A declaration (:class:`~.declaration.Declaration`) that can be carried out.

    Attributes:
      name: The name in the record when the experiment is carried out from Python. The default is its module's name.
    """

    name: str = ""

    def run(self) -> None:
        """Runs the experiment as a command: parses the flags, then does the work of :meth:`carry_out`."""
        # Config flags read sys.argv when they are defined.
        sys.argv[1:] = earlier.arguments_to_draw(sys.argv[1:], name_of_command())
        options.define(self.config, self.seeds, self.settings)
        command.run(self._carry_out, uses_devices=True)

    def carry_out(
        self,
        workdir: str | Path,
        config: str | Path = "",
        seeds: Sequence[int] = (),
        overrides: Mapping[str, Any] | None = None,
        runs: str | Path | None = None,
        draw: bool = False,
        dry_run: bool = False,
        trackers: str | Sequence[str] = TENSORBOARD_ALONE.trackers,
        launcher: str = "local",
        cluster: Cluster | None = None,
        **settings: Any,
    ) -> Results | None:
        """Executes the missing runs from Python, then writes figures, tables and the record.

        Args:
          workdir: The folder for figures and tables.
          config: The config file that all runs share, optionally with a network's name after a colon. The default is
            the experiment's own.
          seeds: The seeds of every case. The default is the experiment's own.
          overrides: Config values by dotted key that hold for every run.
          runs: The folder for the run directories. The default is ``runs`` in the workdir.
          draw: If true, no run is executed: figures and tables show the results so far.
          dry_run: If true, the runs are only printed.
          trackers: The trackers that receive the metrics of each run, such as ``("tensorboard", "trackio")``.
          launcher: ``local`` or ``ray``.
          cluster: The cluster that the launcher ``ray`` uses. The default is that of the flags.
          settings: Values of the experiment's own flags, such as ``depths=(8, 20)``.

        Returns:
          The results, or None after a dry run. ``pandas.DataFrame(results.rows)`` has a row for each run.

        Raises:
          UserError: A run or a setting is invalid. It is raised before the first run starts.
          Interrupted: A signal stopped the runs. The same call resumes them.
          Failed, Diverged: A run failed or diverged. Figures and tables are written first.
        """
        if unknown := settings.keys() - self.settings.keys():
            raise UserError(f"{self.title!r} has no setting {min(unknown)!r}; choose from {', '.join(self.settings)}")
        if launcher not in options.LAUNCHERS:
            raise UserError(f"launcher={launcher!r} must be one of {', '.join(options.LAUNCHERS)}")
        seeds = _checked_seeds(seeds)
        shared = {
            "config": str(config or ""),
            "seeds": seeds,
            "overrides": dict(overrides or {}),
            "runs": str(runs or ""),
        }
        given = {key: value for key, value in shared.items() if value} | settings
        arguments = [repr(str(workdir)), *(f"{key}={value!r}" for key, value in given.items())]
        file, _, network = str(config or self.config).partition(":")
        folder = expanded(workdir)
        request = Request(
            config=file,
            network=network,
            overrides=overrides or {},
            seeds=tuple(seeds or self.seeds),
            folder=folder,
            runs=expanded(runs) if runs else folder / "runs",
            settings=SimpleNamespace(**{name: self.settings[name].checked(name, settings[name]) for name in settings}),
            dry_run=dry_run,
            draw=draw,
            launcher=launcher,
            cluster=cluster or Cluster(),
            trackers=table.chosen(trackers),
            call=f"carry_out({', '.join(arguments)})",
        )
        return _carry_out(self, self.name or self.cases.__module__.rpartition(".")[2], request)

    def _carry_out(self) -> None:
        _carry_out(self, name_of_command(), options.request_from_flags(self.settings))


def _carry_out(experiment: Declaration, name: str, request: Request) -> Any:
    # Imported here, so that --help and errors in flags do not wait for jax.
    return importlib.import_module("resnet_flax.sweeps.runner").carry_out(experiment, name, request)


def _checked_seeds(seeds: Any) -> tuple[int, ...]:
    try:
        return () if seeds is None else tuple(operator.index(seed) for seed in seeds)
    except TypeError:
        raise UserError(f"seeds={seeds!r} must be a list of whole numbers, such as (0, 1)") from None


def name_of_command() -> str:
    """Returns the name of the running command, such as ``shortcuts`` for ``python -m experiments.shortcuts``."""
    return Path(getattr(sys.modules["__main__"], "__file__", None) or sys.argv[0]).stem
