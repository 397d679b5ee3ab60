"""An experiment as a declaration: what it asks, which runs answer it, what is drawn and written of them.

A file of one's own that declares one is a command, with the flags of all experiments (``options.py``)::

    EXPERIMENT = Experiment(
        title="Width",
        question="How does the error change with the width?",
        settings={"widths": Setting((0.5, 1.0), "Values of model.width.")},
        cases=lambda asked: [Case("residual-8", {"model.width": width}) for width in asked.settings.widths],
        findings=lambda results: Findings([final_errors.side_by_side(results, "errors.png", "width")]),
    )

    if __name__ == "__main__":
        EXPERIMENT.run()
"""

import dataclasses
import importlib
import sys
from pathlib import Path

from resnet_flax import command
from resnet_flax.sweeps import options
from resnet_flax.sweeps.declaration import Declaration, Findings, Results
from resnet_flax.sweeps.options import Setting

__all__ = ["Experiment", "Findings", "Results", "Setting", "name_of_command"]


@dataclasses.dataclass(frozen=True)
class Experiment(Declaration):
    """A declaration (:class:`~.declaration.Declaration`) that is a command."""

    def run(self) -> None:
        """The command: parses the flags, runs what is missing, writes figures, tables and the record."""
        options.define(self.config, self.seeds, self.settings)
        command.run(self._carry_out, uses_devices=True)

    def _carry_out(self) -> None:
        # Only now, so that --help and a refusal do not wait for jax.
        carry_out = importlib.import_module("resnet_flax.sweeps.carry").carry_out
        carry_out(self, name_of_command(), options.asked(self.settings))


def name_of_command() -> str:
    """``shortcuts`` of ``python -m experiments.shortcuts``, and of ``python experiments/shortcuts.py``."""
    return Path(getattr(sys.modules["__main__"], "__file__", None) or sys.argv[0]).stem
