"""An experiment as a declaration: what it asks, which runs answer it, what is drawn and written of them.

A file of one's own that declares one is a command, with the flags of all experiments (``options.py``)::

    EXPERIMENT = Experiment(
        title="Width",
        question="How does the error change with the width?",
        settings={"widths": Setting((0.5, 1.0), "Values of model.width.")},
        cases=lambda request: [Case("residual-8", {"model.width": width}) for width in request.settings.widths],
        findings=lambda results: Findings([final_errors.side_by_side(results, "errors.png", "width")]),
    )

    if __name__ == "__main__":
        EXPERIMENT.run()
"""

import dataclasses
import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from resnet_flax import command
from resnet_flax.errors import UserError
from resnet_flax.paths import expanded
from resnet_flax.sweeps import options
from resnet_flax.sweeps.cases import Request
from resnet_flax.sweeps.declaration import Declaration, Findings, Results
from resnet_flax.sweeps.options import Setting

__all__ = ["Experiment", "Findings", "Results", "Setting", "name_of_command"]


@dataclasses.dataclass(frozen=True)
class Experiment(Declaration):
    """A declaration (:class:`~.declaration.Declaration`) that is a command.

    Attributes:
      name: of its command, where it is not carried out by that.
    """

    name: str = ""

    def run(self) -> None:
        """The command: parses the flags, runs what is missing, writes figures, tables and the record."""
        options.define(self.config, self.seeds, self.settings)
        command.run(self._carry_out, uses_devices=True)

    def carry_out(
        self,
        workdir: str | Path,
        config: str = "",
        seeds: Sequence[int] = (),
        overrides: Mapping[str, Any] | None = None,
        runs: str | Path | None = None,
        **settings: Any,
    ) -> Results:
        """Carries it out from Python: runs what is missing, and writes figures, tables and the record.

        Returns:
          The results; ``pandas.DataFrame(results.rows)`` has a row for each run.

        Args:
          workdir: folder of figures and tables.
          config: the config file that all runs share, and a network after a colon; by default the experiment's own.
          seeds: of every case; by default the experiment's own.
          overrides: config values by dotted key, which hold for every run.
          runs: folder of the runs; by default ``runs`` in the workdir.
          settings: the experiment's own flags, such as ``depths=(8, 20)``.

        Raises:
          UserError: before the first run, if any of them cannot be, or there is no such setting.
          Interrupted: a signal came; what was finished stays, and the same call goes on.
          Failed, Diverged: not every run came to its end; figures and tables are written then.
        """
        if unknown := settings.keys() - self.settings.keys():
            raise UserError(f"{min(unknown)!r} is no setting of {self.title!r}; choose of {', '.join(self.settings)}")
        file, _, network = (config or self.config).partition(":")
        folder = expanded(workdir)
        request = Request(
            config=file,
            network=network,
            overrides=overrides or {},
            seeds=tuple(seeds or self.seeds),
            folder=folder,
            runs=expanded(runs) if runs else folder / "runs",
            settings=SimpleNamespace(**{name: self.settings[name].checked(name, settings[name]) for name in settings}),
        )
        return _carry_out(self, self.name or self.cases.__module__.rpartition(".")[2], request)

    def _carry_out(self) -> None:
        _carry_out(self, name_of_command(), options.request_from_flags(self.settings))


def _carry_out(experiment: Declaration, name: str, request: Request) -> Any:
    # Only now, so that --help and a refusal do not wait for jax.
    return importlib.import_module("resnet_flax.sweeps.runner").carry_out(experiment, name, request)


def name_of_command() -> str:
    """``shortcuts`` of ``python -m experiments.shortcuts``, and of ``python experiments/shortcuts.py``."""
    return Path(getattr(sys.modules["__main__"], "__file__", None) or sys.argv[0]).stem
