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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from resnet_flax import command
from resnet_flax.reporting.record import Figure, Table
from resnet_flax.sweeps import options
from resnet_flax.sweeps.cases import Asked, Case, Outcome
from resnet_flax.sweeps.options import Setting


@dataclasses.dataclass(frozen=True)
class Results:
    """What the runs of an experiment ended as.

    Attributes:
      asked: of the experiment.
      outcomes: of all runs, seed by seed.
      groups: the labels of each group of cases, by its name; one group, ``""``, where there are none.
    """

    asked: Asked
    outcomes: Sequence[Outcome]
    groups: Mapping[str, frozenset[str]]

    @property
    def data(self) -> str:
        """The name of the data set."""
        return self.outcomes[0].run.config.data.name

    @property
    def folder(self) -> Path:
        """Where figures and tables go."""
        return self.asked.folder

    def of(self, group: str) -> list[Outcome]:
        """The outcomes of one group of cases."""
        return [o for o in self.outcomes if o.run.label in self.groups[group]]


@dataclasses.dataclass(frozen=True)
class Findings:
    """What is drawn and written of the results, beside the table of errors.

    Attributes:
      figures: in the order of the report.
      tables: likewise.
      notes: sentences made from what was measured, and what to bear in mind.
      printed: what the command prints at its end, in place of the table of errors.
    """

    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    printed: str = ""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A question, and what answers it.

    Attributes:
      title: of its section in the report; ``{data}`` stands for the name of the data set.
      question: what it asks, with the section, table or figure of the source; ``{NAME}`` stands for a setting.
      cases: what it wants run: a list, or a list for each name of a group.
      findings: draws and writes what the runs show.
      settings: its own flags, by name.
      published: keys of the tables in ``resnet_flax/published/`` that belong beside it.
      config: the config file that its runs share, where none is given.
      seeds: of every case, where none are given.
      measures: lines that ``--dry-run`` prints beside the runs: what it measures itself.
    """

    title: str
    question: str
    cases: Callable[[Asked], Sequence[Case] | Mapping[str, Sequence[Case]]]
    findings: Callable[[Results], Findings]
    settings: Mapping[str, Setting] = dataclasses.field(default_factory=dict)
    published: Sequence[str] = ()
    config: str = "configs/digits.py"
    seeds: Sequence[int] = (0,)
    measures: Callable[[Asked], Sequence[str]] = lambda asked: ()

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
